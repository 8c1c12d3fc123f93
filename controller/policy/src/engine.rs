//! The engine: what the sandbox can and cannot do.
//!
//! Fuel, the deadline and the memory limit are on by construction: there is one way to make an
//! engine, it sets all three, and it owns the thread that makes the deadline pass. Limits bound what
//! a guest *does*; they do not bound what compiling it costs.

use std::{
    hash::{Hash as _, Hasher},
    num::NonZeroUsize,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use sha2::{Digest as _, Sha256};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, OptLevel, PoolingAllocationConfig,
    VariableOperatorCost, WasmFeatures,
};

use crate::limits::{
    BACKTRACE_FRAMES_MAX, IDLE_TICKS, INSTANCE_SIZE_MAX, KEEP_RESIDENT, Limits, TABLE_ELEMENTS_MAX, TABLES_MAX, TICK,
};

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The engine cannot be made on this machine.
    #[error("the WebAssembly engine cannot be made: {0}")]
    Engine(String),
    /// The thread of the deadline's clock cannot be started.
    #[error("the clock of the sandbox cannot be started")]
    Clock(#[source] std::io::Error),
    /// The built-in policy was refused: this program was built wrongly.
    #[error("the built-in policy cannot be loaded")]
    Builtin(#[source] crate::Rejection),
}

/// The engine, its limits, its clock, and the places for calls.
pub(crate) struct Sandbox {
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    places: Arc<Places>,
    clock: Option<JoinHandle<()>>,
}

impl Sandbox {
    pub(crate) fn new(limits: Limits) -> Result<Self, HostError> {
        let mut config = config();
        config.max_wasm_stack(limits.stack.0);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(&limits)));
        let engine = Engine::new(&config).map_err(|error| HostError::Engine(format!("{error:#}")))?;
        let places = Arc::new(Places::new(limits.concurrent));
        let clock = std::thread::Builder::new()
            .name("policy-clock".to_owned())
            .spawn({
                let (engine, places) = (engine.clone(), Arc::clone(&places));
                move || places.keep_time(&engine)
            })
            .map_err(HostError::Clock)?;
        Ok(Self { engine, limits, places, clock: Some(clock) })
    }

    /// Waits for a place to run a guest in. A place is free again when what this returns is dropped.
    pub(crate) fn place(&self) -> Place<'_> {
        self.places.take(Rank::Decision)
    }

    /// The same for what no lease waits for. At most half of the places are given to such, so that
    /// probing a slow module never keeps decisions waiting.
    pub(crate) fn background_place(&self) -> Place<'_> {
        self.places.take(Rank::Background)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.places.stop();
        if let Some(clock) = self.clock.take() {
            // It only sleeps and counts; if it has panicked nonetheless, there is nothing left to do.
            let _ = clock.join();
        }
    }
}

/// An engine that only compiles, for the child process that does nothing else: what it makes is what
/// the host's engine makes, but it has no pool, no clock and no guests.
pub(crate) fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// What the result of compiling depends on besides the module: wasmtime's version, the processor's
/// features, and our settings. What an engine has made, another one with the same hash can load.
pub(crate) fn engine_hash(engine: &Engine) -> [u8; 32] {
    /// All that is hashed, so that nobody can find two settings with the same 64 bits.
    struct Whole(Sha256);
    impl Hasher for Whole {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut whole = Whole(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut whole);
    whole.0.finalize().into()
}

/// What the compiler and the host have in common.
fn config() -> Config {
    let mut config = Config::new();

    // Fuel decides: the same input ends at the same place on every replica.
    config.consume_fuel(true);
    config.operator_cost(prices());
    // The epoch is the fence in time around it.
    config.epoch_interruption(true);

    // The same bits everywhere, and the smallest surface that ordinary toolchains' output still runs
    // on. Reference types stay on: current compilers encode every indirect call with them. SIMD
    // stays on: it is deterministic, and some compilers emit it.
    config.cranelift_nan_canonicalization(true);
    config.wasm_features(
        WasmFeatures::MEMORY64
            | WasmFeatures::MULTI_MEMORY
            | WasmFeatures::THREADS
            | WasmFeatures::SHARED_EVERYTHING_THREADS
            | WasmFeatures::RELAXED_SIMD
            | WasmFeatures::TAIL_CALL
            | WasmFeatures::WIDE_ARITHMETIC
            | WasmFeatures::CUSTOM_PAGE_SIZES
            | WasmFeatures::FUNCTION_REFERENCES
            | WasmFeatures::GC
            | WasmFeatures::EXCEPTIONS
            | WasmFeatures::LEGACY_EXCEPTIONS
            | WasmFeatures::STACK_SWITCHING
            | WasmFeatures::COMPONENT_MODEL,
        false,
    );
    config.concurrency_support(false);

    config.cranelift_opt_level(OptLevel::Speed);
    config.wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX));
    // Guests are not debugged here; without these tables compiling is quicker and code smaller.
    config.native_unwind_info(false);

    config.memory_init_cow(true);
    config
}

