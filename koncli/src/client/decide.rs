//! What a client may conclude from what it sees: pure functions, the heart of this library.
//!
//! The rule behind all of them: the Lease's status is the only truth. The LeaseRequest's status is
//! advice; it can end a wait, and never begins a hold.

use konductor_crds::{
    Lease, LeaseRequest, LeaseStatus,
    time::parse_timestamp,
    v1::{HoldEnd, LeasePhase, RequestPhase, reasons},
};

/// What is known of an object.
#[derive(Debug)]
pub(crate) enum View<'a, K> {
    /// Nothing yet.
    Unknown,
    /// It is not there.
    Gone,
    /// It was last seen like this.
    Present(&'a K),
}

// By hand: derived, they would ask the same of K.
impl<K> Clone for View<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for View<'_, K> {}

impl<'a, K> View<'a, K> {
    fn present(self) -> Option<&'a K> {
        match self {
            Self::Present(object) => Some(object),
            Self::Unknown | Self::Gone => None,
        }
    }
}

/// A grant as the Lease tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) token: i64,
    pub(crate) acquired: String,
    pub(crate) expires: String,
    /// How long it lasts from the grant or the last renewal: both ends by the controller's clock, at
    /// the same moment.
    pub(crate) length_ms: i64,
    /// How often this hold was renewed.
    pub(crate) renewals: i64,
    /// The value of the request's counter that the controller last acted on, granted or refused.
    pub(crate) acted_on: i64,
    /// The value of the request's counter when the controller computed the length: the deadline counts from
    /// before that was sent, also where a later one was refused since.
    pub(crate) counted: i64,
}

/// The grant to the request with this uid, if the Lease says that it holds.
pub(crate) fn grant_to(uid: &str, lease: &Lease) -> Option<Grant> {
    let status = held_by(uid, lease)?;
    let (acquired, expires) = (status.acquired.clone()?, status.expires.clone()?);
    let renewals = status.renewals.unwrap_or_default();
    // Without `renewed` only a first grant has a length that can be told.
    let since = status.renewed.as_deref().or_else(|| (renewals == 0).then_some(acquired.as_str()))?;
    let length_ms = parse_timestamp(&expires)?.checked_sub(parse_timestamp(since)?)?;
    let request = status.request.as_ref()?;
    Some(Grant {
        token: status.fencing_token.unwrap_or_default(),
        acquired,
        expires,
        length_ms,
        renewals,
        acted_on: request.renewals,
        counted: request.counted.unwrap_or(request.renewals),
    })
}

fn held_by<'a>(uid: &str, lease: &'a Lease) -> Option<&'a LeaseStatus> {
    let status = lease.status.as_ref()?;
    let holds =
        status.phase == Some(LeasePhase::Held) && status.request.as_ref().is_some_and(|request| request.uid == uid);
    holds.then_some(status)
}

/// The reference to the request that holds a Lease, where somebody does.
pub(crate) fn holding_uid(lease: &Lease) -> Option<&str> {
    let status = lease.status.as_ref().filter(|status| status.phase == Some(LeasePhase::Held))?;
    Some(&status.request.as_ref()?.uid)
}

/// Where an acquire stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Acquiring {
    /// The Lease says that this request holds.
    Held(Grant),
    /// Nothing is decided. `contended`: somebody else holds the lease, so the answer may come as
    /// the request's status. `answered`: a controller has looked at the request.
    Wait { contended: bool, answered: bool },
    /// The policy will never grant this request.
    Denied(String),
    /// A controller does not understand the request.
    InvalidRequest(String),
    /// It was not granted within its own timeout.
    TimedOut,
    /// There is no such Lease.
    NoLease,
    /// A newer request of the same holder took its place while it waited.
    Superseded,
    /// The request was deleted by somebody else.
    Withdrawn,
    /// It held the lease, and the hold was over before it was seen.
    Over(String),
    /// So many wait that there is no place for one more.
    Crowded(String),
}

