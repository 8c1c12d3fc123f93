//! The work queue: each key at most once in it, at most once in work, and woken in time.
//!
//! kube-runtime's scheduler would do the same, but it passes every key through a timer wheel with a
//! granularity of a millisecond, which is a third of what a whole grant takes.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// A queue of keys to reconcile.
#[derive(Debug)]
pub struct Queue<K> {
    inner: Mutex<Inner<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    /// What is in work, and since when it was asked for.
    running: HashMap<K, Instant>,
    /// Since when a key is asked for that is not in work.
    asked: HashMap<K, Instant>,
    /// Keys that were pushed while they ran: they go back in when they are done.
    again: HashSet<K>,
    timers: BTreeSet<(Instant, K)>,
    timer_of: HashMap<K, Instant>,
    /// Nobody pops: what is pushed is dropped.
    paused: bool,
}

impl<K: Clone + Eq + Hash + Ord> Default for Queue<K> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                ready: VecDeque::new(),
                queued: HashSet::new(),
                running: HashMap::new(),
                asked: HashMap::new(),
                again: HashSet::new(),
                timers: BTreeSet::new(),
                timer_of: HashMap::new(),
                paused: false,
            }),
            changed: Notify::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        // Nothing between lock and unlock can leave the maps half changed, so a poisoned lock is sound.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties the queue and drops what is pushed from now on: nobody pops. A standby's watches go on pushing for as
    /// long as it is one; what they pushed would fill the memory, and would look days late to who takes over.
    pub fn pause(&self) {
        let mut inner = self.lock();
        inner.ready.clear();
        inner.queued.clear();
        inner.asked.clear();
        inner.again.clear();
        inner.timers.clear();
        inner.timer_of.clear();
        inner.paused = true;
    }

    /// Takes what is pushed from now on. Whoever pops then has to push every key once: it is not known what was dropped.
    pub fn resume(&self) {
        self.lock().paused = false;
    }

    /// Asks for a reconcile of this key, now.
    pub fn push(&self, key: K) {
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.paused {
            return;
        }
        inner.asked.entry(key.clone()).or_insert(now);
        if inner.running.contains_key(&key) {
            inner.again.insert(key);
            return;
        }
        if inner.queued.insert(key.clone()) {
            inner.ready.push_back(key);
            drop(inner);
            self.changed.notify_one();
        }
    }

    /// Asks for a reconcile of this key after a while, unless one is due sooner already. What was asked for before the
    /// key was last popped does not count any more: that reconcile has seen to it.
    pub fn push_after(&self, key: K, after: Duration) {
        let at = Instant::now() + after;
        let mut inner = self.lock();
        if inner.paused || inner.timer_of.get(&key).is_some_and(|sooner| *sooner <= at) {
            return;
        }
        inner.stop_timer(&key);
        inner.timer_of.insert(key.clone(), at);
        inner.timers.insert((at, key));
        drop(inner);
        self.changed.notify_one();
    }

    /// As [`Queue::push_after`], by who has the key in work and has settled nothing: what was asked for stays asked
    /// for since it was.
    pub fn retry_after(&self, key: K, after: Duration) {
        let mut inner = self.lock();
        if let Some(since) = inner.running.get(&key).copied() {
            inner.asked.insert(key.clone(), since);
        }
        drop(inner);
        self.push_after(key, after);
    }

    /// Since when a key that is in work was asked for: how late the reconcile is.
    #[must_use]
    pub fn asked_since(&self, key: &K) -> Option<Instant> {
        self.lock().running.get(key).copied()
    }

    /// The next key to reconcile; waits for one. Every key that was popped must be given to
    /// [`Queue::done`].
    pub async fn pop(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let next_timer = {
                let mut inner = self.lock();
                inner.fire_timers(Instant::now());
                if let Some(key) = inner.ready.pop_front() {
                    inner.queued.remove(&key);
                    inner.stop_timer(&key);
                    let since = inner.asked.remove(&key).unwrap_or_else(Instant::now);
                    inner.running.insert(key.clone(), since);
                    if !inner.ready.is_empty() {
                        // One notice wakes one worker; pass it on while there is more to do.
                        self.changed.notify_one();
                    }
                    return key;
                }
                inner.timers.first().map(|(at, _)| *at)
            };
            match next_timer {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// Says that the reconcile of a popped key is over.
    pub fn done(&self, key: &K) {
        let mut inner = self.lock();
        inner.running.remove(key);
        if inner.again.remove(key) && inner.queued.insert(key.clone()) {
            inner.ready.push_back(key.clone());
            drop(inner);
            self.changed.notify_one();
        }
    }

    /// How many keys wait to be reconciled now.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.lock().ready.len()
    }
}

