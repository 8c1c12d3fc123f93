use konductor_core::{Answer, Ending, Millis, RequestAnswer};
use konductor_crds::{
    Lease, LeaseRequest, LeaseRequestSpec, LeaseRequestStatus, LeaseSpec, LeaseStatus,
    time::format_timestamp,
    v1::{HoldEnd, LeasePhase, PastHold, PolicySpec, RequestPhase, RequestRef},
};
use kube::ResourceExt as _;

use super::*;

#[test]
fn pauses_grow_to_a_limit_and_start_afresh() {
    let failures = Failures::default();
    let key = Key::new("ns", "lease");
    let pauses: Vec<_> = (0..8).map(|_| failures.pause(&key)).collect();
    assert_eq!(pauses[0], FAILURE_RETRY_FIRST);
    assert!(pauses.is_sorted());
    assert_eq!(pauses[7], FAILURE_RETRY_MOST);
    failures.forget(&key);
    assert_eq!(failures.pause(&key), FAILURE_RETRY_FIRST);
}

type OnRead = Box<dyn Fn(&World) + Send + Sync>;

/// A kube-apiserver, as far as a reconcile asks it.
#[derive(Default)]
struct Server {
    /// What can be read, by name.
    found: Vec<(String, serde_json::Value)>,
    /// What happens elsewhere, each time that something is read.
    on_read: Option<OnRead>,
    /// The first calls that fail.
    failures: std::sync::atomic::AtomicUsize,
    /// What was asked.
    asked: std::sync::Mutex<Vec<String>>,
    /// Rung when something was written.
    written: tokio::sync::Notify,
}

impl Server {
    fn with(requests: &[LeaseRequest]) -> Self {
        let found = |r: &LeaseRequest| (r.name_any(), serde_json::to_value(r).expect("JSON"));
        Self { found: requests.iter().map(found).collect(), ..Self::default() }
    }

    fn log(&self, what: String) {
        self.asked.lock().expect("lock").push(what);
    }

    fn answer(&self, world: &World, parts: &http::request::Parts, body: &[u8]) -> (u16, serde_json::Value) {
        use std::sync::atomic::Ordering::Relaxed;
        if self.failures.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            self.log("fail".to_owned());
            return (500, serde_json::json!({ "status": "Failure", "reason": "InternalError", "code": 500 }));
        }
        if parts.method == http::Method::PUT {
            let lease: Lease = serde_json::from_slice(body).expect("a Lease");
            let phase = lease.status.as_ref().and_then(|s| s.phase).expect("a phase");
            self.log(format!("write {}", phase.as_str()));
            self.written.notify_one();
            return (200, serde_json::to_value(lease).expect("JSON"));
        }
        if parts.uri.path().ends_with("/configmaps") {
            let query = parts.uri.query().unwrap_or_default();
            assert!(query.contains("labelSelector=konductor.io%2Fpolicy-module%3Dtrue"), "{query}");
            let namespace = parts.uri.path().split('/').rev().nth(1).unwrap_or_default();
            self.log(format!("list {namespace}"));
            let there = query.contains(&format!("metadata.name%3D{namespace}-has-it"));
            let items = if there { vec![serde_json::json!({ "metadata": { "name": "p" } })] } else { vec![] };
            return (200, serde_json::json!({ "metadata": {}, "items": items }));
        }
        let name = parts.uri.path().rsplit('/').next().unwrap_or_default();
        self.log(format!("read {name}"));
        if let Some(on_read) = &self.on_read {
            on_read(world);
        }
        match self.found.iter().find(|(found, _)| found == name) {
            Some((_, found)) => (200, found.clone()),
            None => {
                let gone = serde_json::json!({
                    "status": "Failure", "reason": "NotFound", "code": 404, "details": { "name": name }
                });
                (404, gone)
            }
        }
    }
}

