//! Acquiring a lease: what to ask for, and one request after another until one is decided.

use std::{future::Future, time::Duration};

use konductor_crds::{Lease, LeaseRequestSpec};
use kube::api::PostParams;
use tokio::time::Instant;

use super::{
    Client, FIELD_MANAGER,
    attempt::{Attempt, Ending},
    error::{Access, Error, Problem, Result, Stop},
    hold::Hold,
    names,
};

/// What to acquire, for whom, and how long to wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquire {
    /// The name of the lease.
    pub lease: String,
    /// Who acquires it. A new request of the same holder takes the place of its old one.
    pub holder: String,
    /// For how long; absent: as long as the lease says.
    pub ttl: Option<String>,
    /// Higher wins; absent: the lease's.
    pub priority: Option<i32>,
    /// How long to wait.
    pub wait: Wait,
}

impl Acquire {
    /// Tries once to acquire `lease` for `holder`, with what the lease itself says.
    #[must_use]
    pub fn new(lease: impl Into<String>, holder: impl Into<String>) -> Self {
        Self { lease: lease.into(), holder: holder.into(), ttl: None, priority: None, wait: Wait::No }
    }

    /// What is wrong with it, if anything.
    fn problem(&self) -> Option<Problem> {
        if let Some(problem) = names::object_name_problem(&self.lease) {
            return Some(Problem::Invalid(format!("the name of the lease, \"{}\", {problem}", self.lease)));
        }
        self.spec().validate().err().map(|invalid| Problem::Invalid(invalid.to_string()))
    }

    pub(super) fn spec(&self) -> LeaseRequestSpec {
        LeaseRequestSpec {
            lease: self.lease.clone(),
            holder: self.holder.clone(),
            priority: self.priority,
            ttl: self.ttl.clone(),
            timeout: Some(if self.wait == Wait::No { "0s" } else { PENDING_VALIDITY }.to_owned()),
            renewals: 0,
        }
    }
}

/// How long to wait for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Try once.
    No,
    /// At most so long.
    AtMost(Duration),
    /// For ever.
    Forever,
}

/// What happens while an acquire waits.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The request exists.
    Requested {
        /// Its name.
        request: &'a str,
    },
    /// The lease as it is now.
    Waiting {
        /// The lease.
        lease: &'a Lease,
    },
    /// The API server cannot be reached; it is tried again.
    Outage {
        /// Why.
        why: &'a str,
    },
    /// The API server can be reached again.
    Recovered,
    /// The request lapsed while nobody could keep it alive, and is made anew.
    Lapsed,
}

/// For how long a waiting request is valid without a beat: a client that died is not granted anything after that.
pub(super) const PENDING_VALIDITY: &str = "30s";

/// The first and the longest pause before a request that lapsed is made anew: doubled each time, and a little different
/// for everybody. Normally a request lapses only after 30 s without an API server, and then all that wait come back at
/// once; a controller that counts wrongly must not be asked again and again without a pause.
const ANEW_FIRST: Duration = Duration::from_millis(250);
const ANEW_MOST: Duration = Duration::from_secs(10);

impl Client {
    /// Acquires a lease. A request that does not succeed is withdrawn; if this future is dropped, it
    /// is not, and lapses within 30 s. To stop a wait, use [`Client::acquire_until`].
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn acquire(&self, want: &Acquire) -> Result<Hold> {
        self.acquire_until(want, std::future::pending(), |_| {}).await
    }

    /// Acquires a lease, unless `stop` comes first: then the request is withdrawn. `progress` is told
    /// what happens meanwhile.
    ///
    /// # Errors
    /// See [`Problem`]; [`Problem::Stopped`] after `stop`.
    pub async fn acquire_until(
        &self,
        want: &Acquire,
        stop: impl Future<Output = Stop>,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<Hold> {
        let doing =
            format!("acquire lease \"{}\" in namespace \"{}\" as \"{}\"", want.lease, self.namespace, want.holder);
        if let Some(problem) = want.problem() {
            return Err(Error::new(doing, problem));
        }
        let until = match want.wait {
            Wait::AtMost(limit) => Instant::now().checked_add(limit),
            Wait::No | Wait::Forever => None,
        };
        let mut stop = std::pin::pin!(stop);
        let mut pause = ANEW_FIRST;
        loop {
            let request = match names::request_name(&want.lease, &*self.random) {
                Ok(name) => name,
                Err(problem) => return Err(Error::new(doing, problem)),
            };
            let attempt = Attempt::new(self, want, &doing, request, until);
            match attempt.run(stop.as_mut(), &mut progress).await {
                Ending::Held(hold) => return Ok(*hold),
                Ending::Lapsed => {
                    progress(Progress::Lapsed);
                    let again = Instant::now() + pause.mul_f64(names::jitter(&*self.random));
                    let again = until.map_or(again, |until| again.min(until));
                    tokio::select! {
                        biased;
                        stopped = stop.as_mut() => return Err(Error::new(doing, Problem::Stopped(stopped))),
                        () = tokio::time::sleep_until(again) => {}
                    }
                    pause = (pause * 2).min(ANEW_MOST);
                }
                Ending::Failed(error) => return Err(error),
            }
        }
    }

    /// Makes sure that a Lease exists: creates it with `spec` if there is none.
    ///
    /// # Errors
    /// If it can neither be read nor created.
    pub async fn ensure(&self, lease: &str, spec: konductor_crds::LeaseSpec) -> Result<bool> {
        let doing = format!("create lease \"{lease}\" in namespace \"{}\"", self.namespace);
        match self.call(Access::leases("get"), || self.leases.get(lease)).await {
            Ok(_) => return Ok(false),
            Err(failure) if failure.is_object_missing() => {}
            Err(failure) => return Err(Error::from_call(doing, failure)),
        }
        let object = Lease::new(lease, spec);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.call(Access::leases("create"), || self.leases.create(&params, &object)).await {
            Ok(_) => Ok(true),
            // Somebody was faster; there is a lease, and that is what was wanted.
            Err(failure) if failure.status().is_some_and(kube::core::Status::is_already_exists) => Ok(false),
            Err(failure) => Err(Error::from_call(doing, failure)),
        }
    }
}
