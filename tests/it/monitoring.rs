//! `deploy/monitoring`: what an operator looks at, asked of a real Prometheus that scrapes a real controller.

use std::collections::{BTreeMap, BTreeSet};

use konductor_crds::v1::{LeasePhase, RequestPhase, reasons};
use konductor_tests::{
    policies::{always, rules, upload},
    tools::{Prometheus, Sample, run, tool},
    *,
};
use serde_json::{Value, json};

use crate::lifecycle::{alone, ask, hold, holds, is_told, wait_for};

const DENY: &str = r#"{"deny":[{"request":0,"reason":"never"}],"reason":"never"}"#;

fn yaml(file: &str) -> Value {
    serde_yaml::from_str(&repo::text(file)).unwrap_or_else(|problem| panic!("{file}: {problem}"))
}

/// The rules of a file, in order.
fn all_rules() -> Vec<Value> {
    let file = yaml("deploy/monitoring/rules.yaml");
    let groups = file["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

/// One query of the dashboard.
struct Query {
    panel: String,
    promql: String,
    legend: String,
}

fn queries() -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(&repo::text("deploy/monitoring/dashboard.json")).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
        for target in panel["targets"].as_array().expect("targets") {
            // What Grafana puts in: the chosen jobs, and four scrapes or more.
            let promql = text(&target["expr"]).replace("$job", ".*").replace("$__rate_interval", "1m");
            assert!(!promql.contains('$'), "a variable that this test does not know: {promql}");
            queries.push(Query { panel: text(&panel["title"]), promql, legend: text(&target["legendFormat"]) });
        }
    }
    queries
}

/// Every word of a text that is the name of a metric of ours.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| word.starts_with("konductor_"))
        .map(str::to_owned)
        .collect()
}

