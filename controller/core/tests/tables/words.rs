//! The words of which the cases of all tables are made.

use konductor_core::{Decision, Denial, Ending, Grant, Hold, HoldAction, Millis, RequestId, Time};

/// The words of one line, taken one after the other.
pub(crate) struct Words<'a> {
    line: &'a str,
    pub(crate) rest: &'a str,
}

impl<'a> Words<'a> {
    pub(crate) fn of(line: &'a str) -> Self {
        Self { line, rest: line.trim() }
    }

    pub(crate) fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        self.rest = rest.trim_start();
        (!word.is_empty()).then_some(word)
    }

    pub(crate) fn text(&mut self) -> &'a str {
        self.next().unwrap_or_else(|| panic!("one more word is needed: {}", self.line))
    }

    pub(crate) fn number<T: std::str::FromStr>(&mut self) -> T {
        let word = self.text();
        word.parse().unwrap_or_else(|_| panic!("{word} is not a number: {}", self.line))
    }

    pub(crate) fn millis(&mut self) -> Millis {
        Millis(self.number())
    }

    pub(crate) fn time(&mut self) -> Time {
        Time(self.number())
    }

    /// All that is left of the line.
    pub(crate) fn remainder(&mut self) -> String {
        std::mem::take(&mut self.rest).to_owned()
    }

    pub(crate) fn unknown(&self, word: &str) -> ! {
        panic!("what is {word:?}? {}", self.line)
    }
}

pub(crate) fn named<T: Copy + std::fmt::Debug>(all: &[T], name: &str) -> T {
    *all.iter().find(|x| format!("{x:?}") == name).unwrap_or_else(|| panic!("{name} is none of {all:?}"))
}

pub(crate) const ENDINGS: [Ending; 5] =
    [Ending::Released, Ending::Expired, Ending::Preempted, Ending::ForceReleased, Ending::Superseded];

/// A text: `300 x é` is é 300 times, and in anything else `\n` is a line's end.
fn text(words: &mut Words<'_>) -> String {
    let rest = words.remainder();
    if let Some((count, what)) = rest.split_once(" x ")
        && let Ok(count) = count.parse()
    {
        return what.repeat(count);
    }
    rest.replace("\\n", "\n")
}

/// Adds one proposal to a decision.
pub(crate) fn propose(decision: &mut Decision, what: &str, words: &mut Words<'_>, index: &dyn Fn(&str) -> usize) {
    match what {
        "keep" => decision.hold = HoldAction::Keep,
        "renew" => decision.hold = HoldAction::Renew { ttl: words.millis() },
        "expire" => decision.hold = HoldAction::Expire,
        "preempt" => {
            let in_favour_of = index(words.text());
            assert_eq!(words.text(), "grace");
            let grace = words.millis();
            let force = words.next().is_some_and(|word| word == "force");
            decision.hold = HoldAction::Preempt { in_favour_of, grace, force };
        }
        "grant" => {
            let request = index(words.text());
            assert_eq!(words.text(), "ttl");
            decision.grant = Some(Grant { request, ttl: words.millis() });
        }
        "deny" => decision.deny.push(Denial { request: index(words.text()), reason: text(words) }),
        "wake" => decision.wake_in = Some(words.millis()),
        "state" => decision.state = Some(text(words)),
        "reason" => decision.reason = text(words),
        _ => words.unknown(what),
    }
}

pub(crate) fn hold(holder: &str, uid: &str, acquired: i64, expires: i64) -> Hold {
    Hold {
        holder: holder.to_owned(),
        request: id(uid),
        acquired: Time(acquired),
        expires: Time(expires),
        renewed: Time(acquired),
        renewals: 0,
        acted_on: 0,
        counted: 0,
        preemption: None,
    }
}

pub(crate) fn id(uid: &str) -> RequestId {
    RequestId { name: format!("request-{uid}"), uid: uid.to_owned() }
}
