//! One verb per file. A command gets what was typed, acts through the client library, and writes.

mod acquire;
mod create;
mod delete;
mod explain;
mod history;
mod list;
mod man;
mod once;
mod policy;
mod problem;
mod record;
mod release;
mod renew;
mod run;
mod signals;
mod status;
mod verify;
mod waiting;
mod watch;

use konductor_crds::{Lease, LeaseRequest};
use kube::Api;

use crate::{
    args::{Cli, Command, Format, Global, LeaseCommand, OnceCommand, PolicyCommand, RecordArgs, WatchArgs},
    client::{Client, ConnectOptions, Connection, Error, Problem, Result, connect, object_name_problem},
    completion,
    output::{Output, report},
};

/// Runs a command and returns the exit code of the process.
pub async fn run(cli: Cli) -> u8 {
    let Cli { global, command } = cli;
    // Its exit codes are the command's own, and others.
    let command = match command {
        Command::Lease(LeaseCommand::Run(args)) => return run::run(&global, args).await,
        other => other,
    };
    match dispatch(&global, command).await {
        Ok(()) => 0,
        Err(error) => {
            report(&error);
            error.exit_code()
        }
    }
}

async fn dispatch(global: &Global, command: Command) -> Result<()> {
    let out = Output::new(global);
    match command {
        Command::Version => version(out),
        Command::Completion { shell } => completion::script(shell),
        Command::Man { directory } => man::run(out, directory.as_deref()),
        Command::Watchdog => {
            run::watch();
            Ok(())
        }
        Command::Lease(LeaseCommand::Verify(args)) => verify::run(out, &args),
        Command::Lease(command) => {
            if let LeaseCommand::Record(RecordArgs { leases, .. }) | LeaseCommand::Watch(WatchArgs { leases, .. }) =
                &command
            {
                leases.iter().try_for_each(|name| check_name("lease", name))?;
            }
            if let Some(name) = lease_name_of(&command) {
                check_name("lease", name)?;
            }
            let connection = open(global, out).await?;
            let done = match command {
                LeaseCommand::Acquire(args) => acquire::run(&connection, out, args).await,
                LeaseCommand::Renew(args) => renew::run(&connection, out, args).await,
                LeaseCommand::Release(args) => release::run(&connection, out, args).await,
                LeaseCommand::Once(command) => once::run(&connection, out, command).await,
                LeaseCommand::Status(args) => status::run(&connection, out, &args.name).await,
                LeaseCommand::Explain(args) => explain::run(&connection, out, &args).await,
                LeaseCommand::List(args) => list::run(&connection, out, &args).await,
                LeaseCommand::Create(args) => create::run(&connection, out, args).await,
                LeaseCommand::Delete(args) => delete::run(&connection, out, &args.name).await,
                LeaseCommand::History(args) => history::run(&connection, out, &args.name).await,
                LeaseCommand::Watch(args) => watch::run(&connection, out, &args).await,
                LeaseCommand::Record(args) => record::run(&connection, out, &args).await,
                // Above: they need no cluster, or have exit codes of their own.
                LeaseCommand::Verify(args) => verify::run(out, &args),
                LeaseCommand::Run(_) => Ok(()),
            };
            done.map_err(|error| placed(error, &connection))
        }
        Command::Policy(command) => {
            if let PolicyCommand::Upload { name, .. } | PolicyCommand::Delete { name } = &command {
                check_name("policy", name)?;
            }
            policy::run(global, out, command).await
        }
    }
}

fn lease_name_of(command: &LeaseCommand) -> Option<&str> {
    match command {
        LeaseCommand::Acquire(args) => Some(&args.of.name),
        LeaseCommand::Renew(args) => Some(&args.name),
        LeaseCommand::Release(args) => Some(&args.of.name),
        LeaseCommand::Status(args) | LeaseCommand::Delete(args) | LeaseCommand::History(args) => Some(&args.name),
        LeaseCommand::Create(args) => Some(&args.name),
        LeaseCommand::Explain(args) => Some(&args.name),
        LeaseCommand::Run(args) => Some(&args.acquire.of.name),
        LeaseCommand::Once(OnceCommand::List { name } | OnceCommand::Clear { name, .. }) => Some(name),
        LeaseCommand::List(_) | LeaseCommand::Watch(_) | LeaseCommand::Record(_) | LeaseCommand::Verify(_) => None,
    }
}

/// A name that cannot exist is a typing error, not a missing object.
fn check_name(kind: &str, name: &str) -> Result<()> {
    match object_name_problem(name) {
        None => Ok(()),
        Some(problem) => {
            Err(Error::new(format!("use the {kind} name \"{name}\""), Problem::Invalid(format!("it {problem}"))))
        }
    }
}

/// Connects as the flags say.
async fn open(global: &Global, out: Output) -> Result<Connection> {
    let options = ConnectOptions {
        kubeconfig: global.kubeconfig.clone(),
        context: global.context.clone(),
        namespace: global.namespace.clone(),
    };
    let connection = connect(&options).await?;
    out.detail(format_args!("API server {}, namespace {}", connection.server, connection.namespace));
    Ok(connection)
}

/// An error, with what was meant by "the" namespace or API server where that may be the mistake.
fn placed(error: Error, connection: &Connection) -> Error {
    let note = match error.problem() {
        Problem::NoSuchLease { .. } => {
            format!(
                "the namespace \"{}\" is named by {}; name another with -n",
                connection.namespace, connection.namespace_from
            )
        }
        Problem::Unreachable(_) | Problem::NotInstalled => format!("the API server is {}", connection.server),
        _ => return error,
    };
    error.with_note(note)
}

fn client_for(connection: &Connection) -> Client {
    Client::new(connection.client.clone(), &connection.namespace)
}

/// The leases and requests of the namespace that is meant, or of all.
fn apis(connection: &Connection, all_namespaces: bool) -> (Api<Lease>, Api<LeaseRequest>) {
    let client = connection.client.clone();
    if all_namespaces {
        return (Api::all(client.clone()), Api::all(client));
    }
    (Api::namespaced(client.clone(), &connection.namespace), Api::namespaced(client, &connection.namespace))
}

/// Who acts: as typed, else the Pod's or host's name.
fn holder(typed: Option<String>) -> Result<String> {
    valid_holder(typed.unwrap_or_else(host))
}

/// The name of the Pod or of the host.
fn host() -> String {
    let named = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

fn valid_holder(holder: String) -> Result<String> {
    const DOING: &str = "name the holder";
    match konductor_crds::v1::validate_holder(&holder) {
        Ok(()) => Ok(holder),
        Err(invalid) => Err(Error::new(
            DOING,
            Problem::Invalid(format!("--holder \"{}\" {}", holder.escape_debug(), invalid.problem)),
        )),
    }
}

fn version(out: Output) -> Result<()> {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    match out.format {
        Format::Json | Format::Yaml => {
            out.structured(&serde_json::json!({ "client": VERSION, "api": format!("{}/{}", konductor_crds::GROUP, konductor_crds::VERSION) }))
        }
        Format::Text | Format::Wide | Format::Name => out.data(format_args!("koncli {VERSION}")),
    }
}
