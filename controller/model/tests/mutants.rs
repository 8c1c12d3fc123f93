//! A check that cannot fail is a defect: each defect that is put in is found, by the property that is
//! there for it.

use konductor_model::{Mutant, check, shows};

#[test]
fn every_defect_is_found() {
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        let (config, property) = shows(mutant);
        let name = config.name;
        let found = check(config).violations;
        let by: Vec<&str> = found.iter().map(|(property, _)| *property).collect();
        println!("{}: in \"{name}\": {}", mutant.is(), by.join("; "));
        if !by.iter().any(|by| by.starts_with(property)) {
            survivors.push(format!("{mutant:?}, which {property} should find; found by {by:?}"));
        }
    }
    assert!(survivors.is_empty(), "not found: {survivors:#?}");
}
