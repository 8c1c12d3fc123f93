//! How much may be in use: modules live in memory that all namespaces share.

use std::collections::HashMap;

use super::slot::Slot;
use crate::observe::Key;

/// The most WebAssembly that modules of one namespace may have in use together. Machine code is up to ten
/// times as large and lives in memory that all share; the library's largest policy has 150 KiB.
const LOADED_IN_NAMESPACE: usize = 8 * 1024 * 1024;
/// The same of all namespaces: with ten times as much machine code it stays below the memory that
/// `deploy/` gives the controller.
const LOADED_IN_ALL: usize = 48 * 1024 * 1024;

/// The most ConfigMaps of one namespace, and of all, whose modules are in use: small modules cost too, and
/// the digest of each is a metric's label.
const COUNT_IN_NAMESPACE: usize = 100;
/// See [`COUNT_IN_NAMESPACE`].
const COUNT_IN_ALL: usize = 1000;

/// How many bytes of WebAssembly a ConfigMap's module may have, so that all that are in use stay within
/// [`LOADED_IN_NAMESPACE`] and [`LOADED_IN_ALL`]. What it replaces makes room; the one before that is kept.
pub(super) fn room_for(key: &Key, slots: &HashMap<Key, Slot>) -> usize {
    let (mut near, mut all) = (Use::default(), Use::default());
    for (other, slot) in slots.iter().filter(|(other, _)| *other != key) {
        let size = [&slot.active, &slot.previous].into_iter().flatten().map(|policy| policy.size()).sum::<usize>();
        let count = usize::from(slot.active.is_some());
        all.add(count, size);
        if other.namespace == key.namespace {
            near.add(count, size);
        }
    }
    if near.count >= COUNT_IN_NAMESPACE || all.count >= COUNT_IN_ALL {
        return 0;
    }
    let kept = slots.get(key).and_then(|slot| slot.active.as_ref()).map_or(0, |policy| policy.size());
    LOADED_IN_NAMESPACE.saturating_sub(near.bytes + kept).min(LOADED_IN_ALL.saturating_sub(all.bytes + kept))
}

/// How many modules are in use, and how many bytes those and the ones before them have.
#[derive(Default)]
struct Use {
    count: usize,
    bytes: usize,
}

impl Use {
    fn add(&mut self, count: usize, bytes: usize) {
        self.count += count;
        self.bytes += bytes;
    }
}
