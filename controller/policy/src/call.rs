//! One call: a fresh store, limits, and bytes through checked ranges.

use konductor_policy_abi::{exports::unpack, limits::OUTPUT_MAX};
use wasmtime::{
    Extern, Func, Instance, InstancePre, Memory, ModuleExport, ResourceLimiter, Store, WasmParams, WasmResults,
};

use crate::{
    engine::Sandbox,
    fault::{Denied, Fault, Step},
    limits::{Bytes, TABLE_ELEMENTS_MAX},
};

/// What a call needs of a module's exports, looked up once.
pub(crate) struct Exports {
    pub(crate) memory: ModuleExport,
    pub(crate) alloc: ModuleExport,
    pub(crate) decide: ModuleExport,
    pub(crate) validate: Option<ModuleExport>,
    pub(crate) describe: Option<ModuleExport>,
    pub(crate) initialize: Option<ModuleExport>,
}

/// What the host keeps beside an instance: its limits.
pub(crate) struct Tenant {
    memory_max: usize,
}

impl ResourceLimiter for Tenant {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        // A guest whose wish is refused mostly gives up, in its own words. An error here ends it
        // instead, so that the fault says what was the matter.
        if desired > self.memory_max { Err(Denied::Memory { wanted: desired }.into()) } else { Ok(true) }
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX as usize { Err(Denied::Table { wanted: desired }.into()) } else { Ok(true) }
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Either the guest's own declared maximum, which it knows, or the machine has no memory;
        // a guest must not decide differently because of that.
        if error.is::<std::io::Error>() { Err(error) } else { Ok(()) }
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        crate::limits::TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        1
    }
}

/// A fresh instance of a policy, ready to be called once.
pub(crate) struct Guest<'a> {
    sandbox: &'a Sandbox,
    exports: &'a Exports,
    store: Store<Tenant>,
    instance: Instance,
    memory: Memory,
    start_fuel_used: u64,
}

impl<'a> Guest<'a> {
    /// Makes an instance, and runs its start section and `_initialize` under their own budget.
    pub(crate) fn start(sandbox: &'a Sandbox, pre: &InstancePre<Tenant>, exports: &'a Exports) -> Result<Self, Fault> {
        let limits = &sandbox.limits;
        let mut store = Store::new(&sandbox.engine, Tenant { memory_max: limits.memory.0 });
        store.limiter(|tenant| tenant);
        store.set_fuel(limits.start_fuel.0).map_err(|error| Fault::sandbox(&error))?;
        // The deadline is set once: it is for the call as a whole.
        store.set_epoch_deadline(limits.deadline.0);
        let instance =
            pre.instantiate(&mut store).map_err(|error| Fault::from_wasmtime(&error, Step::Start, limits))?;
        let memory = match instance.get_module_export(&mut store, &exports.memory) {
            Some(Extern::Memory(memory)) => memory,
            _ => return Err(unchecked("memory")),
        };
        let mut guest = Self { sandbox, exports, store, instance, memory, start_fuel_used: 0 };
        if let Some(initialize) = &exports.initialize {
            guest.enter::<(), ()>(initialize, Step::Initialize, ())?;
        }
        guest.start_fuel_used = limits.start_fuel.0.saturating_sub(guest.fuel_left()?);
        guest.store.set_fuel(limits.call_fuel.0).map_err(|error| Fault::sandbox(&error))?;
        Ok(guest)
    }

    /// The fuel that was used so far.
    pub(crate) fn fuel_used(&self) -> Result<u64, Fault> {
        let used = self.sandbox.limits.call_fuel.0.saturating_sub(self.fuel_left()?);
        Ok(self.start_fuel_used.saturating_add(used))
    }

    /// How large the memory is. It never shrinks, so after a call this is the most that it was.
    pub(crate) fn memory_size(&self) -> usize {
        self.memory.data_size(&self.store)
    }

    /// Calls `konductor_decide`.
    pub(crate) fn decide(&mut self, input: &[u8]) -> Result<&[u8], Fault> {
        self.with_input(&self.exports.decide, Step::Decide, input)
    }