/// What a reconcile needs, with this API server; the lease is there.
fn context(server: &Arc<Server>) -> Context {
    let world = Arc::new(World::default());
    let (there, seen) = (server.clone(), world.clone());
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (there, seen) = (there.clone(), seen.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.expect("a body");
            let (code, body) = there.answer(&seen, &parts, &body);
            let body = kube::client::Body::from(serde_json::to_vec(&body).expect("JSON"));
            Ok::<_, std::io::Error>(http::Response::builder().status(code).body(body).expect("a response"))
        }
    });
    let clock: Arc<dyn Clock> = Arc::new(crate::clock::SystemClock);
    world.apply_lease(lease());
    let metrics = Arc::new(Metrics::new());
    let host = Arc::new(konductor_policy::Host::new().expect("a host"));
    let policies = Arc::new(crate::policies::Policies::new(host, "system".to_owned(), "default".to_owned()));
    let (answers, _jobs) = Answers::new();
    let (events, _events) = Events::new(metrics.clone());
    Context {
        client: Client::new(service, "ns"),
        world: world.clone(),
        decider: Arc::new(Decider::new(policies, world, metrics.clone(), events.clone(), None, 16)),
        answers,
        events,
        metrics,
        clock,
        settings: Settings::default(),
        skew: Duration::ZERO,
    }
}

/// Reconciles against this API server. `before` sets the scene. Returns what is next, and what the API server was
/// asked.
async fn reconciled(server: Server, before: impl FnOnce(&Context)) -> (Next, Vec<String>) {
    let server = Arc::new(server);
    let ctx = context(&server);
    before(&ctx);
    let next = reconcile(&ctx, &Key::new("ns", "l"), Instant::now()).await.expect("an end");
    let asked = server.asked.lock().expect("lock").clone();
    (next, asked)
}

/// Reconciles against an API server that has these requests. Returns what the API server was asked, and what was
/// written.
async fn asked(found: &[LeaseRequest], before: impl FnOnce(&Context)) -> Vec<String> {
    reconciled(Server::with(found), before).await.1
}

/// The watch has shown this request.
fn watched(ctx: &Context, request: LeaseRequest) {
    ctx.world.request_watched(request, ctx.clock.read(), Millis(0));
}

/// The requests were seen up to this version.
fn seen_up_to(ctx: &Context, version: &str) {
    let mut elsewhere = request(version);
    (elsewhere.metadata.name, elsewhere.metadata.uid) = (Some("e".to_owned()), Some("e".to_owned()));
    "elsewhere".clone_into(&mut elsewhere.spec.lease);
    watched(ctx, elsewhere);
}

/// The API server has these, and the requests were seen up to this version: one of them waits.
async fn asked_for_a_grant(requests_seen: &str, found: &[LeaseRequest]) -> Vec<String> {
    asked(found, |ctx| {
        watched(ctx, request("5"));
        seen_up_to(ctx, requests_seen);
    })
    .await
}

fn over(mut request: LeaseRequest) -> LeaseRequest {
    let status = LeaseRequestStatus { phase: Some(RequestPhase::Finished), ..LeaseRequestStatus::default() };
    request.status = Some(status);
    request
}

/// The request of the oldest hold in the history.
fn oldest() -> LeaseRequest {
    let mut oldest = request("5");
    (oldest.metadata.name, oldest.metadata.uid) = (Some("past-1".to_owned()), Some("past-1".to_owned()));
    "b".clone_into(&mut oldest.spec.holder);
    oldest
}

/// A free lease that has had eight holds.
fn lease() -> Lease {
    let past = |n: i64| PastHold {
        holder: "x".to_owned(),
        request: format!("past-{n}"),
        request_name: format!("past-{n}"),
        token: n,
        acquired: format_timestamp(0),
        ended: format_timestamp(1),
        how: HoldEnd::Released,
    };
    let mut lease = Lease::new("l", LeaseSpec { ttl: "30s".to_owned(), ..LeaseSpec::default() });
    lease.metadata.namespace = Some("ns".to_owned());
    lease.metadata.uid = Some("lease-uid".to_owned());
    lease.metadata.resource_version = Some("100".to_owned());
    lease.status = Some(LeaseStatus {
        phase: Some(LeasePhase::Available),
        fencing_token: Some(8),
        history: (1..=8).rev().map(past).collect(),
        ..LeaseStatus::default()
    });
    lease
}

