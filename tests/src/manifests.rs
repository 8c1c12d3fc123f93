//! Manifests: the files of this repository, and the YAML that documents print.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
    core::TypeMeta,
};
use serde_json::Value;

use crate::{repo, wait};

/// One Kubernetes object of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The file.
    pub file: PathBuf,
    /// The object as it stands there.
    pub object: Value,
}

impl Manifest {
    /// `Kind/name of file`, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        let text = |pointer: &str| self.object.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
        format!("{}/{} of {}", text("/kind"), text("/metadata/name"), self.file.display())
    }
}

/// Reads a kustomization: a directory whose `resources:` are followed, or one file. Anything else that a kustomization
/// can say is an error, because it would be left out silently.
///
/// # Errors
/// If a file is missing or is not a list of objects.
pub fn read(path: &Path) -> Result<Vec<Manifest>> {
    if !path.is_dir() {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        return objects(&text, path);
    }
    let file = path.join("kustomization.yaml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let kustomization: Value = serde_yaml::from_str(&text).with_context(|| format!("{} is no YAML", file.display()))?;
    let fields = kustomization.as_object().with_context(|| format!("{} is empty", file.display()))?;
    if let Some(field) = fields.keys().find(|field| !["apiVersion", "kind", "resources"].contains(&field.as_str())) {
        bail!("{} says {field}, which only kustomize itself can follow", file.display());
    }
    let mut found = Vec::new();
    for resource in fields.get("resources").and_then(Value::as_array).into_iter().flatten() {
        let resource = resource.as_str().with_context(|| format!("{} lists something odd", file.display()))?;
        found.extend(read(&path.join(resource))?);
    }
    Ok(found)
}

/// The objects of a YAML text of several documents.
///
/// # Errors
/// If one of them is not an object with kind and name.
pub fn objects(text: &str, file: &Path) -> Result<Vec<Manifest>> {
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let object: Value =
            serde::Deserialize::deserialize(document).with_context(|| format!("{} is no YAML", file.display()))?;
        if object.is_null() {
            continue;
        }
        if object.pointer("/metadata/name").is_none() || object.get("kind").is_none() {
            bail!("{} has a document that is no Kubernetes object", file.display());
        }
        found.push(Manifest { file: file.to_path_buf(), object });
    }
    Ok(found)
}

/// The fenced blocks of a Markdown text in a language, such as `yaml`.
#[must_use]
pub fn fenced(markdown: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in markdown.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info.trim() == language, String::new())),
            (Some(_), Some(_)) => {
                if let Some((true, block)) = open.take() {
                    blocks.push(block);
                }
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Creates an object, or changes the one that is there.
///
/// As a merge patch and not as a server-side apply: an old server drops the fields of a newer CustomResourceDefinition
/// in the one and refuses them in the other.
///
/// # Errors
/// If the server does not know its kind, or refuses it.
pub async fn apply(client: &Client, manifest: &Manifest) -> Result<DynamicObject> {
    apply_with(client, manifest, false).await
}

/// As [`apply`], but only asks whether the server would take it.
///
/// # Errors
/// If it would not.
pub async fn dry_run(client: &Client, manifest: &Manifest) -> Result<DynamicObject> {
    apply_with(client, manifest, true).await
}

async fn apply_with(client: &Client, manifest: &Manifest, dry_run: bool) -> Result<DynamicObject> {
    let title = || manifest.title();
    let types: TypeMeta = serde_json::from_value(manifest.object.clone()).with_context(title)?;
    let kind = GroupVersionKind::try_from(&types).with_context(title)?;
    let (resource, capabilities) = kube::discovery::pinned_kind(client, &kind)
        .await
        .with_context(|| format!("this server does not know the kind of {}", title()))?;
    let object: DynamicObject = serde_json::from_value(manifest.object.clone()).with_context(title)?;
    let name = object.metadata.name.clone().unwrap_or_default();
    let namespace = object.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let api: Api<DynamicObject> = match capabilities.scope {
        kube::discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
        kube::discovery::Scope::Namespaced => Api::namespaced_with(client.clone(), &namespace, &resource),
    };
    let created = match api.create(&PostParams { dry_run, ..PostParams::default() }, &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let how = PatchParams { dry_run, ..PatchParams::default() };
            api.patch(&name, &how, &Patch::Merge(&manifest.object)).await
        }
        other => other,
    };
    created.with_context(|| format!("the server refuses {}", title()))
}

/// Installs `crds/` and `deploy/rbac/`, and waits until the resources are served.
///
/// # Errors
/// If the server refuses any of it.
pub async fn install(client: &Client) -> Result<()> {
    let mut resources = Vec::new();
    for directory in ["crds", "deploy/rbac"] {
        for manifest in read(&repo::path(directory))? {
            apply(client, &manifest).await?;
            if manifest.object["kind"] == "CustomResourceDefinition" {
                resources.push(manifest);
            }
        }
    }
    for manifest in resources {
        let definition: CustomResourceDefinition =
            serde_json::from_value(manifest.object.clone()).with_context(|| manifest.title())?;
        served(client, &definition).await?;
    }
    Ok(())
}

/// Waits until a resource is established, and the server really serves it.
async fn served(client: &Client, definition: &CustomResourceDefinition) -> Result<()> {
    let name = definition.metadata.name.clone().unwrap_or_default();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    wait::poll(&format!("{name} is established"), wait::PATIENCE, async || {
        let conditions = definitions.get_status(&name).await?.status.and_then(|status| status.conditions);
        let conditions = conditions.unwrap_or_default();
        let established = conditions.iter().any(|c| c.type_ == "Established" && c.status == "True");
        Ok(if established { Ok(()) } else { Err(serde_json::to_string(&conditions)?) })
    })
    .await?;
    let version = definition.spec.versions.first().context("a definition has a version")?;
    let kind = GroupVersionKind::gvk(&definition.spec.group, &version.name, &definition.spec.names.kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, &definition.spec.names.plural);
    let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    wait::poll(&format!("{name} is served"), wait::PATIENCE, async || {
        Ok(objects.list(&ListParams::default().limit(1)).await.map(drop))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_of_the_language_are_found() {
        let text = "a\n```yaml\nx: 1\n```\n```bash\nls\n```\n```yaml\ny: 2\n---\nz: 3\n```\n";
        assert_eq!(fenced(text, "yaml"), ["x: 1\n", "y: 2\n---\nz: 3\n"]);
    }

    #[test]
    fn what_only_kustomize_can_follow_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("kustomization.yaml"), "resources: []\nimages: []\n").expect("written");
        let problem = read(directory.path()).expect_err("images: is not followed").to_string();
        assert!(problem.contains("says images"), "{problem}");
        std::fs::write(directory.path().join("kustomization.yaml"), "resources: [gone.yaml]\n").expect("written");
        assert!(read(directory.path()).expect_err("no such file").to_string().contains("gone.yaml"));
    }

    #[test]
    fn the_repository_is_followed_to_the_end() {
        let all = read(&repo::path("deploy")).expect("deploy/ can be read");
        let kinds: Vec<&str> = all.iter().filter_map(|manifest| manifest.object["kind"].as_str()).collect();
        for kind in ["CustomResourceDefinition", "Namespace", "ServiceAccount", "ClusterRole", "Deployment"] {
            assert!(kinds.contains(&kind), "no {kind} among {kinds:?}");
        }
    }
}
