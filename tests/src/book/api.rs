//! `docs/reference/api.md`: every field of the resources, from the schemas that are installed; every reason, from where
//! it is defined.

use anyhow::{Context as _, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};

use super::{
    generated,
    markdown_table::{cell, table},
};
use crate::repo;

/// The page.
pub fn page() -> Result<String> {
    let mut page = generated("crds/src");
    page.push_str("# konductor.io/v1\n\nThe same is said by `kubectl explain kl` and `kubectl explain klr`. ");
    page.push_str("What of it stays as it is: [compatibility.md](../compatibility.md).\n\n");
    for (_, definition) in konductor_crds::definitions() {
        page.push_str(&kind(&definition)?);
    }
    page.push_str(&names());
    page.push_str(&reasons(&repo::text("crds/src/v1/reasons.rs")));
    Ok(page.trim_end().to_owned() + "\n")
}

fn kind(definition: &CustomResourceDefinition) -> Result<String> {
    let names = &definition.spec.names;
    let version = definition.spec.versions.first().context("a definition has a version")?;
    let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let schema = schema.context("a version has a schema")?;
    let mut text = format!("## {}\n\n{}\n\n", names.kind, cell(schema.description.as_deref().unwrap_or_default()));
    let short: Vec<_> = names.short_names.iter().flatten().map(|name| format!("`{name}`")).collect();
    text.push_str(&format!(
        "`{}.{}`, short {}; {}.\n\n",
        names.plural,
        definition.spec.group,
        short.join(", "),
        definition.spec.scope.to_lowercase()
    ));
    for (part, below) in schema.properties.iter().flatten().filter(|(name, _)| *name != "metadata") {
        text.push_str(&format!(
            "### {}.{part}\n\n{}\n\n",
            names.kind,
            cell(below.description.as_deref().unwrap_or_default())
        ));
        let mut rows = Vec::new();
        fields(below, "", &mut rows);
        text.push_str(&table(&["field", "type", "meaning", "limits"], &rows));
        for rule in rules(below) {
            text.push_str(&format!("- {rule}\n"));
        }
        if !rules(below).is_empty() {
            text.push('\n');
        }
    }
    Ok(text)
}

/// The fields of an object, each followed by its own.
fn fields(object: &JSONSchemaProps, above: &str, rows: &mut Vec<Vec<String>>) {
    let required = object.required.clone().unwrap_or_default();
    for (name, field) in object.properties.iter().flatten() {
        let path = format!("{above}{name}");
        let inner = items(field).unwrap_or(field);
        let mut limits = Vec::new();
        if required.contains(name) {
            limits.push("required".to_owned());
        }
        limits.extend(bounds(field));
        if items(field).is_some() {
            limits.extend(bounds(inner));
        }
        let meaning = field.description.as_deref().or(inner.description.as_deref()).unwrap_or_default();
        rows.push(vec![format!("`{path}`"), type_of(field), cell(meaning), limits.join("; ")]);
        let dot = if items(field).is_some() { "[]." } else { "." };
        fields(inner, &format!("{path}{dot}"), rows);
    }
}

fn items(field: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &field.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
        _ => None,
    }
}

fn type_of(field: &JSONSchemaProps) -> String {
    let own = field.type_.as_deref().unwrap_or("any");
    match (items(field), &field.format) {
        (Some(items), _) => format!("list of {}", type_of(items)),
        (None, Some(format)) => format!("{own} ({format})"),
        (None, None) => own.to_owned(),
    }
}

/// What a value may not be.
fn bounds(field: &JSONSchemaProps) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(values) = &field.enum_ {
        let values: Vec<_> = values.iter().map(|value| format!("`{}`", value.0.as_str().unwrap_or("null"))).collect();
        found.push(values.join(", "));
    }
    if let Some(default) = &field.default {
        found.push(format!("default `{}`", default.0));
    }
    let numbers = [
        ("at least", field.minimum, ""),
        ("at most", field.maximum, ""),
        ("at least", field.min_length.map(|n| n as f64), " characters"),
        ("at most", field.max_length.map(|n| n as f64), " characters"),
        ("at most", field.max_items.map(|n| n as f64), " entries"),
        ("at most", field.max_properties.map(|n| n as f64), " entries"),
    ];
    found.extend(numbers.into_iter().filter_map(|(which, n, of)| n.map(|n| format!("{which} {n}{of}"))));
    if field.x_kubernetes_preserve_unknown_fields == Some(true) {
        found.push("anything may be in it".to_owned());
    }
    found.extend(rules(field));
    found
}

/// The rules that a server from 1.25 on checks itself, in words.
fn rules(field: &JSONSchemaProps) -> Vec<String> {
    let rules = field.x_kubernetes_validations.iter().flatten();
    rules.map(|rule| cell(rule.message.as_deref().unwrap_or(&rule.rule))).collect()
}

/// Labels and annotations.
fn names() -> String {
    let row = |name: &str, on: &str, meaning: &str| vec![format!("`{name}`"), on.to_owned(), meaning.to_owned()];
    let rows = [
        row(
            konductor_crds::POLICY_MODULE_LABEL,
            "label of a ConfigMap",
            "`true`: it is a policy, its module in `binaryData`",
        ),
        row(
            konductor_crds::DEFAULT_POLICY_ANNOTATION,
            "annotation of a Namespace",
            "the policy of its Leases that name none",
        ),
        row(
            konductor_crds::CREATOR_ANNOTATION,
            "annotation of a LeaseRequest",
            "who made it, where `deploy/admission` is applied",
        ),
        row(
            &format!("{}KEY", konductor_crds::ONCE_ANNOTATION_PREFIX),
            "annotation of a Lease",
            "what `koncli lease run --once KEY` has completed",
        ),
    ];
    format!("## Labels and annotations\n\n{}", table(&["name", "on", "meaning"], &rows))
}

/// Every constant with its docstring: conditions, reasons and Events.
fn reasons(source: &str) -> String {
    let mut rows = Vec::new();
    let mut docs = Vec::new();
    for line in source.lines() {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if let Some((_, value)) = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(": &str = \""))
        {
            // Rust's links to constants say their values: `[LEASE_READY]` is LeaseReady there.
            let doc = docs.join(" ").replace("[`", "`").replace("`]", "`");
            if !doc.starts_with("Condition") {
                let (of, what) = doc.split_once(": ").unwrap_or(("", &doc));
                rows.push(vec![format!("`{}`", value.trim_end_matches("\";")), cell(of), cell(what)]);
            }
            docs.clear();
        } else {
            docs.clear();
        }
    }
    let conditions = "Conditions of a Lease: `Ready` (the spec is understood), `Held` (somebody holds it), `PolicyReady` (its policy works).";
    format!("## Reasons\n\n{conditions}\n\n{}", table(&["reason", "of", "meaning"], &rows))
}
