//! `koncli lease record`.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use futures::{
    StreamExt as _,
    future::{Either, pending},
};
use konductor_crds::{Lease, LeaseRequest};
use konductor_verify::{
    Kind, Scope, Stored,
    recording::{Line, What},
};
use kube::Resource as _;

use super::{apis, signals};
use crate::{
    args::RecordArgs,
    client::{Access, CallFailure, Connection, Error, Followed, Problem, Result, follow},
    output::{Output, wall_clock_ms},
    text::bytes,
};

pub(super) async fn run(connection: &Connection, out: Output, args: &RecordArgs) -> Result<()> {
    let (leases, requests) = apis(connection, args.all_namespaces);
    let scope = Scope {
        namespace: (!args.all_namespaces).then(|| connection.namespace.clone()),
        leases: args.leases.iter().cloned().collect(),
    };
    // From here on, so that none is missed while it starts.
    let mut stop = std::pin::pin!(signals::stop());
    let time = args.duration.map_or(Either::Left(pending()), |most| Either::Right(tokio::time::sleep(most)));
    let mut time = std::pin::pin!(time);

    let mut requests = follow(requests, Access::requests);
    let mut leases = follow(leases, Access::leases);
    // Requests first: whoever is granted a lease later on was there, or came after that. And nothing is made before it
    // is known that there is something to record.
    let first = tokio::select! {
        _ = stop.as_mut() => return Ok(()),
        first = requests.next() => first,
    };
    let mut tape = Tape::new(&args.file, args.max_size, scope.clone())?;
    tape.write(&Line::begin(wall_clock_ms(), &connection.server, scope))?;
    let mut asked = first;
    let mut listed = false;
    let why = loop {
        let room = match (asked.take(), listed) {
            (Some(item), _) => tape.take(out, item.map_err(|failure| failed("record lease requests", failure))?)?,
            (None, false) => {
                listed = true;
                true
            }
            (None, true) => tokio::select! {
                // In this order: a signal is not to wait behind a storm.
                biased;
                _ = stop.as_mut() => break "it was asked to stop".to_owned(),
                () = time.as_mut() => break "its time is over".to_owned(),
                Some(item) = requests.next() => {
                    tape.take(out, item.map_err(|failure| failed("record lease requests", failure))?)?
                }
                Some(item) = leases.next() => {
                    tape.take(out, item.map_err(|failure| failed("record leases", failure))?)?
                }
                else => break "the API server ended it".to_owned(),
            },
        };
        if tape.gone {
            return Ok(());
        }
        if !room {
            let full = format!("{} are written, which is what --max-size allows", bytes_of(args.max_size));
            tape.write_in_reserve(&Line::end(wall_clock_ms(), &full))?;
            return Err(Error::new("go on with the recording", Problem::Failed(full))
                .with_note("what is written can be verified; record fewer leases, or with a larger --max-size"));
        }
    };
    tape.write_in_reserve(&Line::end(wall_clock_ms(), &why))?;
    out.say(format_args!("recorded {} events: {why}", tape.events));
    Ok(())
}

fn failed(doing: &str, failure: CallFailure) -> Error {
    Error::from_call(doing, failure)
}

fn bytes_of(size: u64) -> String {
    bytes(usize::try_from(size).unwrap_or(usize::MAX))
}

/// Room that is kept for the last line.
const RESERVE: u64 = 512;

/// What is written to.
struct Tape {
    to: Box<dyn io::Write>,
    named: String,
    scope: Scope,
    left: u64,
    events: usize,
    /// Whoever read it went away.
    gone: bool,
}

impl Tape {
    fn new(file: &Path, most: u64, scope: Scope) -> Result<Self> {
        let to: Box<dyn io::Write> = if file == Path::new("-") {
            Box::new(io::stdout())
        } else {
            // Never over another recording: it may be the only evidence that there is.
            let opened = File::options().write(true).create_new(true).open(file);
            Box::new(opened.map_err(|error| {
                let doing = format!("record to {}", file.display());
                let note = "name a file that does not exist yet, in a directory that does; or - for stdout";
                Error::new(doing, Problem::Invalid(error.to_string())).with_note(note)
            })?)
        };
        let named = file.display().to_string();
        Ok(Self { to, named, scope, left: most.saturating_sub(RESERVE), events: 0, gone: false })
    }

    /// Writes a line, if there is room for it.
    fn write(&mut self, line: &Line) -> Result<bool> {
        let invalid = |why: String, named: &str| Error::new(format!("record to {named}"), Problem::Local(why));
        let mut text = serde_json::to_vec(line).map_err(|error| invalid(error.to_string(), &self.named))?;
        text.push(b'\n');
        let size = text.len() as u64;
        if size > self.left {
            self.left = 0;
            return Ok(false);
        }
        self.left -= size;
        match self.to.write_all(&text).and_then(|()| self.to.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(true)
            }
            Err(error) => Err(invalid(error.to_string(), &self.named)),
        }
    }

    fn write_in_reserve(&mut self, line: &Line) -> Result<()> {
        self.left += RESERVE;
        self.write(line).map(drop)
    }

    /// Writes what has become known; whether there was room for it.
    fn take<K: Recorded>(&mut self, out: Output, followed: Followed<K>) -> Result<bool> {
        let now = wall_clock_ms();
        let (what, object) = match followed {
            Followed::Listed(version, objects) => {
                let objects: Vec<Stored> =
                    objects.into_iter().filter(|object| object.is_of(&self.scope)).map(Recorded::stored).collect();
                let mut room = self.write(&Line::list(now, K::KIND, &version, objects.len()))?;
                for object in objects {
                    room = room && self.write(&Line::object(now, What::Listed, &object))?;
                    self.events += usize::from(room);
                }
                return Ok(room);
            }
            Followed::Gap(after, why) => {
                out.say(format_args!("changes may be missing after resourceVersion {after}: {why}"));
                return self.write(&Line::gap(now, K::KIND, &after, &why));
            }
            Followed::Trouble(why) => {
                out.detail(format_args!("the watch broke off and is opened again: {why}"));
                return Ok(true);
            }
            Followed::Added(object) => (What::Added, object),
            Followed::Modified(object) => (What::Modified, object),
            Followed::Deleted(object) => (What::Deleted, object),
        };
        if !object.is_of(&self.scope) {
            return Ok(true);
        }
        self.events += 1;
        self.write(&Line::object(now, what, &object.stored()))
    }
}

/// What is recorded.
trait Recorded: Sized {
    const KIND: Kind;
    fn is_of(&self, scope: &Scope) -> bool;
    fn stored(self) -> Stored;
}

impl Recorded for Lease {
    const KIND: Kind = Kind::Lease;

    fn is_of(&self, scope: &Scope) -> bool {
        let metadata = self.meta();
        scope.has(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    }

    fn stored(self) -> Stored {
        Stored::Lease(Box::new(self))
    }
}

impl Recorded for LeaseRequest {
    const KIND: Kind = Kind::LeaseRequest;

    fn is_of(&self, scope: &Scope) -> bool {
        scope.has(self.meta().namespace.as_deref().unwrap_or_default(), &self.spec.lease)
    }

    fn stored(self) -> Stored {
        Stored::Request(Box::new(self))
    }
}
