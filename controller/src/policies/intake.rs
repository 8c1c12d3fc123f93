//! ConfigMaps that have come in and were not looked at yet.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;

use crate::observe::Key;

/// How many ConfigMaps are kept to be tried again. Each may have a MiB, and what is tried again took
/// the compiler all of its time, so more than a few would not get their turn anyway.
const LATER_MAX: usize = 16;

/// A ConfigMap to look at.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) key: Key,
    pub(super) map: ConfigMap,
    /// Whether it was looked at before, as it is, and has to be looked at all the same.
    pub(super) again: bool,
}

/// What is waiting, by namespace; only the newest of each ConfigMap counts.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// And whether it is tried again.
    waiting: HashMap<Key, (ConfigMap, bool)>,
    /// The order of arrival in each namespace.
    order: HashMap<String, VecDeque<Key>>,
    /// Every ConfigMap that exists, as far as we know: its uid, and since when it is known.
    known: HashMap<Key, (String, Instant)>,
    /// Those that will be tried again by themselves.
    later: HashMap<Key, ConfigMap>,
    in_work: usize,
    listed: HashSet<Key>,
    list_done: bool,
}

impl Intake {
    pub(super) fn list_begins(&mut self) {
        self.listed.clear();
    }

    /// A ConfigMap as it is now.
    pub(super) fn add(&mut self, key: &Key, map: ConfigMap, in_list: bool, now: Instant) {
        if in_list {
            self.listed.insert(key.clone());
        }
        let uid = map.uid().unwrap_or_default();
        if self.known.get(key).is_none_or(|(known, _)| *known != uid) {
            self.known.insert(key.clone(), (uid, now));
        }
        let same = |known: &ConfigMap| version(known) == version(&map);
        // A list that begins anew brings what we know: what waits for its time goes on waiting.
        if self.later.get(key).is_some_and(same) {
            return;
        }
        self.later.remove(key);
        let again = self.waiting.get(key).is_some_and(|(known, again)| *again && same(known));
        self.wait(key, map, again);
    }

    fn wait(&mut self, key: &Key, map: ConfigMap, again: bool) {
        if self.waiting.insert(key.clone(), (map, again)).is_none() {
            self.order.entry(key.namespace.clone()).or_default().push_back(key.clone());
        }
    }

    /// Nothing of it is left here. Says whether it was known.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        self.later.remove(key);
        self.waiting.remove(key);
        self.known.remove(key).is_some()
    }

    /// The list is complete. Returns what was known and is not in it.
    pub(super) fn list_done(&mut self) -> Vec<Key> {
        self.list_done = true;
        let listed = std::mem::take(&mut self.listed);
        self.known.keys().filter(|key| !listed.contains(*key)).cloned().collect()
    }

    /// The next one of a namespace. It is in work until [`Intake::done`].
    pub(super) fn take(&mut self, namespace: &str) -> Option<Waiting> {
        let order = self.order.get_mut(namespace)?;
        while let Some(key) = order.pop_front() {
            if let Some((map, again)) = self.waiting.remove(&key) {
                self.in_work += 1;
                return Some(Waiting { key, map, again });
            }
        }
        self.order.remove(namespace);
        None
    }

    /// One that was taken is done with. Says whether more of its namespace wait.
    pub(super) fn done(&mut self, namespace: &str) -> bool {
        self.in_work -= 1;
        self.order.contains_key(namespace)
    }

    /// For how long it is known that a ConfigMap of this name exists, if one does.
    pub(super) fn known_for(&self, key: &Key, now: Instant) -> Option<Duration> {
        self.known.get(key).map(|(_, since)| now.saturating_duration_since(*since))
    }

    /// Whether it still exists: it may have been deleted while it was looked at.
    pub(super) fn is_current(&self, key: &Key, uid: &str) -> bool {
        self.known.get(key).is_some_and(|(known, _)| known == uid)
    }

    /// Keeps one to be tried again, if there is room and no newer one. Says whether it did.
    pub(super) fn keep_for_later(&mut self, key: &Key, map: ConfigMap) -> bool {
        let room = self.later.len() < LATER_MAX || self.later.contains_key(key);
        if !room || self.waiting.contains_key(key) || !self.known.contains_key(key) {
            return false;
        }
        self.later.insert(key.clone(), map);
        true
    }

    /// Its time has come again. Says whether it was kept.
    pub(super) fn again(&mut self, key: &Key) -> bool {
        let Some(map) = self.later.remove(key) else { return false };
        self.wait(key, map, true);
        true
    }

    /// Whether everything of the first list has been looked at.
    pub(super) fn is_settled(&self) -> bool {
        self.list_done && self.in_work == 0 && self.waiting.is_empty()
    }
}

