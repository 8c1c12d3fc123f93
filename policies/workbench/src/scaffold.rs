//! What a new policy begins with: sources that build to a module without imports, fixtures, a
//! scenario, and how to build it.
//!
//! The glue of the languages without an SDK is the library's own, copied into the project: it is
//! then the author's to change.

use std::fmt;

use crate::read::Mistake;

/// The longest name: a policy's name is that of a ConfigMap, but a package's and a file's too.
const NAME_MAX: usize = 63;

/// The AssemblyScript compiler that the glue is tested with; the library's own pin.
const LIBRARY_PACKAGE: &str = include_str!("../../library/glue/assemblyscript/package.json");

/// A language that a policy can be begun in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rust, on the SDK.
    Rust,
    /// AssemblyScript: TypeScript's syntax, compiled ahead.
    AssemblyScript,
    /// Zig.
    Zig,
    /// C.
    C,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::AssemblyScript => "AssemblyScript",
            Self::Zig => "Zig",
            Self::C => "C",
        })
    }
}

impl std::str::FromStr for Language {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "rust" => Ok(Self::Rust),
            "assemblyscript" | "as" | "typescript" => Ok(Self::AssemblyScript),
            "zig" => Ok(Self::Zig),
            "c" => Ok(Self::C),
            "go" | "tinygo" => Err(
                "a policy may import nothing, and what Go and TinyGo make imports WASI (Go's own compiler 17 functions, and it is above a megabyte). It can be done with TinyGo by merging a module of stubs for those imports into it (wasm-merge of binaryen); `koncli policy inspect` then shows whether any is left. To begin with, take rust, assemblyscript, zig or c"
                    .to_owned(),
            ),
            _ => Err(format!("there is no scaffold for it{}; there are rust, assemblyscript, zig and c", crate::read::suggestion(text, ["rust", "assemblyscript", "zig", "c"]))),
        }
    }
}

/// A file of a new policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where, in its directory.
    pub path: &'static str,
    /// What is in it.
    pub text: String,
}

/// The files of a new policy.
///
/// `sdk` is the directory of `policies/sdk` for a policy in Rust; without it the project's
/// repository is named, at the tag of this version.
///
/// # Errors
/// A [`Mistake`] for a name that a policy, a package or a file cannot have.
pub fn files(name: &str, language: Language, sdk: Option<&str>) -> Result<Vec<File>, Mistake> {
    check(name)?;
    let sdk = match sdk {
        // As TOML writes a text; JSON's escapes are among TOML's.
        Some(path) => format!("path = {}", serde_json::Value::from(path)),
        None => format!("git = \"{}\", tag = \"v{}\"", env!("CARGO_PKG_REPOSITORY"), env!("CARGO_PKG_VERSION")),
    };
    let library: serde_json::Value = serde_json::from_str(LIBRARY_PACKAGE).unwrap_or_default();
    let compiler = library["devDependencies"]["assemblyscript"].as_str().unwrap_or("*");
    let words = [
        ("{{name}}", name),
        ("{{crate}}", &name.replace('-', "_")),
        ("{{language}}", &language.to_string()),
        ("{{repository}}", env!("CARGO_PKG_REPOSITORY")),
        ("{{source}}", source(language)),
        ("{{needs}}", needs(language)),
        ("{{ignored}}", ignored(language)),
        ("{{sdk}}", &format!("{{ {sdk} }}")),
        ("{{sdk-testing}}", &format!("{{ {sdk}, features = [\"testing\"] }}")),
        ("{{assemblyscript}}", compiler),
    ];
    let fill = |(path, template): (&'static str, &str)| {
        let text = words.iter().fold(template.to_owned(), |text, (word, value)| text.replace(word, value));
        File { path, text }
    };
    Ok(COMMON.into_iter().chain(own(language).iter().copied()).map(fill).collect())
}

fn check(name: &str) -> Result<(), Mistake> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if begins && name.chars().all(fits) && !name.ends_with('-') && name.len() <= NAME_MAX && name != "default" {
        return Ok(());
    }
    let why = if name == "default" {
        "it is the name of the built-in policy; choose another one".to_owned()
    } else {
        format!("write lowercase letters, digits and dashes, a letter first, at most {NAME_MAX}")
    };
    Err(Mistake::new(format!("the name {name:?}"), why))
}

const COMMON: [(&str, &str); 5] = [
    ("README.md", include_str!("../templates/common/README.md.in")),
    (".gitignore", include_str!("../templates/common/gitignore.in")),
    ("params.schema.json", include_str!("../templates/common/params.schema.json.in")),
    ("fixtures/fixtures.yaml", include_str!("../templates/common/fixtures.yaml.in")),
    ("scenario.yaml", include_str!("../templates/common/scenario.yaml.in")),
];