    /// Calls `konductor_validate`; `None` if there is none.
    pub(crate) fn validate(&mut self, params: &[u8]) -> Result<Option<&[u8]>, Fault> {
        match &self.exports.validate {
            Some(export) => self.with_input(export, Step::Validate, params).map(Some),
            None => Ok(None),
        }
    }

    /// Calls `konductor_describe`; `None` if there is none.
    pub(crate) fn describe(&mut self) -> Result<Option<&[u8]>, Fault> {
        let Some(export) = &self.exports.describe else { return Ok(None) };
        let packed = self.enter::<(), i64>(export, Step::Describe, ())?;
        self.output(packed, Step::Describe).map(Some)
    }

    /// Writes the input to where the guest wants it, calls an export with it, and finds the answer.
    fn with_input(&mut self, export: &'a ModuleExport, step: Step, input: &[u8]) -> Result<&[u8], Fault> {
        // The ABI's input has at most 256 KiB; a caller's own bytes need not.
        let len = u32::try_from(input.len())
            .map_err(|_| Fault::InputTooLarge { bytes: Bytes(input.len()), limit: self.sandbox.limits.memory })?;
        let ptr = self.enter::<u32, u32>(&self.exports.alloc, Step::Alloc, len)?;
        if ptr == 0 {
            return Err(Fault::AllocFailed { len: input.len() });
        }
        // Looked at now, not before: the allocation may have grown or moved the memory.
        let memory = self.memory.data_mut(&mut self.store);
        let size = Bytes(memory.len());
        let place = range(ptr, len).and_then(|range| memory.get_mut(range));
        match place {
            Some(place) => place.copy_from_slice(input),
            None => return Err(Fault::AllocOutOfBounds { ptr, len: input.len(), memory: size }),
        }
        let packed = self.enter::<(u32, u32), i64>(export, step, (ptr, len))?;
        self.output(packed, step)
    }

    /// The answer, where it lies in the guest's memory. Nothing is copied or allocated for a length
    /// that only the guest vouches for.
    fn output(&self, packed: i64, step: Step) -> Result<&[u8], Fault> {
        let (ptr, len) = unpack(packed);
        if len == 0 {
            return Err(Fault::OutputEmpty { step });
        }
        let memory = self.memory.data(&self.store);
        let bytes = range(ptr, len).and_then(|range| memory.get(range));
        match bytes {
            None => Err(Fault::OutputOutOfBounds { step, ptr, len, memory: Bytes(memory.len()) }),
            Some(bytes) if bytes.len() > OUTPUT_MAX => {
                Err(Fault::OutputTooLarge { step, len, limit: Bytes(OUTPUT_MAX) })
            }
            Some(bytes) => Ok(bytes),
        }
    }

    fn enter<P: WasmParams, R: WasmResults>(
        &mut self,
        export: &ModuleExport,
        step: Step,
        params: P,
    ) -> Result<R, Fault> {
        let func: Func = match self.instance.get_module_export(&mut self.store, export) {
            Some(Extern::Func(func)) => func,
            _ => return Err(unchecked("a function")),
        };
        let func = func.typed::<P, R>(&self.store).map_err(|error| Fault::sandbox(&error))?;
        func.call(&mut self.store, params).map_err(|error| Fault::from_wasmtime(&error, step, &self.sandbox.limits))
    }

    fn fuel_left(&self) -> Result<u64, Fault> {
        self.store.get_fuel().map_err(|error| Fault::sandbox(&error))
    }
}

/// The range of `len` bytes at `ptr`, if there can be one.
fn range(ptr: u32, len: u32) -> Option<std::ops::Range<usize>> {
    let start = ptr as usize;
    Some(start..start.checked_add(len as usize)?)
}

/// A module whose exports were checked has lost one: a mistake of ours, and not a reason to panic.
fn unchecked(what: &str) -> Fault {
    Fault::Sandbox { problem: format!("a checked module does not export {what}") }
}
