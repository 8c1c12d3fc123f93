//! The JSON Schemas of the ABI, generated from the types.

use alloc::string::String;

use schemars::{JsonSchema, generate::SchemaSettings};

use crate::v1;

/// Every committed schema: the file's name in `policies/abi/schema/`, and what it should contain.
#[must_use]
pub fn files() -> [(&'static str, String); 3] {
    // The host writes the input in full, so its members are required; it reads the other two, so
    // what it accepts counts.
    [
        (
            "input.schema.json",
            render::<v1::Input<'static, serde_json::Map<String, serde_json::Value>>>(
                SchemaSettings::draft2020_12().for_serialize(),
            ),
        ),
        ("output.schema.json", render::<v1::Output<'static>>(SchemaSettings::draft2020_12())),
        (
            "describe.schema.json",
            render::<v1::Description<'static, serde_json::Map<String, serde_json::Value>>>(
                SchemaSettings::draft2020_12(),
            ),
        ),
    ]
}

fn render<T: JsonSchema>(settings: SchemaSettings) -> String {
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut text = std::format!("{:#}", schema.to_value());
    text.push('\n');
    text
}
