//! Writes `policies/abi/schema/*.schema.json` from the types:
//! `cargo run -p konductor-policy-abi --features schema --example schemagen`.

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    fs::create_dir_all(&folder)?;
    for (name, text) in konductor_policy_abi::schema::files() {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
