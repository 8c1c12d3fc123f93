//! What one request concludes from what it sees, with a clock that tests set.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use konductor_crds::{LeaseRequestStatus, LeaseSpec};

use super::*;
use crate::client::{Clock, Moment, scripted};

/// A clock that tests set, in milliseconds.
#[derive(Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Clock for Hands {
    fn now(&self) -> Moment {
        Moment::new(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }
}

/// A client of an API server that refuses connections, and its clock.
fn client() -> (Client, Hands) {
    let hands = Hands::default();
    (Client::new(scripted::client(&[]).0, "default").with_clock(Arc::new(hands.clone())), hands)
}

fn attempt<'a>(client: &'a Client, want: &'a Acquire) -> Attempt<'a> {
    let mut attempt = Attempt::new(client, want, "acquire", "r".to_owned(), None);
    attempt.created = Some(Created { uid: "u".to_owned(), version: "1".to_owned() });
    attempt
}

// Time is paused: pauses between tries take none.
#[tokio::test(start_paused = true)]
async fn a_grant_counts_from_before_it_was_asked_for_and_is_no_hold_when_that_is_over() {
    let grant = Grant {
        token: 7,
        acquired: "then".to_owned(),
        expires: "later".to_owned(),
        length_ms: 10_000,
        renewals: 0,
        acted_on: 1,
        counted: 0,
    };
    // Of 10 s half a second is margin; it was created at 1 s.
    for (seen_at, holds) in [(1_001, true), (10_499, true), (10_500, false), (60_000, false)] {
        let (client, hands) = client();
        let want = Acquire::new("x", "me");
        hands.0.store(1_000, Ordering::SeqCst);
        let attempt = attempt(&client, &want);
        // A beat that nobody has answered changes nothing.
        hands.0.store(seen_at, Ordering::SeqCst);
        drop(attempt.beat());
        match attempt.held(grant.clone(), None).await {
            Ending::Held(hold) => {
                assert!(holds, "{seen_at}");
                assert_eq!(hold.deadline(), Moment::new(Duration::from_millis(10_500)));
                assert_eq!((hold.token, hold.counter, hold.request.uid.as_str()), (7, 0, "u"));
                assert_eq!((hold.request.renewals, hold.request.counted), (1, Some(0)));
            }
            Ending::Failed(error) => {
                assert!(!holds, "{seen_at}: {error}");
                assert!(matches!(error.problem(), Problem::Lost { .. }), "{error}");
            }
            Ending::Lapsed => panic!("it did not lapse"),
        }
    }
}

#[tokio::test]
async fn a_request_says_who_makes_it_and_what_it_has_become_is_known_by_its_uid() {
    let owner = OwnerReference { name: "pod".to_owned(), ..OwnerReference::default() };
    let client = client().0.with_owner(Some(owner.clone()));
    let want = Acquire::new("x", "me");
    let attempt = attempt(&client, &want);
    let mut sent = attempt.object();
    let ObjectMeta { name, namespace, labels, owner_references, .. } = &sent.metadata;
    assert_eq!((name.as_deref(), namespace.as_deref()), (Some("r"), Some("default")));
    assert_eq!(labels.as_ref().and_then(|labels| labels.get(LEASE_LABEL)).map(String::as_str), Some("x"));
    assert_eq!(owner_references.as_deref(), Some(&[owner][..]));
    assert_eq!(sent.spec, want.spec());
    sent.metadata.uid = Some("u".to_owned());
    sent.metadata.resource_version = Some("9".to_owned());
    let Created { uid, version } = Created::from(sent);
    assert_eq!((uid.as_str(), version.as_str()), ("u", "9"));
}

