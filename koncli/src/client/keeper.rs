//! What renews a guarded hold, and sees in the Lease what becomes of it.

use std::time::Duration;

use futures::StreamExt as _;
use konductor_crds::{Lease, time::parse_timestamp, v1::Preemption};
use tokio::sync::{oneshot, watch};

use super::{
    Client,
    clock::{Moment, sleep_until},
    decide::{grant_to, how_lost, is_before},
    error::{Error, Problem},
    guard::{AskedBack, Standing},
    hold::{Hold, margin},
    names::jitter,
    watch::Seen,
};

/// How long one attempt to renew may take: long enough for a slow API server, and short enough for a second attempt.
const ATTEMPT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// The pause after an attempt that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The pause before the Lease is watched again where watching failed.
const WATCH_PAUSE: Duration = Duration::from_secs(2);

/// How a renewal went.
enum Renewal {
    Done,
    Refused(String),
    Failed(String),
    Lost(String),
    Stopped,
}

/// Renews a hold until it is told to stop, or the hold is lost.
pub(super) struct Keeper {
    client: Client,
    hold: Hold,
    tell: watch::Sender<Standing>,
}

impl Keeper {
    pub(super) fn new(client: Client, hold: Hold, tell: watch::Sender<Standing>) -> Self {
        Self { client, hold, tell }
    }

    /// Runs until `stop` is sent or dropped, and gives the hold back.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Hold {
        let mut renew_at = self.counted_from().after(self.interval());
        let mut watch_at = self.client.now();
        while self.tell.borrow().lost.is_none() {
            let clock = self.client.clock().clone();
            let (relied_on_until, asked) = {
                let standing = self.tell.borrow();
                (standing.relied_on_until(), standing.asked_back.is_some())
            };
            tokio::select! {
                biased;
                _ = &mut stop => break,
                () = sleep_until(&*clock, relied_on_until) => self.lost(self.too_late()),
                // Renewals are refused to whom the lease is asked back from.
                () = sleep_until(&*clock, renew_at), if !asked => {
                    let renewal = self.renew(&mut stop).await;
                    let now = self.client.now();
                    renew_at = match renewal {
                        Renewal::Done => {
                            self.renewed();
                            now.after(self.interval())
                        }
                        Renewal::Refused(why) => {
                            self.tell.send_modify(|standing| standing.trouble = Some(why));
                            now.after(self.interval())
                        }
                        Renewal::Failed(why) => {
                            self.tell.send_modify(|standing| standing.trouble = Some(why));
                            now.after(self.share(20, PAUSE))
                        }
                        Renewal::Lost(how) => {
                            self.lost(how);
                            now
                        }
                        Renewal::Stopped => break,
                    };
                }
                seen = Self::seen(&self.client, &mut self.hold, watch_at) => match seen {
                    Some(Ok(Seen::Present(lease))) => self.judge(&lease),
                    Some(Ok(Seen::Gone)) => self.lost("the lease was deleted".to_owned()),
                    // Only renewals count; they say themselves what is wrong.
                    Some(Ok(Seen::Trouble(_))) => {}
                    Some(Err(_)) | None => {
                        self.hold.watch = None;
                        watch_at = self.client.now().after(WATCH_PAUSE);
                    }
                },
            }
        }
        self.hold
    }

    /// The next thing that the hold's watch tells; there is a new one where there is none.
    async fn seen(
        client: &Client,
        hold: &mut Hold,
        not_before: Moment,
    ) -> Option<Result<Seen<Lease>, super::error::CallFailure>> {
        if hold.watch.is_none() {
            sleep_until(&**client.clock(), not_before).await;
            hold.watch = Some(client.watch_lease(&hold.lease));
        }
        match &mut hold.watch {
            Some(watch) => watch.next().await,
            None => None,
        }
    }

    async fn renew(&mut self, stop: &mut oneshot::Receiver<()>) -> Renewal {
        let clock = self.client.clock().clone();
        let most = self.share(6, ATTEMPT);
        let until = self.client.now().after(most).min(self.hold.deadline());
        let client = self.client.clone();
        tokio::select! {
            biased;
            _ = stop => Renewal::Stopped,
            done = client.renew_hold(&mut self.hold) => match done {
                Ok(()) => Renewal::Done,
                Err(error) => classified(&error),
            },
            () = sleep_until(&*clock, until) => Renewal::Failed(format!("no answer within {:.1} s", most.as_secs_f64())),
        }
    }

    /// Concludes from the Lease as it was seen.
    fn judge(&mut self, lease: &Lease) {
        let status = lease.status.as_ref();
        if is_before(self.hold.token, lease) {
            return;
        }
        let Some(grant) = grant_to(&self.hold.request.uid, lease) else {
            return self.lost(how_lost(&self.hold.request.uid, lease));
        };
        let asked = status.and_then(|status| status.preemption.as_ref());
        let asked = asked.map(|asked| self.asked_back(asked, &grant.expires));
        self.tell.send_if_modified(|standing| {
            let before = standing.asked_back.as_ref().map(|asked| (&asked.by, asked.until, asked.force));
            let changed = before != asked.as_ref().map(|asked| (&asked.by, asked.until, asked.force));
            standing.asked_back = asked;
            changed
        });
    }

    /// A hand-over in this process's time. The controller's times are compared with each other only: the hand-over's
    /// deadline lies so much after the hold's last renewal, which was after we had sent it.
    fn asked_back(&self, asked: &Preemption, expires: &str) -> AskedBack {
        let (end, ttl) = (self.hold.deadline(), self.ttl());
        let until = match (parse_timestamp(expires), parse_timestamp(&asked.deadline)) {
            (Some(expires), Some(until)) => {
                let before = Duration::from_millis(u64::try_from(expires.saturating_sub(until)).unwrap_or_default());
                let span = ttl.saturating_sub(before);
                // Only what is enforced then needs a margin.
                let margin = if asked.force { margin(span) } else { Duration::ZERO };
                self.counted_from().after(span - margin).min(end)
            }
            _ => end,
        };
        AskedBack { by: asked.by.clone(), until, force: asked.force, reason: asked.reason.clone() }
    }

    /// A moment before the controller computed when the hold ends.
    fn counted_from(&self) -> Moment {
        let ttl = self.ttl();
        self.hold.deadline().before(ttl - margin(ttl))
    }

    fn renewed(&self) {
        self.tell.send_modify(|standing| {
            standing.deadline = self.hold.deadline();
            standing.ttl = self.ttl();
            standing.expires.clone_from(&self.hold.expires);
            standing.renewals = self.hold.renewals;
            standing.trouble = None;
        });
    }

    fn lost(&self, how: String) {
        self.tell.send_modify(|standing| standing.lost = Some(how));
    }

    fn too_late(&self) -> String {
        let standing = self.tell.borrow();
        match (&standing.asked_back, &standing.trouble) {
            (Some(asked), _) => format!("it was asked back in favour of {} and not released in time", asked.by),
            (None, Some(why)) => format!("it could not be renewed in time: {why}"),
            (None, None) => "it was not renewed in time: this process did not run".to_owned(),
        }
    }

    fn ttl(&self) -> Duration {
        self.hold.ttl()
    }

    /// At most a third of the ttl, so that a renewal may fail and be tried again; jittered, so that holders do not march
    /// in step.
    fn interval(&self) -> Duration {
        (self.ttl() / 3).mul_f64(jitter(&*self.client.random) - 0.2)
    }

    fn share(&self, of: u32, (least, most): (Duration, Duration)) -> Duration {
        (self.ttl() / of).clamp(least, most)
    }
}

