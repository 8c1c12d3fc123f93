//! koncli in real situations: exit codes, what it prints where, and how it waits.

use konductor_crds::{
    LeaseRequest, LeaseRequestSpec,
    v1::{HoldEnd, LeasePhase, RequestPhase},
};
use konductor_tests::*;
use serde_json::json;

use super::{crash::pending, jobs::once_policy, policy::policy_is};

async fn requests_of(team: &Namespace<'_>, holder: &str) -> Vec<LeaseRequest> {
    let mut all = team.requests().list(&Default::default()).await.expect("a list").items;
    all.retain(|request| request.spec.holder == holder);
    all
}

#[tokio::test]
async fn exit_codes_tell_what_has_happened() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    team.create_lease("db", "10m").await;

    // 0: done.
    let first = user.koncli("lease acquire db --holder a").run().await.succeeds().prints("db acquired by a, token ");
    assert_eq!(first.stderr, "", "nothing to talk about");
    user.koncli("lease renew db --holder a").run().await.succeeds().prints("db renewed by a, token ");

    // 1: held, or not in time. Nothing is left behind.
    for tries in ["", " --timeout 0", " --wait --timeout 0s"] {
        let held = user.koncli(&format!("lease acquire db --holder b{tries}")).run().await.exits_with(1);
        let held =
            held.complains("cannot acquire lease \"db\" in namespace \"team\" as \"b\"").complains("a holds it until ");
        assert_eq!(held.stdout, "");
    }
    for waits in ["--timeout 3s", "--wait --timeout=3s"] {
        let late = user.koncli(&format!("lease acquire db --holder b {waits}")).run().await.exits_with(1);
        late.complains("did not become free within 3s").complains("a holds it");
    }
    assert_eq!(requests_of(&team, "b").await, []);
    // Of a lease that nobody holds it is said why nobody gets it.
    team.create_lease_with("barred", json!({"ttl": "1m", "policy": {"name": "nowhere", "onFailure": "Hold"}})).await;
    for (tries, says) in [
        (" --timeout 0", "the lease's policy cannot decide: "),
        (" --wait --timeout 1s", "it was not granted within 1s: nobody holds it, and its policy cannot decide: "),
    ] {
        let refused = user.koncli(&format!("lease acquire barred --holder b{tries}")).run().await.exits_with(1);
        assert!(!refused.complains(says).complains("nowhere").stderr.contains("not free"));
    }
    team.leases().delete("barred", &Default::default()).await.expect("deleted");

    // 2: usage, before anything is sent.
    for (line, said) in [
        ("lease acquire", "<NAME>"),
        ("lease aquire db", "acquire"),
        ("lease acquire Db_X", "lower-case"),
        ("lease acquire db --ttl 0s", "--ttl"),
        ("lease acquire db --timeout -1s", "--timeout"),
        ("lease acquire db --holder=", "--holder"),
        ("lease acquire db --create", "--ttl"),
        ("lease release db --force --holder a", "--holder"),
        ("lease create other", "--ttl"),
        ("lease list --output xml", "--output"),
    ] {
        let usage = user.koncli(line).run().await.exits_with(2).complains(said);
        assert_eq!(usage.stdout, "");
    }
    user.koncli("lease acquire db --holder").arg("a b").run().await.exits_with(2).complains("--holder");

    // 3: not the holder.
    user.koncli("lease renew db --holder b").run().await.exits_with(3).complains("not the holder, a holds it until");
    user.koncli("lease release db --holder b").run().await.exits_with(3).complains("not the holder");

    // 4: no such lease.
    for verb in ["acquire", "acquire --wait", "renew", "release", "release --force", "status", "history", "delete"] {
        let missing = user.koncli(&format!("lease {verb} dbx")).run().await.exits_with(4);
        let missing = missing.complains("there is no lease \"dbx\" in namespace \"team\"");
        missing.complains("leases with a similar name there: db");
    }
    assert_eq!(team.requests().list(&Default::default()).await.expect("a list").items.len(), 1, "only a's");

    // 6: forbidden, and what is missing.
    let viewer = team.user(&["konductor-lease-viewer"]).await;
    for (line, missing) in [
        ("acquire db --holder v", "create leaserequests.konductor.io"),
        ("acquire db --holder v --wait", "create leaserequests.konductor.io"),
        ("renew db --holder a", "patch leaserequests.konductor.io"),
        ("release db --holder a", "delete leaserequests.konductor.io"),
        ("create other --ttl 1m", "create leases.konductor.io"),
    ] {
        let forbidden = viewer.koncli(&format!("lease {line}")).run().await.exits_with(6);
        forbidden.complains(missing).complains("konductor-lease-user").complains("is forbidden: User");
    }
    viewer.koncli("lease status db").run().await.succeeds().prints("Holder:");
    let forced = user.koncli("lease release db --force").run().await.exits_with(6);
    forced.complains("patch leases.konductor.io/status").complains("konductor-lease-operator");
    let stranger = team.user(&[]).await;
    stranger.koncli("lease status db").run().await.exits_with(6).complains("get leases.konductor.io");
    assert_eq!(team.lease("db").await.holder(), Some("a"), "no refusal has done anything");

    // The same holder once more: a new hold with a new token.
    let token = team.lease("db").await.token();
    let again = user.koncli("lease acquire db --holder a -o json").run().await.succeeds().json();
    assert!(again["token"].as_i64() > token);
    assert_eq!(team.lease("db").await.ending_of(token.expect("a token")), Some(HoldEnd::Superseded));

    // Released once and for all; a holder that waits withdraws by the same word.
    let waits = user.koncli("lease acquire db --holder w --wait").spawn();
    pending(&team, "db", 1).await;
    user.koncli("lease release db --holder w").run().await.succeeds().prints("withdrew 1");
    waits.wait().await.exits_with(1).complains("somebody deleted the request");
    // Also what was made by hand, without koncli's label.
    let by_hand = team.request("db", "w").await;
    user.koncli("lease release db --holder w").run().await.succeeds().prints("withdrew 1");
    team.request_is_gone(&by_hand).await;
    user.koncli("lease release db --holder a").run().await.succeeds().prints("db released by a, token ");
    user.koncli("lease release db --holder a").run().await.succeeds().prints("already released");

    // 7: the policy refuses.
    team.create_lease_with("fixed", json!({"ttl": "10m", "renewable": false})).await;
    user.koncli("lease acquire fixed --holder a").run().await.succeeds();
    user.koncli("lease renew fixed --holder a").run().await.exits_with(7).complains("not renewable");

    // --create, which is done once.
    let made = user.koncli("lease acquire new --holder a --create --ttl 90s").run().await.succeeds();
    made.prints("new acquired by a").complains("created lease new in namespace team");
    assert_eq!(team.lease("new").await.spec.ttl, "90s");
    let there = user.koncli("lease acquire new --holder b --create --ttl 5m").run().await.exits_with(1);
    assert!(!there.stderr.contains("created"), "{there}");
    assert_eq!(team.lease("new").await.spec.ttl, "90s");
    user.koncli("lease create new --ttl 1m").run().await.exits_with(1).complains("already");

    outputs(&plane, &team, &user).await;
    policies(&team, &user).await;
    checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
}

