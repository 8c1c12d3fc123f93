//! How much of the sandbox one module may use at once.
//!
//! The sandbox has a few places, and a module that loops keeps its place until its fuel is used up.
//! So one module gets at most half of them, all uploaded ones together leave one free, and the
//! built-in policy, which decides where others fail, needs no permit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The permits of the modules that were uploaded.
#[derive(Debug)]
pub struct Bulkhead {
    each: usize,
    all: Arc<Semaphore>,
    waiting: Semaphore,
    modules: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// The right to make one call.
#[derive(Debug)]
pub struct Permit {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Bulkhead {
    /// Permits for a sandbox with so many places. At most `waiting` callers wait for one.
    #[must_use]
    pub fn new(places: usize, waiting: usize) -> Self {
        Self {
            waiting: Semaphore::new(waiting.max(1)),
            each: (places / 2).max(1),
            all: Arc::new(Semaphore::new(places.saturating_sub(1).max(1))),
            modules: Mutex::default(),
        }
    }

    /// Waits for the right to call a module, unless too many wait already. What waits keeps no place
    /// and no thread of the sandbox, but one of the reconciler's workers, and some of these must stay
    /// for the leases of other policies.
    ///
    /// # Errors
    /// [`Busy`] where too many wait.
    pub async fn enter(&self, digest: &str) -> Result<Permit, Busy> {
        let _waiting = self.waiting.try_acquire().map_err(|_| Busy)?;
        let own = {
            let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits for or uses what only this map knows.
            modules.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
            modules.entry(digest.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.each))).clone()
        };
        // They are never closed, so both waits end with a permit.
        let own = own.acquire_owned().await.ok();
        Ok(Permit { _own: own, _all: self.all.clone().acquire_owned().await.ok() })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_module_has_half_of_the_places_and_all_together_leave_one() {
        let bulkhead = Bulkhead::new(4, 8);
        let first = bulkhead.enter("a").await.expect("free");
        let _second = bulkhead.enter("a").await;
        assert!(bulkhead.enter("a").now_or_never().is_none(), "a third of the same module");
        let _other = bulkhead.enter("b").await;
        assert!(bulkhead.enter("c").now_or_never().is_none(), "the last place stays free");
        drop(first);
        assert!(bulkhead.enter("c").now_or_never().is_some());
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let bulkhead = Bulkhead::new(2, 1);
        let first = bulkhead.enter("a").await.expect("free");
        let mut second = Box::pin(bulkhead.enter("a"));
        assert!((&mut second).now_or_never().is_none(), "it waits");
        assert_eq!(bulkhead.enter("b").await.err(), Some(Busy), "nobody else may");
        drop(first);
        assert!(second.await.is_ok());
        assert!(bulkhead.enter("b").await.is_ok(), "there is room again");
    }

    #[tokio::test]
    async fn modules_that_are_not_called_are_not_remembered() {
        let bulkhead = Bulkhead::new(2, 8);
        for n in 0..100 {
            drop(bulkhead.enter(&n.to_string()).await.expect("free"));
        }
        assert!(bulkhead.modules.lock().unwrap_or_else(PoisonError::into_inner).len() <= 1);
    }
}
