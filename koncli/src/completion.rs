//! `koncli completion`, and what the shell then asks for: the shell runs koncli itself at each Tab, so that names of
//! leases, policies, namespaces and contexts are those of the cluster that was typed so far.

use std::{collections::BTreeSet, ffi::OsString, future::Future, io::Write as _, time::Duration};

use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate, Shell, env::Shells};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use konductor_crds::{Lease, LeaseRequest, POLICY_MODULE_LABEL};
use kube::{Api, Resource, api::ListParams, config::Kubeconfig};

use crate::{
    args,
    client::{ConnectOptions, Connection, Error, Problem, Result, connect},
};

/// With this variable set, koncli answers a shell and does nothing else.
const ASKED: &str = "KONCLI_COMPLETE";
/// A person waits with a finger on Tab: nothing is better than late.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than this nobody reads at a prompt.
const NAMES_MOST: u32 = 500;
/// What kubectl asks for completions of a plugin: a program of this name.
const FOR_KUBECTL: &str = "kubectl_complete-konductor";

/// Writes the script that makes a shell ask.
pub(crate) fn script(shell: Shell) -> Result<()> {
    let problem = |why: String| Error::new("write the completion script", Problem::Local(why));
    let name = shell.to_string();
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&name) else {
        return Err(problem(format!("there is none for {name}")));
    };
    let mut script = Vec::new();
    // By its name: what is on PATH when Tab is pressed answers, also after an upgrade.
    let written = shell.write_registration(ASKED, "koncli", "koncli", "koncli", &mut script);
    match written.and_then(|()| std::io::stdout().lock().write_all(&script)) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(problem(error.to_string())),
        _ => Ok(()),
    }
}

/// Answers a shell, if one asks. To be called before anything else is done.
#[must_use]
pub fn answered() -> bool {
    let words: Vec<OsString> = std::env::args_os().collect();
    if args::file_name() == FOR_KUBECTL {
        for_kubectl(words);
        return true;
    }
    let asked = CompleteEnv::with_factory(args::command).var(ASKED).bin("koncli");
    // A shell has no use for an error in the middle of a line.
    asked.try_complete(words, std::env::current_dir().ok().as_deref()).unwrap_or(true)
}

/// What kubectl reads: a candidate a line, with what it is behind a tab, and last what to do with them.
fn for_kubectl(words: Vec<OsString>) {
    /// No file names beside them.
    const ONLY_THESE: &str = ":4";
    let last = words.len().saturating_sub(1);
    let found = clap_complete::engine::complete(&mut args::command(), words, last, None).unwrap_or_default();
    let mut text = String::new();
    for candidate in found {
        let help = candidate.get_help().map(|help| format!("\t{help}")).unwrap_or_default();
        text.push_str(&format!("{}{help}\n", candidate.get_value().to_string_lossy()));
    }
    let _ = writeln!(std::io::stdout().lock(), "{text}{ONLY_THESE}");
}

/// The names of leases.
pub(crate) fn leases() -> ArgValueCandidates {
    candidates(async |there| {
        let leases: Api<Lease> = Api::namespaced(there.client.clone(), &there.namespace);
        names(leases, ListParams::default()).await
    })
}

/// Who holds a lease of the namespace or waits for one.
pub(crate) fn holders() -> ArgValueCandidates {
    candidates(async |there| {
        let requests: Api<LeaseRequest> = Api::namespaced(there.client.clone(), &there.namespace);
        let listed = requests.list(&ListParams::default().limit(NAMES_MOST)).await?;
        let holders: BTreeSet<String> = listed.items.into_iter().map(|request| request.spec.holder).collect();
        Ok(holders.into_iter().collect())
    })
}

/// The names of policies that are uploaded.
pub(crate) fn policies() -> ArgValueCandidates {
    candidates(async |there| {
        let modules: Api<ConfigMap> = Api::namespaced(there.client.clone(), &there.namespace);
        names(modules, ListParams::default().labels(&format!("{POLICY_MODULE_LABEL}=true"))).await
    })
}