/// Data on stdout, in every format; talk on stderr.
async fn outputs(plane: &ControlPlane, team: &Namespace<'_>, user: &User<'_>) {
    let other = plane.namespace("other").await;
    other.create_lease("elsewhere", "1m").await;

    let acquired = user.koncli("lease acquire db --holder a -o json -v").run().await.succeeds();
    assert!(acquired.stderr.contains("koncli: API server https://127.0.0.1:"), "{acquired}");
    let json = acquired.json();
    let lease = team.lease("db").await;
    let status = lease.status.clone().expect("a status");
    let request = status.request.clone().expect("a request");
    assert_eq!(
        json,
        json!({
            "lease": "db", "namespace": "team", "holder": "a", "token": lease.token(), "ttl": "10m", "renewals": 0,
            "acquired": status.acquired, "expires": status.expires,
            "request": {"name": request.name, "uid": request.uid},
        })
    );
    let yaml = user.koncli("lease renew db --holder a -o yaml").run().await.succeeds();
    let yaml: serde_json::Value = serde_yaml::from_str(&yaml.stdout).expect("YAML");
    assert_eq!((&yaml["token"], &yaml["renewals"]), (&json["token"], &json!(1)));
    let quiet = user.koncli("lease renew db --holder a -q").run().await.succeeds();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));

    for (line, expected) in [
        ("lease status db -o name", "lease.konductor.io/db\n"),
        ("lease renew db --holder a -o name", "lease.konductor.io/db\n"),
        ("lease list -o name", "lease.konductor.io/db\nlease.konductor.io/fixed\nlease.konductor.io/new\n"),
    ] {
        let output = user.koncli(line).run().await.succeeds();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), (expected, ""));
    }
    let status = user.koncli("lease status db -o json").run().await.succeeds().json();
    assert_eq!((&status["kind"], &status["status"]["holder"]), (&json!("Lease"), &json!("a")));
    let list = user.koncli("lease list -o yaml").run().await.succeeds();
    let list: serde_json::Value = serde_yaml::from_str(&list.stdout).expect("YAML");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
    let table = user.koncli("lease list").run().await.succeeds();
    let rows: Vec<Vec<&str>> = table.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "HOLDER", "PHASE", "TTL", "EXPIRES", "WAITING", "TOKEN", "POLICY", "AGE"]);
    assert_eq!(rows[1][..4], ["db", "a", "Held", "10m"]);
    user.koncli("lease list -o wide").run().await.succeeds().prints("EXPIRES-AT").prints("RENEWALS");
    let version = user.koncli("version -o json").run().await.succeeds().json();
    assert_eq!(version["api"], "konductor.io/v1");
    user.koncli("completion bash").run().await.succeeds().prints("koncli");

    // -n wins over the kubeconfig and over what a Pod's environment says; -A shows all.
    let admin = async |line: &str| {
        let cli = user.koncli(line).arg("--kubeconfig").arg(plane.admin_kubeconfig()).env("POD_NAMESPACE", "default");
        cli.run().await.succeeds().stdout
    };
    assert_eq!(admin("lease list -n other -o name").await, "lease.konductor.io/elsewhere\n");
    assert_eq!(admin("-n team lease list -o name").await.lines().count(), 3);
    let all = admin("lease list -A").await;
    assert!(all.contains("NAMESPACE") && all.contains("elsewhere") && all.contains("fixed"), "{all}");
    user.koncli("lease status elsewhere -n other").run().await.exits_with(6);

    // The holder that nobody names is the Pod's name.
    user.koncli("lease release db").env("HOSTNAME", "a").run().await.succeeds().prints("db released by a");
    let history = user.koncli("lease history db -o json").run().await.succeeds().json();
    let ends: Vec<_> = history["history"].as_array().expect("a list").iter().map(|past| past["how"].as_str()).collect();
    assert_eq!(ends, [Some("Released"), Some("Released"), Some("Superseded")]);
    user.koncli("lease history db").run().await.succeeds().prints("HELD-FOR").prints("Superseded");
}