/// What makes one state of an object another.
fn version(map: &ConfigMap) -> (Option<String>, Option<String>) {
    (map.uid(), map.resource_version())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(namespace: &str, name: &str, uid: &str) -> (Key, ConfigMap) {
        let mut map = ConfigMap::default();
        map.metadata.uid = Some(uid.to_owned());
        (Key::new(namespace, name), map)
    }

    #[test]
    fn only_the_newest_counts_and_the_first_comes_first() {
        let mut intake = Intake::default();
        for (name, uid) in [("a", "1"), ("b", "2"), ("a", "3")] {
            let (key, map) = map("team", name, uid);
            intake.add(&key, map, true, Instant::now());
        }
        let taken = intake.take("team").expect("a");
        assert_eq!((taken.key.name.as_str(), taken.map.uid().as_deref()), ("a", Some("3")));
        assert!(intake.take("other").is_none());
        assert!(intake.done("team"), "b waits");
        let Waiting { key, .. } = intake.take("team").expect("b");
        assert!(intake.is_current(&key, "2") && !intake.is_current(&key, "1"));
        assert!(!intake.is_settled());
        assert_eq!(intake.list_done(), []);
        assert!(!intake.is_settled(), "b is in work");
        intake.done("team");
        assert!(intake.take("team").is_none() && intake.is_settled());
    }

    #[test]
    fn what_is_deleted_leaves_nothing() {
        let mut intake = Intake::default();
        let (key, it) = map("team", "a", "1");
        intake.add(&key, it.clone(), false, Instant::now());
        intake.remove(&key);
        assert!(intake.take("team").is_none() && intake.known_for(&key, Instant::now()).is_none());
        assert!(!intake.keep_for_later(&key, it), "it is gone");
        assert!(!intake.again(&key));
        // A list that does not have it says that it is gone.
        let (key, it) = map("team", "b", "2");
        intake.add(&key, it, false, Instant::now());
        intake.list_begins();
        assert_eq!(intake.list_done(), [key]);
    }

    #[test]
    fn it_is_known_since_it_was_first_seen_and_another_of_its_name_anew() {
        let mut intake = Intake::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let (key, it) = map("team", "a", "1");
        intake.add(&key, it.clone(), false, at(0));
        intake.add(&key, it, true, at(5));
        assert_eq!(intake.known_for(&key, at(7)), Some(Duration::from_secs(7)));
        let (_, another) = map("team", "a", "2");
        intake.add(&key, another, false, at(8));
        assert_eq!(intake.known_for(&key, at(9)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_few_are_tried_again_unless_there_is_news() {
        let mut intake = Intake::default();
        let keep = |intake: &mut Intake, name: &str| {
            let (key, it) = map("team", name, name);
            intake.add(&key, it.clone(), false, Instant::now());
            intake.take("team").expect("taken");
            let kept = intake.keep_for_later(&key, it);
            intake.done("team");
            kept
        };
        for n in 0..LATER_MAX {
            assert!(keep(&mut intake, &n.to_string()));
        }
        assert!(!keep(&mut intake, "one too many"));
        let (key, newer) = map("team", "0", "newer");
        intake.add(&key, newer, false, Instant::now());
        assert!(!intake.again(&key), "the newer one is looked at anyway");
        assert!(intake.again(&Key::new("team", "1")));
        let newer = intake.take("team").expect("the newer one");
        assert_eq!((newer.map.uid().as_deref(), newer.again), (Some("newer"), false));
        let back = intake.take("team").expect("the one that came back");
        assert_eq!((back.key.name.as_str(), back.again), ("1", true));
        // A list that begins anew does not take away its turn.
        let (key, same) = map("team", "2", "2");
        intake.add(&key, same.clone(), true, Instant::now());
        assert!(intake.take("team").is_none() && intake.again(&key));
        intake.add(&key, same, true, Instant::now());
        assert!(intake.take("team").is_some_and(|waiting| waiting.again));
    }
}
