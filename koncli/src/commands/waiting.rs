//! The line that a person sees while an acquire waits: who holds, for how long still, the place in the line, and what
//! the policy says.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io::{self, Write as _},
    time::Duration,
};

use konductor_crds::{Lease, LeaseRequest};
use rustix::termios::tcgetwinsize;
use tokio::time::{Instant, interval_at};

use crate::{
    client::{Client, LeaseSeen},
    output::{Output, relative, wall_clock_ms},
    text::{fit, plain},
};

/// Who gets the lease at once sees no line.
const FIRST: Duration = Duration::from_millis(300);
/// The remaining time is counted down so often.
const REDRAW: Duration = Duration::from_secs(1);
/// The place in the line is looked up when the lease changes hands, and at every so many redraws, since others come and
/// go: only for a person at a terminal.
const LOOK_EVERY: u32 = 10;
/// The width of a terminal that does not know its own.
const USUAL_COLUMNS: usize = 80;

/// A line on stderr that is written over. Nothing is written where stderr is not a terminal.
#[derive(Debug)]
pub(super) struct Line {
    live: bool,
    name: String,
    lease: Option<Lease>,
    place: Option<(usize, usize)>,
    /// Whether the place may be another one now.
    stale: bool,
    drawn: Cell<bool>,
}

impl Line {
    pub(super) fn new(out: Output, name: &str) -> Self {
        Self {
            live: out.is_live(),
            name: name.to_owned(),
            lease: None,
            place: None,
            stale: true,
            drawn: Cell::new(false),
        }
    }

    /// The lease as it is now.
    pub(super) fn lease(&mut self, lease: &Lease) {
        if self.live {
            let token = |lease: &Lease| lease.status.as_ref().and_then(|status| status.fencing_token);
            self.stale |= self.lease.as_ref().and_then(token) != token(lease);
            self.lease = Some(lease.clone());
        }
    }

    fn text(&self, now_ms: i64) -> Option<String> {
        let seen = LeaseSeen::of(self.lease.as_ref()?);
        let held = match (&seen.holder, &seen.expires) {
            (Some(holder), Some(expires)) => format!("held by {holder}, expires {}", relative(expires, now_ms)),
            (Some(holder), None) => format!("held by {holder}"),
            (None, _) => "free".to_owned(),
        };
        let place = self.place.map(|(place, of)| format!("; {place} of {of} in line")).unwrap_or_default();
        let status = self.lease.as_ref()?.status.as_ref();
        let asked = status.and_then(|status| status.preemption.as_ref());
        let asked = asked.map(|asked| {
            format!("; asked to leave for {}, at the latest {}", asked.by, relative(&asked.deadline, now_ms))
        });
        let policy = status.and_then(|status| status.policy.as_ref());
        let reason = policy.and_then(|policy| policy.reason.as_deref()).filter(|reason| !reason.is_empty());
        let broken = status.and_then(|status| {
            status.conditions.iter().find(|condition| condition.type_ == "PolicyReady" && condition.status == "False")
        });
        let says = match (broken, reason) {
            (Some(condition), _) => {
                let why = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or_default();
                format!("; the policy does not work: {why}")
            }
            (None, Some(reason)) => format!("; the policy says: {reason}"),
            (None, None) => String::new(),
        };
        let asked = asked.unwrap_or_default();
        Some(plain(&format!("waiting for {}: {held}{place}{asked}{says}", self.name)))
    }

    fn draw(&self) {
        if let Some(text) = self.text(wall_clock_ms()) {
            let columns = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
            let columns = if columns == 0 { USUAL_COLUMNS } else { columns };
            // One column less: a terminal that wraps would not take the whole line away.
            let text = fit(&text, columns - 1);
            let _ = write!(io::stderr().lock(), "\r\x1b[2K{text}");
            self.drawn.set(true);
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        if self.drawn.replace(false) {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K");
        }
    }
}

/// Keeps the line current until the caller has had enough.
pub(super) async fn keep_current(line: &RefCell<Line>, client: &Client, holder: &str) -> Infallible {
    if !line.borrow().live {
        return std::future::pending().await;
    }
    let mut ticks = interval_at(Instant::now() + FIRST, REDRAW);
    let mut count = 0_u32;
    loop {
        ticks.tick().await;
        let look = count.is_multiple_of(LOOK_EVERY) || line.borrow().stale;
        let lease = line.borrow().lease.clone().filter(|_| look);
        if let Some(lease) = lease {
            // What comes meanwhile makes it stale again.
            line.borrow_mut().stale = false;
            let place = client.queue(&lease).await.ok().and_then(|queue| place_of(holder, &queue));
            line.borrow_mut().place = place;
        }
        count = count.wrapping_add(1);
        line.borrow().draw();
    }
}

/// The place of a holder in a queue, counted from one, and the queue's length.
fn place_of(holder: &str, queue: &[LeaseRequest]) -> Option<(usize, usize)> {
    let before = queue.iter().position(|request| request.spec.holder == holder)?;
    Some((before + 1, queue.len()))
}

#[cfg(test)]
mod tests {
    use konductor_crds::{
        LeaseStatus,
        time::parse_timestamp,
        v1::{Condition, LeasePhase, PolicyStatus, Preemption},
    };

    use super::*;

    #[test]
    fn the_line_says_who_holds_for_how_long_and_the_place() {
        let mut line =
            Line { live: true, name: "db".into(), lease: None, place: None, stale: false, drawn: Cell::new(false) };
        assert_eq!(line.text(0), None);
        let mut lease = Lease::default();
        line.lease(&lease);
        assert_eq!(line.text(0).as_deref(), Some("waiting for db: free"));
        lease.status = Some(LeaseStatus {
            phase: Some(LeasePhase::Held),
            holder: Some("pod-a".into()),
            expires: Some("2026-01-01T00:00:41Z".into()),
            ..LeaseStatus::default()
        });
        line.lease(&lease);
        line.place = Some((3, 7));
        let now = parse_timestamp("2026-01-01T00:00:00Z").expect("a time");
        assert_eq!(line.text(now).as_deref(), Some("waiting for db: held by pod-a, expires in 41s; 3 of 7 in line"));
        assert!(!line.stale, "the same token");
        let status = lease.status.as_mut().expect("a status");
        status.fencing_token = Some(8);
        status.policy = Some(PolicyStatus { reason: Some("nobody\u{7} yields".into()), ..PolicyStatus::default() });
        line.lease(&lease);
        assert!(line.stale, "it has changed hands");
        let says = line.text(now).expect("a line");
        assert!(says.ends_with("3 of 7 in line; the policy says: nobody  yields"), "{says}");
        let status = lease.status.as_mut().expect("a status");
        status.preemption = Some(Preemption {
            by: "me".into(),
            request: "r".into(),
            deadline: "2026-01-01T00:00:30Z".into(),
            force: true,
            reason: None,
        });
        status.conditions = vec![Condition {
            type_: "PolicyReady".into(),
            status: "False".into(),
            message: Some("out of fuel".into()),
            ..Condition::default()
        }];
        line.lease(&lease);
        let says = line.text(now).expect("a line");
        assert!(
            says.ends_with("; asked to leave for me, at the latest in 30s; the policy does not work: out of fuel"),
            "{says}"
        );
    }
}
