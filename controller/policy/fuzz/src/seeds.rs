//! Bytes from a seed.

use sha2::{Digest as _, Sha256};

use crate::Target;

/// The longest case that seeds make: enough for several requests and a page of an answer, or for a
/// random module of some hundred instructions.
pub const CASE_MAX: usize = 2048;

/// The bytes of a case of a seed. A hash in counter mode: random enough, and the same in every
/// version of every library, so that a seed in a bug report stays good.
#[must_use]
pub fn bytes(target: Target, seed: u64, case: u64) -> Vec<u8> {
    let block = |counter: u64| {
        let mut hash = Sha256::new_with_prefix(target.name());
        [seed, case, counter].iter().for_each(|number| hash.update(number.to_le_bytes()));
        hash.finalize()
    };
    // The first block says how long it is: most cases are short, since most mistakes need little.
    let first = block(0);
    let drawn = usize::from(u16::from_le_bytes([first[0], first[1]]));
    let length = (drawn % CASE_MAX) >> (first[2] % 5);
    (1..).flat_map(block).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_bytes_and_another_one_others() {
        let of = |seed| (0..64).flat_map(|case| bytes(Target::Answer, seed, case)).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert!(of(1).len() > 64 * 64, "{}", of(1).len());
        assert_ne!(bytes(Target::Answer, 1, 0), bytes(Target::Input, 1, 0));
    }
}