/// Where the acquire with the request `uid` stands.
pub(crate) fn acquiring(uid: &str, lease: View<'_, Lease>, request: View<'_, LeaseRequest>) -> Acquiring {
    if let Some(grant) = lease.present().and_then(|lease| grant_to(uid, lease)) {
        return Acquiring::Held(grant);
    }
    let status = match request {
        View::Gone => return Acquiring::Withdrawn,
        View::Unknown => None,
        View::Present(request) => request.status.as_ref(),
    };
    let reason = status.and_then(|status| status.reason.as_deref()).unwrap_or_default();
    let message = || status.and_then(|status| status.message.clone()).unwrap_or_else(|| reason.to_owned());
    match status.and_then(|status| status.phase) {
        Some(RequestPhase::Denied) if reason == reasons::INVALID_REQUEST => return Acquiring::InvalidRequest(message()),
        Some(RequestPhase::Denied) if reason == reasons::TOO_MANY_WAITING => return Acquiring::Crowded(message()),
        Some(RequestPhase::Denied) => return Acquiring::Denied(message()),
        Some(RequestPhase::Finished) => {
            return match reason {
                _ if matches!(lease, View::Gone) => Acquiring::NoLease,
                reasons::SUPERSEDED => Acquiring::Superseded,
                reasons::TIMED_OUT => Acquiring::TimedOut,
                _ => Acquiring::Over(message()),
            };
        }
        Some(RequestPhase::Pending | RequestPhase::Granted) | None => {}
    }
    if matches!(lease, View::Gone) {
        return Acquiring::NoLease;
    }
    let contended = lease.present().and_then(holding_uid).is_some_and(|holder| holder != uid);
    Acquiring::Wait { contended, answered: status.is_some_and(|status| status.phase.is_some()) }
}

/// Why a lease is granted to nobody who waits, if it is not for a holder.
pub(crate) fn why_not_granted(lease: &Lease) -> Option<String> {
    let status = lease.status.as_ref()?;
    if holding_uid(lease).is_some() {
        return None;
    }
    let wrong = |type_: &str| {
        let condition = status.conditions.iter().find(|found| found.type_ == type_ && found.status == "False")?;
        Some(condition.message.clone().or_else(|| condition.reason.clone()).unwrap_or_default())
    };
    if let Some(problem) = wrong(reasons::READY) {
        return Some(format!("nobody holds it, and nobody gets it while something is wrong with it: {problem}"));
    }
    if let Some(problem) = wrong(reasons::POLICY_READY) {
        return Some(format!("nobody holds it, and its policy cannot decide: {problem}"));
    }
    let policy = lease.spec.policy.as_ref().and_then(|policy| policy.name.clone());
    let policy = policy.map_or_else(|| "its policy".to_owned(), |name| format!("its policy {name}"));
    Some(format!("nobody holds it, and {policy} does not grant it (koncli lease explain says what it would take)"))
}

/// Where a renewal stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Renewing {
    /// Nobody has acted on it.
    Wait,
    /// The hold goes on longer.
    Renewed(Grant),
    /// The controller has acted on it, and the hold does not go on longer.
    Refused(String),
    /// The request does not hold the lease any more.
    Lost(String),
}

/// Where the renewal of the hold `before` by raising the request's counter to `counter` stands.
pub(crate) fn renewing(uid: &str, before: &Grant, counter: i64, lease: View<'_, Lease>) -> Renewing {
    let lease = match lease {
        View::Unknown => return Renewing::Wait,
        View::Gone => return Renewing::Lost("the lease was deleted".to_owned()),
        View::Present(lease) if is_before(before.token, lease) => return Renewing::Wait,
        View::Present(lease) => lease,
    };
    let Some(grant) = grant_to(uid, lease) else {
        return Renewing::Lost(how_lost(uid, lease));
    };
    if grant.acted_on < counter {
        return Renewing::Wait;
    }
    // What was renewed before, and its answer lost, is not this renewal.
    let longer = grant.renewals > before.renewals || later(&grant.expires, &before.expires);
    if longer && grant.counted >= counter {
        return Renewing::Renewed(grant);
    }
    let status = lease.status.as_ref();
    let asked_to_leave = status.and_then(|status| status.preemption.as_ref());
    let policy = status.and_then(|status| status.policy.as_ref());
    Renewing::Refused(match (asked_to_leave, policy.and_then(|policy| policy.reason.as_deref())) {
        (Some(preemption), _) => {
            format!("it is to be handed over to {} until {}", preemption.by, preemption.deadline)
        }
        (None, Some(reason)) if !reason.is_empty() => reason.to_owned(),
        (None, _) if lease.spec.renewable == Some(false) => "the lease is not renewable".to_owned(),
        (None, _) => "no reason was given".to_owned(),
    })
}