/// The names of the series in a scrape, and of their families.
fn scraped(metrics: &Metrics) -> BTreeSet<String> {
    let lines = metrics.text().lines().filter(|line| !line.starts_with("# HELP"));
    let names = lines.map(|line| line.trim_start_matches("# TYPE "));
    names.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// Leases in every state, and one of everything that can become of a request.
async fn night(team: &Namespace<'_>) {
    upload(team, "never", "policy.wasm", &always(DENY)).await;
    upload(team, "odd", "policy.wasm", &rules(&[("\"holder\":\"trap\"", policies::TRAP)])).await;
    team.create_lease("busy", "10m").await;
    team.create_lease("short", "1s").await;
    team.create_lease_with("barred", json!({"ttl": "1m", "policy": {"name": "never"}})).await;
    team.create_lease_with("lost", json!({"ttl": "1m", "policy": {"name": "nowhere"}})).await;
    let (first, _) = hold(team, "busy", "first").await;
    let second = wait_for(team, ask("busy", "second")).await;
    team.delete_request(&first).await;
    holds(team, &second).await;
    wait_for(team, ask("busy", "third")).await;
    hold(team, "short", "dies").await;
    team.lease_is("short", "expired", |l| l.phase() != LeasePhase::Held).await;
    let barred = team.request("barred", "nobody").await;
    is_told(team, &barred, RequestPhase::Denied, reasons::DENIED_BY_POLICY).await;
    let invalid = team.request("barred", "second try").await;
    is_told(team, &invalid, RequestPhase::Denied, reasons::INVALID_REQUEST).await;
}

#[tokio::test]
async fn the_dashboard_and_the_rules_show_what_a_running_controller_does() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, alone()).await;
    // A rate needs to see the first of something as a change.
    let prometheus = Prometheus::start(&plane, &[&controller], &repo::path("deploy/monitoring/rules.yaml")).await;
    let team = plane.namespace("team").await;
    night(&team).await;

    // Every panel says something, and every series has the labels that its legend shows.
    let queries = queries();
    assert!(queries.len() > 35, "{} queries", queries.len());
    for Query { panel, promql, legend } in &queries {
        let samples = eventually(&format!("{panel:?} shows numbers: {promql}"), async || {
            let samples = prometheus.query(promql).await?;
            if samples.is_empty() || samples.iter().any(|sample| sample.value.is_nan()) {
                return Err(format!("{samples:?}"));
            }
            Ok(samples)
        })
        .await;
        for label in legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
            assert!(samples.iter().all(|s| s.labels.contains_key(label)), "{panel}: no label {label}: {samples:?}");
        }
        if samples.len() > 1 {
            let shown: BTreeSet<String> = samples.iter().map(|sample| shown(legend, sample)).collect();
            assert_eq!(shown.len(), samples.len(), "{panel}: two lines with the same name: {samples:?}");
        }
    }
    // And it is true.
    let value = async |promql: &str| match prometheus.query(promql).await {
        Ok(samples) if samples.len() == 1 => samples[0].value,
        odd => panic!("{promql}: {odd:?}"),
    };
    for (promql, expected) in [
        ("konductor:leases_held", 1.0),
        ("konductor:requests_waiting", 1.0),
        ("konductor_leader", 1.0),
        (r#"konductor_leases_with_problem{condition="PolicyReady"}"#, 1.0),
        (r#"konductor_grant_latency_seconds_count{kind="free"}"#, 2.0),
        (r#"konductor_grant_latency_seconds_count{kind="hand_over"}"#, 1.0),
        (r#"konductor_holds_ended_total{how="expired"}"#, 1.0),
        (r#"konductor_holds_ended_total{how="released"}"#, 1.0),
        ("konductor_requests_denied_total", 1.0),
        (r#"konductor_answers_total{reason="InvalidRequest"}"#, 1.0),
        (r#"konductor_policy_decisions_total{result="Trap"}"#, 0.0),
    ] {
        eventually(&format!("{promql} is {expected}"), async || match value(promql).await {
            value if value == expected => Ok(()),
            other => Err(other),
        })
        .await;
    }
    let waited = value("konductor_oldest_wait_seconds").await;
    assert!(waited > 0.0 && waited < 300.0, "{waited}");
    eventually("nothing is overdue", async || match value("konductor_overdue_seconds").await {
        0.0 => Ok(()),
        seconds => Err(seconds),
    })
    .await;
    // A hand-over is the controller's own time: far below the second of its coarsest timer.
    let p99 = value(r#"histogram_quantile(0.99, konductor_grant_latency_seconds_bucket{kind="hand_over"})"#).await;
    assert!(p99 > 0.0 && p99 < 5.0, "{p99}");

    // Grafana's list of jobs.
    let jobs = prometheus.ask("label/job/values", &[("match[]", "konductor_leader")]).await.expect("an answer");
    assert_eq!(jobs, json!(["konductor-controller"]));

    // Every rule works on what is really there; those that hold already say it in whole sentences.
    eventually("every rule is evaluated", async || {
        let all = prometheus.ask("rules", &[]).await?;
        let all: Vec<Value> = all["groups"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|g| g["rules"].clone().as_array().cloned().unwrap_or_default())
            .collect();
        let odd: Vec<&Value> =
            all.iter().filter(|rule| rule["health"] != "ok" || rule["lastError"].is_string()).collect();
        if all.len() == all_rules().len() && odd.is_empty() {
            Ok(())
        } else {
            Err(format!("{} rules, {odd:?}", all.len()))
        }
    })
    .await;
    for name in all_rules().iter().filter_map(|rule| rule["record"].as_str()) {
        assert!(!prometheus.query(name).await.expect("a query").is_empty(), "{name} records nothing");
    }
    let alerts = eventually("what is wrong is about to be told", async || {
        let alerts = prometheus.ask("alerts", &[]).await?["alerts"].clone();
        let told: BTreeMap<String, Value> = alerts
            .as_array()
            .into_iter()
            .flatten()
            .map(|alert| (alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned(), alert.clone()))
            .collect();
        let wrong = ["KonductorNoStandby", "KonductorPolicyNotReady"];
        if wrong.iter().all(|alert| told.contains_key(*alert)) { Ok(told) } else { Err(alerts) }
    })
    .await;
    // Nor is anything else wrong, unless this machine is slow.
    let slow = ["KonductorHoldsOverdue", "KonductorGrantsSlow", "KonductorQueueBackedUp"];
    let pending: Vec<&str> = alerts.keys().map(String::as_str).filter(|alert| !slow.contains(alert)).collect();
    assert_eq!(pending, ["KonductorNoStandby", "KonductorPolicyNotReady"], "{alerts:#?}");
    let summary = &alerts["KonductorPolicyNotReady"]["annotations"]["summary"];
    assert_eq!(summary, "1 leases have a policy that is missing, broken or refuses its params.");

    // What is written down is there: no query is about a metric of another version.
    let metrics = controller.metrics().await;
    let there = scraped(&metrics);
    let mut asked = BTreeSet::new();
    for file in ["rules.yaml", "rules_test.yaml", "dashboard.json", "README.md"] {
        asked.extend(names(&repo::text(&format!("deploy/monitoring/{file}"))));
    }
    let missing: Vec<_> = asked.difference(&there).collect();
    assert!(asked.len() > 30 && missing.is_empty(), "no such metric: {missing:?}\n{}", metrics.text());
    // And the other way: a metric that no panel shows is one that nobody sees.
    let panels: String = queries.iter().map(|query| query.promql.clone() + "\n").collect();
    let unseen = |name: &&String| {
        let family = ["_sum", "_count", "_bucket"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        !names(&panels).iter().any(|panel| panel.starts_with(family))
    };
    assert_eq!(there.iter().filter(unseen).collect::<Vec<_>>(), [""; 0], "in no panel");

    let (well, said) = run(&tool("promtool"), &["check", "metrics"], metrics.text());
    assert!(well && said.trim().is_empty(), "promtool check metrics: {said}\n{}", metrics.text());
}

/// What Grafana calls a series.
fn shown(legend: &str, sample: &Sample) -> String {
    sample
        .labels
        .iter()
        .fold(legend.to_owned(), |text, (label, value)| text.replace(&format!("{{{{{label}}}}}"), value))
}

#[test]
fn every_alert_is_tested_and_says_what_to_do() {
    let promtool = tool("promtool");
    for words in
        [["check", "rules", "deploy/monitoring/rules.yaml"], ["test", "rules", "deploy/monitoring/rules_test.yaml"]]
    {
        let (well, said) = run(&promtool, &words, "");
        assert!(well, "promtool {words:?}: {said}");
    }
    let tests = yaml("deploy/monitoring/rules_test.yaml");
    let tests: Vec<&str> =
        tests["tests"].as_array().expect("tests").iter().filter_map(|t| t["name"].as_str()).collect();
    let readme = repo::text("deploy/monitoring/README.md");
    let all = all_rules();
    let alerts: Vec<&Value> = all.iter().filter(|rule| rule.get("alert").is_some()).collect();
    assert!(alerts.len() >= 15, "{} alerts", alerts.len());
    for alert in &alerts {
        let name = alert["alert"].as_str().expect("a name");
        for case in ["fires", "is quiet"] {
            assert!(tests.contains(&format!("{name} {case}").as_str()), "no test in which {name} {case}");
        }
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: severity {severity:?}");
        for annotation in ["summary", "description", "runbook"] {
            let text = alert["annotations"][annotation].as_str().unwrap_or_default();
            assert!(text.len() > 15 && text.ends_with('.'), "{name}: {annotation} {text:?}");
        }
        assert!(readme.contains(&format!("| `{name}` | {severity} |")), "{name} ({severity}) is not in the README");
    }
    assert_eq!(tests.len(), 2 * alerts.len(), "a test of an alert that is not there");
    assert_eq!(readme.matches("| `Konductor").count(), alerts.len(), "the README has one that is not there");
}

#[test]
fn what_is_generated_is_up_to_date() {
    let (well, said) = run(&repo::path("deploy/generate"), &["--check"], "");
    assert!(well, "{said}");
    // By its meaning too: a generator that is wrong writes the same wrong thing each time.
    let operator = yaml("deploy/monitoring/prometheusrule.yaml");
    assert_eq!(operator["kind"], "PrometheusRule");
    assert_eq!(operator["spec"], yaml("deploy/monitoring/rules.yaml"));
}

/// The table of log lines in the README: the fields of each message.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let readme = repo::text("deploy/monitoring/README.md");
    let (_, table) = readme.split_once("## The log").expect("a chapter");
    let rows = table.lines().filter(|line| line.starts_with("| `") && !line.contains("other fields"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let fields = cells[3].split(", ").map(str::to_owned).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), fields))
    })
    .collect()
}

#[tokio::test]
async fn an_outcome_is_one_line_with_the_id_of_its_decision() {
    let plane = ControlPlane::installed().await;
    let journal = plane.directory().join("journal");
    let mut options = alone();
    options.args.extend(["--log-format=json".to_owned(), format!("--decision-journal={}", journal.display())]);
    let controller = Controller::start(&plane, options.env("RUST_LOG", "konductor_controller=debug")).await;
    let team = plane.namespace("team").await;
    let settled = team.create_lease("demo", "1s").await;
    let settled = team.lease_is("demo", "looked at", |l| l.condition("Ready").is_some() && *l != settled).await;
    let before: i64 = settled.metadata.resource_version.expect("one").parse().expect("a number");
    hold(&team, "demo", "first").await;
    night(&team).await;
    team.lease_is("demo", "expired", |l| l.phase() != LeasePhase::Held).await;

    let lines: Vec<Value> = controller
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|problem| panic!("no JSON ({problem}): {line}")))
        .collect();
    let documented = documented();
    assert_eq!(documented.len(), 8);
    let mut seen = BTreeSet::new();
    for line in &lines {
        let fields = line["fields"].as_object().unwrap_or_else(|| panic!("{line}"));
        let message = fields["message"].as_str().expect("a message");
        let Some((levels, wanted)) = documented.get(message) else { continue };
        seen.insert(message);
        let own: BTreeSet<String> = fields.keys().filter(|name| *name != "message").cloned().collect();
        assert_eq!(own, *wanted, "{line}");
        assert!(levels.split(", ").any(|level| line["level"] == level), "{line}");
    }
    for message in ["granted", "ended", "denied", "answered", "reconciled"] {
        assert!(seen.contains(message), "nothing was {message}: {seen:?}");
    }
    let of = |message: &str, holder: &str| -> Vec<&Value> {
        let wanted = |line: &&Value| line["fields"]["message"] == message && line["fields"]["holder"] == holder;
        lines.iter().filter(wanted).map(|line| &line["fields"]).collect()
    };
    let granted = of("granted", "first").into_iter().find(|f| f["lease"] == "team/demo").expect("a line").clone();
    assert_eq!(granted["decision"], before, "it was decided from the Lease as it was before");
    assert_eq!(of("denied", "nobody").len(), 1, "one line an outcome");
    assert_eq!(of("ended", "dies").len(), 1, "one line an outcome");
    assert_eq!(of("ended", "dies")[0]["how"], "Expired");

    // The journal calls it the same.
    let records = eventually("the journal has it", async || {
        let text = std::fs::read_to_string(journal.join("decisions.jsonl")).unwrap_or_default();
        let records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let own = records.iter().filter(|record| record["decision"] == before && record["lease"] == "team/demo");
        let own: Vec<Value> = own.cloned().collect();
        if own.iter().any(|record| record["applied"] == true) {
            Ok(own)
        } else {
            Err(format!("{} records", records.len()))
        }
    })
    .await;
    assert_eq!(records.iter().filter(|record| record["applied"] == true).count(), 1, "one has become so: {records:?}");
    assert!(records[0]["input"].as_str().expect("a text").contains("\"first\""));
}
