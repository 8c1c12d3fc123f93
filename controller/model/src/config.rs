//! What is checked: the sizes, the faults and the policy of a run; and the defects that are put in to
//! see that they are found.

use crate::state::Budget;

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Anybody: every proposal that the ABI can express is tried.
    Any,
    /// The built-in policy.
    Default,
}

/// One run of the checker.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name.
    pub name: &'static str,
    pub(crate) rules: Rules,
    pub(crate) controllers: u8,
    /// The requests of each client, by index.
    pub(crate) clients: Vec<Vec<u8>>,
    pub(crate) priorities: [i32; 3],
    pub(crate) ttl: u8,
    /// Ticks by which the wall clocks of two controllers differ at most.
    pub(crate) skew: u8,
    pub(crate) offsets: [i8; 2],
    /// How much earlier than its ttl a client stops, and how much its clock may lose meanwhile.
    pub(crate) margin: u8,
    pub(crate) drift: bool,
    pub(crate) budget: Budget,
    /// Whether policies preempt, and whether by force.
    pub(crate) preemption: Option<bool>,
    pub(crate) denials: bool,
    /// Whether requests are told anything: who is not told is as one whose every mark is lost.
    pub(crate) marks: bool,
    /// Whether requests are told that they wait: it changes only their version.
    pub(crate) pending_marks: bool,
    /// Whether a client's watch may skip what the next event overtakes.
    pub(crate) skip_views: bool,
    pub(crate) withdraw: bool,
    pub(crate) ticks: bool,
    /// After how many ticks a request that nobody touches lapses.
    pub(crate) timeout: Option<u8>,
    /// Whether a controller looks only when something has woken it, as it does; else at any time.
    pub(crate) wakes: bool,
    /// With holds in the history, of which the oldest is of this request.
    pub(crate) full_history: bool,
    /// With a Lease that was made anew after the hold of request 0, which is told that it is over, and with a controller
    /// whose watch of requests is behind that.
    pub(crate) made_anew: bool,
    /// How the wall clock of the controllers may jump.
    pub(crate) jump_to: i8,
    /// The defect that is put in.
    pub mutant: Option<Mutant>,
}