impl<K: Clone + Eq + Hash + Ord> Inner<K> {
    fn stop_timer(&mut self, key: &K) {
        if let Some(at) = self.timer_of.remove(key) {
            self.timers.remove(&(at, key.clone()));
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some((at, _)) = self.timers.first() {
            if *at > now {
                break;
            }
            let Some((at, key)) = self.timers.pop_first() else { break };
            self.timer_of.remove(&key);
            // It was asked for at its deadline, however late somebody looks.
            self.asked.entry(key.clone()).or_insert(at);
            if self.running.contains_key(&key) {
                self.again.insert(key);
            } else if self.queued.insert(key.clone()) {
                self.ready.push_back(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once_and_runs_once_at_a_time() {
        let queue = Queue::default();
        queue.push("a");
        queue.push("a");
        assert_eq!(queue.pop().await, "a");
        queue.push("a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.pop()).await.is_err(), "a ran twice at once");
        queue.done(&"a");
        assert_eq!(queue.pop().await, "a");
        queue.done(&"a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.pop()).await.is_err(), "a came from nowhere");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_over_begins_anew_and_is_not_late() {
        let queue = Queue::default();
        let second = Duration::from_secs(1);
        queue.push("before");
        queue.push_after("later", second);
        queue.pause();
        queue.push("meanwhile");
        queue.push_after("meanwhile", second);
        assert_eq!(queue.depth(), 0, "a standby keeps nothing");
        tokio::time::advance(100 * second).await;
        queue.resume();
        let start = Instant::now();
        queue.push("before");
        assert_eq!((queue.pop().await, queue.asked_since(&"before")), ("before", Some(start)), "asked for just now");
        assert!(tokio::time::timeout(100 * second, queue.pop()).await.is_err(), "what was dropped came back");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_reconcile_wants_replaces_what_was_wanted_before_it() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.push_after("a", Duration::from_secs(1));
        queue.push("a");
        assert_eq!(queue.pop().await, "a");
        queue.push_after("a", Duration::from_secs(5));
        queue.done(&"a");
        assert_eq!(queue.pop().await, "a");
        assert!(start.elapsed() >= Duration::from_secs(5), "the first timer was for the first reconcile");
        queue.done(&"a");
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.pop()).await.is_err());
    }

    // An answer that could not be written asks for another reconcile in a second. The one that sent it may still run, and
    // end with a wish of its own: the end of the hold, in an hour.
    #[tokio::test(start_paused = true)]
    async fn a_later_wish_does_not_replace_a_sooner_one_of_the_same_reconcile() {
        for wishes in [[1, 3_600], [3_600, 1]] {
            let queue = Queue::default();
            queue.push("a");
            assert_eq!(queue.pop().await, "a");
            let start = Instant::now();
            wishes.into_iter().for_each(|after| queue.push_after("a", Duration::from_secs(after)));
            queue.done(&"a");
            assert_eq!(queue.pop().await, "a");
            assert_eq!(start.elapsed().as_secs(), 1, "{wishes:?}");
            queue.done(&"a");
            assert!(tokio::time::timeout(Duration::from_secs(7_200), queue.pop()).await.is_err(), "one is enough");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_since_when_a_key_is_asked_for() {
        let (queue, second) = (Queue::default(), Duration::from_secs(1));
        let start = Instant::now();
        queue.push("a");
        tokio::time::advance(second).await;
        queue.push("a");
        assert_eq!((queue.pop().await, queue.asked_since(&"a")), ("a", Some(start)), "since the first wish");
        queue.retry_after("a", second);
        queue.done(&"a");
        assert_eq!(queue.asked_since(&"a"), None, "nobody works on it");
        tokio::time::advance(second).await;
        assert_eq!((queue.pop().await, queue.asked_since(&"a")), ("a", Some(start)), "nothing was settled");
        tokio::time::advance(second).await;
        queue.push("a");
        queue.done(&"a");
        tokio::time::advance(second).await;
        let while_it_ran = Some(start + 3 * second);
        assert_eq!((queue.pop().await, queue.asked_since(&"a")), ("a", while_it_ran), "what came while it ran is new");
        queue.push_after("a", second);
        queue.done(&"a");
        tokio::time::advance(5 * second).await;
        let deadline = Some(start + 5 * second);
        assert_eq!((queue.pop().await, queue.asked_since(&"a")), ("a", deadline), "a deadline that is looked at late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_fires_during_a_run_is_not_lost() {
        let queue = Queue::default();
        queue.push("a");
        assert_eq!(queue.pop().await, "a");
        queue.push_after("a", Duration::from_millis(10));
        queue.push("b");
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(queue.pop().await, "b");
        queue.done(&"a");
        assert_eq!(queue.pop().await, "a");
    }

    #[tokio::test]
    async fn many_workers_take_every_key() {
        let queue = std::sync::Arc::new(Queue::default());
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut taken = Vec::new();
                    loop {
                        let key: u32 = queue.pop().await;
                        queue.done(&key);
                        if key == u32::MAX {
                            queue.push(u32::MAX);
                            return taken;
                        }
                        taken.push(key);
                    }
                })
            })
            .collect();
        (0..1000).for_each(|key| queue.push(key));
        queue.push(u32::MAX);
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.expect("a worker ends"));
        }
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
    }
}
