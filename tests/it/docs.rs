//! docs/: what a page says to do works, what is generated is what is committed, and no link leads nowhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    time::Duration,
};

use futures::{FutureExt as _, future::join_all};
use koncli::client::{Access, Error, Problem};
use konductor_crds::{LeaseRequestSpec, LeaseSpec, v1::RequestPhase};
use konductor_tests::{markdown::Block, *};
use kube::api::ListParams;
use serde_json::{Value, json};

/// Runs beside what follows, which begins when its request holds or waits; it has to have ended well at the page's end.
const SECOND: &str = "sh second terminal";
/// What the block of commands before it has said, line by line; `…` stands for anything.
const PRINTS: &str = "text prints";

/// Commands that are shown and not run: the page, how the block begins, and why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    (
        "README.md",
        "$ koncli lease acquire db-migration --holder $HOSTNAME --wait --timeout=5m && run-migrations",
        "docs/tutorials/migrations.md runs it",
    ),
    (
        "README.md",
        "$ make up      # builds everything, starts etcd, kube-apiserver and the controller, shows a hand-over",
        "it builds everything and installs programs; .ci/run does it",
    ),
    (
        "README.md",
        "$ koncli policy new my-policy --lang rust            # or zig, c, assemblyscript",
        "policies/README.md goes through it, and koncli's test `readme` runs that",
    ),
    (
        "README.md",
        "$ kubectl apply -k deploy      # Kubernetes below 1.30: with --validate=false; or with Helm, see deploy/README.md",
        "there is no node to pull an image; `manifests` applies the same files",
    ),
    (
        "docs/troubleshooting.md",
        "$ kubectl patch kl my-lease --subresource=status --type=merge -p '{\"status\":{\"phase\":\"Available\",\"holder\":\"\"}}'",
        "Debian's kubectl is older than 1.24; `lease_api` sends the same patch",
    ),
    (
        "docs/troubleshooting.md",
        "$ kubectl get pods | grep old-pod",
        "no Pods run here; it needs rights that lease users lack",
    ),
    (
        "docs/troubleshooting.md",
        "$ kubectl get pods -A -l app.kubernetes.io/name=konductor-lease",
        "the controller of a test runs in no Pod",
    ),
    ("docs/comparison.md", "$ make bench", "it builds everything with optimisation and measures for minutes"),
];

/// Programs of the readers, by the names that the pages give them.
const STAND_INS: [(&str, &str); 3] = [
    ("run-migrations", "echo \"migrating with token $KONDUCTOR_TOKEN\""),
    ("generate-report", "echo \"report written\""),
    ("run-main-process", "echo \"leading with token $KONDUCTOR_TOKEN\""),
];

/// The pages that are written by hand, by their path in the repository.
fn pages() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for directory in ["docs", "docs/tutorials"] {
        for entry in std::fs::read_dir(repo::path(directory)).expect("readable") {
            let name = entry.expect("readable").file_name().to_string_lossy().into_owned();
            if name.ends_with(".md") {
                let path = format!("{directory}/{name}");
                found.insert(path.clone(), repo::text(&path));
            }
        }
    }
    assert!(found.len() > 10, "the book has lost its pages");
    found
}

/// The roles that a page says it needs: `Rights: …`.
fn rights(page: &str) -> Vec<&str> {
    let line = page.lines().find(|line| line.starts_with("Rights:")).unwrap_or_default();
    line.split('`').skip(1).step_by(2).collect()
}

/// Whether what was said has these lines, in order.
fn says(said: &str, expected: &str) -> Result<(), String> {
    let mut rest = said.lines();
    for line in expected.lines() {
        let fits = |found: &str| {
            let mut from = 0;
            let parts: Vec<_> = line.trim().split('…').collect();
            let whole = found.trim();
            parts.iter().enumerate().all(|(n, part)| match whole[from..].find(part.trim()) {
                Some(at) if n > 0 || at == 0 => {
                    from += at + part.trim().len();
                    n + 1 < parts.len() || part.is_empty() || from == whole.len()
                }
                _ => false,
            })
        };
        if !rest.any(fits) {
            return Err(format!("no line {line:?}, or not in this order"));
        }
    }
    Ok(())
}