/// A defect, by name. Those of the peers have been theirs, the others ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "`Mutant::is` says what each is")]
pub enum Mutant {
    ReleaseIsNoOp,
    GrantedAgain,
    MarkBeforeLease,
    ExpiredOverwritten,
    ConstantIdentity,
    HeldWithoutRequest,
    ReleaseBeforeStop,
    NoRequestWatch,
    ListOrder,
    NoWakeInTime,
    HistoryForgets,
    MarkOnItsWayCounts,
    StaleNotConfirmed,
    UnseenTakenForGone,
    FormerLeaseForgotten,
    LateAnswerBringsBack,
    ListProvesAbsence,
    WallClockExpiry,
    AbsentMeansReleased,
    NoCompareAndSwap,
    DeadlineFromWhenSeen,
    NoMargin,
    NoSkewAllowance,
    TokenFromRecordOnly,
    EvictedGetsItBack,
    PreemptedAtOnce,
    DeadWaiterGranted,
    CountsFromTheRefused,
    LateWatchBringsBack,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::ReleaseIsNoOp,
        Self::GrantedAgain,
        Self::MarkBeforeLease,
        Self::ExpiredOverwritten,
        Self::ConstantIdentity,
        Self::HeldWithoutRequest,
        Self::ReleaseBeforeStop,
        Self::NoRequestWatch,
        Self::ListOrder,
        Self::NoWakeInTime,
        Self::HistoryForgets,
        Self::MarkOnItsWayCounts,
        Self::StaleNotConfirmed,
        Self::UnseenTakenForGone,
        Self::FormerLeaseForgotten,
        Self::LateAnswerBringsBack,
        Self::ListProvesAbsence,
        Self::WallClockExpiry,
        Self::AbsentMeansReleased,
        Self::NoCompareAndSwap,
        Self::DeadlineFromWhenSeen,
        Self::NoMargin,
        Self::NoSkewAllowance,
        Self::TokenFromRecordOnly,
        Self::EvictedGetsItBack,
        Self::PreemptedAtOnce,
        Self::DeadWaiterGranted,
        Self::CountsFromTheRefused,
        Self::LateWatchBringsBack,
    ];

    /// What the defect is.
    #[must_use]
    pub fn is(self) -> &'static str {
        match self {
            Self::ReleaseIsNoOp => "release is a no-op: a deleted request of the holder still counts (LogicIQ 4)",
            Self::GrantedAgain => "requests are not filtered by what they were told or have held (LogicIQ 5)",
            Self::MarkBeforeLease => "the request is marked before the Lease is written, and believed (LogicIQ 6)",
            Self::ExpiredOverwritten => "Expired is overwritten in the same pass (LogicIQ 8)",
            Self::ConstantIdentity => "two processes have the same identity (LogicIQ 13, klock)",
            Self::HeldWithoutRequest => "a request is deleted while it is granted: held by nobody (LogicIQ 14)",
            Self::ReleaseBeforeStop => "the lease is released before the child is gone (klock, client-go)",
            Self::NoRequestWatch => "requests wake nobody (LogicIQ 1)",
            Self::ListOrder => "ties go by list order (LogicIQ 7)",
            Self::NoWakeInTime => "nothing wakes the controller when time has passed (LogicIQ 12)",
            Self::HistoryForgets => "the history forgets a request that is not marked",
            Self::MarkOnItsWayCounts => "a mark on its way counts as told, also for the history",
            Self::StaleNotConfirmed => "requests that are older than the lease are not confirmed",
            Self::UnseenTakenForGone => "the request of the oldest hold counts as gone when it was not seen",
            Self::FormerLeaseForgotten => "a request that is older than the Lease is believed to have held nothing",
            Self::LateAnswerBringsBack => "a late answer to a read brings back what the watch has shown gone",
            Self::ListProvesAbsence => "a list proves the absence of what was read while it was on its way",
            Self::WallClockExpiry => "expiry goes by the wall clock",
            Self::AbsentMeansReleased => "release is inferred from a cache that is only late",
            Self::NoCompareAndSwap => "the Lease is written without compare-and-swap",
            Self::DeadlineFromWhenSeen => "a client counts its deadline from when it saw the grant",
            Self::NoMargin => "a client has no margin for its clock",
            Self::NoSkewAllowance => "another replica's expiry is believed without allowance",
            Self::TokenFromRecordOnly => "the token is the last one plus one",
            Self::EvictedGetsItBack => "the end of a forced release is not remembered",
            Self::PreemptedAtOnce => "a preemption ends the hold at once",
            Self::DeadWaiterGranted => "a request does not lapse",
            Self::CountsFromTheRefused => "a client counts its deadline from a beat that was refused",
            Self::LateWatchBringsBack => "a late watch brings back what was read as gone",
        }
    }
}

impl Config {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            rules: Rules::Any,
            controllers: 1,
            clients: vec![vec![0], vec![1]],
            priorities: [0; 3],
            ttl: 2,
            skew: 1,
            offsets: [0, 0],
            margin: 1,
            drift: false,
            budget: Budget::default(),
            preemption: None,
            denials: false,
            marks: true,
            pending_marks: false,
            skip_views: false,
            withdraw: false,
            ticks: true,
            timeout: None,
            wakes: false,
            full_history: false,
            made_anew: false,
            jump_to: 0,
            mutant: None,
        }
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The same with a defect in it.
    #[must_use]
    pub fn with(mut self, mutant: Mutant) -> Self {
        self.mutant = Some(mutant);
        self
    }
}