fn later(a: &str, b: &str) -> bool {
    matches!((parse_timestamp(a), parse_timestamp(b)), (Some(a), Some(b)) if a > b)
}

/// What to do where the counter of a request was not raised, since it was not what it was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Raising {
    /// The request is gone: another one has its name.
    Gone,
    /// The counter is now what it was taken for: a try of this process was under way. The same again.
    Again,
    /// It is this. Somebody else has raised it, or a try of this process whose answer was lost: the controller may have
    /// acted on that long ago, so what is counted from must be another value, sent after this was seen.
    Stands(i64),
}

/// What to do where the counter of the request `uid` was to be raised from `counter - 1` to `counter`, and was not, and
/// the request was then found like this.
pub(crate) fn not_raised(uid: &str, counter: i64, found: &LeaseRequest) -> Raising {
    match (found.metadata.uid.as_deref() == Some(uid), found.spec.renewals) {
        (false, _) => Raising::Gone,
        (true, is) if is == counter - 1 => Raising::Again,
        (true, is) => Raising::Stands(is),
    }
}

/// How the hold of the request `uid` ended, as far as the Lease tells.
pub(crate) fn how_lost(uid: &str, lease: &Lease) -> String {
    let status = lease.status.as_ref();
    let ended = status.and_then(|status| status.history.iter().find(|past| past.request == uid));
    let how = ended.map(|past| match past.how {
        HoldEnd::Released => format!("it was released at {}", past.ended),
        HoldEnd::Expired => format!("it expired at {}", past.ended),
        HoldEnd::Preempted => format!("it was preempted at {}", past.ended),
        HoldEnd::ForceReleased => format!("it was released by force at {}", past.ended),
        HoldEnd::Superseded => format!("a newer request of the same holder took its place at {}", past.ended),
    });
    let now = super::error::LeaseSeen::of(lease);
    match how {
        Some(how) => format!("{how}, {now}"),
        None => now.to_string(),
    }
}

/// Whether a Lease is shown as it was before the grant of this token: a new watch may begin with what an API server's
/// cache knew then, and that tells nothing of the hold.
pub(crate) fn is_before(token: i64, lease: &Lease) -> bool {
    lease.status.as_ref().and_then(|status| status.fencing_token).unwrap_or_default() < token
}

/// Whether the hold of the request `uid` with this token is over.
pub(crate) fn released(uid: &str, token: i64, lease: View<'_, Lease>) -> bool {
    match lease {
        View::Unknown => false,
        View::Gone => true,
        View::Present(lease) if is_before(token, lease) => false,
        View::Present(lease) => {
            lease.status.as_ref().and_then(|status| status.request.as_ref()).is_none_or(|request| request.uid != uid)
        }
    }
}

/// Whether a controller has recorded that the hold of the request `uid` was ended by force.
pub(crate) fn force_recorded(uid: &str, token: i64, lease: View<'_, Lease>) -> bool {
    let recorded = |lease: &Lease| {
        let newest = lease.status.as_ref().and_then(|status| status.history.first());
        newest.is_some_and(|past| past.how == HoldEnd::ForceReleased && past.request == uid)
    };
    released(uid, token, lease) || lease.present().is_some_and(recorded)
}

#[cfg(test)]
mod tests {
    use konductor_crds::{
        LeaseRequestStatus,
        v1::{Condition, PastHold, PolicySpec, PolicyStatus, Preemption, RequestRef},
    };

    use super::*;

    const T0: &str = "2026-01-01T00:00:00.000Z";
    const T1: &str = "2026-01-01T00:00:30.000Z";
    const T2: &str = "2026-01-01T00:00:45.000Z";

