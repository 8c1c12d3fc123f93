//! The line that a person sees while an acquire waits: who holds, for how long still, and the place in the queue.

use std::{
    cell::RefCell,
    convert::Infallible,
    io::{self, Write as _},
    time::Duration,
};

use konductor_crds::{Lease, LeaseRequest};
use tokio::time::interval;

use crate::{
    client::{Client, LeaseSeen},
    output::{Output, relative, wall_clock_ms},
};

/// The remaining time is counted down so often.
const REDRAW: Duration = Duration::from_secs(1);
/// The place in the queue is looked up at every so many redraws: only for a person at a terminal.
const LOOK_EVERY: u32 = 10;

/// A line on stderr that is written over. Nothing is written where stderr is not a terminal.
#[derive(Debug)]
pub(super) struct Line {
    live: bool,
    name: String,
    lease: Option<Lease>,
    place: Option<(usize, usize)>,
}

impl Line {
    pub(super) fn new(out: Output, name: &str) -> Self {
        Self { live: out.is_live(), name: name.to_owned(), lease: None, place: None }
    }

    /// The lease as it is now.
    pub(super) fn lease(&mut self, lease: &Lease) {
        if self.live {
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
        let place = self.place.map(|(place, of)| format!("; {place} of {of} in the queue")).unwrap_or_default();
        Some(format!("waiting for {}: {held}{place}", self.name))
    }

    fn draw(&self) {
        if let Some(text) = self.text(wall_clock_ms()) {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K{text}");
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        if self.live && self.lease.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K");
        }
    }
}

/// Keeps the line current until the caller has had enough.
pub(super) async fn keep_current(line: &RefCell<Line>, client: &Client, holder: &str) -> Infallible {
    if !line.borrow().live {
        return std::future::pending().await;
    }
    let mut ticks = interval(REDRAW);
    ticks.tick().await;
    let mut count = 0_u32;
    loop {
        ticks.tick().await;
        let lease = line.borrow().lease.clone();
        if let Some(lease) = lease.filter(|_| count.is_multiple_of(LOOK_EVERY)) {
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
    use konductor_crds::{LeaseStatus, time::parse_timestamp, v1::LeasePhase};

    use super::*;

    #[test]
    fn the_line_says_who_holds_for_how_long_and_the_place() {
        let mut line = Line { live: true, name: "db".into(), lease: None, place: None };
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
        assert_eq!(
            line.text(now).as_deref(),
            Some("waiting for db: held by pod-a, expires in 41s; 3 of 7 in the queue")
        );
    }
}
