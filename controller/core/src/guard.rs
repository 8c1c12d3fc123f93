//! Which proposals of a policy are legal. What is listed here is all that a policy can cause.
//!
//! | proposal | legal when |
//! |---|---|
//! | keep | always; a renewal that was asked for is then refused |
//! | renew | there is a hold, and its holder asked for it or it is due |
//! | expire | there is a hold, and it is due |
//! | preempt | there is a hold, the request named is one that was shown, and the lease does not flap already |
//! | grant | there is no hold, or the same answer expires it; the request named is one that was shown |
//! | deny | the request named is one that was shown, and is not granted or preempted for in the same answer |
//!
//! A proposal outside of the table is refused as a whole and the lease's `onFailure` decides what
//! happens. A number or a text that is merely too large is cut to its limit.

use std::fmt;

use crate::{
    decision::{Decision, HoldAction},
    question::Question,
    snapshot::Ending,
    time::Millis,
};

/// The longest ttl that a policy can give: as long as the API lets a person write.
pub const TTL_MAX: Millis = Millis(366 * 24 * 60 * 60 * 1000);
/// The longest grace of a preemption: a day. Longer is not a hand-over.
pub const GRACE_MAX: Millis = Millis(24 * 60 * 60 * 1000);
/// The soonest that a policy can ask to be woken: ten times a second for one lease costs little,
/// and no lease needs more.
pub const WAKE_MIN: Millis = Millis(100);
/// The latest: a day. Later is as good as never, and a lost timer then lasts a day at most.
pub const WAKE_MAX: Millis = Millis(24 * 60 * 60 * 1000);
/// The longest reason in bytes, as the ABI says.
pub const REASON_MAX: usize = 256;
/// The largest policy state in bytes, as the ABI says: it is stored in the Lease.
pub const STATE_MAX: usize = 4096;

/// So many holds that were preempted within [`FLAP_WINDOW`] are flapping: no new preemption is begun
/// then, and a policy that preempts at every call cannot keep everybody from working.
pub const FLAP_HOLDS: usize = 6;
/// See [`FLAP_HOLDS`].
pub const FLAP_WINDOW: Millis = Millis(60_000);

/// Why a proposal is not legal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It names a request that was not shown.
    UnknownRequest {
        /// The index that it named.
        index: usize,
        /// How many were shown.
        shown: usize,
    },
    /// It grants while the lease is held, and does not expire the hold.
    GrantWhileHeld,
    /// It grants and denies the same request, or preempts for a request that it denies.
    GrantAndDeny,
    /// It renews, expires or preempts where nobody holds.
    NoHold,
    /// It renews though the holder did not ask and the hold is not due.
    RenewalNotAsked,
    /// It expires a hold that is not due.
    ExpireNotDue,
    /// It begins a preemption though [`FLAP_HOLDS`] holds were preempted within [`FLAP_WINDOW`].
    Flapping {
        /// In how long it may.
        again_in: Millis,
    },
    /// It gives a ttl of zero or less.
    TtlNotPositive,
    /// It wants to keep a state above [`STATE_MAX`].
    StateTooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
}

impl Refusal {
    /// All that [`Refusal::rule`] can say.
    pub const RULES: [&'static str; 9] = [
        "UnknownRequest",
        "GrantWhileHeld",
        "GrantAndDeny",
        "NoHold",
        "RenewalNotAsked",
        "ExpireNotDue",
        "Flapping",
        "TtlNotPositive",
        "StateTooLarge",
    ];

    /// The refusal in one word, for a metric's label.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::UnknownRequest { .. } => "UnknownRequest",
            Self::GrantWhileHeld => "GrantWhileHeld",
            Self::GrantAndDeny => "GrantAndDeny",
            Self::NoHold => "NoHold",
            Self::RenewalNotAsked => "RenewalNotAsked",
            Self::ExpireNotDue => "ExpireNotDue",
            Self::Flapping { .. } => "Flapping",
            Self::TtlNotPositive => "TtlNotPositive",
            Self::StateTooLarge { .. } => "StateTooLarge",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRequest { index, shown } => {
                write!(f, "the policy named request {index}, but was shown {shown}")
            }
            Self::GrantWhileHeld => f.write_str("the policy granted the lease while it is held"),
            Self::GrantAndDeny => f.write_str("the policy chose a request and denied it in the same answer"),
            Self::NoHold => f.write_str("the policy acted on a hold, but nobody holds the lease"),
            Self::RenewalNotAsked => f.write_str("the policy renewed a hold that is not due, unasked"),
            Self::ExpireNotDue => f.write_str("the policy expired a hold that is not due"),
            Self::Flapping { .. } => write!(
                f,
                "the policy preempted again, after {FLAP_HOLDS} holds that were preempted within {}s",
                FLAP_WINDOW.0 / 1000
            ),
            Self::TtlNotPositive => f.write_str("the policy gave a ttl of zero or less"),
            Self::StateTooLarge { bytes } => {
                write!(f, "the policy wants to keep {bytes} bytes of state; the limit is {STATE_MAX}")
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// What was cut to its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamp {
    /// A ttl above [`TTL_MAX`].
    Ttl,
    /// A grace below zero or above [`GRACE_MAX`].
    Grace,
    /// A wake-up outside of [`WAKE_MIN`] and [`WAKE_MAX`].
    Wake,
    /// A text above [`REASON_MAX`] or with control characters.
    Reason,
}

impl Clamp {
    /// The clamp in one word, for a metric's label.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::Ttl => "TtlClamped",
            Self::Grace => "GraceClamped",
            Self::Wake => "WakeClamped",
            Self::Reason => "ReasonClamped",
        }
    }
}