    fn held(uid: &str) -> Lease {
        let status = LeaseStatus {
            phase: Some(LeasePhase::Held),
            holder: Some("h".into()),
            acquired: Some(T0.into()),
            expires: Some(T1.into()),
            fencing_token: Some(7),
            request: Some(RequestRef { name: "r".into(), uid: uid.into(), renewals: 2, counted: None }),
            ..LeaseStatus::default()
        };
        Lease { status: Some(status), ..Lease::default() }
    }

    fn with(mut lease: Lease, change: impl FnOnce(&mut LeaseStatus)) -> Lease {
        change(lease.status.get_or_insert_default());
        lease
    }

    fn request(phase: Option<RequestPhase>, reason: &str) -> LeaseRequest {
        let status = LeaseRequestStatus {
            phase,
            reason: Some(reason.into()),
            message: Some("because".into()),
            ..LeaseRequestStatus::default()
        };
        LeaseRequest { status: Some(status), ..LeaseRequest::default() }
    }

    fn grant() -> Grant {
        Grant {
            token: 7,
            acquired: T0.into(),
            expires: T1.into(),
            length_ms: 30_000,
            renewals: 0,
            acted_on: 2,
            counted: 2,
        }
    }

    #[test]
    fn an_acquire_is_decided_by_the_lease_and_ended_by_the_request() {
        use RequestPhase::{Denied, Finished, Granted, Pending};
        let (mine, other, free) = (held("me"), held("other"), Lease::default());
        let available = with(held("me"), |s| s.phase = Some(LeasePhase::Available));
        let expired = with(held("me"), |s| s.phase = Some(LeasePhase::Expired));
        let no_times = with(held("me"), |s| s.expires = None);
        let wait = |contended, answered| Acquiring::Wait { contended, answered };
        let seen = View::<Lease>::Present;
        let told = View::<LeaseRequest>::Present;
        for (what, lease, request, expected) in [
            ("nothing is known", View::Unknown, View::Unknown, wait(false, false)),
            ("free", seen(&free), View::Unknown, wait(false, false)),
            ("mine", seen(&mine), View::Unknown, Acquiring::Held(grant())),
            (
                "mine, whatever the request says",
                seen(&mine),
                told(&request(Some(Finished), reasons::TIMED_OUT)),
                Acquiring::Held(grant()),
            ),
            ("mine, and the request is gone", seen(&mine), View::Gone, Acquiring::Held(grant())),
            (
                "the request alone proves nothing",
                seen(&free),
                told(&request(Some(Granted), reasons::LEASE_GRANTED)),
                wait(false, true),
            ),
            (
                "granted, and the lease says another",
                seen(&other),
                told(&request(Some(Granted), reasons::LEASE_GRANTED)),
                wait(true, true),
            ),
            ("my uid, and available", seen(&available), View::Unknown, wait(false, false)),
            ("my uid, and expired", seen(&expired), View::Unknown, wait(false, false)),
            ("my uid, and no times", seen(&no_times), View::Unknown, wait(false, false)),
            ("another's", seen(&other), View::Unknown, wait(true, false)),
            ("another's, and I wait", seen(&other), told(&request(Some(Pending), reasons::WAITING)), wait(true, true)),
            ("an empty status is no answer", seen(&other), told(&request(None, "")), wait(true, false)),
            (
                "denied",
                seen(&free),
                told(&request(Some(Denied), reasons::DENIED_BY_POLICY)),
                Acquiring::Denied("because".into()),
            ),
            (
                "invalid",
                seen(&free),
                told(&request(Some(Denied), reasons::INVALID_REQUEST)),
                Acquiring::InvalidRequest("because".into()),
            ),
            (
                "denied, and no lease",
                View::Gone,
                told(&request(Some(Denied), reasons::DENIED_BY_POLICY)),
                Acquiring::Denied("because".into()),
            ),
            (
                "crowded",
                seen(&other),
                told(&request(Some(Denied), reasons::TOO_MANY_WAITING)),
                Acquiring::Crowded("because".into()),
            ),
            ("timed out", seen(&other), told(&request(Some(Finished), reasons::TIMED_OUT)), Acquiring::TimedOut),
            (
                "timed out, and no lease",
                View::Gone,
                told(&request(Some(Finished), reasons::TIMED_OUT)),
                Acquiring::NoLease,
            ),
            ("superseded", seen(&other), told(&request(Some(Finished), reasons::SUPERSEDED)), Acquiring::Superseded),
            (
                "over before it was seen",
                seen(&free),
                told(&request(Some(Finished), reasons::EXPIRED)),
                Acquiring::Over("because".into()),
            ),
            ("no lease", View::Gone, View::Unknown, Acquiring::NoLease),
            (
                "said to be no lease, not looked yet",
                View::Unknown,
                told(&request(Some(Pending), reasons::LEASE_NOT_FOUND)),
                wait(false, true),
            ),
            ("withdrawn", seen(&other), View::Gone, Acquiring::Withdrawn),
        ] {
            assert_eq!(acquiring("me", lease, request), expected, "{what}");
        }
    }

