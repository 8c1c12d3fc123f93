//! Connecting to the API server: from inside of a Pod, or with a kubeconfig.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::error::{Error, Problem, Result};

/// What the user said about the cluster.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// A kubeconfig file; absent: `$KUBECONFIG`, else `~/.kube/config`, else the Pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; absent: its current one.
    pub context: Option<String>,
    /// The namespace; absent: the context's or the Pod's own, else `default`.
    pub namespace: Option<String>,
}

/// A way to an API server. No connection is opened before the first call.
#[derive(Clone)]
pub struct Connection {
    /// The Kubernetes client.
    pub client: kube::Client,
    /// The namespace that is meant.
    pub namespace: String,
    /// What has named that namespace, for people: `--namespace`.
    pub namespace_from: String,
    /// The API server's address.
    pub server: String,
    /// Whether it is the API server of the cluster that this process runs in, by its service account.
    pub in_cluster: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// Prepares a client from what the user said, the environment and the files that it names.
///
/// # Errors
/// If no configuration is found, or the one that is found cannot be read.
pub async fn connect(options: &ConnectOptions) -> Result<Connection> {
    const DOING: &str = "connect to the API server";
    let unusable = |why: String| Error::new(DOING, Problem::NoCluster(why));
    let Found { config, in_cluster, context } = configuration(options).await.map_err(unusable)?;
    let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let namespace_from = match (&options.namespace, &context) {
        (Some(_), _) => "--namespace".to_owned(),
        (None, Some((context, true))) => format!("the kubeconfig's context \"{context}\""),
        (None, Some((context, false))) => format!("no one: the kubeconfig's context \"{context}\" names none"),
        (None, None) => "the Pod's service account".to_owned(),
    };
    let server = config.cluster_url.to_string();
    let client = konductor_connect::client(config).map_err(|error| unusable(error.to_string()))?;
    Ok(Connection { client, namespace, namespace_from, server, in_cluster })
}

/// A configuration, and where it comes from.
struct Found {
    config: Config,
    in_cluster: bool,
    /// The context of the kubeconfig, and whether it names a namespace.
    context: Option<(String, bool)>,
}

async fn configuration(options: &ConnectOptions) -> Result<Found, String> {
    let by_name = options.kubeconfig.is_some() || options.context.is_some();
    let file = match &options.kubeconfig {
        Some(path) => Kubeconfig::read_from(path).map_err(|error| told(&error, Some(path))),
        None => Kubeconfig::read().map_err(|error| told(&error, None)),
    };
    let selected = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let from_file = match file {
        Ok(file) => {
            let has_proxy = names_proxy(&file, options.context.as_deref());
            let context = context_of(&file, options.context.as_deref());
            let others = similar_contexts(&file, options.context.as_deref());
            match Config::from_custom_kubeconfig(file, &selected).await {
                Ok(config) => Ok((config, has_proxy, context)),
                Err(error) => Err(told(&error, options.kubeconfig.as_deref()) + &others),
            }
        }
        Err(why) => Err(why),
    };
    let why = match from_file {
        Ok((mut config, has_proxy, context)) => {
            // A proxy of the environment is meant for other hosts than these.
            if !has_proxy && is_direct(&config.cluster_url, no_proxy(|name| std::env::var(name).ok()).as_deref()) {
                config.proxy_url = None;
            }
            return Ok(Found { config, in_cluster: false, context });
        }
        Err(why) if by_name => return Err(why),
        Err(why) => why,
    };
    match Config::incluster() {
        Ok(config) => Ok(Found { config, in_cluster: true, context: None }),
        Err(_) => Err(format!("{why}; and this is not a Pod with a service account")),
    }
}

fn told(error: &dyn std::error::Error, path: Option<&Path>) -> String {
    // A reader of YAML shows the lines around a mistake, and in a kubeconfig those are secrets.
    let first_line = |error: &dyn std::error::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let mut text = first_line(error);
    let mut source = error.source();
    while let Some(error) = source {
        let more = first_line(error);
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    match path {
        Some(path) if !text.contains(&path.display().to_string()) => format!("{}: {text}", path.display()),
        _ => text,
    }
}

/// The context that is meant, and whether it names a namespace.
fn context_of(file: &Kubeconfig, context: Option<&str>) -> Option<(String, bool)> {
    let name = context.or(file.current_context.as_deref())?;
    let context = file.contexts.iter().find(|named| named.name == name)?.context.as_ref();
    Some((name.to_owned(), context.is_some_and(|context| context.namespace.is_some())))
}

/// What to say about a context that is not there.
fn similar_contexts(file: &Kubeconfig, context: Option<&str>) -> String {
    /// A kubeconfig of a large company has hundreds.
    const SHOWN: usize = 10;
    let Some(context) = context.filter(|name| !file.contexts.iter().any(|named| named.name == *name)) else {
        return String::new();
    };
    let names: Vec<String> = file.contexts.iter().map(|named| named.name.clone()).collect();
    let near = crate::text::similar(context, names.clone());
    match (near.is_empty(), names.len()) {
        (_, 0) => "; the kubeconfig has no contexts".to_owned(),
        (false, _) => format!("; similar ones there: {}", near.join(", ")),
        (true, 1..=SHOWN) => format!("; there are: {}", names.join(", ")),
        (true, _) => String::new(),
    }
}

/// Whether the kubeconfig itself asks for a proxy.
fn names_proxy(file: &Kubeconfig, context: Option<&str>) -> bool {
    let Some(context) = context.or(file.current_context.as_deref()) else {
        return false;
    };
    let context = file.contexts.iter().find(|named| named.name == context).and_then(|named| named.context.as_ref());
    let cluster = context.and_then(|context| file.clusters.iter().find(|named| named.name == context.cluster));
    cluster.and_then(|named| named.cluster.as_ref()).is_some_and(|cluster| cluster.proxy_url.is_some())
}

/// The hosts that are reached without a proxy: like curl, the lower-case variable before the other.
fn no_proxy(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    ["no_proxy", "NO_PROXY"].iter().find_map(|name| variable(name))
}

/// Whether a server is reached without the proxy of the environment: this machine, or what `NO_PROXY` lists. That is a
/// host or an address, each with or without a port, a domain with all below it (`example.org`, `.example.org` or
/// `*.example.org`), a range of addresses (`10.0.0.0/8`), or `*` for everything.
fn is_direct(server: &http::Uri, no_proxy: Option<&str>) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    let port = server.port_u16().unwrap_or(if server.scheme_str() == Some("http") { 80 } else { 443 });
    let loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    let listed = |entry: &str| {
        let entry = entry.trim().to_ascii_lowercase();
        if let Ok(range) = entry.parse::<IpNet>() {
            return address.is_some_and(|address| range.contains(&address));
        }
        // Of an address of IPv6 only what is behind the brackets is a port.
        let (name, only) = match entry.rsplit_once(':') {
            Some((name, only)) if !name.contains(':') || name.ends_with(']') => (name, Some(only)),
            _ => (entry.as_str(), None),
        };
        let name = name.trim_matches(['[', ']']);
        if name == "*" {
            return true;
        }
        let domain = name.strip_prefix('*').unwrap_or(name).trim_start_matches('.');
        let below = || address.is_none() && host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        let named = !domain.is_empty() && (host == domain || below());
        named && only.is_none_or(|only| only.parse() == Ok(port))
    };
    loopback || no_proxy.unwrap_or_default().split(',').any(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_of_the_environment_is_not_for_every_host() {
        for (server, no_proxy, direct) in [
            ("https://127.0.0.1:6443", None, true),
            ("https://[::1]:6443", None, true),
            ("https://localhost", None, true),
            ("https://api.example.org", None, false),
            ("https://api.example.org", Some("example.com,.example.org"), true),
            ("https://api.example.org", Some("example.org"), true),
            ("https://API.example.org", Some("Example.org"), true),
            ("https://api.example.org", Some("example.com, *.example.org"), true),
            ("https://badexample.org", Some("example.org"), false),
            ("https://badexample.org", Some("*.example.org"), false),
            ("https://api.example.org:6443", Some("api.example.org:6443"), true),
            ("https://api.example.org:6443", Some("api.example.org:443"), false),
            ("https://api.example.org", Some("api.example.org:443"), true),
            ("http://api.example.org", Some("api.example.org:443"), false),
            ("https://10.0.0.1", Some("10.0.0.1"), true),
            ("https://10.0.0.1:6443", Some("10.0.0.1:6443"), true),
            ("https://10.0.0.1", Some("0.0.1"), false),
            ("https://10.0.0.1", Some(""), false),
            ("https://10.0.0.1", Some("*"), true),
            ("https://10.96.0.1", Some("127.0.0.0/8,10.0.0.0/8"), true),
            ("https://11.96.0.1", Some("127.0.0.0/8,10.0.0.0/8"), false),
            ("https://[fd00::1]", Some("fd00::/8"), true),
            ("https://[fd00::1]", Some("fd00::1"), true),
            ("https://[fd00::1]:6443", Some("[fd00::1]:6443"), true),
            ("https://[fd00::1]:6443", Some("[fd00::1]:443"), false),
            ("https://api.example.org", Some("10.0.0.0/8"), false),
        ] {
            let url = server.parse().expect(server);
            assert_eq!(is_direct(&url, no_proxy), direct, "{server} {no_proxy:?}");
        }
        for (set, expected) in [
            (&[][..], None),
            (&[("NO_PROXY", "a")], Some("a")),
            (&[("no_proxy", "b")], Some("b")),
            (&[("NO_PROXY", "a"), ("no_proxy", "b")], Some("b")),
        ] {
            let of = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(no_proxy(of).as_deref(), expected, "{set:?}");
        }
    }

    #[tokio::test]
    async fn a_namespace_that_is_named_wins_over_the_contexts() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kubeconfig");
        std::fs::write(
            &path,
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
             contexts: [{name: a, context: {cluster: c, user: ''}}, {name: b, context: {cluster: c, user: '', namespace: prod}}]\n",
        )
        .expect("written");
        for (context, namespace, expected) in
            [(None, None, "default"), (Some("b"), None, "prod"), (Some("b"), Some("mine"), "mine")]
        {
            let options = ConnectOptions {
                kubeconfig: Some(path.clone()),
                context: context.map(str::to_owned),
                namespace: namespace.map(str::to_owned),
            };
            let connection = connect(&options).await.expect("connects");
            assert_eq!(connection.namespace, expected);
            let from = match (namespace, context) {
                (Some(_), _) => "--namespace",
                (None, Some(_)) => "the kubeconfig's context \"b\"",
                (None, None) => "no one: the kubeconfig's context \"a\" names none",
            };
            assert_eq!(connection.namespace_from, from);
        }
        let unknown = ConnectOptions { kubeconfig: Some(path), context: Some("elsewhere".to_owned()), namespace: None };
        let error = connect(&unknown).await.expect_err("no such context");
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().contains("elsewhere") && error.to_string().contains("there are: a, b"), "{error}");
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_broken_is_not_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kubeconfig");
        std::fs::write(&path, "kind: Config\nusers:\n- name: a\n  user:\n    token: hush\n   x: y\n").expect("written");
        let options = ConnectOptions { kubeconfig: Some(path.clone()), ..ConnectOptions::default() };
        let error = connect(&options).await.expect_err("broken").to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("line 6"), "{error}");
        assert!(!error.contains("hush") && !error.contains('\n'), "{error}");
    }
}