/// What an instruction costs in fuel, where that is not 1.
///
/// Roughly the time that it takes in units of an addition, so that the same fuel is about the same
/// time whatever a guest does: without this, a loop that does nothing but jump back, where fuel and
/// deadline are checked, has ten times the time of honest code, and the deadline would end what fuel
/// should.
fn prices() -> OperatorCost {
    const JUMP: u8 = 4;
    const CALL: u8 = 8;
    const DIVISION: u8 = 8;
    const BULK: u8 = 50;
    OperatorCost {
        Br: JUMP,
        BrIf: JUMP,
        BrTable: JUMP,
        Call: CALL,
        CallIndirect: CALL,
        I32DivS: DIVISION,
        I32DivU: DIVISION,
        I32RemS: DIVISION,
        I32RemU: DIVISION,
        I64DivS: DIVISION,
        I64DivU: DIVISION,
        I64RemS: DIVISION,
        I64RemU: DIVISION,
        F32Div: DIVISION,
        F64Div: DIVISION,
        F32Sqrt: DIVISION,
        F64Sqrt: DIVISION,
        F32x4Div: DIVISION,
        F64x2Div: DIVISION,
        F32x4Sqrt: DIVISION,
        F64x2Sqrt: DIVISION,
        // These leave the guest's code, before what they cost by the byte and the page.
        MemoryFill: BULK,
        MemoryCopy: BULK,
        MemoryInit: BULK,
        MemoryGrow: BULK,
        TableFill: BULK,
        TableCopy: BULK,
        TableInit: BULK,
        TableGrow: BULK,
        variable: VariableOperatorCost { memory_grow_per_page: u8::MAX, ..VariableOperatorCost::new() },
        ..OperatorCost::new()
    }
}

/// Places for instances, made once and reused. What does not fit is refused when it is compiled.
fn pool(limits: &Limits) -> PoolingAllocationConfig {
    // More than the pool's own type can count is more than any machine can run.
    let places = u32::try_from(limits.concurrent).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(places)
        .total_memories(places)
        .total_tables(places.saturating_mul(TABLES_MAX))
        .max_memories_per_module(1)
        .max_tables_per_module(TABLES_MAX)
        .max_core_instance_size(INSTANCE_SIZE_MAX.0)
        .table_elements(TABLE_ELEMENTS_MAX as usize)
        .max_memory_size(limits.memory.0)
        .max_unused_warm_slots(places)
        // Together: pages that a guest has touched are found by one system call, and cleared and kept.
        .linear_memory_keep_resident(KEEP_RESIDENT.0)
        .table_keep_resident(KEEP_RESIDENT.0)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// The places for calls, and the clock that runs while one is taken.
struct Places {
    state: Mutex<State>,
    /// A place has become free.
    freed: Condvar,
    /// A place was taken, or the end has come, while the clock stood still.
    wake: Condvar,
}

struct State {
    free: usize,
    taken: usize,
    /// How many more of the free ones may go to what no lease waits for.
    background: usize,
    clock_stands: bool,
    stopping: bool,
}

impl Places {
    fn new(free: usize) -> Self {
        let (free, background) = (free.max(1), (free / 2).max(1));
        let state = State { free, taken: 0, background, clock_stands: false, stopping: false };
        Self { state: Mutex::new(state), freed: Condvar::new(), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if something did, the counts would still be right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, rank: Rank) -> Place<'_> {
        let mut state = self.lock();
        while state.free == 0 || (rank == Rank::Background && state.background == 0) {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.free -= 1;
        state.taken += 1;
        if rank == Rank::Background {
            state.background -= 1;
        }
        if state.clock_stands {
            self.wake.notify_one();
        }
        Place { places: self, rank }
    }

    fn stop(&self) {
        self.lock().stopping = true;
        self.wake.notify_one();
    }

    /// The clock's thread. It sleeps a tick and counts one, so a machine that stood still for a
    /// minute makes one tick of it: nobody's deadline passes because the clock catches up.
    fn keep_time(&self, engine: &Engine) {
        let mut idle = 0;
        loop {
            std::thread::sleep(TICK);
            engine.increment_epoch();
            let mut state = self.lock();
            idle = if state.taken > 0 { 0 } else { idle + 1 };
            if idle >= IDLE_TICKS {
                state.clock_stands = true;
                while state.taken == 0 && !state.stopping {
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.clock_stands = false;
                idle = 0;
            }
            if state.stopping {
                return;
            }
        }
    }
}

/// Who waits for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// A lease.
    Decision,
    /// Nobody but the author of a module.
    Background,
}

/// The right to run one guest.
pub(crate) struct Place<'a> {
    places: &'a Places,
    rank: Rank,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.taken -= 1;
        state.free += 1;
        if self.rank == Rank::Background {
            state.background += 1;
        }
        drop(state);
        // All: the one that is woken may be one that may not take this place.
        self.places.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Instance, Module, Store, Trap};

    use super::*;

    /// The clock stands still while nobody calls; the first call after that has a deadline all the same.
    #[test]
    fn the_deadline_holds_after_a_long_silence() {
        let sandbox = Sandbox::new(Limits::default()).expect("a sandbox");
        let text = r#"(module (func (export "f") (loop br 0)))"#;
        let module = Module::new(&sandbox.engine, wat::parse_str(text).expect("wat")).expect("compiles");
        while !sandbox.places.lock().clock_stands {
            std::thread::yield_now();
        }
        let _place = sandbox.place();
        let mut store = Store::new(&sandbox.engine, ());
        store.set_fuel(u64::MAX).expect("fuel is consumed");
        store.set_epoch_deadline(20);
        let instance = Instance::new(&mut store, &module, &[]).expect("an instance");
        let looping = instance.get_typed_func::<(), ()>(&mut store, "f").expect("f");
        let ended = looping.call(&mut store, ()).expect_err("it loops");
        assert_eq!(ended.downcast_ref::<Trap>(), Some(&Trap::Interrupt), "{ended:#}");
    }
}