    #[test]
    fn of_a_lease_that_nobody_holds_it_is_said_why_nobody_gets_it() {
        let free = |conditions: Vec<Condition>| {
            let mut lease = with(held("other"), |s| {
                (s.phase, s.request, s.holder) = (Some(LeasePhase::Available), None, None);
                s.conditions = conditions;
            });
            lease.spec.policy = Some(PolicySpec { name: Some("fair".to_owned()), ..PolicySpec::default() });
            lease
        };
        let wrong = |type_: &str| Condition {
            type_: type_.to_owned(),
            status: "False".to_owned(),
            message: Some("because".to_owned()),
            ..Condition::default()
        };
        assert_eq!(why_not_granted(&held("other")), None, "it is held");
        for (lease, says) in [
            (free(vec![]), "nobody holds it, and its policy fair does not grant it"),
            (free(vec![wrong(reasons::POLICY_READY)]), "its policy cannot decide: because"),
            (free(vec![wrong(reasons::POLICY_READY), wrong(reasons::READY)]), "something is wrong with it: because"),
            // That nobody holds it is nothing wrong.
            (free(vec![wrong("Held")]), "does not grant it"),
        ] {
            let why = why_not_granted(&lease).unwrap_or_default();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn a_renewal_is_acknowledged_by_its_counter() {
        let acted = |counter| with(held("me"), |s| s.request.as_mut().expect("a request").renewals = counter);
        let raised = with(acted(3), |s| {
            s.renewals = Some(1);
            s.renewed = Some(T1.into());
            s.expires = Some(T2.into());
        });
        let shown = Grant { expires: T2.into(), length_ms: 15_000, renewals: 1, acted_on: 3, counted: 3, ..grant() };
        // A ttl that was cut, by --max-hold or a clock that stepped back: it counts as renewed all the same.
        let no_longer = with(raised.clone(), |s| s.expires = Some(T1.into()));
        let until_t1 = Grant { expires: T1.into(), length_ms: 0, ..shown.clone() };
        // A controller that does not count renewals.
        let uncounted = with(raised.clone(), |s| s.renewals = None);
        let not_counted = Grant { renewals: 0, ..shown.clone() };
        // The renewal before this one was granted, which was not seen, and this one was refused.
        let of_before = with(raised.clone(), |s| {
            if let Some(request) = &mut s.request {
                request.counted = Some(2);
            }
        });
        let refused = with(acted(3), |s| {
            s.policy = Some(PolicyStatus { reason: Some("outside the window".into()), ..PolicyStatus::default() });
        });
        let wordless = with(acted(3), |s| {
            s.policy = Some(PolicyStatus { reason: Some(String::new()), ..PolicyStatus::default() });
        });
        let mut not_renewable = acted(3);
        not_renewable.spec.renewable = Some(false);
        let leaving = with(acted(3), |s| {
            s.preemption = Some(Preemption { by: "vip".into(), deadline: T2.into(), ..Preemption::default() });
        });
        let forced = with(held("other"), |s| {
            s.history = vec![my_past(HoldEnd::ForceReleased)];
        });
        let earlier = with(held("other"), |s| s.fencing_token = Some(6));
        let refusal = |why: &str| Renewing::Refused(why.into());
        let seen = View::Present;
        for (what, lease, expected) in [
            ("nothing seen", View::Unknown, Renewing::Wait),
            ("not acted on", seen(&acted(2)), Renewing::Wait),
            ("renewed", seen(&raised), Renewing::Renewed(shown)),
            ("renewed, for no longer", seen(&no_longer), Renewing::Renewed(until_t1)),
            ("renewed, and not counted", seen(&uncounted), Renewing::Renewed(not_counted)),
            ("refused", seen(&refused), refusal("outside the window")),
            ("refused without a word", seen(&wordless), refusal("no reason was given")),
            ("renewed before, and refused", seen(&of_before), refusal("no reason was given")),
            ("not renewable", seen(&not_renewable), refusal("the lease is not renewable")),
            ("to be handed over", seen(&leaving), refusal(&format!("it is to be handed over to vip until {T2}"))),
            ("no reason", seen(&acted(3)), refusal("no reason was given")),
            ("deleted", View::Gone, Renewing::Lost("the lease was deleted".into())),
            ("as it was before the grant", seen(&earlier), Renewing::Wait),
            ("as it was before it was ever granted", seen(&Lease::default()), Renewing::Wait),
            (
                "forced",
                seen(&forced),
                Renewing::Lost(format!("it was released by force at {T1}, h holds it until {T1}")),
            ),
            (
                "expired",
                seen(&with(held("me"), |s| s.phase = Some(LeasePhase::Expired))),
                Renewing::Lost("nobody holds it".into()),
            ),
        ] {
            assert_eq!(renewing("me", &grant(), 3, lease), expected, "{what}");
        }
    }

    #[test]
    fn a_counter_that_somebody_else_has_raised_is_not_ours() {
        let found = |uid: &str, renewals| {
            let mut request = request(None, "");
            request.metadata.uid = Some(uid.to_owned());
            request.spec.renewals = renewals;
            request
        };
        for (what, found, expected) in [
            ("another renewer was faster, with the same number", found("me", 5), Raising::Stands(5)),
            ("it was further", found("me", 9), Raising::Stands(9)),
            ("a try whose answer was lost had not come in", found("me", 3), Raising::Stands(3)),
            ("it has come in meanwhile", found("me", 4), Raising::Again),
            ("another request of this name", found("other", 4), Raising::Gone),
        ] {
            assert_eq!(not_raised("me", 5, &found), expected, "{what}");
        }
    }

    fn my_past(how: HoldEnd) -> PastHold {
        PastHold {
            holder: "h".into(),
            request: "me".into(),
            request_name: "mine".into(),
            token: 7,
            acquired: T0.into(),
            ended: T1.into(),
            how,
        }
    }

    #[test]
    fn a_release_is_over_when_the_lease_names_another_request() {
        let cleared = with(held("me"), |s| s.request = None);
        let forcing = with(held("me"), |s| s.phase = Some(LeasePhase::Available));
        let forced = with(held("me"), |s| s.history = vec![my_past(HoldEnd::ForceReleased)]);
        let before_me = with(forced.clone(), |s| s.history[0].request = "other".into());
        let earlier = with(held("other"), |s| s.fencing_token = Some(6));
        let seen = View::Present;
        for (what, lease, is_released, is_forced) in [
            ("nothing seen", View::Unknown, false, false),
            ("mine", seen(&held("me")), false, false),
            ("another's", seen(&held("other")), true, true),
            ("nobody's", seen(&cleared), true, true),
            ("as it was before the grant", seen(&earlier), false, false),
            ("as it was before it was ever granted", seen(&Lease::default()), false, false),
            ("deleted", View::Gone, true, true),
            ("cleared by a person, not recorded", seen(&forcing), false, false),
            ("recorded", seen(&forced), false, true),
            ("recorded of the one before", seen(&before_me), false, false),
        ] {
            assert_eq!(released("me", 7, lease), is_released, "{what}");
            assert_eq!(force_recorded("me", 7, lease), is_forced, "{what}");
        }
    }
}
