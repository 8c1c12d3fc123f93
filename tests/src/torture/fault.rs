//! What can go wrong, and the dice that say when.

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A controller is killed and started again.
    KillController,
    /// A controller is frozen for longer than a ttl.
    StopController,
    /// A worker and its koncli are killed, and another one comes in its place, of the same name.
    KillWorker,
    /// A worker and its koncli are frozen for longer than a ttl, and go on where they were.
    StopWorker,
    /// kube-apiserver is killed and started again.
    KillApiserver,
    /// kube-apiserver is frozen.
    StopApiserver,
    /// etcd is killed and started again.
    KillEtcd,
    /// etcd is frozen.
    StopEtcd,
    /// etcd has used up its quota and refuses every write.
    FullEtcd,
    /// etcd cannot write another byte to any file, which ends it; later there is room, and it is started again.
    FullDisk,
    /// Everything that a controller or a worker says and hears takes longer.
    SlowLine,
    /// A controller or a worker is cut off without being told, and hears everything later.
    SilentLine,
    /// The connections of a controller or a worker break.
    CutLine,
    /// The controllers' token is not valid any more; they get a new one later.
    BadToken,
    /// The controllers' token expires, and later its file has a new one: nobody restarts them.
    ExpiredToken,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::KillController,
        Self::StopController,
        Self::KillWorker,
        Self::StopWorker,
        Self::KillApiserver,
        Self::StopApiserver,
        Self::KillEtcd,
        Self::StopEtcd,
        Self::FullEtcd,
        Self::FullDisk,
        Self::SlowLine,
        Self::SilentLine,
        Self::CutLine,
        Self::BadToken,
        Self::ExpiredToken,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::KillController => "kill controller",
            Self::StopController => "stop controller",
            Self::KillWorker => "kill worker",
            Self::StopWorker => "stop worker",
            Self::KillApiserver => "kill kube-apiserver",
            Self::StopApiserver => "stop kube-apiserver",
            Self::KillEtcd => "kill etcd",
            Self::StopEtcd => "stop etcd",
            Self::FullEtcd => "full etcd",
            Self::FullDisk => "full disk",
            Self::SlowLine => "slow line",
            Self::SilentLine => "silent line",
            Self::CutLine => "cut line",
            Self::BadToken => "bad token",
            Self::ExpiredToken => "expired token",
        }
    }
}

/// Numbers that look random and are the same for the same seed.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// For a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // A seed of zero would give nothing but zeros.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % sides.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_what_happens() {
        let rolls = |seed| {
            let mut dice = Dice::new(seed);
            (0..50).map(|_| dice.roll(Fault::ALL.len())).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        let mut every = (0..20).flat_map(rolls).collect::<Vec<_>>();
        every.sort_unstable();
        every.dedup();
        assert_eq!(every.len(), Fault::ALL.len());
    }
}