fn request(version: &str) -> LeaseRequest {
    let spec = LeaseRequestSpec { lease: "l".to_owned(), holder: "a".to_owned(), ..LeaseRequestSpec::default() };
    let mut request = LeaseRequest::new("r", spec);
    request.metadata.namespace = Some("ns".to_owned());
    request.metadata.uid = Some("u".to_owned());
    request.metadata.resource_version = Some(version.to_owned());
    request
}

/// A free lease that somebody gets.
#[cfg(feature = "otlp")]
pub(crate) async fn one_grant() {
    assert_eq!(asked_for_a_grant("100", &[]).await, ["write Held"]);
}

// A replica that was frozen has fresh leases beside old requests: see konductor_core::doubt.
#[tokio::test]
async fn a_request_that_may_have_held_already_is_asked_for_before_it_is_granted() {
    let asked = asked_for_a_grant("100", &[]).await;
    assert_eq!(asked, ["write Held"], "the requests are as new as the lease: nothing to ask");
    let all = ["read r", "read past-2", "read past-1"];
    let and = |then: &'static str| [&all[..], &[then]].concat();
    let asked = asked_for_a_grant("99", &[]).await;
    assert_eq!(asked, and("write Available"), "it is gone, and nobody gets the lease");
    let asked = asked_for_a_grant("99", &[request("5")]).await;
    assert_eq!(asked, and("write Held"), "it still waits, as it was");
    let asked = asked_for_a_grant("99", &[over(request("60"))]).await;
    assert_eq!(asked, and("write Available"), "it has had its hold");
}

#[tokio::test]
async fn a_request_that_is_only_not_here_yet_is_not_forgotten() {
    let of_oldest = |mut request: LeaseRequest| {
        request.metadata.resource_version = Some("99".to_owned());
        request
    };
    let all = ["read r", "read past-2", "read past-1"];
    let asked = asked_for_a_grant("98", &[request("5"), of_oldest(oldest())]).await;
    assert_eq!(asked, [&all[..], &["write Available"]].concat(), "the oldest hold's request is there, and unmarked");
    let asked = asked_for_a_grant("98", &[request("5"), of_oldest(over(oldest()))]).await;
    assert_eq!(asked, [&all[..], &["write Held"]].concat(), "it is marked");
}

#[tokio::test]
async fn a_policy_that_is_only_not_here_yet_is_waited_for() {
    let scene = async |policy: &str| {
        let (next, asked) = reconciled(Server::default(), |ctx| {
            let mut lease = lease();
            lease.spec.policy = Some(PolicySpec { name: Some(policy.to_owned()), ..PolicySpec::default() });
            ctx.world.apply_lease(lease);
            watched(ctx, request("5"));
            seen_up_to(ctx, "100");
        })
        .await;
        let later = next == Next::Again(CONFLICT_RETRY);
        assert_eq!(later, !asked.iter().any(|asked| asked.starts_with("write")), "{next:?}");
        asked
    };
    assert_eq!(scene("nowhere").await, ["list ns", "list system", "write Held"], "spec.policy.onFailure counts");
    assert_eq!(scene("ns-has-it").await, ["list ns"], "nothing is written: its watch will bring it");
    assert_eq!(scene("system-has-it").await, ["list ns", "list system"]);
}

// A lease that was deleted and made anew has no history, and a replica whose watch of requests is late may believe
// that a request which has held the old one still waits; it may even be about to tell it so.
#[tokio::test]
async fn a_request_that_may_have_held_a_former_lease_is_asked_for_before_it_is_granted() {
    let at = |second: i64| serde_json::from_value(format_timestamp(second * 1_000).into()).ok();
    let made = |mut request: LeaseRequest, second: i64| {
        request.metadata.creation_timestamp = at(second);
        request
    };
    let scene = async |seen: LeaseRequest, there: LeaseRequest| {
        asked(&[there], |ctx| {
            let mut anew = lease();
            anew.metadata.creation_timestamp = at(100);
            anew.status = None;
            ctx.world.delete_lease(&lease());
            ctx.world.apply_lease(anew);
            let id = RequestId { name: "r".to_owned(), uid: "u".to_owned() };
            let answer = RequestAnswer { request: id, version: 5, sequence: 5, answer: Answer::NoLease };
            ctx.answers.send(&Key::new("ns", "l"), &[answer]);
            watched(ctx, seen);
        })
        .await
    };
    let mut granted = over(made(request("60"), 90));
    granted.status.get_or_insert_default().phase = Some(RequestPhase::Granted);
    assert_eq!(scene(made(request("5"), 90), granted).await, ["read r", "write Available"], "it has had its hold");
    let waits = made(request("5"), 90);
    assert_eq!(scene(waits.clone(), waits).await, ["read r", "write Held"], "it has waited for a lease");
    let newer = made(request("5"), 110);
    assert_eq!(scene(newer.clone(), newer).await, ["write Held"], "it never was beside another lease");
}

