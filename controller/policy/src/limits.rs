//! Every number of the sandbox, with its reason. The ABI's own limits are in
//! [`konductor_policy_abi::limits`].

use std::fmt;

use konductor_policy_abi::limits as abi;

/// An amount of fuel. Most WebAssembly instructions cost 1, a jump 4, a call or a division 8, and bulk
/// operations 50 and 1 for each byte: about what they take in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fuel(pub u64);

/// A span of time in ticks of the sandbox's clock, each [`TICK`] long or a little longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EpochTicks(pub u64);

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub usize);

impl fmt::Display for Fuel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} units of fuel", self.0)
    }
}

impl fmt::Display for EpochTicks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", u128::from(self.0) * TICK.as_millis())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(usize, &str); 2] = [(1024 * 1024, "MiB"), (1024, "KiB")];
        match UNITS.iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((size, unit)) => write!(f, "{} {unit}", self.0 / size),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// How long a tick of the deadline's clock is. A decision takes tens of microseconds; a fence around
/// it is fine enough in milliseconds, and a thousand wake-ups a second while calls run cost nothing.
pub const TICK: std::time::Duration = std::time::Duration::from_millis(1);

/// After this many ticks without a call the clock stands still until the next one, so that an idle
/// controller is idle. A tenth of a second: under load it never stops, and starting it costs a wake-up.
pub const IDLE_TICKS: u32 = 100;

/// The most functions of a module. The largest policies that were seen, with a JSON library and a
/// language's runtime in them, have 2,000.
pub const FUNCTIONS_MAX: u32 = 10_000;

/// The longest body of a function. Compilers split code long before; Cranelift's time grows faster
/// than the length of a body.
pub const FUNCTION_BODY_MAX: Bytes = Bytes(128 * 1024);

/// The most entries of any other section (types, globals, exports, segments): what no compiler
/// exceeds, and few enough that listing them costs nothing.
pub const ENTRIES_MAX: u32 = 10_000;

/// The most elements of a table. A table holds the functions that are called through a pointer, so
/// there is no use for more than there may be functions.
pub const TABLE_ELEMENTS_MAX: u32 = FUNCTIONS_MAX;

/// The most tables of a module: one for functions, and one more that some toolchains make.
pub const TABLES_MAX: u32 = 2;

/// The most memory of the engine's own record of an instance, mostly its globals.
pub const INSTANCE_SIZE_MAX: Bytes = Bytes(256 * 1024);

/// How much of an instance's memory stays mapped for the next one. What a small policy touches lies
/// below it, so the next call of it faults no page in. Never far above without `PAGEMAP_SCAN`: where
/// the kernel has none (before 6.7), this much is cleared at every call.
pub const KEEP_RESIDENT: Bytes = Bytes(256 * 1024);

/// The most frames of a trap's backtrace: enough to see where it came from.
pub const BACKTRACE_FRAMES_MAX: usize = 8;

/// The longest name of a guest's function that is shown.
pub const FUNCTION_NAME_MAX: usize = 96;

/// The most imports that a rejection names.
pub const IMPORTS_SHOWN_MAX: usize = 20;

/// The most errors of `konductor_validate` that are kept.
pub const VALIDATION_ERRORS_MAX: usize = 20;

/// The longest text of a description that is shown.
pub const DESCRIPTION_MAX: usize = 1024;

/// The largest machine code of one module. With fuel and deadline checks in it, it is up to ten
/// times as large as the module; 4 MiB of them are allowed.
pub const ARTEFACT_MAX: Bytes = Bytes(64 * 1024 * 1024);

/// How much of what a compiling child says is read: a panic's two lines and some more.
pub const COMPILER_SAID_MAX: usize = 4096;

/// How many files a compiling child may have open: its three pipes, and one more for a moment at a time.
pub const COMPILER_FILES: u64 = 4;

/// How much a compiling child gives way to others.
pub const COMPILER_NICENESS: i32 = 10;

/// The address space of a compiling child: the program itself and its memory many times over.
pub const COMPILER_SPACE: Bytes = Bytes(4 * 1024 * 1024 * 1024);

/// The most that compiled modules may take on disk: half of the volume that `deploy/` gives, since a
/// file that is replaced is there twice for a moment.
pub const CACHE_MAX: Bytes = Bytes(128 * 1024 * 1024);

/// The most files of compiled modules: finding the oldest looks at all of them.
pub const CACHE_FILES_MAX: usize = 1024;

/// How long probing a policy may take: its questions, each at twice the time of all its fuel on a
/// slow machine, with one set of params.
pub const PROBE_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// With how many different params of leases a policy is probed. More say little more.
pub const PROBE_PARAMS_MAX: usize = 16;

/// From which part of its fuel on a policy's author is warned, in percent: a few more requests, or
/// longer names, and it fails.
pub const NEAR_BUDGET_PERCENT: u64 = 80;

/// What compiling a module may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// How long it may take, by the clock on the wall. The built-in policy takes 0.1 s; 4 MiB of
    /// ordinary code some seconds on a busy machine.
    pub time: std::time::Duration,
    /// How much memory it may write to. Ordinary modules stay below 32 MiB; what needs more than
    /// this takes longer than its time anyway.
    pub memory: Bytes,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { time: std::time::Duration::from_secs(10), memory: Bytes(192 * 1024 * 1024) }
    }
}

/// The limits that a host is made with. There is no call without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest module as it is uploaded: what a ConfigMap can hold.
    pub module_stored: Bytes,
    /// The largest module once it is inflated. Four times: WebAssembly compresses to about a third.
    pub module_inflated: Bytes,
    /// For the start section and `_initialize`: they set up a runtime, with no input to read.
    pub start_fuel: Fuel,
    /// For the export that was called, and the allocation before it. The built-in policy needs 60 per
    /// byte of input, so there is room for one three times as slow at the largest input, 256 KiB; and
    /// an endless loop is over in tens of milliseconds.
    pub call_fuel: Fuel,
    /// For everything that a call does in the guest. It is the outer fence: many times what the fuel
    /// takes on a slow machine. Reaching it says more about the machine than about the policy.
    pub deadline: EpochTicks,
    /// The most memory of an instance.
    pub memory: Bytes,
    /// The most stack of a guest. The calling thread must have this much and some more: half of the
    /// smallest stack that threads usually have, and deeper than any parser's recursion should go.
    pub stack: Bytes,
    /// How many calls run at once. They only compute, so more than there are processors gain nothing.
    pub concurrent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(4, usize::from);
        Self {
            module_stored: Bytes(1024 * 1024),
            module_inflated: Bytes(4 * 1024 * 1024),
            start_fuel: Fuel(10_000_000),
            call_fuel: Fuel(50_000_000),
            deadline: EpochTicks(500),
            memory: Bytes(abi::MEMORY_MAX),
            stack: Bytes(512 * 1024),
            // Four at least, so that a call that is held up does not hold up the others.
            concurrent: processors.clamp(4, 64),
        }
    }
}
