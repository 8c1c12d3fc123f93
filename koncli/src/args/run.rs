//! What `koncli lease run` and `koncli lease once` take.

use std::{ffi::OsString, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::{AcquireArgs, duration};
use crate::{client::Key, completion};

/// `koncli lease run`.
#[derive(Debug, Args)]
#[command(mut_arg("holder", |holder| {
    holder.help("Who holds it [default: the Pod's name; outside of a Pod the host's name and the process id]")
}))]
pub struct RunArgs {
    /// What to acquire.
    #[command(flatten)]
    pub acquire: AcquireArgs,
    /// How long the command has between SIGTERM and SIGKILL; at most a third of the ttl [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub grace: Option<Duration>,
    /// What happens to the command when the lease cannot be kept
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub on_lost: OnLost,
    /// Run it once, ever: success is recorded in the lease under this key, and later runs end with 0 without running it
    #[arg(long, value_name = "KEY")]
    pub once: Option<Key>,
    /// The command and its arguments, as they are: no shell reads them
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `--on-lost`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OnLost {
    /// SIGTERM in time, SIGKILL after the grace, and both before the hold can end
    #[default]
    Stop,
    /// SIGKILL without a SIGTERM before, as late as it is safe
    Kill,
    /// Nothing: it runs on. For a command that has its fencing token checked with each access
    Ignore,
}

/// `koncli lease once …`.
#[derive(Debug, Subcommand)]
pub enum OnceCommand {
    /// List what was completed under a lease
    List {
        /// Name of the lease
        #[arg(add = completion::leases())]
        name: String,
    },
    /// Forget that something was completed, so that it runs again
    Clear {
        /// Name of the lease
        #[arg(add = completion::leases())]
        name: String,
        /// The keys
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        keys: Vec<Key>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
}

pub(super) const RUN_HELP: &str = "\
The command runs in a process group of its own while the lease is held and renewed. INT, TERM, HUP, QUIT, USR1, USR2 \
and WINCH are passed on to the group. The lease is released when nothing of the command is left: what it left running \
gets SIGTERM, and SIGKILL after the grace; on Linux also what has left the group (timeout, the jobs of set -m and bash \
-i, a daemon).

When the lease cannot be renewed, or is asked back for somebody else, the command gets SIGTERM, and SIGKILL before \
the hold can end by this machine's monotonic clock. A hold that is over (released by force, say) means SIGKILL at \
once. A second process of koncli kills the group if the first dies, and at the deadline if the first is suspended. It \
reaches only the group: write timeout --foreground, and no set -m. When all of the machine is suspended, or both are \
killed, only the fencing token helps.

The command's environment has KONDUCTOR_LEASE, KONDUCTOR_NAMESPACE, KONDUCTOR_HOLDER, KONDUCTOR_TOKEN (the fencing \
token) and KONDUCTOR_EXPIRES (as it was at the start). stdin, stdout and stderr are its own; koncli speaks on stderr. \
On a terminal it gets the foreground as soon as it reads from it, and Ctrl-Z stops both: nothing is renewed then, and \
the command is killed at the deadline.

--once is at least once: when koncli dies between the command's success and its record, the command runs again.

--holder is, by default, the Pod's name; outside of a Pod the host's name and the process id, so that two runs on one \
host are two holders.

Examples:
  koncli lease run nightly-report -- generate-report --all
  koncli lease run leader --wait --create --ttl 30s -- ./server
  koncli lease run db-migration --wait --once v42 -- run-migrations
  koncli lease run x -- sh -c 'echo \"$KONDUCTOR_TOKEN\" && a | b'

Exit codes:
  the command's own; 128 + the signal that ended it; 0 also if --once KEY was completed before
  75 not acquired: held by somebody else, timed out, or denied by policy
  124 the lease was lost or asked back, and the command stopped
  125 koncli itself failed: usage, no such lease, no answer, forbidden, or --once could not be recorded
  126 the command cannot be executed   127 there is no such command";

pub(super) const ONCE_HELP: &str = "The records are annotations of the Lease, once.konductor.io/KEY. They outlive Pods and holds, and end with the Lease; `kubectl apply` leaves them, `kubectl replace` removes them.\n\nExamples:\n  koncli lease once list db-migration\n  koncli lease once clear db-migration v42    # run it again";
