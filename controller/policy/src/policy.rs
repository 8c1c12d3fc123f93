//! A host, and the policies that it has loaded.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use konductor_core::{Decision, Question};
use konductor_policy_abi::{limits::REASON_MAX, v1};
use wasmtime::{Engine, InstancePre, Module};

use crate::{
    cache::{Cache, Found},
    call::{Exports, Guest, Tenant},
    compile::{self, CompileFault, Compiler},
    decision,
    engine::{self, HostError, Place, Sandbox},
    fault::{Fault, Step},
    input,
    limits::{DESCRIPTION_MAX, Limits, VALIDATION_ERRORS_MAX},
    module::{self, CheckedModule, Digest, Rejection},
    text,
};

/// The module of the built-in policy, as the build script has made it from `policies/default`.
const BUILTIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/default.wasm"));

/// Loads policies into a sandbox. Make one and keep it: it owns an engine, memory, and a thread.
pub struct Host {
    sandbox: Arc<Sandbox>,
    builtin: Arc<Policy>,
    compiler: Compiler,
    cache: Option<Cache>,
    engine_hash: [u8; 32],
    /// What is loaded and in use somewhere: the same bytes under several names are one policy.
    loaded: Mutex<HashMap<Digest, Weak<Policy>>>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("limits", &self.sandbox.limits)
            .field("compiler", &self.compiler)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// What a host is made of.
#[derive(Debug, Default)]
pub struct HostOptions {
    /// What calls may cost.
    pub limits: Limits,
    /// Who compiles.
    pub compiler: Compiler,
    /// Where compiled modules are kept; nowhere, if there is none.
    pub cache: Option<Cache>,
}

/// What came of building a module.
#[derive(Debug)]
pub struct Built {
    /// The policy, or what is wrong with it.
    pub policy: Result<Arc<Policy>, Rejection>,
    /// Where its machine code came from.
    pub source: Source,
    /// A file of the cache that was not used, and why.
    pub unfit: Option<String>,
    /// Why the machine code could not be put into the cache.
    pub not_kept: Option<String>,
}

/// Where a module's machine code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The same module was loaded already.
    Shared,
    /// The cache.
    Cache,
    /// The compiler, which has worked for so long, whether it succeeded or not.
    Compiler(Duration),
}

impl Host {
    /// A host with the usual limits, that compiles in this process.
    ///
    /// # Errors
    /// A [`HostError`] where the machine cannot run the sandbox.
    pub fn new() -> Result<Self, HostError> {
        Self::with_options(HostOptions::default())
    }