fn classified(error: &Error) -> Renewal {
    match error.problem() {
        Problem::Lost { how } => Renewal::Lost(how.clone()),
        Problem::Denied { reason } => Renewal::Refused(reason.clone()),
        problem => Renewal::Failed(problem.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use konductor_crds::{
        LeaseSpec, LeaseStatus,
        time::format_timestamp,
        v1::{LeasePhase, RequestRef},
    };
    use tokio::time::Instant;

    use super::*;
    use crate::client::{Clock, scripted};

    /// A clock that runs with tokio's.
    struct Ticks(Instant);

    impl Clock for Ticks {
        fn now(&self) -> Moment {
            Moment::new(self.0.elapsed())
        }
    }

    /// What a watch shows of a hold of 30 s that is asked back 20 s before its end.
    fn asked_back(force: bool) -> String {
        let mut lease = Lease::new("x", LeaseSpec { ttl: "30s".to_owned(), ..LeaseSpec::default() });
        lease.metadata.resource_version = Some("8".to_owned());
        lease.status = Some(LeaseStatus {
            phase: Some(LeasePhase::Held),
            holder: Some("me".to_owned()),
            acquired: Some(format_timestamp(0)),
            expires: Some(format_timestamp(30_000)),
            fencing_token: Some(7),
            request: Some(RequestRef { name: "r".to_owned(), uid: "u".to_owned(), renewals: 0, counted: None }),
            preemption: Some(Preemption {
                by: "b".to_owned(),
                deadline: format_timestamp(10_000),
                force,
                ..Preemption::default()
            }),
            ..LeaseStatus::default()
        });
        serde_json::json!({"type": "ADDED", "object": lease}).to_string() + "\n"
    }

    // Time is paused: it jumps to the next timer as soon as nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn a_hand_over_by_force_ends_the_hold_in_time_although_nothing_more_is_heard() {
        for (force, ends_ms) in [(true, 9_500), (false, 28_500)] {
            let began = Instant::now();
            let (kube, _) = scripted::client(&[(200, asked_back(force))]);
            let client = Client::new(kube, "default").with_clock(std::sync::Arc::new(Ticks(began)));
            let hold = scripted::hold(&client);
            let guard = client.guard(hold);
            let asked = guard.asked_back().await;
            assert!(asked.force == force && guard.is_held(), "{asked:?}");
            let how = guard.lost().await;
            let (after, ends) = (began.elapsed(), Duration::from_millis(ends_ms));
            // Who sleeps looks at the clock once a second at least, so it is not late by more than a timer's tick.
            assert!(after >= ends && after < ends + Duration::from_millis(100), "force {force}: {how} after {after:?}");
            assert!(!guard.is_held());
        }
    }
}
