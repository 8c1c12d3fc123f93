//! What was typed: commands, flags and their help, nothing that acts.

mod program;
mod run;
mod verify;
mod watch;
mod workbench;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use konductor_crds::time::{parse_duration, parse_ttl};

use crate::completion;

pub use program::{NAME, as_typed, command, file_name, parse, program};
pub use run::{OnLost, OnceCommand, RunArgs};
pub use verify::{RecordArgs, VerifyArgs};
pub use watch::WatchArgs;
pub use workbench::{BenchArgs, EvalArgs, InspectArgs, NewArgs, ReplayArgs, SimulateArgs, TestArgs};

/// Singleton execution and leader election in Kubernetes.
#[derive(Debug, Parser)]
#[command(
    name = "koncli",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  koncli lease create db-migration --ttl 10m\n  koncli lease acquire db-migration --wait --timeout=5m\n  koncli lease status db-migration\n  koncli lease release db-migration\n\nEvery command has more in its --help."
)]
pub struct Cli {
    /// What is said for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Namespace [default: the kubeconfig context's, in a Pod the Pod's own, else "default"]
    #[arg(short, long, global = true, value_name = "NAME", add = completion::namespaces())]
    pub namespace: Option<String>,

    /// Context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME", add = completion::contexts())]
    pub context: Option<String>,

    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, else the Pod's service account]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// How to write what is found to stdout
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,

    /// Say nothing but errors, and data that was asked for
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say on stderr what is done
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// How data is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For people, with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Only the name: lease.konductor.io/NAME
    Name,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Acquire, renew, release and look at leases
    #[command(subcommand, arg_required_else_help = true)]
    Lease(LeaseCommand),
    /// Write, test, rehearse, upload and list the policies that decide who gets a lease
    #[command(subcommand, arg_required_else_help = true)]
    Policy(PolicyCommand),
    /// Write a completion script for a shell to stdout
    #[command(
        after_help = "The shell then asks koncli, and koncli the cluster: names of leases, policies, namespaces and contexts are completed, those that you may list. An answer that takes more than two seconds is none. After an upgrade, load the script again.\n\nExamples:\n  source <(koncli completion bash)                              # and this line in ~/.bashrc\n  source <(koncli completion zsh)                               # and this line in ~/.zshrc, behind compinit\n  koncli completion fish > ~/.config/fish/completions/koncli.fish\n\nFor `kubectl konductor`, kubectl asks a program named kubectl_complete-konductor on your PATH (and its own completion has to be loaded):\n  ln -s \"$(command -v koncli)\" ~/.local/bin/kubectl_complete-konductor"
    )]
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual: one page a command into a directory, or the first page to stdout
    #[command(
        after_help = "Examples:\n  koncli man | man -l -\n  koncli man /usr/local/share/man/man1    # then: man koncli-lease-acquire"
    )]
    Man {
        /// The directory, which is made if there is none [default: the first page to stdout]
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Write the version
    Version,
    /// What `lease run` starts beside a command; not for people
    #[command(name = "__watchdog", hide = true)]
    Watchdog,
}

const CODES: &str = "Exit codes:\n  0 done   1 not acquired: held by somebody else, or timed out   2 usage\n  3 not the holder, or lost   4 no such lease   5 API server or controller unreachable\n  6 forbidden   7 denied by policy   130, 143 stopped by SIGINT, SIGTERM";

