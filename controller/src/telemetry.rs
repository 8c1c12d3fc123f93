//! Where log lines and spans go.
//!
//! Log lines go to stderr. Spans (a reconcile, and within it the policy's call and the write) go to a collector, where the
//! feature `otlp` is built in and a collector is named; nobody else sees them, so that a log line stays one line with
//! fields of its own.

use tokio::runtime::Handle;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::args::{Args, LogFormat};

/// Kept as long as something is logged.
#[derive(Debug)]
#[must_use]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    _spans: Option<crate::otlp::Spans>,
}

/// Sends log lines, and spans if a collector is named, to where `args` say.
///
/// # Errors
/// A sentence that names the flag that is wrong.
pub fn init(args: &Args, runtime: &Handle) -> Result<Telemetry, String> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|_| format!("--log {:?} is not a log filter; write info, debug, or module=level", args.log))?;
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs: Box<dyn Layer<Registry> + Send + Sync> = match args.log_format {
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => logs.json().boxed(),
    };
    let registry = tracing_subscriber::registry().with(logs.with_filter(filter.and(filter_fn(|m| m.is_event()))));
    #[cfg(feature = "otlp")]
    {
        let spans = args.otlp_endpoint.as_deref().map(|to| crate::otlp::Spans::to(to, runtime)).transpose()?;
        registry.with(spans.as_ref().map(crate::otlp::Spans::layer)).init();
        Ok(Telemetry { _spans: spans })
    }
    #[cfg(not(feature = "otlp"))]
    {
        let _ = runtime;
        registry.init();
        Ok(Telemetry {})
    }
}
