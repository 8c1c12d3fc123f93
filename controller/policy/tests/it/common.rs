//! What the tests share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use konductor_core::{Candidate, HoldView, LeaseFacts, Millis, Question, Time};
use konductor_policy::{Host, Policy, Rejection};

pub const NOW: Time = Time(1_790_000_000_000);

/// One host for all tests: they run at once, so it is also a test of that.
pub fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::new().expect("a host"))
}

pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// A module of the corpus, as binary.
pub fn wasm(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(testdata().join(format!("{name}.wat"))).expect(name);
    wat::parse_str(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn load(name: &str) -> Result<Arc<Policy>, Rejection> {
    host().load(&wasm(name))
}

/// A free lease for which these ask, with these priorities, in this order.
pub fn question(requests: &[(&str, i32)]) -> Question {
    Question {
        now: NOW,
        lease: LeaseFacts {
            name: "lease".to_owned(),
            namespace: "default".to_owned(),
            uid: "lease-uid".to_owned(),
            ttl: Some(Millis::from_secs(60)),
            renewable: true,
            ..LeaseFacts::default()
        },
        ttl: Millis::from_secs(60),
        requests: requests.iter().map(|&(holder, priority)| candidate(holder, priority)).collect(),
        waiting: requests.len(),
        ..Question::default()
    }
}

pub fn candidate(holder: &str, priority: i32) -> Candidate {
    Candidate {
        uid: format!("{holder}-uid"),
        holder: holder.to_owned(),
        priority,
        ttl: Millis::from_secs(30),
        arrived: NOW,
        ..Candidate::default()
    }
}

pub fn hold(holder: &str) -> HoldView {
    HoldView {
        holder: holder.to_owned(),
        ttl: Millis::from_secs(30),
        acquired: Time(NOW.0 - 10_000),
        expires: Time(NOW.0 + 20_000),
        token: 1,
        ..HoldView::default()
    }
}