#[test]
fn what_was_said_is_compared_line_by_line() {
    let said = "a 12 b\nsecond line\n";
    says(said, "a … b\nsecond line\n").expect("both are there");
    says(said, "a …\n").expect("the rest does not matter");
    for wrong in ["second line\na … b\n", "a … c\n", "second\n", "12 b\n"] {
        says(said, wrong).expect_err(wrong);
    }
}

#[tokio::test]
async fn every_page_does_what_it_says() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    eventually("the API server explains leases", async || {
        let explained = plane.kubectl("explain kl.spec").run().await;
        if explained.code == 0 { Ok(()) } else { Err(explained) }
    })
    .await;
    let pages = pages();
    // All of them, also when one is wrong: what is wrong is told of each.
    let each = pages.iter().map(|(path, page)| AssertUnwindSafe(follow(&plane, path, page)).catch_unwind());
    let (followed, wrong): (Vec<_>, Vec<_>) = join_all(each).await.into_iter().partition(Result::is_ok);
    assert!(wrong.is_empty(), "{} pages do not do what they say, see above", wrong.len());
    let followed: Vec<_> = followed.into_iter().flatten().collect();
    let (commands, manifests) = followed.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(commands > 20 && manifests > 5, "{commands} blocks of commands, {manifests} of manifests");

    // What pages say to look at is there to be looked at.
    let metrics = controller.metrics().await;
    let mut named = 0;
    for (path, page) in &pages {
        for name in page.split('`').filter(|word| word.starts_with("konductor_")) {
            // OpenMetrics names a counter without its suffix where it describes it, the older format with it.
            let families = [name, name.trim_end_matches("_total")];
            let there = families.iter().any(|family| metrics.text().contains(&format!("# TYPE {family} ")));
            assert!(there, "{path}: there is no metric {name}");
            named += 1;
        }
    }
    assert!(named > 5, "{named} metrics");
}

/// Does what a page says, as who it is written for. Returns how many blocks of commands and of manifests it has.
async fn follow(plane: &ControlPlane, path: &str, page: &str) -> (usize, usize) {
    let name = path.trim_start_matches("docs/").trim_end_matches(".md").replace('/', "-").to_lowercase();
    let blocks = markdown::blocks(page);
    if blocks.is_empty() {
        return (0, 0);
    }
    let team = plane.namespace(&format!("docs-{name}")).await;
    let roles = rights(page);
    let user = team.user(&roles).await;
    let directory = plane.directory().join(format!("docs-{name}"));
    std::fs::create_dir_all(&directory).expect("a directory");
    let script = |block: &Block| {
        // What is said on stderr comes in between, as on a terminal.
        let text = format!("exec 2>&1\nset -e\ncd {}\n{}", directory.display(), block.text);
        STAND_INS.iter().fold(user.script(&name, &text), |cli, (name, text)| cli.stand_in(name, text))
    };
    let (mut commands, mut manifests) = (0, 0);
    let mut beside: Vec<(Running, Option<&str>)> = Vec::new();
    let mut last: Option<Output> = None;
    for block in &blocks {
        match &*block.info {
            "sh" => {
                assert!(!roles.is_empty(), "{path} has commands and does not say \"Rights: …\"");
                last = Some(script(block).run().await.succeeds());
                commands += 1;
            }
            SECOND => {
                let before = answered(&team).await;
                beside.push((script(block).spawn(), None));
                last = None;
                commands += 1;
                eventually(&format!("the second terminal of {path} holds or waits"), async || {
                    let now = answered(&team).await;
                    if now.is_subset(&before) { Err(format!("{now:?}")) } else { Ok(()) }
                })
                .await;
            }
            PRINTS => match (&last, beside.last_mut()) {
                (Some(output), _) => {
                    says(&output.stdout, &block.text).unwrap_or_else(|problem| panic!("{path}: {problem}\n{output}"));
                }
                (None, Some((_, expected))) => *expected = Some(&block.text),
                (None, None) => panic!("{path}: nothing has said {:?}", block.text),
            },
            "yaml" | "yaml apply" => {
                apply(plane, &team, path, block).await;
                manifests += 1;
            }
            // The commands are looked at below; the audit policy by `architecture`; a text is only shown.
            "console" | "yaml audit" | "text" => {}
            other => panic!("{path} has a block of {other:?}, which nothing checks"),
        }
    }
    for (running, expected) in beside {
        let output = running.wait().await.succeeds();
        says(&output.stdout, expected.unwrap_or_default())
            .unwrap_or_else(|problem| panic!("{path}: {problem}\n{output}"));
    }
    (commands, manifests)
}

