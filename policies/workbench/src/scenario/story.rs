//! What happened in a scenario.

use serde::Serialize;

use super::{Expect, Scenario, text::clock};

/// What happened in a scenario. Times are virtual milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// What the scenario shows.
    pub description: String,
    /// The policy that was asked.
    pub digest: String,
    /// When it ended.
    pub until: i64,
    /// Every hold, in order.
    pub holds: Vec<HoldSpan>,
    /// Every wait, in the order of arrival.
    pub waits: Vec<Wait>,
    /// Everything that happened, in order.
    pub entries: Vec<Entry>,
    /// Numbers.
    pub summary: Summary,
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldSpan {
    /// Who held.
    pub holder: String,
    /// Its fencing token.
    pub token: i64,
    /// From when.
    pub from: i64,
    /// Until when; `None`: it is still held at the end.
    pub to: Option<i64>,
    /// How it ended.
    pub how: Option<&'static str>,
    /// How often it was renewed.
    pub renewals: i64,
    /// When its holder crashed.
    pub crashed: Option<i64>,
}

/// A wait for the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// Who waited.
    pub holder: String,
    /// From when.
    pub from: i64,
    /// Until when; `None`: it still waits at the end.
    pub to: Option<i64>,
    /// What came of it.
    pub end: WaitEnd,
}

/// What came of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum WaitEnd {
    /// It got the lease.
    Granted,
    /// The policy will never grant it.
    Denied,
    /// It left by itself.
    Left,
    /// Its timeout was over.
    TimedOut,
    /// A newer request of the same holder took its place.
    Superseded,
    /// It still waits.
    Waiting,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When.
    pub at: i64,
    /// What.
    pub what: Happening,
    /// To whom; empty where it is about nobody.
    pub holder: String,
    /// The fencing token of the hold that it is about.
    pub token: Option<i64>,
    /// More, mostly why.
    pub text: String,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the words say it; `Happening::words` has more of them")]
pub enum Happening {
    Arrives,
    Granted,
    Renewed,
    RenewalRefused,
    Preempting,
    Crashes,
    Ended,
    Leaves,
    Denied,
    TimedOut,
    Fault,
    Veto,
}

/// Numbers of a story.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// How many reconciles were made.
    pub steps: usize,
    /// How many questions were put to the policy.
    pub questions: usize,
    /// The most fuel that one of them took.
    pub fuel_max: u64,
    /// At how many instants the policy broke, or refused its params.
    pub faults: usize,
    /// At how many instants the guard refused what it said.
    pub vetoes: usize,
    /// How many renewals were granted.
    pub renewals: usize,
    /// How many were refused.
    pub renewals_refused: usize,
    /// How often a holder was asked to leave.
    pub preemptions: usize,
}

/// How long each of a holder's waits and holds were, all in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share<'a> {
    pub(super) holder: &'a str,
    pub(super) holds: usize,
    pub(super) held: i64,
    pub(super) longest_wait: i64,
}

impl Story {
    pub(super) fn new(scenario: &Scenario, digest: String) -> Self {
        Self {
            description: scenario.description.clone(),
            digest,
            until: scenario.until,
            holds: Vec::new(),
            waits: Vec::new(),
            entries: Vec::new(),
            summary: Summary::default(),
        }
    }

    /// Everybody who came, in the order in which they first did.
    pub(super) fn holders(&self) -> Vec<&str> {
        let mut holders: Vec<&str> = Vec::new();
        for wait in &self.waits {
            if !holders.contains(&wait.holder.as_str()) {
                holders.push(&wait.holder);
            }
        }
        holders
    }

    pub(super) fn shares(&self) -> Vec<Share<'_>> {
        let share = |holder| {
            let holds = self.holds.iter().filter(|hold| hold.holder == holder);
            let waits = self.waits.iter().filter(|wait| wait.holder == holder);
            Share {
                holder,
                holds: holds.clone().count(),
                held: holds.map(|hold| hold.to.unwrap_or(self.until) - hold.from).sum(),
                longest_wait: waits.map(|wait| self.waited(wait)).max().unwrap_or(0),
            }
        };
        self.holders().into_iter().map(share).collect()
    }

    /// For how long the lease was held, in all.
    pub(super) fn held(&self) -> i64 {
        self.shares().iter().map(|share| share.held).sum()
    }

    fn waited(&self, wait: &Wait) -> i64 {
        wait.to.unwrap_or(self.until) - wait.from
    }

    /// The hand-over gaps: for each hold, how long it came after the hold before it ended, as far as
    /// somebody was waiting then.
    pub(super) fn gaps(&self) -> Vec<i64> {
        let pairs = self.holds.iter().zip(self.holds.iter().skip(1));
        pairs
            .map(|(before, after)| {
                let ended = before.to.unwrap_or(after.from);
                // The holder itself waited until now; others may have waited for longer.
                let waiting = self.waits.iter().filter(|wait| wait.from <= after.from);
                let waiting = waiting.filter(|wait| wait.to.is_none_or(|to| to >= after.from));
                let since = waiting.map(|wait| wait.from).min().unwrap_or(after.from);
                after.from - ended.max(since)
            })
            .collect()
    }

    /// How long it took from each crash until somebody held the lease again.
    pub(super) fn fail_overs(&self) -> Vec<i64> {
        let crashes = self.holds.iter().enumerate().filter_map(|(i, hold)| Some((i, hold.crashed?)));
        crashes.filter_map(|(i, crashed)| Some(self.holds.get(i + 1)?.from - crashed)).collect()
    }

    /// What is not as the scenario expects, a line each for a person; empty: all is.
    #[must_use]
    pub fn differences(&self, scenario: &Scenario) -> Vec<String> {
        let Expect { holders, ends, denied, faults, vetoes, max_wait } = &scenario.expect;
        let mut found = Vec::new();
        let mut compare = |what: &str, expected: String, got: String| {
            if expected != got {
                found.push(format!("{what:<8} expected  {expected}"));
                found.push(format!("{:<8} got       {got}", ""));
            }
        };
        if let Some(holders) = holders {
            compare("holders", holders.join(", "), joined(self.holds.iter().map(|hold| hold.holder.as_str())));
        }
        if let Some(ends) = ends {
            let held = "null (still held)";
            compare(
                "ends",
                joined(ends.iter().map(|how| how.as_deref().unwrap_or(held))),
                joined(self.holds.iter().map(|hold| hold.how.unwrap_or(held))),
            );
        }
        if let Some(denied) = denied {
            let told = self.entries.iter().filter(|entry| entry.what == Happening::Denied);
            compare("denied", denied.join(", "), joined(told.map(|entry| entry.holder.as_str())));
        }
        if let Some(faults) = faults {
            compare("faults", faults.to_string(), self.summary.faults.to_string());
        }
        if let Some(vetoes) = vetoes {
            compare("vetoes", vetoes.to_string(), self.summary.vetoes.to_string());
        }
        if let Some(most) = max_wait {
            let stayed = self.waits.iter().filter(|wait| !matches!(wait.end, WaitEnd::Left | WaitEnd::TimedOut));
            if let Some(longest) = stayed.max_by_key(|wait| self.waited(wait)).filter(|wait| self.waited(wait) > *most)
            {
                compare(
                    "maxWait",
                    format!("at most {}", clock(*most)),
                    format!("{} waited {}", longest.holder, clock(self.waited(longest))),
                );
            }
        }
        found
    }
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}
