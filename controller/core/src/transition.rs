//! The legal changes of a lease's state: a total function without a catch-all arm, so that a new
//! state or a new transition does not compile until somebody has thought about every pair.

use std::fmt;

use crate::snapshot::{Ending, Hold, State};
use crate::time::Time;

/// One change of a lease's state. A reconcile makes exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// Nothing changes.
    Stay,
    /// An expired lease has been shown as such for long enough.
    CleanUp,
    /// The hold ends and nobody gets the lease.
    End(Ending),
    /// Somebody gets a free lease.
    Grant(Hold),
    /// The hold ends and somebody else gets the lease in the same write.
    HandOver(Ending, Hold),
    /// The hold stands and something about it changes.
    Adjust(Hold, Adjustment),
}

/// What changes about a hold that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjustment {
    /// It expires later.
    Renewed,
    /// A renewal was refused, which the holder is told by its counter having been acted on.
    RenewalRefused,
    /// The holder is asked to leave, or to leave for somebody else.
    Preempting,
    /// The holder is no longer asked to leave.
    PreemptionOver,
}

/// A pair that must not happen. The planner never makes one; if it did, nothing would be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Illegal {
    /// The state that it was tried from.
    pub from: &'static str,
    /// The transition that was tried.
    pub transition: &'static str,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a lease that is {} cannot {}", self.from, self.transition)
    }
}

impl std::error::Error for Illegal {}

impl State {
    /// The state's name, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Held(_) => "held",
            Self::Expired(_) => "expired",
            Self::Evicted(_) => "evicted",
        }
    }
}

impl Transition {
    /// The transition's name, for messages and tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stay => "stay",
            Self::CleanUp => "clean up",
            Self::End(_) => "end",
            Self::Grant(_) => "grant",
            Self::HandOver(..) => "hand over",
            Self::Adjust(..) => "adjust",
        }
    }
}

/// The state after a transition.
///
/// # Errors
/// [`Illegal`] for every pair that must not happen; they are listed as such, one by one.
pub fn transition(from: &State, by: &Transition, now: Time) -> Result<State, Illegal> {
    use State::{Available, Evicted, Expired, Held};
    use Transition::{Adjust, CleanUp, End, Grant, HandOver, Stay};
    match (from, by) {
        // Nothing changes.
        (Available, Stay) => Ok(Available),
        (Held(hold), Stay) => Ok(Held(hold.clone())),
        (Expired(at), Stay) => Ok(Expired(*at)),
        // An evicted holder has to be told of its end, which is a transition.
        (Evicted(_), Stay) => illegal(from, by),

        (Expired(_), CleanUp) => Ok(Available),
        (Available | Held(_) | Evicted(_), CleanUp) => illegal(from, by),

        // A hold that ran out with nobody waiting is shown; every other end is plainly free.
        (Held(_), End(Ending::Expired)) => Ok(Expired(now)),
        (Held(_), End(Ending::Released | Ending::Preempted)) => Ok(Available),
        (Evicted(_), End(Ending::ForceReleased)) => Ok(Available),
        // Superseding means that the newer request is granted; it cannot end in nothing.
        (Held(_), End(Ending::Superseded | Ending::ForceReleased)) => illegal(from, by),
        (Evicted(_), End(Ending::Released | Ending::Expired | Ending::Preempted | Ending::Superseded)) => {
            illegal(from, by)
        }
        (Available | Expired(_), End(_)) => illegal(from, by),

        // Only a free lease is granted.
        (Available | Expired(_), Grant(to)) => Ok(Held(to.clone())),
        (Held(_) | Evicted(_), Grant(_)) => illegal(from, by),

        (Held(hold), HandOver(Ending::Released | Ending::Expired | Ending::Preempted | Ending::Superseded, to))
        | (Evicted(hold), HandOver(Ending::ForceReleased, to)) => {
            // Nobody is handed what they already have: that would be a renewal in disguise.
            if hold.request.uid == to.request.uid { illegal(from, by) } else { Ok(Held(to.clone())) }
        }
        (Held(_), HandOver(Ending::ForceReleased, _)) => illegal(from, by),
        (Evicted(_), HandOver(Ending::Released | Ending::Expired | Ending::Preempted | Ending::Superseded, _)) => {
            illegal(from, by)
        }
        (Available | Expired(_), HandOver(..)) => illegal(from, by),

        (Held(hold), Adjust(to, _)) => {
            let same = hold.request == to.request && hold.holder == to.holder && hold.acquired == to.acquired;
            // What a holder was told is never taken back.
            if same && to.expires >= hold.expires { Ok(Held(to.clone())) } else { illegal(from, by) }
        }
        (Available | Expired(_) | Evicted(_), Adjust(..)) => illegal(from, by),
    }
}

fn illegal(from: &State, by: &Transition) -> Result<State, Illegal> {
    Err(Illegal { from: from.name(), transition: by.name() })
}