/// The uids of requests that hold or wait, as the controller says.
async fn answered(team: &Namespace<'_>) -> BTreeSet<String> {
    let live = |request: &konductor_crds::LeaseRequest| {
        let phase = request.status.as_ref().and_then(|status| status.phase);
        matches!(phase, Some(RequestPhase::Pending | RequestPhase::Granted))
    };
    let requests = team.requests().list(&ListParams::default()).await.expect("listed").items;
    requests.into_iter().filter(live).filter_map(|request| request.metadata.uid).collect()
}

/// Asks the API server for every object of a block, or makes it.
async fn apply(plane: &ControlPlane, team: &Namespace<'_>, path: &str, block: &Block) {
    let objects = manifests::objects(&block.text, std::path::Path::new(path));
    for mut manifest in objects.unwrap_or_else(|problem| panic!("{problem:#}")) {
        manifest.object["metadata"]["namespace"] = team.name().into();
        // It is batch/v1 since Kubernetes 1.21.
        if plane.version() < Version(1, 21) && manifest.object["kind"] == "CronJob" {
            manifest.object["apiVersion"] = "batch/v1beta1".into();
        }
        let done = match &*block.info {
            "yaml" => manifests::dry_run(plane.admin(), &manifest).await,
            _ => manifests::apply(plane.admin(), &manifest).await,
        };
        let taken = done.unwrap_or_else(|problem| panic!("{path}: {problem:#}"));
        let taken = serde_json::to_value(taken).expect("JSON");
        assert!(
            kept(&manifest.object, &taken),
            "{path}: of {} the server has dropped something: {taken:#}",
            manifest.title()
        );
        valid(&manifest.object).unwrap_or_else(|problem| panic!("{path}: {}: {problem}", manifest.title()));
    }
}

/// Whether everything that was given is in what was taken: a server drops the fields that it does not know.
fn kept(given: &Value, taken: &Value) -> bool {
    match (given, taken) {
        (Value::Object(given), Value::Object(taken)) => {
            given.iter().all(|(name, value)| taken.get(name).is_some_and(|taken| kept(value, taken)))
        }
        (Value::Array(given), Value::Array(taken)) => {
            given.len() == taken.len() && given.iter().zip(taken).all(|(given, taken)| kept(given, taken))
        }
        _ => given == taken,
    }
}

/// What the rules in our schemas say: a server before 1.25 does not read them.
fn valid(object: &Value) -> Result<(), String> {
    let spec = object["spec"].clone();
    match object["kind"].as_str() {
        Some("Lease") => {
            let spec: LeaseSpec = serde_json::from_value(spec).map_err(|problem| problem.to_string())?;
            spec.ttl_ms().map(drop).map_err(|problem| problem.to_string())
        }
        Some("LeaseRequest") => {
            let spec: LeaseRequestSpec = serde_json::from_value(spec).map_err(|problem| problem.to_string())?;
            spec.validate().map_err(|problem| problem.to_string())
        }
        _ => Ok(()),
    }
}

#[test]
fn a_manifest_that_is_not_taken_as_it_stands_is_found() {
    let object = |spec: Value| json!({"kind": "Lease", "spec": spec});
    assert!(kept(&object(json!({"ttl": "1m"})), &object(json!({"ttl": "1m", "more": 1}))));
    assert!(!kept(&object(json!({"ttl": "1m", "tll": "2m"})), &object(json!({"ttl": "1m"}))));
    valid(&object(json!({"ttl": "15m"}))).expect("a duration");
    valid(&object(json!({"ttl": "15 minutes"}))).expect_err("none");
}

