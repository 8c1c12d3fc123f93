//! `koncli lease watch`.

use std::time::Duration;

use clap::Args;

use super::duration;
use crate::completion;

pub(super) const WATCH_HELP: &str = "On a terminal it is a picture that is kept current: who holds, for how long still, who is next, and the last hand-overs. q or Ctrl-C ends it, the arrow keys scroll. Anywhere else, and with --quiet or -o json, it writes what there is and then one line a change: grants, hand-overs, ends of holds, who waits, who was refused, and what is wrong with a lease (problems in -o json).\n\nIt needs the verbs list and watch on leases (ClusterRole konductor-lease-viewer); without them on leaserequests it shows how many wait and not who.\n\nExamples:\n  koncli lease watch\n  koncli lease watch db-migration daily-report\n  koncli lease top -A\n  koncli lease watch -o json | jq 'select(.how == \"Expired\")'\n  koncli lease watch --for 1h > changes.txt";

/// `koncli lease watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Names of leases [default: all]
    #[arg(value_name = "LEASE", add = completion::leases())]
    pub leases: Vec<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// End after this time [default: when it is interrupted]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
}
