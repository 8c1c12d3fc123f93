//! `docs/reference/controller.md`: the flags of the controller, as it says them itself.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::generated;
use crate::binaries::binary;

/// The page.
pub fn page() -> Result<String> {
    let program = binary("konductor-controller")?;
    // Its help shows what the environment says, and this machine's has nothing to do with it.
    let output = Command::new(&program).arg("--help").env_clear().output();
    let output = output.with_context(|| format!("cannot run {} --help", program.display()))?;
    ensure!(output.status.success(), "{} --help: {}", program.display(), output.status);
    let help = String::from_utf8(output.stdout).context("its help is not UTF-8")?;
    // What it indents an empty line by is of no use.
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    let mut page = generated("`konductor-controller --help`");
    page.push_str(
        "# The controller's flags\n\nWhat to set them to, and when: [operators.md](../operators.md#flags).\n\n",
    );
    page.push_str(&format!("```text\n{}\n```\n", help.join("\n").trim()));
    Ok(page)
}