#[test]
fn what_is_shown_and_not_run_has_a_reason() {
    let mut pages = pages();
    pages.insert("README.md".to_owned(), repo::text("README.md"));
    let mut shown = BTreeSet::new();
    for (path, page) in &pages {
        for block in markdown::blocks(page).iter().filter(|block| block.info == "console") {
            shown.insert((path.clone(), block.text.lines().next().unwrap_or_default().to_owned()));
        }
    }
    let explained: BTreeSet<_> =
        NOT_RUN.iter().map(|(path, line, _)| ((*path).to_owned(), (*line).to_owned())).collect();
    assert_eq!(shown, explained, "left: what pages show; right: what NOT_RUN explains");
    assert!(NOT_RUN.iter().all(|(_, _, why)| why.len() > 15), "a reason is a sentence");
}

/// The errors that cannot be had in a page's own run are shown as koncli says them.
#[test]
fn the_errors_that_are_shown_are_those_that_are_said() {
    let problems = [
        Problem::NoController { waited: Duration::from_secs(10), left: "left".to_owned() },
        Problem::NotInstalled,
        Problem::Forbidden { access: Access::requests("create") },
    ];
    let said = problems.map(|problem| {
        let error = Error::new("acquire", problem);
        let help: String = error.help().iter().map(|line| format!("  {line}\n")).collect();
        format!("koncli: {error}\n{help}")
    });
    let blocks = markdown::blocks(&repo::text("docs/troubleshooting.md"));
    let shown: Vec<_> =
        blocks.iter().filter(|block| block.info == "text" && block.text.starts_with("koncli: ")).collect();
    assert_eq!(shown.len(), said.len());
    for (block, said) in shown.iter().zip(&said) {
        says(said, &block.text).unwrap_or_else(|problem| panic!("{problem}\n{said}"));
    }
}

#[test]
fn the_reference_is_what_the_programs_and_schemas_say() {
    for (path, text) in book::reference().expect("generated") {
        let committed = std::fs::read_to_string(repo::path(path)).unwrap_or_default();
        assert!(committed == text, "{path} is not what is generated: run make generate");
    }
}

#[test]
fn every_link_leads_somewhere_and_every_page_is_in_the_contents() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for page in book::pages().expect("readable") {
        let shown = page.strip_prefix(repo::root()).expect("inside").display().to_string();
        let text = std::fs::read_to_string(&page).expect("readable");
        seen += book::links(&text).len();
        let links = book::broken_links(&page).expect("readable");
        broken.extend(links.into_iter().map(|link| format!("{shown}: {link}")));
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(seen > 60, "{seen} links");
    let contents: BTreeSet<String> = book::links(&repo::text("docs/README.md")).into_iter().collect();
    let references = book::reference().expect("generated");
    let all = pages().into_keys().chain(references.keys().map(|&path| path.to_owned()));
    let missing: Vec<_> =
        all.filter(|path| path != "docs/README.md" && !contents.contains(path.trim_start_matches("docs/"))).collect();
    assert!(missing.is_empty(), "docs/README.md does not list {missing:?}");

    let shown: BTreeSet<String> = pages().values().flat_map(|page| book::links(page)).collect();
    for picture in std::fs::read_dir(repo::path("docs/pictures")).expect("readable") {
        let name = picture.expect("readable").file_name().to_string_lossy().into_owned();
        let on_a_page = shown.iter().any(|link| link.ends_with(&format!("pictures/{name}")));
        assert!(
            on_a_page || name.ends_with(".yaml") || repo::text("README.md").contains(&name),
            "no page shows {name}"
        );
    }
}

#[tokio::test]
async fn the_pictures_are_what_is_seen() {
    for (scenario, picture) in book::SCENARIOS {
        let koncli = binary("koncli").expect("built");
        let played = book::played(&koncli, std::path::Path::new(scenario)).expect("played");
        assert!(repo::text(picture) == played, "{picture} is not what {scenario} gives: run make pictures");
    }
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    for (path, picture) in book::record(&plane).await {
        let committed = book::terminal::masked(&repo::text(path));
        assert_eq!(committed, book::terminal::masked(&picture), "{path}: run make pictures");
    }
}