async fn policies(team: &Namespace<'_>, user: &User<'_>) {
    let author = team.user(&["konductor-policy-author"]).await;
    let module = once_policy();
    author.koncli("policy list").run().await.succeeds().complains("the built-in policy is always there");
    user.koncli("policy upload once").arg(&module).run().await.exits_with(6).complains("configmaps");
    author.koncli("policy upload default").arg(&module).run().await.exits_with(2).complains("built-in");
    author.koncli("policy upload once /etc/hostname").run().await.exits_with(2).complains("not a WebAssembly module");
    author.koncli("policy upload once").arg(&module).run().await.succeeds().prints("once");
    author.koncli("policy upload once").arg(&module).run().await.succeeds();
    author.koncli("policy list").run().await.succeeds().prints("once").prints("policy.wasm");
    let listed = author.koncli("policy list -o json").run().await.succeeds().json();
    assert_eq!(listed["policies"][0]["policy"], "once");

    // 7: denied, in the policy's own words.
    author.koncli("lease create init --ttl 10m --policy once").run().await.exits_with(6);
    user.koncli("lease create init --ttl 10m --policy once --on-failure hold").run().await.succeeds();
    policy_is(team, "init", "True", konductor_crds::v1::reasons::POLICY_ACTIVE).await;
    user.koncli("lease acquire init --holder a").run().await.succeeds();
    user.koncli("lease release init --holder a").run().await.succeeds();
    for tries in ["", " --wait", " --timeout 0"] {
        let denied = user.koncli(&format!("lease acquire init --holder b{tries}")).run().await.exits_with(7);
        denied.complains("denied by policy: it is done already");
    }
    user.koncli("lease status init").run().await.succeeds().prints("once (");

    let deleted = author.koncli("policy delete once").run().await.succeeds();
    deleted.prints("once deleted").complains("leases of this namespace that still name it: init");
    author.koncli("policy delete once").run().await.exits_with(4);
}