// The next hold's end pushes the oldest one out of the history, and then only the mark tells that its
// request is over. The API server that is to take the mark may die with it.
#[tokio::test]
async fn a_hold_is_forgotten_when_its_requests_mark_was_seen_and_not_when_it_is_on_its_way() {
    let scene = async |oldest: LeaseRequest, on_the_way: bool| {
        asked(&[], |ctx| {
            watched(ctx, request("6"));
            watched(ctx, oldest);
            seen_up_to(ctx, "100");
            if on_the_way {
                let id = RequestId { name: "past-1".to_owned(), uid: "past-1".to_owned() };
                let answer = Answer::Over(Ending::Released);
                ctx.answers
                    .send(&Key::new("ns", "l"), &[RequestAnswer { request: id, version: 5, sequence: 5, answer }]);
            }
        })
        .await
    };
    assert_eq!(scene(oldest(), false).await, ["write Available"], "it is not even told");
    assert_eq!(scene(oldest(), true).await, ["write Available"], "what it is told may be lost");
    assert_eq!(scene(over(oldest()), false).await, ["write Held"], "it is marked");
}

/// The lease, held by the request that [`request`] makes, until this millisecond.
fn held_until(expires: i64) -> Lease {
    let mut lease = lease();
    let status = lease.status.get_or_insert_default();
    status.phase = Some(LeasePhase::Held);
    status.holder = Some("a".to_owned());
    (status.acquired, status.renewed) = (Some(format_timestamp(0)), Some(format_timestamp(0)));
    status.expires = Some(format_timestamp(expires));
    let id = RequestRef { name: "r".to_owned(), uid: "u".to_owned(), ..RequestRef::default() };
    status.request = Some(id);
    lease
}

#[tokio::test]
async fn a_lease_is_looked_at_again_when_its_hold_is_due() {
    let (next, asked) = reconciled(Server::default(), |ctx| {
        watched(ctx, request("5"));
        seen_up_to(ctx, "100");
    })
    .await;
    assert_eq!(asked, ["write Held"]);
    let Next::After(wake) = next else { panic!("{next:?}") };
    // The spec says 30s. Some of it may be over already, on a busy machine.
    assert!(wake > Duration::from_secs(10) && wake <= Duration::from_secs(30), "{wake:?}");
}

// A request may overtake the news of its own lease.
#[tokio::test]
async fn no_request_is_told_that_there_is_no_lease_before_the_api_server_has_said_so() {
    let found = |lease: &Lease| vec![("l".to_owned(), serde_json::to_value(lease).expect("JSON"))];
    let scene = async |server: Server, seen: Option<Lease>| {
        let told = std::cell::OnceCell::new();
        let (next, asked) = reconciled(server, |ctx| {
            ctx.world.delete_lease(&lease());
            if let Some(seen) = seen {
                ctx.world.apply_lease(seen);
            }
            watched(ctx, request("100"));
            told.set(ctx.answers.clone()).map_err(|_| "once").expect("once");
        })
        .await;
        let on_its_way = told.get().expect("set").on_the_way("u", 100).is_some();
        (next, asked, on_its_way)
    };
    let (_, asked, told) = scene(Server::default(), None).await;
    assert_eq!((asked, told), (vec!["read l".to_owned()], true), "there is none, and it is told so");
    let there = Server { found: found(&lease()), ..Server::default() };
    let (_, asked, _) = scene(there, None).await;
    assert_eq!(asked, ["read l", "write Held"], "it is only not here yet");
    // An API server that keeps showing what is older than what its watch has shown: there must be an end.
    let mut going = lease();
    going.metadata.deletion_timestamp = serde_json::from_value("2026-01-01T00:00:00Z".into()).ok();
    going.metadata.resource_version = Some("200".to_owned());
    let behind = Server { found: found(&lease()), ..Server::default() };
    let (_, asked, told) = scene(behind, Some(going)).await;
    assert_eq!((asked, told), (vec!["read l".to_owned(); CONFIRM_TRIES], true));
}

