//! The committed YAML is what the types say.

#[test]
fn committed_yaml_is_generated_from_the_types() {
    for (name, definition) in konductor_crds::definitions() {
        let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let generated = konductor_crds::to_yaml(&definition).expect("a definition is YAML");
        assert!(committed == generated, "{path} is not what crds/src/v1 says: run `make generate` and commit it");
    }
}
