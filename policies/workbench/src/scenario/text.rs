//! A story as text.

use konductor_crds::time::format_duration;

use super::story::{Entry, Happening, Story};
use crate::words::plain;

/// Virtual time for people: `1m30s`.
pub(crate) fn clock(ms: i64) -> String {
    format_duration(ms)
}

/// So many renewals of one hold in a row are shown as one line.
struct Line {
    at: i64,
    what: &'static str,
    holder: String,
    token: String,
    text: String,
}

impl Happening {
    fn words(self) -> &'static str {
        match self {
            Self::Arrives => "arrives",
            Self::Granted => "granted",
            Self::Renewed => "renewed",
            Self::RenewalRefused => "renewal refused",
            Self::Preempting => "asked to leave",
            Self::Crashes => "crashes",
            Self::Ended => "ended",
            Self::Leaves => "leaves",
            Self::Denied => "denied",
            Self::TimedOut => "timed out",
            Self::Fault => "policy fault",
            Self::Veto => "policy vetoed",
        }
    }
}

impl Story {
    /// The timeline: what happened when, to whom, and why.
    #[must_use]
    pub fn timeline(&self) -> String {
        let mut lines = vec![Line {
            at: -1,
            what: "EVENT",
            holder: "HOLDER".to_owned(),
            token: "TOKEN".to_owned(),
            text: "WHY".to_owned(),
        }];
        lines.extend(folded(&self.entries));
        let time = |line: &Line| if line.at < 0 { "TIME".to_owned() } else { clock(line.at) };
        let widest = |cell: &dyn Fn(&Line) -> usize| lines.iter().map(cell).max().unwrap_or(0);
        let (times, whats) = (widest(&|line| time(line).len()), widest(&|line| line.what.len()));
        let (holders, tokens) = (widest(&|line| line.holder.chars().count()), widest(&|line| line.token.len()));
        let write = |line: &Line| {
            let (time, what, holder, token) = (time(line), line.what, &line.holder, &line.token);
            format!("{time:<times$}  {what:<whats$}  {holder:<holders$}  {token:<tokens$}  {}", line.text)
                .trim_end()
                .to_owned()
        };
        lines.iter().map(write).collect::<Vec<_>>().join("\n")
    }

    /// Numbers of the whole, a few lines.
    #[must_use]
    pub fn totals(&self) -> String {
        let s = &self.summary;
        let held = self.held();
        let crashed = self.holds.iter().filter(|hold| hold.crashed.is_some()).count();
        let mut lines = vec![format!(
            "{} holds, {} renewals ({} refused), {} preemptions, {crashed} crashes in {}",
            self.holds.len(),
            s.renewals,
            s.renewals_refused,
            s.preemptions,
            clock(self.until)
        )];
        let all = |list: &[i64]| {
            let longest = list.iter().max().copied().unwrap_or(0);
            let mean = list.iter().sum::<i64>() / i64::try_from(list.len().max(1)).unwrap_or(1);
            format!("longest {}, on average {}", clock(longest), clock(mean))
        };
        let gaps = self.gaps();
        if !gaps.is_empty() {
            lines.push(format!("hand-over gaps while somebody waited: {}", all(&gaps)));
        }
        let fail_overs = self.fail_overs();
        if !fail_overs.is_empty() {
            lines.push(format!("from a crash to the next holder: {}", all(&fail_overs)));
        }
        lines.push(format!(
            "{} faults, {} vetoes, {} questions, {} fuel at most",
            s.faults, s.vetoes, s.questions, s.fuel_max
        ));
        lines.push(format!("the lease was held {}% of the time, by", percent(held, self.until)));
        let shares = self.shares();
        let widest = shares.iter().map(|share| share.holder.chars().count()).max().unwrap_or(0);
        for share in &shares {
            lines.push(format!(
                "  {:<widest$}  {:>3}%  {} in {} holds, longest wait {}",
                plain(share.holder),
                percent(share.held, held),
                clock(share.held),
                share.holds,
                clock(share.longest_wait)
            ));
        }
        lines.join("\n")
    }
}

/// The entries as lines, renewals in a row folded into one.
fn folded(entries: &[Entry]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut i = 0;
    while let Some(entry) = entries.get(i) {
        let same = |other: &&Entry| other.what == Happening::Renewed && other.token == entry.token;
        let row = if entry.what == Happening::Renewed { entries[i..].iter().take_while(same).count() } else { 1 };
        // At least one: the entry itself.
        let last = &entries[i + row - 1];
        let times = if row > 1 { format!("{row} times, the last time at {}, ", clock(last.at)) } else { String::new() };
        lines.push(Line {
            at: entry.at,
            what: entry.what.words(),
            holder: plain(&entry.holder),
            token: entry.token.map_or_else(String::new, |token| token.to_string()),
            text: format!("{times}{}", plain(&last.text)),
        });
        i += row;
    }
    lines
}

pub(super) fn percent(part: i64, whole: i64) -> i64 {
    if whole <= 0 { 0 } else { (part * 100 + whole / 2) / whole }
}