/// The smallest configuration in which a defect shows, and the property that finds it.
#[must_use]
pub fn shows(mutant: Mutant) -> (Config, &'static str) {
    let (name, finds) = match mutant {
        Mutant::ReleaseIsNoOp => ("everybody is told", "L2"),
        Mutant::HeldWithoutRequest => ("everybody is told", "L2"),
        Mutant::NoRequestWatch => ("nobody waits for ever", "L2"),
        Mutant::NoWakeInTime => ("nobody waits for ever", "L1"),
        Mutant::GrantedAgain => ("two stale controllers", "S5"),
        Mutant::MarkBeforeLease => ("lost answers", "S3"),
        Mutant::ExpiredOverwritten => ("clients and clocks", "D9"),
        Mutant::ConstantIdentity => ("two stale controllers", "S3"),
        Mutant::ReleaseBeforeStop => ("two stale controllers", "S3"),
        Mutant::ListOrder => ("first come, first served", "L4"),
        Mutant::HistoryForgets
        | Mutant::MarkOnItsWayCounts
        | Mutant::StaleNotConfirmed
        | Mutant::UnseenTakenForGone => ("a full history", "S5"),
        Mutant::FormerLeaseForgotten => ("a lease that is made anew", "S5"),
        Mutant::LateAnswerBringsBack => ("a full history and who gives up", "S5"),
        Mutant::ListProvesAbsence => ("lists that are late", "S12"),
        Mutant::WallClockExpiry => ("a wall clock that jumps", "S8"),
        Mutant::AbsentMeansReleased => ("two stale controllers", "S12"),
        Mutant::NoCompareAndSwap => ("two stale controllers", "S2"),
        Mutant::DeadlineFromWhenSeen | Mutant::NoMargin => ("clients and clocks", "S3"),
        Mutant::NoSkewAllowance => ("clocks of two replicas", "S8"),
        Mutant::TokenFromRecordOnly => ("a person", "S2"),
        Mutant::EvictedGetsItBack => ("a person", "S5"),
        Mutant::PreemptedAtOnce => ("preemption", "S9"),
        Mutant::DeadWaiterGranted => ("waiters that die", "S5"),
        Mutant::CountsFromTheRefused => ("a watch that leaves out", "S3"),
        Mutant::LateWatchBringsBack => ("a full history and who gives up", "the core"),
    };
    (named(name, false).with(mutant), finds)
}

/// The configuration of this name, small or large.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn named(name: &str, large: bool) -> Config {
    configs(large).into_iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no configuration is called {name}"))
}

/// What is checked: with every test run, or, larger, by `make model`.
#[must_use]
pub fn configs(large: bool) -> Vec<Config> {
    let larger = |small: Config| match large && LARGER.contains(&small.name) {
        true => sized(true).into_iter().find(|c| c.name == small.name).unwrap_or(small),
        false => small,
    };
    sized(false).into_iter().map(larger).collect()
}

/// Those whose larger form was seen to come to an end within a minute on two cores. The others' were not yet.
const LARGER: [&str; 4] = ["restarts", "a full history and who gives up", "holders that restart", "everybody is told"];

