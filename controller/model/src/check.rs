//! Running the checker, and telling what it found.

use std::{fmt::Write as _, time::Instant};

use stateright::{Checker as _, HasDiscoveries, Model, Property};

use crate::{
    config::Config,
    properties,
    state::{State, Status},
    steps::{Step, beginnings, successors},
};

/// The protocol with a configuration.
#[derive(Debug, Clone)]
pub(crate) struct Protocol(Config);

impl Protocol {
    pub(crate) fn config(&self) -> &Config {
        &self.0
    }
}

/// A step, and where it leads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Move(Step, Box<State>);

impl Model for Protocol {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        let mut all = beginnings(&self.0);
        all.iter_mut().for_each(|state| {
            crate::steps::settle(state);
            state.renumber();
        });
        all
    }

    fn actions(&self, state: &State, actions: &mut Vec<Move>) {
        actions.extend(successors(&self.0, state).into_iter().map(|(step, to)| Move(step, Box::new(to))));
    }

    fn next_state(&self, _: &State, action: Move) -> Option<State> {
        Some(*action.1)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.0)
    }
}

/// What a run has come to.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration's name.
    pub name: &'static str,
    /// How many states were reached, each as often as it was.
    pub states: usize,
    /// How many different ones.
    pub unique: usize,
    /// The most steps from the beginning, by the shortest way.
    pub depth: usize,
    /// How long it took.
    pub seconds: f64,
    /// The properties that do not hold, each with what led there.
    pub violations: Vec<(&'static str, String)>,
}

/// Goes through every state of a configuration, or until a property does not hold.
#[must_use]
pub fn check(config: Config) -> Outcome {
    let started = Instant::now();
    let name = config.name;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // With one thread the way to a violation is a shortest one; whole runs are worth more threads.
    let threads = if config.mutant.is_some() { 1 } else { threads };
    let checker =
        Protocol(config).checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut violations: Vec<(&'static str, String)> =
        checker.discoveries().into_iter().map(|(property, path)| (property, told(path.into_vec()))).collect();
    violations.sort();
    Outcome {
        name,
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        seconds: started.elapsed().as_secs_f64(),
        violations,
    }
}

/// What everybody did, a step a line, and the Lease after it.
fn told(path: Vec<(State, Option<Move>)>) -> String {
    let mut text = String::new();
    for (n, (_, step)) in path.into_iter().enumerate() {
        let Some(Move(step, to)) = step else { continue };
        let lease = to.lease.as_ref().map_or("no Lease".to_owned(), |lease| {
            let state = match &lease.state {
                Status::Available => "Available".to_owned(),
                Status::Held(hold) => format!("Held by {} for {}", hold.request, hold.expires),
                Status::Expired(_) => "Expired".to_owned(),
                Status::Evicted(hold) => format!("Evicted {}", hold.request),
            };
            format!("{state}, token {}, v{}", lease.token, lease.version)
        });
        let beliefs: Vec<String> = to
            .clients
            .iter()
            .enumerate()
            .filter_map(|(c, client)| {
                client.belief.map(|b| format!("client {c} believes in {} for {}", b.request, b.left))
            })
            .collect();
        let beliefs = if beliefs.is_empty() { String::new() } else { format!("; {}", beliefs.join(", ")) };
        let _ = writeln!(text, "{:>3}. {step}  [{lease}{beliefs}]", n + 1);
    }
    text
}