#[tokio::test]
async fn a_request_that_has_ended_does_not_come_back() {
    let (client, _) = client();
    let want = Acquire::new("x", "me");
    let said = |phase| {
        let mut request = LeaseRequest::new("r", want.spec());
        request.status = Some(LeaseRequestStatus { phase: Some(phase), ..LeaseRequestStatus::default() });
        request
    };
    let phase = |attempt: &Attempt<'_>| attempt.own.present()?.status.as_ref()?.phase;
    for ended in [RequestPhase::Denied, RequestPhase::Finished] {
        let mut attempt = attempt(&client, &want);
        attempt.see_own(said(RequestPhase::Pending));
        assert_eq!(phase(&attempt), Some(RequestPhase::Pending));
        attempt.see_own(said(ended));
        assert_eq!(phase(&attempt), Some(ended));
        attempt.see_own(said(RequestPhase::Pending));
        assert_eq!(phase(&attempt), Some(ended), "an answer that was late");
        attempt.own = Known::Gone;
        attempt.see_own(said(RequestPhase::Pending));
        assert!(matches!(attempt.own.view(), View::Gone), "it was deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_and_the_wait_for_a_controller_begins_anew_after_it() {
    let (client, _) = client();
    let want = Acquire::new("x", "me");
    let mut attempt = attempt(&client, &want);
    let told = std::cell::RefCell::new(Vec::new());
    let mut progress = |progress: Progress<'_>| {
        told.borrow_mut().push(match progress {
            Progress::Outage { why } => why.to_owned(),
            Progress::Recovered => "recovered".to_owned(),
            Progress::Requested { .. } | Progress::Waiting { .. } | Progress::Lapsed => "else".to_owned(),
        });
    };
    let soon = Instant::now() + Duration::from_millis(1);
    let mut silence_at = Some(soon);
    attempt.recovered(&mut silence_at, &mut progress);
    assert_eq!(silence_at, Some(soon), "there was no outage");
    attempt.trouble("refused", &mut progress);
    attempt.trouble("refused again", &mut progress);
    attempt.recovered(&mut silence_at, &mut progress);
    assert_eq!(silence_at, Some(Instant::now() + CONTROLLER_TIMEOUT));
    let mut answered = None;
    attempt.trouble("refused", &mut progress);
    attempt.recovered(&mut answered, &mut progress);
    assert_eq!(answered, None, "a controller has answered already");
    assert_eq!(*told.borrow(), ["refused", "recovered", "refused", "recovered"]);
}

// Time is paused: pauses between tries take none.
#[tokio::test(start_paused = true)]
async fn who_cannot_see_the_lease_does_not_say_that_it_was_not_free() {
    for (seconds, answered, outage, code, says) in [
        (5, true, false, 1, "did not become free within 5s"),
        (5, true, true, 5, "the API server did not answer"),
        (5, false, false, 5, "no controller answered within 5 s"),
        // So soon its silence says nothing.
        (1, false, false, 1, "did not become free within 1s"),
    ] {
        let want = Acquire { wait: Wait::AtMost(Duration::from_secs(seconds)), ..Acquire::new("x", "me") };
        let (client, _) = client();
        let mut attempt = attempt(&client, &want);
        (attempt.outage, attempt.answered) = (outage, answered);
        match attempt.too_late().await {
            Ending::Failed(error) => assert!(error.exit_code() == code && error.to_string().contains(says), "{error}"),
            Ending::Held(_) | Ending::Lapsed => panic!("its time is over"),
        }
    }
}

#[test]
fn a_short_ttl_is_waited_for_with_a_faster_beat() {
    for (asked, lease, expected_ms) in [
        (None, None, 10_000),
        (None, Some("10m"), 10_000),
        (None, Some("6s"), 2_000),
        (Some("6s"), Some("10m"), 2_000),
        (Some("10m"), Some("6s"), 2_000),
        (Some("3s"), None, 1_000),
        (None, Some("150ms"), 100),
        (None, Some("not a duration"), 10_000),
    ] {
        let lease = lease.map(|ttl| Lease::new("x", LeaseSpec { ttl: ttl.into(), ..LeaseSpec::default() }));
        assert_eq!(beat_interval(asked, lease.as_ref()), Duration::from_millis(expected_ms), "{asked:?}");
    }
}
