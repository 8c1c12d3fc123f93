//! A host, and the policies that it has loaded.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use konductor_core::{Decision, Question};
use konductor_policy_abi::{limits::REASON_MAX, v1};
use wasmtime::InstancePre;

use crate::{
    call::{Exports, Guest, Tenant},
    decision,
    engine::{HostError, Sandbox},
    fault::{Fault, Step},
    input,
    limits::{DESCRIPTION_MAX, Limits, VALIDATION_ERRORS_MAX},
    module::{self, Admitted, Rejection},
    text,
};

/// The module of the built-in policy, as the build script has made it from `policies/default`.
const BUILTIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/default.wasm"));

/// Loads policies into a sandbox. Make one and keep it: it owns an engine, memory, and a thread.
pub struct Host {
    sandbox: Arc<Sandbox>,
    builtin: Arc<Policy>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("limits", &self.sandbox.limits).finish_non_exhaustive()
    }
}

impl Host {
    /// A host with the usual limits.
    ///
    /// # Errors
    /// A [`HostError`] where the machine cannot run the sandbox.
    pub fn new() -> Result<Self, HostError> {
        Self::with_limits(Limits::default())
    }

    /// A host with other limits, for tests and tools.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn with_limits(limits: Limits) -> Result<Self, HostError> {
        let sandbox = Arc::new(Sandbox::new(limits)?);
        let builtin = load(&sandbox, BUILTIN).map_err(HostError::Builtin)?;
        Ok(Self { sandbox, builtin })
    }

    /// The built-in policy.
    #[must_use]
    pub fn builtin(&self) -> Arc<Policy> {
        Arc::clone(&self.builtin)
    }

    /// The module of the built-in policy, for tools that look at it.
    #[must_use]
    pub fn builtin_module() -> &'static [u8] {
        BUILTIN
    }

    /// The limits of this host.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.sandbox.limits
    }

    /// Loads a module: checks it, compiles it, starts it once, and asks it what it is.
    ///
    /// It is compiled in this process, for which neither time nor memory is bounded but by the
    /// bounds on its size.
    ///
    /// # Errors
    /// A [`Rejection`] that says what is wrong with the module.
    pub fn load(&self, module: &[u8]) -> Result<Arc<Policy>, Rejection> {
        module::check_size(module, &self.sandbox.limits)?;
        load(&self.sandbox, module)
    }

    /// Loads a module that is compressed with gzip, as [`Host::load`] does. Its digest is that of
    /// the inflated module.
    ///
    /// # Errors
    /// A [`Rejection`] that says what is wrong with the module.
    pub fn load_gzip(&self, module: &[u8]) -> Result<Arc<Policy>, Rejection> {
        load(&self.sandbox, &module::gunzip(module, &self.sandbox.limits)?)
    }
}

fn load(sandbox: &Arc<Sandbox>, bytes: &[u8]) -> Result<Arc<Policy>, Rejection> {
    let Admitted { digest, pre, exports } = module::admit(&sandbox.engine, &sandbox.limits, bytes)?;
    let mut policy =
        Policy { sandbox: Arc::clone(sandbox), digest, size: bytes.len(), pre, exports, description: None };
    policy.description = policy.ask_for_description().map_err(Rejection::Unstartable)?;
    Ok(Arc::new(policy))
}

/// A loaded policy. Every call of it runs in a fresh instance; nothing that it does in one is there
/// in the next. Calls block their thread; many may be made at once.
pub struct Policy {
    sandbox: Arc<Sandbox>,
    digest: String,
    size: usize,
    pre: InstancePre<Tenant>,
    exports: Exports,
    description: Option<Description>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// What a policy says of itself. Its texts are cleaned and bounded; its schema is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// Its name for itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema of its params.
    pub params_schema: Option<serde_json::Value>,
}

/// A decision, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The decision, as it was proposed: the guard has yet to check it.
    pub decision: Decision,
    /// The fuel that it took: the same for the same input, everywhere.
    pub fuel: u64,
    /// How long it took, without waiting for a place.
    pub duration: Duration,
    /// Whether a reason was cut to its limit, or had characters in it that are not shown.
    pub texts_cut: bool,
}