#[tokio::test]
async fn waiting_ends_when_it_should() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::with("--max-clock-skew=0s")).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let operator = team.user(&["konductor-lease-operator"]).await;
    let list = user.koncli("lease list --watch").spawn();
    let json = user.koncli("lease list --watch -o json").spawn();
    list.says("EXPIRES").await;

    // Woken by a release.
    user.koncli("lease create db --ttl 10m").run().await.succeeds().prints("db created");
    user.koncli("lease acquire db --holder a").run().await.succeeds();
    let waits = user.koncli("lease acquire db --holder b --wait --priority 5").spawn();
    pending(&team, "db", 1).await;
    let behind = user.koncli("lease acquire db --holder c --wait").spawn();
    pending(&team, "db", 2).await;
    let status = user.koncli("lease status db").run().await.succeeds().prints("Holder:     a").prints("Waiting:    2");
    status.prints("1. b (priority 5").prints("2. c (priority 0");
    user.koncli("lease release db --holder a").run().await.succeeds();
    waits.wait().await.succeeds().prints("db acquired by b");
    assert!(behind.runs());

    // Force release tells whom it evicted, and the next one has it.
    let token = team.lease("db").await.token().expect("a token");
    let forced = operator.koncli("lease release db --force").run().await.succeeds();
    forced.prints(&format!("db released by force, evicted b, token {token}"));
    behind.wait().await.succeeds().prints("db acquired by c");
    user.koncli("lease renew db --holder b").run().await.exits_with(3).complains("not the holder, c holds it");

    // Who is stopped withdraws.
    for (signal, code, why) in [(Signal::INT, 130, "interrupted"), (Signal::TERM, 143, "terminated")] {
        let waits = user.koncli("lease acquire db --holder d --wait").spawn();
        pending(&team, "db", 1).await;
        let [request] = &requests_of(&team, "d").await[..] else { panic!("one request") };
        waits.signal(signal);
        let stopped = waits.wait().await.exits_with(code).complains(why);
        assert_eq!(stopped.signal, None, "it ends by itself");
        team.request_is_gone(request).await;
    }

    // Who is killed cannot withdraw: the request lapses when nobody has touched it for its timeout.
    let killed = user.koncli("lease acquire db --holder e --wait").spawn();
    pending(&team, "db", 1).await;
    killed.kill();
    let [left] = &requests_of(&team, "e").await[..] else { panic!("one request") };
    assert_eq!(left.spec.timeout.as_deref(), Some("30s"));
    // The same with a timeout that a test can wait for.
    let spec = |holder: &str, ttl: Option<&str>, timeout: Option<&str>| LeaseRequestSpec {
        lease: "db".to_owned(),
        holder: holder.to_owned(),
        ttl: ttl.map(str::to_owned),
        timeout: timeout.map(str::to_owned),
        ..LeaseRequestSpec::default()
    };
    let dead = team.request_with(spec("dead", None, Some("1s"))).await;
    team.request_is(&dead, "lapsed", |request| request.phase() == Some(RequestPhase::Finished)).await;
    assert_eq!(team.request_is(&dead, "lapsed", |_| true).await.reason(), "TimedOut");
    team.delete_request(left).await;
    user.koncli("lease release db --holder c").run().await.succeeds();
    let free = team.lease("db").await;
    assert_eq!((free.phase(), free.holder()), (LeasePhase::Available, None), "no dead request is granted");

    // Woken by expiry.
    team.request_with(spec("short", Some("6s"), None)).await;
    team.lease_is("db", "held", |lease| lease.holder() == Some("short")).await;
    user.koncli("lease acquire db --holder f --wait --timeout 20s").run().await.succeeds().prints("db acquired by f");
    user.koncli("lease delete db").run().await.succeeds().complains("f held it");
    user.koncli("lease renew db --holder f").run().await.exits_with(4);

    for change in ["Available", "Held", "Deleted"] {
        list.says(change).await;
    }
    list.signal(Signal::INT);
    json.signal(Signal::INT);
    list.wait().await.succeeds();
    let json = json.wait().await.succeeds();
    for line in json.stdout.lines() {
        let lease: serde_json::Value = serde_json::from_str(line).expect("a Lease a line");
        assert_eq!(lease["metadata"]["name"], "db");
    }

    let holds = checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
    let told: Vec<_> = holds.iter().map(|hold| (hold.holding.holder.as_str(), hold.how)).collect();
    assert_eq!(
        told,
        [
            ("a", Some(HoldEnd::Released)),
            ("b", Some(HoldEnd::ForceReleased)),
            ("c", Some(HoldEnd::Released)),
            ("short", Some(HoldEnd::Expired)),
            ("f", None),
        ]
    );
    // Who waits is granted by the very write that ends the hold before, be it a release or an expiry.
    assert_eq!(holds[0].over, Some(holds[1].granted));
    assert_eq!(holds[3].over, Some(holds[4].granted));
    drop(controller);
}