#[tokio::test]
async fn a_lease_whose_request_nobody_sees_is_left_alone() {
    let hours_from_now = crate::clock::SystemClock.read().now().0 + 7_200_000;
    let scene = async |expires: i64, server: Server| {
        reconciled(server, |ctx| {
            ctx.world.apply_lease(held_until(expires));
            seen_up_to(ctx, "100");
        })
        .await
    };
    // It says that it is there, and the watch has shown more than that without it: two truths.
    let (next, asked) = scene(hours_from_now, Server::with(&[request("5")])).await;
    assert_eq!((next, asked), (Next::Again(CONFLICT_RETRY), vec!["read r".to_owned(); CONFIRM_TRIES]));
    let (_, asked) = scene(hours_from_now, Server::default()).await;
    assert_eq!(asked, ["read r", "write Available"], "it is gone, so the lease was released");
    let (next, asked) = scene(hours_from_now, Server::with(&[request("150")])).await;
    assert_eq!(asked, ["read r", "write Held"], "it is there, and only the conditions were missing");
    assert!(matches!(next, Next::After(_)), "{next:?}");
}

#[tokio::test]
async fn a_lease_that_changes_hands_while_it_is_asked_about_is_left_for_later() {
    let version = std::sync::atomic::AtomicI64::new(100);
    let changes = move |world: &World| {
        let mut changed = lease();
        let next = version.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        changed.metadata.resource_version = Some(next.to_string());
        world.apply_lease(changed);
    };
    let all = [request("5"), over(oldest())];
    let server = Server { on_read: Some(Box::new(changes)), ..Server::with(&all) };
    let (next, asked) = reconciled(server, |ctx| {
        watched(ctx, request("5"));
        seen_up_to(ctx, "99");
    })
    .await;
    assert_eq!(next, Next::Again(CONFLICT_RETRY));
    assert!(asked.iter().all(|asked| asked.starts_with("read ")), "{asked:?}");
    let rounds = asked.iter().filter(|asked| *asked == "read r").count();
    assert_eq!(rounds, CONFIRM_TRIES, "{asked:?}");
}

#[tokio::test]
async fn what_fails_is_tried_again_until_it_is_done() {
    let server = Arc::new(Server { failures: 2.into(), ..Server::default() });
    let ctx = Arc::new(context(&server));
    watched(&ctx, request("5"));
    seen_up_to(&ctx, "100");
    let (queue, failures) = (Arc::new(Queue::default()), Arc::new(Failures::default()));
    let (stop, go) = tokio::sync::watch::channel(true);
    let mut worker = tokio::spawn(work(ctx.clone(), queue.clone(), failures.clone(), go));
    let key = Key::new("ns", "l");
    queue.push(key.clone());
    tokio::select! {
        () = server.written.notified() => {}
        ended = &mut worker => panic!("it works until it is told to stop: {ended:?}"),
    }
    stop.send(false).expect("it listens");
    worker.await.expect("it stops when what it does is done");
    assert_eq!(*server.asked.lock().expect("lock"), ["fail", "fail", "write Held"]);
    assert_eq!(failures.pause(&key), FAILURE_RETRY_FIRST, "what has worked has not failed");
    assert_eq!(queue.asked_since(&key), None, "it is not in work any more");
}

#[test]
fn a_span_of_the_rules_is_a_span_of_the_shell() {
    assert_eq!(millis(Millis(1_500)), Duration::from_millis(1_500));
    assert_eq!(millis(Millis(-1)), Duration::ZERO, "it is due");
    assert_eq!(skew_millis(Duration::from_millis(1_500)), Millis(1_500));
}
