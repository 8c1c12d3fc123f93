//! For a policy's own tests: inputs built in a line, and the policy asked natively.
//!
//! ```
//! use konductor_policy_sdk::{Grant, Input, NoParams, Output, testing::Snapshot};
//!
//! fn decide<'a>(input: &'a Input<'a, NoParams>) -> Output<'a> {
//!     match (&input.hold, input.requests.first()) {
//!         (None, Some(first)) => Output { grant: Some(Grant { request: 0, ttl_ms: first.ttl_ms }), ..Output::default() },
//!         _ => Output::default(),
//!     }
//! }
//!
//! let free = Snapshot::new().request("a").priority(5).request("b");
//! assert_eq!(free.decide(decide).grant, Some(Grant { request: 0, ttl_ms: 600_000 }));
//! assert_eq!(free.hold("c").decide(decide), Output::default());
//! ```
//!
//! What is not said is filled in as in fixtures (`policies/README.md`), so that a test and a fixture of
//! the same words ask the same question. To run what is built here in the sandbox too, and see that
//! both answer the same bytes: `konductor_workbench::harness`.

use alloc::{
    borrow::Cow,
    string::{String, ToString as _},
    vec::Vec,
};
use core::time::Duration;

use konductor_policy_abi::v1::{Cause, Ending, Hold, Input, Labels, Lease, Output, Past, Preemption, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::glue;

/// 2026-01-01T00:00:00Z.
const NOW: i64 = 1_767_225_600_000;
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
/// The token of a hold.
const TOKEN: i64 = 7;

/// An input under construction.
///
/// `ttl`, `priority` and `label` are about what was named last: the lease at first, then a hold or a
/// request. What a request or a hold does not say it has from the lease, so speak of the lease first.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    input: Input<'static, Value>,
    last: Last,
    /// The requests whose arrival was said.
    arrived: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Lease,
    Hold,
    Request,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new()
    }
}

impl Snapshot {
    /// A free lease with a ttl of ten minutes, for which nobody waits.
    #[must_use]
    pub fn new() -> Self {
        let lease = Lease {
            name: "lease".into(),
            namespace: "default".into(),
            uid: "00000000-0000-0000-0000-000000000001".into(),
            ttl_ms: 10 * MINUTE,
            renewable: true,
            ..Lease::default()
        };
        let params = Value::Object(serde_json::Map::new());
        Self { input: Input { now: NOW, lease, params, ..Input::default() }, last: Last::Lease, arrived: Vec::new() }
    }

    /// The params of the lease, as JSON.
    ///
    /// # Panics
    /// On a text that is not JSON: the test is wrong.
    #[must_use]
    pub fn params(mut self, json: &str) -> Self {
        self.input.params = match serde_json::from_str(json) {
            Ok(params) => params,
            Err(error) => panic!("the params of this test are not JSON: {error}: {json}"),
        };
        self
    }

    /// What the policy last returned as its state.
    #[must_use]
    pub fn state(mut self, state: &str) -> Self {
        self.input.state = Cow::Owned(state.to_string());
        self
    }

    /// The lease's owner wants no renewals.
    #[must_use]
    pub fn not_renewable(mut self) -> Self {
        self.input.lease.renewable = false;
        self
    }

    /// One more request waits. Requests arrive in the order in which they are named, a second apart.
    #[must_use]
    pub fn request(mut self, holder: &str) -> Self {
        let lease = &self.input.lease;
        self.input.requests.push(Request {
            holder: Cow::Owned(holder.to_string()),
            priority: lease.priority,
            ttl_ms: lease.ttl_ms,
            ..Request::default()
        });
        self.last = Last::Request;
        self
    }

    /// Somebody holds the lease, since a minute ago.
    #[must_use]
    pub fn hold(mut self, holder: &str) -> Self {
        let lease = &self.input.lease;
        self.input.hold = Some(Hold {
            holder: Cow::Owned(holder.to_string()),
            priority: lease.priority,
            ttl_ms: lease.ttl_ms,
            acquired: NOW - MINUTE,
            token: TOKEN,
            ..Hold::default()
        });
        self.last = Last::Hold;
        self
    }

    /// The time of the hold is over.
    #[must_use]
    pub fn due(self) -> Self {
        self.of_hold(|hold| hold.due = true)
    }

    /// The holder asks for a renewal.
    #[must_use]
    pub fn asks_for_renewal(self) -> Self {
        self.of_hold(|hold| hold.renewal_requested = true)
    }

    /// It was renewed so many times.
    #[must_use]
    pub fn renewals(self, count: i64) -> Self {
        self.of_hold(|hold| hold.renewals = count)
    }

    /// It was acquired so long ago.
    #[must_use]
    pub fn acquired_ago(self, span: Duration) -> Self {
        self.of_hold(|hold| hold.acquired = NOW - millis(span))
    }

    /// The holder is asked to leave for this one.
    #[must_use]
    pub fn asked_to_leave_for(self, by: &str) -> Self {
        let preemption =
            Preemption { by: Cow::Owned(by.to_string()), deadline: NOW + 30 * SECOND, ..Preemption::default() };
        self.of_hold(|hold| hold.preemption = Some(preemption))
    }