/// The names of namespaces.
pub(crate) fn namespaces() -> ArgValueCandidates {
    candidates(async |there| {
        let namespaces: Api<Namespace> = Api::all(there.client.clone());
        names(namespaces, ListParams::default()).await
    })
}

/// The names of the kubeconfig's contexts.
pub(crate) fn contexts() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let file = match typed(words()).kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let contexts = file.map(|file| file.contexts).unwrap_or_default();
        contexts.into_iter().map(|context| CompletionCandidate::new(context.name)).collect()
    })
}

async fn names<K>(api: Api<K>, params: ListParams) -> kube::Result<Vec<String>>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let listed = api.list_metadata(&params.limit(NAMES_MOST)).await?;
    Ok(listed.items.into_iter().filter_map(|item| item.metadata.name).collect())
}

/// What a cluster answers in time; nothing if it does not.
fn candidates<A, F>(ask: A) -> ArgValueCandidates
where
    A: Fn(Connection) -> F + Send + Sync + 'static,
    F: Future<Output = kube::Result<Vec<String>>>,
{
    ArgValueCandidates::new(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return Vec::new();
        };
        let asking = async {
            let there = connect(&typed(words())).await.ok()?;
            ask(there).await.ok()
        };
        let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await });
        // A look-up of a name that hangs is not waited for either.
        runtime.shutdown_background();
        found.ok().flatten().unwrap_or_default().into_iter().map(CompletionCandidate::new).collect()
    })
}

/// The words of the line that is completed.
fn words() -> Vec<String> {
    let all: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    // A shell puts them behind `--`, kubectl does not.
    let from = all.iter().position(|word| word == "--").filter(|_| args::file_name() != FOR_KUBECTL);
    // And the program before them.
    all.into_iter().skip(from.map_or(0, |at| at + 1) + 1).collect()
}

/// Which cluster and namespace were typed. The line is not finished, so clap would refuse it.
fn typed(words: Vec<String>) -> ConnectOptions {
    const FLAGS: [(&str, &str); 3] = [("--namespace", "-n"), ("--context", ""), ("--kubeconfig", "")];
    let mut values: [Option<String>; 3] = [None, None, None];
    let mut words = words.into_iter().take_while(|word| word != "--").peekable();
    while let Some(word) = words.next() {
        for ((long, short), value) in FLAGS.iter().zip(&mut values) {
            let behind = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('='));
            let close = word.strip_prefix(short).filter(|rest| !short.is_empty() && !rest.is_empty());
            let found = if word == *long || (word == *short && !short.is_empty()) {
                // bash takes `--context=a` for three words.
                words.next_if(|next| next == "=");
                words.next()
            } else {
                behind.or(close.map(|rest| rest.strip_prefix('=').unwrap_or(rest))).map(str::to_owned)
            };
            if let Some(found) = found.filter(|found| !found.is_empty()) {
                *value = Some(found);
            }
        }
    }
    let [namespace, context, kubeconfig] = values;
    ConnectOptions { kubeconfig: kubeconfig.map(Into::into), context, namespace }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_that_was_typed_is_asked() {
        for (line, expected) in [
            ("lease status", [None, None, None]),
            ("-n prod lease status", [Some("prod"), None, None]),
            ("-nprod lease status", [Some("prod"), None, None]),
            ("lease status --namespace=prod", [Some("prod"), None, None]),
            ("lease status --context a --kubeconfig /k", [None, Some("a"), Some("/k")]),
            ("lease --context = a status", [None, Some("a"), None]),
            ("lease status -n", [None, None, None]),
            ("-n a lease status -n b", [Some("b"), None, None]),
            ("lease run x -- kubectl -n other", [None, None, None]),
        ] {
            let options = typed(line.split(' ').map(str::to_owned).collect());
            let kubeconfig = options.kubeconfig.as_deref().and_then(std::path::Path::to_str);
            assert_eq!([options.namespace.as_deref(), options.context.as_deref(), kubeconfig], expected, "{line}");
        }
    }
}