/// `koncli lease …`.
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// Acquire a lease
    #[command(after_help = format!("Without --wait and --timeout it tries once. A request that does not succeed is withdrawn.\n\nExamples:\n  koncli lease acquire db-migration --ttl=10m\n  koncli lease acquire db-migration --wait --timeout=5m\n  koncli lease acquire daily-report --timeout 0 || echo \"not acquired: $?\"\n\n{CODES}"))]
    Acquire(AcquireArgs),
    /// Renew a lease that is held
    #[command(after_help = format!("Example:\n  koncli lease renew db-migration --holder pod-a\n\n{CODES}"))]
    Renew(HolderArgs),
    /// Release a lease, or withdraw the requests that wait for it
    #[command(after_help = format!("It returns when the lease is free or handed on. Releasing what is released already succeeds.\n\nExamples:\n  koncli lease release db-migration\n  koncli lease release db-migration --force    # whoever holds it\n\n{CODES}"))]
    Release(ReleaseArgs),
    /// Run a command while holding a lease: acquire, renew, stop it in time, release
    #[command(after_help = run::RUN_HELP)]
    Run(RunArgs),
    /// Show or clear what `run --once` has completed
    #[command(subcommand, arg_required_else_help = true, after_help = run::ONCE_HELP)]
    Once(OnceCommand),
    /// Show who holds a lease and who waits for it
    Status(NameArgs),
    /// Say who holds a lease and why, who is next, and what somebody would need to win
    #[command(
        after_help = "The policy itself is asked, here, with the leases and requests as they are: who would get the lease if its holder released it, and at which priority somebody would be next. Nothing is changed. An uploaded policy can be asked by whoever may read its ConfigMap (ClusterRole konductor-policy-author).\n\nWhat is wrong by the lease's own conditions (Ready or PolicyReady is False) stands first; where that means that nobody is granted, nobody is foretold. With -o json it is in problems, as condition, reason and message, and meanwhile names the policy that decides until the lease's own works.\n\nExamples:\n  koncli lease explain db-migration\n  koncli lease explain db-migration --holder pod-c\n  koncli lease explain db-migration --holder pod-c --priority 10"
    )]
    Explain(ExplainArgs),
    /// Watch leases, who waits and hand-overs, live
    #[command(visible_alias = "top", after_help = watch::WATCH_HELP)]
    Watch(WatchArgs),
    /// List leases
    #[command(
        after_help = "With -o wide the last column, PROBLEM, has the reasons for which a lease does not work as it is meant to, such as InvalidSpec or PolicyNotFound. Without it they are said on stderr, unless --quiet.\n\nExamples:\n  koncli lease list -A -o wide\n  koncli lease list --watch"
    )]
    List(ListArgs),
    /// Create a lease
    #[command(
        after_help = "Examples:\n  koncli lease create db-migration --ttl 10m\n  koncli lease create leader --ttl 30s --policy weekdays --params '{\"from\": \"08:00\"}'"
    )]
    Create(CreateArgs),
    /// Delete a lease, whoever holds it
    Delete(NameArgs),
    /// Show the last holds of a lease
    History(NameArgs),
    /// Record what happens to leases and their requests, for verify
    #[command(after_help = verify::RECORD_HELP)]
    Record(RecordArgs),
    /// Judge what has happened: a recording, or an API server's audit log
    #[command(after_help = verify::verify_help())]
    Verify(VerifyArgs),
}

/// A lease.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Name of the lease
    #[arg(add = completion::leases())]
    pub name: String,
}

/// A lease and who acts on it.
#[derive(Debug, Args)]
pub struct HolderArgs {
    /// Name of the lease
    #[arg(add = completion::leases())]
    pub name: String,
    /// Who holds it [default: $HOSTNAME, else the host's name: in a Pod, the Pod's]
    #[arg(long, value_name = "HOLDER", add = completion::holders())]
    pub holder: Option<String>,
}

/// `koncli lease acquire`.
#[derive(Debug, Args)]
pub struct AcquireArgs {
    /// Which lease, and for whom.
    #[command(flatten)]
    pub of: HolderArgs,
    /// For how long, such as 30s, 10m, 1h30m [default: as long as the lease says, which is also the most that the default policy gives]
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    pub ttl: Option<String>,
    /// Priority; higher wins [default: the lease's]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub priority: Option<i32>,
    /// Wait until the lease is free: for ever, or as long as --timeout says
    #[arg(long)]
    pub wait: bool,
    /// Wait at most so long; 0 tries once
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    pub timeout: Option<Duration>,
    /// Create the lease with this --ttl if there is none
    #[arg(long, requires = "ttl")]
    pub create: bool,
}

