//! A story as lanes of characters, for a terminal.

use super::{
    story::{Happening, Story},
    text::clock,
};
use crate::words::plain;

/// The fewest columns for time: fewer show nothing.
const COLUMNS_MIN: usize = 20;
/// The longest name that is shown in full.
const NAME_MAX: usize = 24;

impl Story {
    /// A lane for each holder, the whole at most so many characters wide.
    #[must_use]
    pub fn lanes(&self, width: usize) -> String {
        let holders = self.holders();
        let names = holders.iter().map(|name| name.chars().count().min(NAME_MAX)).max().unwrap_or(0);
        let columns = width.saturating_sub(names + 3).max(COLUMNS_MIN);
        let mut lines: Vec<String> = Vec::new();
        for holder in holders {
            let lane: String = self.lane(holder, columns).into_iter().collect();
            let name: String = plain(holder).chars().take(NAME_MAX).collect();
            lines.push(format!("{name:<names$} │{lane}│"));
        }
        lines.push(format!("{:<names$} └{}┘", "", "─".repeat(columns)));
        lines.push(format!("{:<names$}  {}", "", axis(self.until, columns)));
        lines.push("█ holds  ▒ holds, but has crashed  ─ waits  × crashes  ! asked to leave  ∅ denied".to_owned());
        lines.join("\n")
    }

    fn lane(&self, holder: &str, columns: usize) -> Vec<char> {
        let mut lane = vec![' '; columns];
        let column = |at: i64| column(at, self.until, columns);
        let mut fill = |from: i64, to: i64, c: char| {
            // At least one column, so that a short hold is seen.
            let (from, to) = (column(from), column(to).max(column(from) + 1));
            lane[from.min(columns - 1)..to.min(columns)].fill(c);
        };
        for wait in self.waits.iter().filter(|wait| wait.holder == holder) {
            if wait.to.unwrap_or(self.until) > wait.from {
                fill(wait.from, wait.to.unwrap_or(self.until), '─');
            }
        }
        for hold in self.holds.iter().filter(|hold| hold.holder == holder) {
            let to = hold.to.unwrap_or(self.until);
            fill(hold.from, hold.crashed.unwrap_or(to), '█');
            if let Some(crashed) = hold.crashed {
                fill(crashed, to, '▒');
            }
        }
        for entry in self.entries.iter().filter(|entry| entry.holder == holder) {
            let mark = match entry.what {
                Happening::Crashes => '×',
                Happening::Preempting => '!',
                Happening::Denied => '∅',
                _ => continue,
            };
            lane[column(entry.at).min(columns - 1)] = mark;
        }
        lane
    }
}

fn column(at: i64, until: i64, columns: usize) -> usize {
    let columns = i128::try_from(columns).unwrap_or(i128::MAX);
    usize::try_from(i128::from(at) * columns / i128::from(until.max(1))).unwrap_or(0)
}

/// Times along the lanes, at round places where there is room.
fn axis(until: i64, columns: usize) -> String {
    let mut line = vec![' '; columns + 12];
    let mut free = 0;
    for at in super::svg::ticks(until, columns / 12) {
        let (at, label) = (column(at, until, columns), clock(at));
        if at >= free && at + label.len() <= line.len() {
            for (place, c) in line[at..].iter_mut().zip(label.chars()) {
                *place = c;
            }
            free = at + label.len() + 1;
        }
    }
    line.into_iter().collect::<String>().trim_end().to_owned()
}
