//! Observe: watch events into a world, and the world into snapshots.

mod census;
mod convert;
mod pods;
mod snapshot;
mod watch;
mod world;

pub use census::{Census, LastCensus};
pub use convert::{record, request_facts};
pub(crate) use pods::ended;
pub use pods::watch_pods;
pub use snapshot::{Observed, Sight, observe};
pub use watch::{Feeds, Synced, watch_all};
pub use world::{Key, PodRef, World};