fn sized(large: bool) -> Vec<Config> {
    let more = u8::from(large);
    vec![
        // Two controllers that are both at work, with caches as late as can be.
        Config { controllers: 2, ticks: false, marks: large, ..Config::new("two stale controllers") },
        // Time: renewals, pauses, a client's clock that is slow, replicas whose wall clocks differ.
        Config {
            rules: if large { Rules::Any } else { Rules::Default },
            controllers: 2,
            offsets: [0, 1],
            clients: vec![vec![0]],
            marks: false,
            drift: large,
            budget: Budget { renewals: more, ..Budget::default() },
            ..Config::new("clocks of two replicas")
        },
        Config {
            clients: vec![vec![0]],
            drift: true,
            marks: false,
            withdraw: true,
            budget: Budget { renewals: 2, ..Budget::default() },
            ..Config::new("clients and clocks")
        },
        // A wall clock that jumps further than the allowance, of a controller that stays.
        Config {
            clients: vec![vec![0]],
            budget: Budget { renewals: 1, jumps: 2, ..Budget::default() },
            marks: false,
            jump_to: 6,
            ..Config::new("a wall clock that jumps")
        },
        // A request that nobody touches lapses.
        Config {
            marks: large,
            timeout: Some(2),
            budget: Budget { renewals: more, ..Budget::default() },
            ..Config::new("waiters that die")
        },
        // Crashes between any two writes, and writes of which nobody heard.
        Config {
            ticks: false,
            withdraw: large,
            marks: large,
            budget: Budget { restarts: 1, timeouts: 1, ..Budget::default() },
            ..Config::new("restarts")
        },
        Config {
            ticks: false,
            denials: true,
            pending_marks: large,
            budget: Budget { lost_answers: 1, restarts: more, ..Budget::default() },
            ..Config::new("lost answers")
        },
        Config {
            ticks: false,
            clients: vec![vec![0]],
            controllers: 2,
            marks: false,
            budget: Budget { relists: 1 + more, renewals: more, ..Budget::default() },
            ..Config::new("lists that are late")
        },
        // A history that is full: the oldest hold's request may be unmarked.
        Config {
            controllers: 1 + more,
            full_history: true,
            ticks: false,
            budget: Budget { lost_answers: 1, ..Budget::default() },
            ..Config::new("a full history")
        },
        Config {
            full_history: true,
            ticks: false,
            withdraw: true,
            budget: Budget { lost_answers: 1, restarts: more, ..Budget::default() },
            ..Config::new("a full history and who gives up")
        },
        Config {
            preemption: Some(false),
            marks: false,
            budget: Budget { renewals: more, ..Budget::default() },
            ..Config::new("preemption")
        },
        Config { preemption: Some(true), marks: false, ..Config::new("preemption by force") },
        // What a person does.
        Config {
            budget: Budget { forces: 1, recreations: 1, ..Budget::default() },
            ticks: false,
            marks: large,
            ..Config::new("a person")
        },
        // The holder of the former Lease is told that it is over; a replica may not have seen that yet.
        Config {
            controllers: 1 + more,
            made_anew: true,
            ticks: false,
            withdraw: true,
            budget: Budget { lost_answers: 1, ..Budget::default() },
            ..Config::new("a lease that is made anew")
        },
        // The same holder again: a process that has started anew.
        Config {
            clients: vec![vec![0, 1], vec![2]],
            ticks: false,
            marks: large,
            ..Config::new("holders that restart")
        },
        // Who waits is granted, with what wakes a controller in the model.
        Config {
            rules: Rules::Default,
            wakes: true,
            marks: large,
            budget: Budget { timeouts: more, ..Budget::default() },
            ..Config::new("nobody waits for ever")
        },
        Config {
            rules: Rules::Default,
            wakes: true,
            ticks: false,
            pending_marks: true,
            budget: Budget { lost_answers: more, restarts: 1, ..Budget::default() },
            ..Config::new("everybody is told")
        },
        Config {
            rules: Rules::Default,
            wakes: true,
            controllers: 2,
            clients: if large { vec![vec![0], vec![1]] } else { vec![vec![0]] },
            marks: !large,
            ticks: false,
            ..Config::new("nobody waits for two")
        },
        Config {
            rules: Rules::Default,
            wakes: true,
            clients: vec![vec![0], vec![1], vec![2]],
            priorities: [0, 0, 1],
            preemption: Some(false),
            marks: large,
            ticks: false,
            ..Config::new("first come, first served")
        },
        // A watch that is opened late, or anew, shows no state between two.
        Config {
            clients: vec![vec![0]],
            ttl: 3,
            skip_views: true,
            marks: false,
            budget: Budget { renewals: 1, ..Budget::default() },
            ..Config::new("a watch that leaves out")
        },
    ]
}