    /// A host with other limits, for tests and tools.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn with_limits(limits: Limits) -> Result<Self, HostError> {
        Self::with_options(HostOptions { limits, ..HostOptions::default() })
    }

    /// A host made of these.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn with_options(options: HostOptions) -> Result<Self, HostError> {
        let HostOptions { limits, compiler, cache } = options;
        let sandbox = Arc::new(Sandbox::new(limits)?);
        // The built-in policy is ours: what compiling it costs is known.
        let checked = module::check(&sandbox.engine, &sandbox.limits, BUILTIN).map_err(HostError::Builtin)?;
        let compiled = compile_here(&sandbox, &checked).map_err(HostError::Builtin)?;
        let builtin = Arc::new(Policy::start_up(&sandbox, &checked, &compiled).map_err(HostError::Builtin)?);
        let engine_hash = engine::engine_hash(&sandbox.engine);
        let loaded = Mutex::new(HashMap::from([(checked.raw_digest(), Arc::downgrade(&builtin))]));
        Ok(Self { sandbox, builtin, compiler, cache, engine_hash, loaded })
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

    #[cfg(test)]
    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Looks at a module from outside: nothing of it is compiled or run.
    ///
    /// # Errors
    /// A [`Rejection`] that says what is wrong with the module.
    pub fn check<'a>(&self, module: &'a [u8]) -> Result<CheckedModule<'a>, Rejection> {
        module::check_size(module, &self.sandbox.limits)?;
        module::check(&self.sandbox.engine, &self.sandbox.limits, module)
    }

    /// Inflates a module that is compressed with gzip and looks at it, as [`Host::check`] does. Its
    /// digest is that of the inflated module.
    ///
    /// # Errors
    /// A [`Rejection`] that says what is wrong with the module.
    pub fn check_gzip(&self, module: &[u8]) -> Result<CheckedModule<'static>, Rejection> {
        let inflated = module::gunzip(module, &self.sandbox.limits)?;
        module::check(&self.sandbox.engine, &self.sandbox.limits, inflated)
    }

    /// Compiles a module, or finds that this was done before; starts it once, and asks it what it is.
    ///
    /// Blocks for as long as the compiler may take: for ever, where that is [`Compiler::InProcess`].
    #[must_use]
    pub fn build(&self, module: &CheckedModule<'_>) -> Built {
        let built = |policy, source| Built { policy, source, unfit: None, not_kept: None };
        if let Some(policy) = self.shared(module.raw_digest()) {
            return built(Ok(policy), Source::Shared);
        }
        let mut unfit = None;
        match self.cache.as_ref().map(|cache| cache.find(&module.raw_digest(), &self.engine_hash)) {
            Some(Found::Code(code)) => match load_code(&self.sandbox.engine, &code) {
                Ok(compiled) => {
                    return built(self.start(module, &compiled), Source::Cache);
                }
                Err(problem) => unfit = Some(problem.to_string()),
            },
            Some(Found::Unfit(problem)) => unfit = Some(problem),
            Some(Found::Nothing) | None => {}
        }
        let begun = Instant::now();
        let (compiled, code) = match self.compile(module) {
            Ok(compiled) => compiled,
            Err(rejection) => {
                return Built { unfit, ..built(Err(rejection), Source::Compiler(begun.elapsed())) };
            }
        };
        let source = Source::Compiler(begun.elapsed());
        let kept = match (&self.cache, code) {
            (Some(cache), Some(code)) => cache.keep(&module.raw_digest(), &self.engine_hash, &code),
            _ => Ok(()),
        };
        Built { policy: self.start(module, &compiled), source, unfit, not_kept: kept.err() }
    }

    fn loaded(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Policy>>> {
        // Every change of it is one insertion or removal.
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self, digest: Digest) -> Option<Arc<Policy>> {
        self.loaded().get(&digest).and_then(Weak::upgrade)
    }

    /// Machine code in this process, and as bytes where they are wanted.
    fn compile(&self, module: &CheckedModule<'_>) -> Result<(Module, Option<Vec<u8>>), Rejection> {
        let code = match &self.compiler {
            Compiler::InProcess if self.cache.is_none() => {
                return compile_here(&self.sandbox, module).map(|compiled| (compiled, None));
            }
            Compiler::InProcess => compile::precompile(&self.sandbox.engine, module.bytes())
                .map_err(|error| module::uncompilable(&error))?,
            Compiler::Child(program) => program.compile(&self.sandbox.engine, module).map_err(|fault| match fault {
                CompileFault::Refused(problem) => Rejection::Uncompilable { problem },
                fault => Rejection::Compiler(fault),
            })?,
        };
        let compiled = load_code(&self.sandbox.engine, &code)?;
        Ok((compiled, Some(code)))
    }

    fn start(&self, module: &CheckedModule<'_>, compiled: &Module) -> Result<Arc<Policy>, Rejection> {
        let policy = Arc::new(Policy::start_up(&self.sandbox, module, compiled)?);
        let mut loaded = self.loaded();
        loaded.retain(|_, policy| policy.strong_count() > 0);
        // Somebody may have been quicker with the same bytes.
        if let Some(other) = loaded.get(&module.raw_digest()).and_then(Weak::upgrade) {
            return Ok(other);
        }
        loaded.insert(module.raw_digest(), Arc::downgrade(&policy));
        Ok(policy)
    }

    /// [`Host::check`] and [`Host::build`] in one.
    ///
    /// # Errors
    /// A [`Rejection`] that says what is wrong with the module.
    pub fn load(&self, module: &[u8]) -> Result<Arc<Policy>, Rejection> {
        self.build(&self.check(module)?).policy
    }

    /// [`Host::check_gzip`] and [`Host::build`] in one.
    ///
    /// # Errors
    /// A [`Rejection`] that says what is wrong with the module.
    pub fn load_gzip(&self, module: &[u8]) -> Result<Arc<Policy>, Rejection> {
        self.build(&self.check_gzip(module)?).policy
    }
}