fn own(language: Language) -> &'static [(&'static str, &'static str)] {
    match language {
        Language::Rust => &[
            ("Cargo.toml", include_str!("../templates/rust/Cargo.toml.in")),
            ("build.rs", include_str!("../templates/rust/build.rs.in")),
            ("src/lib.rs", include_str!("../templates/rust/lib.rs.in")),
            ("tests/rules.rs", include_str!("../templates/rust/rules.rs.in")),
            ("Makefile", include_str!("../templates/rust/Makefile.in")),
        ],
        Language::C => &[
            ("policy.c", include_str!("../templates/c/policy.c.in")),
            ("konductor.c", include_str!("../../library/glue/c/konductor.c")),
            ("konductor.h", include_str!("../../library/glue/c/konductor.h")),
            ("requirements.txt", include_str!("../../library/glue/zig/requirements.txt")),
            ("Makefile", include_str!("../templates/c/Makefile.in")),
        ],
        Language::Zig => &[
            ("policy.zig", include_str!("../templates/zig/policy.zig.in")),
            ("facts.zig", include_str!("../templates/zig/facts.zig.in")),
            ("konductor.zig", include_str!("../../library/glue/zig/konductor.zig")),
            ("requirements.txt", include_str!("../../library/glue/zig/requirements.txt")),
            ("Makefile", include_str!("../templates/zig/Makefile.in")),
        ],
        Language::AssemblyScript => &[
            ("policy.ts", include_str!("../templates/assemblyscript/policy.ts.in")),
            ("konductor.ts", include_str!("../../library/glue/assemblyscript/konductor.ts")),
            ("json.ts", include_str!("../../library/glue/assemblyscript/json.ts")),
            ("facts.mjs", include_str!("../templates/assemblyscript/facts.mjs.in")),
            ("package.json", include_str!("../templates/assemblyscript/package.json.in")),
            ("Makefile", include_str!("../templates/assemblyscript/Makefile.in")),
        ],
    }
}

fn source(language: Language) -> &'static str {
    match language {
        Language::Rust => "src/lib.rs",
        Language::AssemblyScript => "policy.ts",
        Language::Zig => "policy.zig",
        Language::C => "policy.c",
    }
}

fn needs(language: Language) -> &'static str {
    match language {
        Language::Rust => "It needs Rust with the target for WebAssembly: `rustup target add wasm32-unknown-unknown`.",
        Language::AssemblyScript => {
            "It needs Node.js 20 or newer with npm; `make` installs the compiler into `node_modules`."
        }
        Language::Zig => {
            "It needs Zig 0.15.2, for instance from PyPI: `python3 -m pip install -r requirements.txt`. With another \
             one on your path: `make ZIG=zig`."
        }
        Language::C => {
            "It needs a C compiler for WebAssembly that knows C23. Zig brings one, for instance from PyPI: `python3 -m \
             pip install -r requirements.txt`. With a clang of 19 or newer and its wasm-ld: `make WASM_CC=\"clang \
             --target=wasm32\"`."
        }
    }
}

fn ignored(language: Language) -> &'static str {
    match language {
        Language::Rust => "/target/",
        Language::AssemblyScript => "/node_modules/\n/lib/\n/policy.wasm.map",
        Language::Zig | Language::C => "/.zig-cache/\n/policy.wasm.o",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, scenario};

    #[test]
    fn a_scaffold_is_filled_in_whatever_the_language() {
        for language in [Language::Rust, Language::AssemblyScript, Language::Zig, Language::C] {
            let files = files("night-shift", language, Some("/a \"b\"/sdk")).expect("a good name");
            for file in &files {
                assert!(!file.text.contains("{{name}}") && !file.text.contains("{{sdk}}"), "{}", file.path);
            }
            let text = |path: &str| files.iter().find(|file| file.path == path).expect(path).text.as_str();
            fixture::parse(text("fixtures/fixtures.yaml")).expect("fixtures");
            scenario::parse(text("scenario.yaml")).expect("a scenario");
            assert!(text("README.md").contains(source(language)), "{language}");
            assert!(files.iter().any(|file| file.path == source(language)), "{language}");
            if language == Language::Rust {
                assert!(text("Cargo.toml").contains(r#"{ path = "/a \"b\"/sdk" }"#), "{}", text("Cargo.toml"));
                assert!(text("Makefile").contains("night_shift.wasm"));
            }
            if language == Language::AssemblyScript {
                assert!(!text("package.json").contains("\"*\""), "the library pins its compiler elsewhere now");
            }
        }
        let cargo = files("x", Language::Rust, None).expect("a good name");
        assert!(cargo.iter().any(|file| file.path == "Cargo.toml" && file.text.contains("git = \"https://")));
    }

    #[test]
    fn names_and_languages_that_will_not_do_are_refused_in_words() {
        for name in ["", "Night", "1st", "a_b", "a/b", "..", "a-", "default", &"a".repeat(64)] {
            assert!(files(name, Language::C, None).is_err(), "{name:?}");
        }
        for (language, why) in
            [("go", "WASI"), ("TinyGo", "wasm-merge"), ("rusty", "did you mean rust?"), ("cobol", "zig and c")]
        {
            let problem = language.parse::<Language>().expect_err(language);
            assert!(problem.contains(why), "{problem}");
        }
        assert_eq!("TypeScript".parse(), Ok(Language::AssemblyScript));
    }
}