    /// The request that was named last arrived so long ago.
    #[must_use]
    pub fn arrived_ago(mut self, span: Duration) -> Self {
        let at = NOW - millis(span);
        let last = self.input.requests.len().checked_sub(1);
        match last {
            Some(last) if self.last == Last::Request => {
                self.input.requests[last].arrived = at;
                self.arrived.push(last);
            }
            _ => panic!("arrived_ago is about a request: name it first"),
        }
        self
    }

    /// One more hold has ended, before those that were named already.
    #[must_use]
    pub fn past(mut self, holder: &str, how: Ending) -> Self {
        self.input.history.push(Past { holder: Cow::Owned(holder.to_string()), how, ..Past::default() });
        self
    }

    /// The ttl of what was named last.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        let ttl = millis(ttl);
        match self.last {
            Last::Lease => self.input.lease.ttl_ms = ttl,
            Last::Hold => return self.of_hold(|hold| hold.ttl_ms = ttl),
            Last::Request => self.last_request().ttl_ms = ttl,
        }
        self
    }

    /// The priority of what was named last.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        match self.last {
            Last::Lease => self.input.lease.priority = priority,
            Last::Hold => return self.of_hold(|hold| hold.priority = priority),
            Last::Request => self.last_request().priority = priority,
        }
        self
    }

    /// A label of what was named last.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        let label = (Cow::Owned(key.to_string()), Cow::Owned(value.to_string()));
        let add = |labels: &mut Labels<'static>| labels.0.push(label);
        match self.last {
            Last::Lease => add(&mut self.input.lease.labels),
            Last::Hold => return self.of_hold(|hold| add(&mut hold.labels)),
            Last::Request => add(&mut self.last_request().labels),
        }
        self
    }

    /// The input as the host writes it.
    #[must_use]
    pub fn json(&self) -> String {
        match serde_json::to_string(&self.whole()) {
            Ok(json) => json,
            // Texts, numbers and JSON that was JSON already can always be written.
            Err(error) => panic!("the input cannot be written: {error}"),
        }
    }

    /// What a policy answers, natively, as the bytes that its module would.
    pub fn answer<P>(&self, decide: impl for<'a> FnOnce(&'a Input<'a, P>) -> Output<'a>) -> String
    where
        P: DeserializeOwned + Default,
    {
        answer(self.json().as_bytes(), decide)
    }

    /// What a policy answers, natively.
    ///
    /// # Panics
    /// Where the module would trap.
    pub fn decide<P>(&self, decide: impl for<'a> FnOnce(&'a Input<'a, P>) -> Output<'a>) -> Output<'static>
    where
        P: DeserializeOwned + Default,
    {
        let answer = self.answer(decide);
        match serde_json::from_str(&answer) {
            Ok(output) => output,
            Err(error) => panic!("the answer is not the ABI's: {error}: {answer}"),
        }
    }

    /// With everything that follows from the rest.
    fn whole(&self) -> Input<'static, Value> {
        let mut input = self.input.clone();
        input.waiting = input.requests.len() as u64;
        let count = input.requests.len();
        for (index, request) in input.requests.iter_mut().enumerate() {
            if !self.arrived.contains(&index) {
                let place = i64::try_from(count - index).unwrap_or(i64::MAX);
                request.arrived = NOW - place * SECOND;
            }
        }
        let (mut latest, mut token) = (NOW, TOKEN + 1);
        if let Some(hold) = &mut input.hold {
            hold.expires = if hold.due { NOW } else { hold.acquired + hold.ttl_ms };
            (latest, token) = (hold.acquired, hold.token);
            input.cause = match (hold.due, hold.renewal_requested) {
                (true, _) => Cause::Due,
                (false, true) => Cause::Renewal,
                (false, false) => Cause::Request,
            };
        }
        for past in &mut input.history {
            token -= 1;
            (past.token, past.ended, past.acquired) = (token, latest, latest - MINUTE);
            latest = past.acquired;
        }
        input
    }

    fn of_hold(mut self, change: impl FnOnce(&mut Hold<'static>)) -> Self {
        match &mut self.input.hold {
            Some(hold) => change(hold),
            None => panic!("nobody holds the lease: say hold first"),
        }
        self
    }

    fn last_request(&mut self) -> &mut Request<'static> {
        match self.input.requests.last_mut() {
            Some(request) => request,
            None => panic!("nobody waits: say request first"),
        }
    }
}

/// What a policy answers to these bytes, natively, as the bytes that its module would.
///
/// # Panics
/// Where the module would trap.
pub fn answer<P>(input: &[u8], decide: impl for<'a> FnOnce(&'a Input<'a, P>) -> Output<'a>) -> String
where
    P: DeserializeOwned + Default,
{
    match String::from_utf8(glue::decide_json(input, decide)) {
        Ok(answer) => answer,
        Err(error) => panic!("JSON is UTF-8: {error}"),
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
