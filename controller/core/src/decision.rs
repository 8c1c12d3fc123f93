//! What a policy proposes.

use crate::time::Millis;

/// A policy's answer to a question. The default changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// What happens to the hold.
    pub hold: HoldAction,
    /// Which request gets the lease.
    pub grant: Option<Grant>,
    /// Which requests will never be granted.
    pub deny: Vec<Denial>,
    /// When the policy wants to be asked again, if nothing happens before.
    pub wake_in: Option<Millis>,
    /// The policy's new memory; kept only with a transition or a denial.
    pub state: Option<String>,
    /// Why, for a person to read.
    pub reason: String,
}

/// What a policy proposes for the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HoldAction {
    /// Nothing. A renewal that was asked for is refused.
    #[default]
    Keep,
    /// Renew it for this long from now.
    Renew {
        /// From now.
        ttl: Millis,
    },
    /// End it. Legal only when it is due: nobody else can know that the holder has stopped.
    Expire,
    /// Ask the holder to leave in favour of a request.
    Preempt {
        /// The request, by its index in the question.
        in_favour_of: usize,
        /// How long the holder gets to leave.
        grace: Millis,
        /// Whether the hold ends then even if the holder has not left.
        force: bool,
    },
}

/// A request that gets the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The request, by its index in the question.
    pub request: usize,
    /// For how long from now.
    pub ttl: Millis,
}

/// A request that will never be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The request, by its index in the question.
    pub request: usize,
    /// Why, for its holder to read.
    pub reason: String,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There was nothing to ask, or the lease's spec is invalid.
    NotAsked,
    /// A decision that the guard has let pass.
    Decided(crate::guard::Checked),
    /// Nobody could decide, and why: the policy failed and the lease says Hold. Only the host's own
    /// duties are done: a hold that is due or given back ends.
    Unavailable(String),
}
