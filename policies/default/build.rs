//! Gives the module a small stack, and takes away what it does not need. The policies of the library use this file too.

fn main() {
    // Not the file's name, which another package would look for beside itself: cargo notices a new script anyway.
    println!("cargo::rerun-if-env-changed=KONDUCTOR_NOTHING_ELSE");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        // 64 KiB and not the linker's 1 MiB: the rules need a few KiB, and the parser's recursion,
        // which is bounded, not more than 40. A smaller memory is a cheaper fresh instance.
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=65536");
        // The debug information of the precompiled standard library would be nine tenths of the
        // module. The names of functions stay: they are what a trap's backtrace shows.
        println!("cargo::rustc-link-arg-cdylib=--strip-debug");
    }
}