fn compile_here(sandbox: &Sandbox, module: &CheckedModule<'_>) -> Result<Module, Rejection> {
    // From the binary format only: nothing else that wasmtime could read may come from a user.
    Module::from_binary(&sandbox.engine, module.bytes()).map_err(|error| module::uncompilable(&error))
}

/// Machine code that our own compiler has made becomes a module.
#[allow(unsafe_code, reason = "loading machine code is what a compiler in another process is for")]
fn load_code(engine: &Engine, code: &[u8]) -> Result<Module, Rejection> {
    // SAFETY: deserialize must only be given what `Engine::precompile_module` or the like has made,
    // unmodified. `code` comes from one of three places. `compile::precompile` in this process. A
    // child that is this same program and ran the same function; its frame has a digest over the
    // code and the hash of its engine, both of which were compared. A file of the cache: private to
    // our user, and authenticated by a key that no user of the cluster knows, over code, module and
    // engine. Nothing that a user has uploaded is ever passed here.
    unsafe { Module::deserialize(engine, code) }.map_err(|error| module::uncompilable(&error))
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
    /// The most memory in bytes that the instance had.
    pub memory: usize,
    /// How long it took, without waiting for a place.
    pub duration: Duration,
    /// Whether a reason was cut to its limit, or had characters in it that are not shown.
    pub texts_cut: bool,
}

/// What went into a call and came out of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tape {
    /// The input; empty if none could be made.
    pub input: Vec<u8>,
    /// The answer, if the guest gave one.
    pub output: Option<Vec<u8>>,
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
    /// Links a compiled module, starts it once, and asks it what it is: a start section that loops
    /// should be found by the one who uploads it.
    fn start_up(sandbox: &Arc<Sandbox>, module: &CheckedModule<'_>, compiled: &Module) -> Result<Self, Rejection> {
        let (pre, exports) = module::link(&sandbox.engine, compiled)?;
        let digest = module.digest().to_owned();
        let mut policy =
            Self { sandbox: Arc::clone(sandbox), digest, size: module.size(), pre, exports, description: None };
        policy.description = policy.ask_for_description().map_err(Rejection::Unstartable)?;
        Ok(policy)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.sandbox.limits
    }

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
        self.decide_onto(question, params, None)
    }

    /// As [`Policy::decide`], and also gives what went in and came out, as bytes: for the journal.
    pub fn decide_taped(&self, question: &Question, params: &str) -> (Result<Decided, Fault>, Tape) {
        let mut tape = Tape::default();
        (self.decide_onto(question, params, Some(&mut tape)), tape)
    }

    fn decide_onto(&self, question: &Question, params: &str, mut tape: Option<&mut Tape>) -> Result<Decided, Fault> {
        let input = input::encode(question, input::params(params)?)?;
        if let Some(tape) = &mut tape {
            tape.input.clone_from(&input.json);
        }
        let _place = self.sandbox.place();
        let begun = Instant::now();
        let mut guest = self.start()?;
        let output = guest.decide(&input.json)?;
        if let Some(tape) = tape {
            tape.output = Some(output.to_vec());
        }
        let decoded = decision::decode(output, |index| input.index(index))?;
        let (fuel, memory) = (guest.fuel_used()?, guest.memory_size());
        drop(guest);
        Ok(Decided {
            decision: decoded.decision,
            fuel,
            memory,
            duration: begun.elapsed(),
            texts_cut: decoded.texts_cut,
        })
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
        self.answer_at(self.sandbox.place(), input)
    }

    /// The same, where no lease waits for it.
    pub(crate) fn answer_in_background(&self, input: &[u8]) -> Result<Answer, Fault> {
        self.answer_at(self.sandbox.background_place(), input)
    }

    fn answer_at(&self, _place: Place<'_>, input: &[u8]) -> Result<Answer, Fault> {
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
        self.validate_at(self.sandbox.place(), params)
    }

    /// The same, where no lease waits for it.
    pub(crate) fn validate_in_background(&self, params: &str) -> Result<Vec<String>, Fault> {
        self.validate_at(self.sandbox.background_place(), params)
    }

    fn validate_at(&self, _place: Place<'_>, params: &str) -> Result<Vec<String>, Fault> {
        let params = input::params(params)?;
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
        let _place = self.sandbox.background_place();
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