#[tokio::test]
async fn nobody_answers() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    team.create_lease("db", "10m").await;
    team.create_lease("free", "10m").await;
    user.koncli("lease acquire db --holder a").run().await.succeeds();
    user.koncli("lease acquire free --holder a").run().await.succeeds();
    controller.kill();

    // No controller: told after ten seconds, and what that means.
    let [acquire, wait, renew, release] = [
        "lease acquire db --holder b",
        "lease acquire db --holder c --wait",
        "lease renew db --holder a",
        "lease release free --holder a",
    ]
    .map(|line| user.koncli(line).spawn());
    for (running, left) in [
        (acquire, "the request is withdrawn"),
        (wait, "the request is withdrawn"),
        (renew, "the hold lasts until"),
        (release, "freed as soon as one runs"),
    ] {
        let output = running.wait().await.exits_with(5).complains("no controller answered within 10 s").complains(left);
        output.complains("check that the controller runs");
    }
    assert_eq!(requests_of(&team, "b").await, []);
    assert_eq!(requests_of(&team, "c").await, []);
    // Also who would not have waited for so long: whether it became free, nobody knows.
    let late = user.koncli("lease acquire db --holder d --wait --timeout 3s").run().await.exits_with(5);
    late.complains("no controller answered within 3 s; the request is withdrawn");
    assert_eq!(requests_of(&team, "d").await, []);
    user.koncli("lease status db").run().await.succeeds().prints("Holder:");

    // No API server.
    plane.kill_apiserver();
    for line in
        ["acquire db --holder b", "acquire db --holder b --wait --timeout 1s", "renew db", "release db", "status db"]
    {
        let output = user.koncli(&format!("lease {line}")).run().await.exits_with(5);
        let output = output.complains("the API server did not answer").complains("--kubeconfig");
        assert_eq!(output.stdout, "");
    }
    let nowhere = user.koncli("lease list").env("KUBECONFIG", "/nonexistent").run().await;
    assert!(nowhere.code == 2 || nowhere.code == 5, "{nowhere}");
    plane.start_apiserver().await;

    // What was released while nobody was there is free when one is.
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    team.lease_is("free", "free", |lease| lease.phase() == LeasePhase::Available).await;
    user.koncli("lease acquire free --holder b").run().await.succeeds();

    // A cluster without us.
    let bare = ControlPlane::start(Options::default()).await;
    let stranger = user.koncli("lease acquire db --holder a").arg("--kubeconfig").arg(bare.admin_kubeconfig());
    stranger.run().await.exits_with(5).complains("Konductor Lease is not installed in this cluster");
}