/// An answer as bytes, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the policy answered: not checked in any way but its length.
    pub output: Vec<u8>,
    /// The fuel that it took.
    pub fuel: u64,
    /// How long it took, without waiting for a place.
    pub duration: Duration,
    /// The most memory in bytes that the instance had.
    pub memory: usize,
}

impl Policy {
    /// The digest of the module, `sha256:` and hexadecimal: what makes one policy another.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The size of the module in bytes, inflated.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// What the policy says of itself, if it does.
    #[must_use]
    pub fn describe(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// Asks the policy. `params` is a JSON object; an empty text means none.
    ///
    /// A decision names requests by their index in the question. If some had to be left out to keep
    /// the input within its limit, this is allowed for.
    ///
    /// # Errors
    /// A [`Fault`] that says how the call failed.
    pub fn decide(&self, question: &Question, params: &str) -> Result<Decided, Fault> {
        let input = input::encode(question, input::params(params)?)?;
        let _place = self.sandbox.place();
        let begun = Instant::now();
        let mut guest = self.start()?;
        let decoded = decision::decode(guest.decide(&input.json)?, |index| input.index(index))?;
        let fuel = guest.fuel_used()?;
        drop(guest);
        Ok(Decided { decision: decoded.decision, fuel, duration: begun.elapsed(), texts_cut: decoded.texts_cut })
    }

    /// The input that [`Policy::decide`] gives to the policy, as JSON: what is logged for replaying.
    ///
    /// # Errors
    /// A [`Fault`] for params that are not a JSON object, and for an input that cannot be made to fit.
    pub fn input(question: &Question, params: &str) -> Result<Vec<u8>, Fault> {
        Ok(input::encode(question, input::params(params)?)?.json)
    }

    /// Gives the policy an input as bytes and takes its answer as bytes: for replaying, byte for byte.
    ///
    /// # Errors
    /// A [`Fault`] that says how the call failed; of the answer only the place and length are checked.
    pub fn answer(&self, input: &[u8]) -> Result<Answer, Fault> {
        let _place = self.sandbox.place();
        let begun = Instant::now();
        let mut guest = self.start()?;
        let output = guest.decide(input)?.to_vec();
        let (fuel, memory) = (guest.fuel_used()?, guest.memory_size());
        drop(guest);
        Ok(Answer { output, fuel, duration: begun.elapsed(), memory })
    }

    /// Reads an answer as [`Policy::decide`] does, where every request of the question was shown.
    ///
    /// # Errors
    /// A [`Fault`] of the kinds that begin with `Output`.
    pub fn read(output: &[u8]) -> Result<Decision, Fault> {
        decision::decode(output, |index| index as usize).map(|decoded| decoded.decision)
    }

    /// Asks the policy what is wrong with these params; nothing, if it has no opinion. `params` is a
    /// JSON object; an empty text means none. The sentences are cleaned and bounded.
    ///
    /// # Errors
    /// A [`Fault`] that says how the call failed.
    pub fn validate(&self, params: &str) -> Result<Vec<String>, Fault> {
        let params = input::params(params)?;
        let _place = self.sandbox.place();
        let mut guest = self.start()?;
        let Some(output) = guest.validate(params.get().as_bytes())? else { return Ok(Vec::new()) };
        let validation: v1::Validation<'static> = decision::parse(output, Step::Validate)?;
        let errors = validation.errors.into_iter().take(VALIDATION_ERRORS_MAX);
        Ok(errors.map(|error| text::cleaned(error, REASON_MAX)).collect())
    }

    fn start(&self) -> Result<Guest<'_>, Fault> {
        Guest::start(&self.sandbox, &self.pre, &self.exports)
    }

    fn ask_for_description(&self) -> Result<Option<Description>, Fault> {
        let _place = self.sandbox.place();
        let mut guest = self.start()?;
        let Some(output) = guest.describe()? else { return Ok(None) };
        let said: v1::Description<'static, serde_json::Value> = decision::parse(output, Step::Describe)?;
        Ok(Some(Description {
            name: text::cleaned(said.name, REASON_MAX),
            version: text::cleaned(said.version, REASON_MAX),
            description: text::cleaned(said.description, DESCRIPTION_MAX),
            params_schema: said.params_schema,
        }))
    }
}