/// `koncli lease release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Which lease, and who holds it.
    #[command(flatten)]
    pub of: HolderArgs,
    /// Take it from whoever holds it. The holder is not asked: make sure that it is dead, or that what the lease protects refuses its fencing token
    #[arg(long, conflicts_with = "holder")]
    pub force: bool,
}

/// `koncli lease explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Name of the lease
    #[arg(add = completion::leases())]
    pub name: String,
    /// What this holder's request would need to win; if it does not wait: what one would need that it makes now
    #[arg(long, value_name = "HOLDER", add = completion::holders())]
    pub holder: Option<String>,
    /// As if its priority were this
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, requires = "holder")]
    pub priority: Option<i32>,
}

/// `koncli lease list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Go on and write every change
    #[arg(short, long)]
    pub watch: bool,
}

/// `koncli lease create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the lease
    pub name: String,
    /// How long a grant lasts unless it is renewed, such as 30s, 10m, 1h30m
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    pub ttl: String,
    /// Priority of requests that state none; higher wins
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub priority: Option<i32>,
    /// Whether a hold can be renewed [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub renewable: Option<bool>,
    /// Which policy decides [default: the namespace's]
    #[arg(long, value_name = "NAME", add = completion::policies())]
    pub policy: Option<String>,
    /// Parameters of the policy, a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub params: Option<JsonObject>,
    /// A second policy that is asked too and only compared
    #[arg(long, value_name = "NAME", add = completion::policies())]
    pub shadow: Option<String>,
    /// What happens when the policy fails: the built-in rules decide, or nothing is granted
    #[arg(long, value_enum, value_name = "WHAT")]
    pub on_failure: Option<OnFailureArg>,
}

/// A JSON object that was typed.
pub type JsonObject = serde_json::Map<String, serde_json::Value>;

/// `--on-failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnFailureArg {
    /// The built-in policy decides
    Default,
    /// Nothing is granted, renewed or preempted until the policy works again
    Hold,
}

/// `koncli policy …`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Upload a WebAssembly module as a policy
    #[command(
        after_help = "It is checked first, as the controller will check it: whether it loads, and whether it answers some dozens of questions well, with the params of the leases that use it. Then it becomes a ConfigMap with the label konductor.io/policy-module=true, compressed if it is large. A policy of the same name is replaced; leases that use it go over to the new module when it has proved to work.\n\nExample:\n  koncli policy upload weekdays target/wasm32-unknown-unknown/release/weekdays.wasm"
    )]
    Upload {
        /// Name of the policy
        #[arg(add = completion::policies())]
        name: String,
        /// The module, a .wasm file
        file: PathBuf,
        /// Do not load and probe the module here first, as the controller will
        #[arg(long)]
        no_check: bool,
    },
    /// List uploaded policies
    List {
        /// In all namespaces
        #[arg(short = 'A', long)]
        all_namespaces: bool,
    },
    /// Show what became of a policy: its module, the leases that use or rehearse it, what went wrong
    #[command(
        after_help = "It also tells the last decisions that a shadow policy (spec.policy.shadow of a lease) would have made differently.\n\nExamples:\n  koncli policy status weekdays\n  koncli policy status weekdays -o json"
    )]
    Status {
        /// Name of the policy
        #[arg(add = completion::policies())]
        name: String,
    },
    /// Delete an uploaded policy
    Delete {
        /// Name of the policy
        #[arg(add = completion::policies())]
        name: String,
    },
    /// Begin a policy: sources, fixtures, a scenario, and how to build it
    #[command(after_help = workbench::NEW_HELP)]
    New(NewArgs),
    /// Say what a module is, and every reason why it would be refused
    #[command(after_help = workbench::INSPECT_HELP)]
    Inspect(InspectArgs),
    /// Run a policy's fixtures: given this input, expect this decision
    #[command(after_help = workbench::TEST_HELP)]
    Test(TestArgs),
    /// Play a scenario in virtual time: who comes, crashes, waits and gets the lease
    #[command(after_help = workbench::SIMULATE_HELP)]
    Simulate(SimulateArgs),
    /// Make one decision and look at it
    #[command(after_help = workbench::EVAL_HELP)]
    Eval(EvalArgs),
    /// Measure what a decision costs: time, fuel and memory
    #[command(after_help = workbench::BENCH_HELP)]
    Bench(BenchArgs),
    /// Make the decisions of a journal again, byte for byte, or with another policy
    #[command(after_help = workbench::REPLAY_HELP)]
    Replay(ReplayArgs),
}

