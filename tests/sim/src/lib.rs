//! The real controller and the real client library against a simulated API server, in virtual time.
//!
//! [`run`] takes a seed and plays a minute or two in a few milliseconds: replicas of the controller (all that
//! `konductor_controller::replica` puts together: watches, cache, queue, workers, decider with the built-in policy in
//! its sandbox, writers of answers and Events) and processes that use `koncli::client`, on machines whose clocks differ,
//! over connections on which everything goes wrong that does in reality ([`server::Weather`]). Then faults end, and
//! everybody who wants a lease has to get it.
//!
//! Judged are the history of everything that was stored (by the checker that real control planes are judged by), what
//! clients believe against what is recorded at each moment, the accesses that guarded resources accept, whether
//! everybody is served in the end, and what that costs.
//!
//! The same seed plays the same run, to the last delivery of a watch: [`Report::trace`] says so. What is not simulated
//! is named in `README.md` beside this crate.

mod actors;
mod clock;
mod plan;
mod scene;
mod server;
mod sim;
mod store;

pub use plan::{LeasePlan, Plan};
pub use scene::{Entry, Figures};
pub use server::Weather;
pub use sim::{Report, run};

/// The namespace of the leases.
pub const NAMESPACE: &str = "team";

/// Something that is broken on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A client that holds while its request says Granted, instead of looking at the Lease.
    BelievesItsRequest,
    /// A client that counts its deadline from when it heard the answer, not from before it asked.
    CountsFromTheAnswer,
    /// An API server that takes every write of a status, whatever it was computed from.
    AnyVersion,
    /// A guarded resource that accepts every token.
    AnyToken,
    /// A controller that trusts that clocks do not differ, where they do.
    TrustsClocks,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::BelievesItsRequest, Self::CountsFromTheAnswer, Self::AnyVersion, Self::AnyToken, Self::TrustsClocks];
}