/// A decision that [`check`] has let pass. There is no other way to make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    decision: Decision,
    uids: Vec<String>,
    clamps: Vec<Clamp>,
}

impl Checked {
    /// The decision, within its limits.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The uid of the request that the decision names by this index.
    #[must_use]
    pub fn uid(&self, index: usize) -> Option<&str> {
        self.uids.get(index).map(String::as_str)
    }

    /// What was cut to its limit.
    #[must_use]
    pub fn clamps(&self) -> &[Clamp] {
        &self.clamps
    }
}

/// Checks a proposal against the question that it answers.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(question: &Question, mut decision: Decision) -> Result<Checked, Refusal> {
    let shown = question.requests.len();
    let known = |index: usize| if index < shown { Ok(()) } else { Err(Refusal::UnknownRequest { index, shown }) };
    let due = question.hold.as_ref().is_some_and(|h| h.due);

    for denial in &decision.deny {
        known(denial.request)?;
    }
    let denied = |index: usize| decision.deny.iter().any(|d| d.request == index);

    match (&question.hold, decision.hold) {
        (_, HoldAction::Keep) => {}
        (None, HoldAction::Renew { .. } | HoldAction::Expire | HoldAction::Preempt { .. }) => {
            return Err(Refusal::NoHold);
        }
        (Some(hold), HoldAction::Renew { ttl }) => {
            if !hold.due && !hold.renewal_requested {
                return Err(Refusal::RenewalNotAsked);
            }
            if ttl <= Millis::ZERO {
                return Err(Refusal::TtlNotPositive);
            }
        }
        (Some(_), HoldAction::Expire) => {
            if !due {
                return Err(Refusal::ExpireNotDue);
            }
        }
        (Some(hold), HoldAction::Preempt { in_favour_of, .. }) => {
            known(in_favour_of)?;
            if denied(in_favour_of) {
                return Err(Refusal::GrantAndDeny);
            }
            // One that is under way is not begun anew.
            if hold.preemption.is_none()
                && let Some(again_in) = flaps(question)
            {
                return Err(Refusal::Flapping { again_in });
            }
        }
    }
    if let Some(grant) = decision.grant {
        known(grant.request)?;
        if question.hold.is_some() && decision.hold != HoldAction::Expire {
            return Err(Refusal::GrantWhileHeld);
        }
        if denied(grant.request) {
            return Err(Refusal::GrantAndDeny);
        }
        if grant.ttl <= Millis::ZERO {
            return Err(Refusal::TtlNotPositive);
        }
    }
    if let Some(state) = &decision.state
        && state.len() > STATE_MAX
    {
        return Err(Refusal::StateTooLarge { bytes: state.len() });
    }

    // A renewal that nobody asked for is the policy's own: it is asked again when that is over.
    let unasked = question.hold.as_ref().is_some_and(|hold| !hold.renewal_requested);
    let clamps = clamp(&mut decision, if unasked { WAKE_MIN } else { Millis(1) });
    Ok(Checked { decision, uids: question.requests.iter().map(|r| r.uid.clone()).collect(), clamps })
}

/// If too many holds were preempted of late: in how long that will no longer be so.
fn flaps(question: &Question) -> Option<Millis> {
    // Newest first: when the last of so many has left the window, one more may follow.
    let oldest = question.history.iter().filter(|past| past.how == Ending::Preempted).nth(FLAP_HOLDS - 1)?;
    let again_in = FLAP_WINDOW - (question.now - oldest.ended);
    // What ended in the future was written before the clock stepped back: nobody knows how long ago that is.
    (again_in > Millis::ZERO && again_in <= FLAP_WINDOW).then_some(again_in)
}

/// Cuts every number and text to its limit and says which were cut. A renewal lasts for `least` at least.
fn clamp(decision: &mut Decision, least: Millis) -> Vec<Clamp> {
    let mut clamps = Vec::new();
    let mut within = |value: &mut Millis, least: Millis, most: Millis, what: Clamp| {
        if *value < least || *value > most {
            *value = (*value).clamp(least, most);
            clamps.push(what);
        }
    };
    match &mut decision.hold {
        HoldAction::Keep | HoldAction::Expire => {}
        HoldAction::Renew { ttl } => within(ttl, least, TTL_MAX, Clamp::Ttl),
        HoldAction::Preempt { grace, .. } => within(grace, Millis::ZERO, GRACE_MAX, Clamp::Grace),
    }
    if let Some(grant) = &mut decision.grant {
        within(&mut grant.ttl, Millis(1), TTL_MAX, Clamp::Ttl);
    }
    if let Some(wake) = &mut decision.wake_in {
        within(wake, WAKE_MIN, WAKE_MAX, Clamp::Wake);
    }
    let reasons = decision.deny.iter_mut().map(|d| &mut d.reason).chain([&mut decision.reason]);
    if reasons.map(sanitise).fold(false, |any, cut| any | cut) {
        clamps.push(Clamp::Reason);
    }
    clamps
}

/// Makes a text of a policy fit to be shown: no control characters, at most [`REASON_MAX`] bytes.
/// Says whether anything was taken away.
fn sanitise(text: &mut String) -> bool {
    let before = text.len();
    text.retain(|c| !c.is_control());
    if text.len() > REASON_MAX {
        let end = (0..=REASON_MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
    }
    text.len() != before
}