fn ttl(text: &str) -> Result<String, konductor_crds::time::DurationError> {
    parse_ttl(text).map(|_| text.to_owned())
}

pub(crate) fn duration(text: &str) -> Result<Duration, konductor_crds::time::DurationError> {
    parse_duration(text).map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()))
}

fn json_object(text: &str) -> Result<JsonObject, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    fn acquire(line: &str) -> AcquireArgs {
        match parse(line).expect(line).command {
            Command::Lease(LeaseCommand::Acquire(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_line_of_the_lease_api_is_understood() {
        for line in [
            "koncli lease acquire daily-report --holder pod-a --timeout 0",
            "koncli lease release daily-report --holder pod-a",
            "koncli lease acquire db-migration --holder pod-a --wait --timeout=5m",
            "koncli lease acquire db-migration --holder pod-a --ttl=10m",
            "koncli lease renew db-migration --holder pod-a",
            "koncli lease release db-migration --holder pod-a",
            "koncli lease status db-migration",
            "koncli lease acquire my-service-leader --holder pod-a-123 --ttl=30s",
            "koncli lease run x --wait --once v1 --on-lost kill --grace 3s -- sh -c true",
            "koncli -n prod lease list -A -o json",
            "koncli lease list -n prod --watch",
        ] {
            parse(line).expect(line);
        }
    }

    #[test]
    fn durations_and_priorities_are_read_and_refused() {
        assert_eq!(acquire("koncli lease acquire x --timeout 0").timeout, Some(Duration::ZERO));
        assert_eq!(acquire("koncli lease acquire x --timeout 0s").timeout, Some(Duration::ZERO));
        assert_eq!(acquire("koncli lease acquire x --timeout=5m").timeout, Some(Duration::from_secs(300)));
        assert_eq!(acquire("koncli lease acquire x --priority -5").priority, Some(-5));
        assert_eq!(acquire("koncli lease acquire x --priority=-5").priority, Some(-5));
        for (line, kind) in [
            ("koncli lease acquire x --ttl 0s", ErrorKind::ValueValidation),
            ("koncli lease acquire x --ttl 10", ErrorKind::ValueValidation),
            ("koncli lease acquire x --timeout -5m", ErrorKind::ValueValidation),
            ("koncli lease acquire x --timeout soon", ErrorKind::ValueValidation),
            ("koncli lease acquire x --priority high", ErrorKind::ValueValidation),
            ("koncli lease acquire x --create", ErrorKind::MissingRequiredArgument),
            ("koncli lease acquire", ErrorKind::MissingRequiredArgument),
            ("koncli lease release x --force --holder y", ErrorKind::ArgumentConflict),
            ("koncli lease create x", ErrorKind::MissingRequiredArgument),
            ("koncli lease run x", ErrorKind::MissingRequiredArgument),
            ("koncli lease run x true", ErrorKind::UnknownArgument),
            ("koncli lease run x --once a/b -- true", ErrorKind::ValueValidation),
            ("koncli lease run x --on-lost wait -- true", ErrorKind::InvalidValue),
            ("koncli lease once clear x", ErrorKind::MissingRequiredArgument),
            ("koncli lease create x --ttl 10m --params [1]", ErrorKind::ValueValidation),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}: {error}");
        }
    }

    #[test]
    fn renewable_is_a_flag_with_a_value_that_may_be_left_out() {
        for (line, renewable) in [
            ("koncli lease create x --ttl 10m", None),
            ("koncli lease create x --ttl 10m --renewable", Some(true)),
            ("koncli lease create x --ttl 10m --renewable=false", Some(false)),
        ] {
            match parse(line).expect(line).command {
                Command::Lease(LeaseCommand::Create(args)) => assert_eq!(args.renewable, renewable, "{line}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
