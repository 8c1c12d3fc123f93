//! Spans to an OpenTelemetry collector, as JSON over HTTP. They are sent in batches, beside the way of everything else:
//! what a slow collector does not take is dropped, and at most 2048 spans wait.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::{Subscriber, warn};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// The longest that one batch may take, and that the end of the program waits for the last one: the log has it all.
const SEND_MOST: Duration = Duration::from_secs(3);
/// What a collector answers is a few words.
const ANSWER_MOST: usize = 64 * 1024;

/// Sends spans; what is left is sent when it is dropped.
#[derive(Debug)]
pub struct Spans(SdkTracerProvider);

impl Spans {
    /// To a collector's address.
    ///
    /// # Errors
    /// If that is none.
    pub fn to(endpoint: &str, runtime: &Handle) -> Result<Self, String> {
        let client = Http {
            client: Client::builder(TokioExecutor::new()).build_http(),
            runtime: runtime.clone(),
            failing: Arc::default(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(SEND_MOST)
            .build()
            .map_err(|error| format!("--otlp-endpoint {endpoint} cannot be used: {error}"))?;
        let who = Resource::builder().with_service_name("konductor-controller").build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(who).build()))
    }

    /// What hears of spans. Of ours: those of the libraries below would be most, and say nothing of leases.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let ours = filter_fn(|m| m.is_span() && m.target().starts_with("konductor_controller"));
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("konductor-controller")).with_filter(ours)
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        // That a collector is away was told when it began; there is nothing more to do about it.
        let _ = self.0.shutdown_with_timeout(SEND_MOST);
    }
}

/// The SDK sends from a thread of its own, which no runtime knows: the requests are made on ours.
#[derive(Debug)]
struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Handle,
    /// Whether the last batch was not taken: that is told once.
    failing: Arc<AtomicBool>,
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Http {
    fn send_bytes<'own, 'answer>(&'own self, request: Request<Bytes>) -> Answer<'answer>
    where
        'own: 'answer,
        Self: 'answer,
    {
        let (client, failing) = (self.client.clone(), self.failing.clone());
        // All of it there: neither a connection nor a timer can be made outside of a runtime.
        let answered = self.runtime.spawn(async move {
            let answer = async {
                let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
                let body = Limited::new(body, ANSWER_MOST).collect().await?.to_bytes();
                Ok::<_, HttpError>(Response::from_parts(parts, body))
            };
            let answered = match tokio::time::timeout(SEND_MOST, answer).await {
                Ok(Ok(answered)) if !answered.status().is_success() => Err(answered.status().to_string().into()),
                Ok(answered) => answered,
                Err(_) => Err("no answer in time".into()),
            };
            if let Err(problem) = &answered
                && !failing.swap(true, Ordering::Relaxed)
            {
                warn!(problem = crate::report::chain(&**problem), "the collector takes no spans; they are dropped");
            } else if answered.is_ok() {
                failing.store(false, Ordering::Relaxed);
            }
            answered
        });
        Box::pin(async move { answered.await? })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::{Router, extract::State, routing::post};
    use clap::Parser as _;
    use serde_json::Value;
    use tracing::{info_span, instrument::WithSubscriber as _};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::args::Args;

    /// What a collector has got.
    type Got = Arc<Mutex<Vec<Value>>>;

    async fn collector() -> (String, Got) {
        let got = Got::default();
        let take = async |State(got): State<Got>, body: String| {
            got.lock().expect("lock").push(serde_json::from_str(&body).expect("JSON"));
            "{}"
        };
        let app = Router::new().route("/v1/traces", post(take)).with_state(got.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        (format!("http://{address}"), got)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_gets_a_reconcile_with_its_parts_and_nothing_of_others() {
        let (url, got) = collector().await;
        let spans = Spans::to(&url, &Handle::current()).expect("a URL");
        let subscriber = tracing_subscriber::registry().with(spans.layer());
        crate::reconcile::tests::one_grant().with_subscriber(subscriber).await;
        // The SDK waits for its own thread, and this one serves the collector.
        tokio::task::spawn_blocking(move || drop(spans)).await.expect("an end");

        let got = got.lock().expect("lock").clone();
        let resource = &got[0]["resourceSpans"][0];
        assert!(resource["resource"].to_string().contains("konductor-controller"), "{resource}");
        let all =
            |batch: &Value| batch["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned().expect("spans");
        let spans: Vec<Value> = got.iter().flat_map(all).collect();
        let named =
            |name: &str| spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("{name}: {spans:?}"));
        let root = named("reconcile");
        assert!(root["attributes"].to_string().contains("ns/l"), "{root}");
        for part in ["policy", "commit"] {
            assert_eq!(named(part)["traceId"], root["traceId"], "{part}");
            assert_eq!(named(part)["parentSpanId"], root["spanId"], "{part}");
        }
        assert!(named("policy")["attributes"].to_string().contains("sha256:"), "{spans:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_is_away_holds_nobody_up() {
        let spans = Spans::to("http://127.0.0.1:1", &Handle::current()).expect("a URL");
        let subscriber = tracing_subscriber::registry().with(spans.layer());
        tracing::subscriber::with_default(subscriber, || drop(info_span!("reconcile").entered()));
        let begun = std::time::Instant::now();
        tokio::task::spawn_blocking(move || drop(spans)).await.expect("an end");
        assert!(begun.elapsed() < 2 * SEND_MOST, "{:?}", begun.elapsed());
    }

    #[test]
    fn an_endpoint_that_is_none_is_refused_by_name() {
        for endpoint in ["localhost:4318", "https://collector:4318", "http://"] {
            let args = Args::parse_from(["konductor-controller", "--otlp-endpoint", endpoint]);
            assert!(args.validate().expect_err(endpoint).contains("--otlp-endpoint"));
        }
        Args::parse_from(["konductor-controller", "--otlp-endpoint=http://c:4318"]).validate().expect("a URL");
    }
}
