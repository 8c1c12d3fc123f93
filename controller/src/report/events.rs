//! Kubernetes Events: what happened to a lease, for `kubectl describe`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use konductor_core::{Ending, Notice};
use konductor_crds::{
    Lease,
    time::format_timestamp,
    v1::reasons::{
        EVENT_DENIED, EVENT_EXPIRED, EVENT_FORCE_RELEASED, EVENT_GRANTED, EVENT_POLICY_ACTIVATED, EVENT_POLICY_FAILED,
        EVENT_POLICY_REJECTED, EVENT_PREEMPTED, EVENT_RELEASED, EVENT_RENEWAL_REFUSED, EVENT_SHADOW_DIFFERS,
        EVENT_SUPERSEDED,
    },
};
use kube::Client;
use kube_runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tracing::debug;

use super::Metrics;
use crate::commit::API_TIMEOUT;

/// How many Events may wait to be written. They are told for people; when more come than the API
/// server takes, the newest are dropped and counted rather than that memory grows.
const WAITING_MAX: usize = 1024;

/// Messages are cut well below the 1 KiB that an Event may have.
const NOTE_MAX: usize = 900;

/// The writer of Events.
#[derive(Clone)]
pub struct Events {
    jobs: mpsc::Sender<(Event, ObjectReference)>,
    metrics: Arc<Metrics>,
}

/// The receiving end of [`Events`].
pub struct EventJobs(mpsc::Receiver<(Event, ObjectReference)>);

impl EventJobs {
    /// Writes Events until the task is dropped.
    pub async fn run(mut self, client: Client, instance: String, metrics: Arc<Metrics>) {
        let reporter = Reporter { controller: "konductor-controller".to_owned(), instance: Some(instance) };
        let recorder = Recorder::new(client, reporter);
        while let Some((event, about)) = self.0.recv().await {
            // One that is never answered must not keep all others from being told.
            match tokio::time::timeout(API_TIMEOUT, recorder.publish(&event, &about)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    metrics.api_error("event");
                    debug!(error = &error as &dyn std::error::Error, "cannot write an event");
                }
                Err(_) => {
                    metrics.api_error("event");
                    debug!(timeout_s = API_TIMEOUT.as_secs(), "no answer to the write of an event");
                }
            }
        }
    }
}

impl Events {
    /// The writer and the work that it hands on.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> (Self, EventJobs) {
        let (jobs, receiver) = mpsc::channel(WAITING_MAX);
        (Self { jobs, metrics }, EventJobs(receiver))
    }

    /// Tells what happened to a lease.
    pub fn notice(&self, lease: &Lease, notice: &Notice) {
        let normal = EventType::Normal;
        let warning = EventType::Warning;
        let (type_, reason, note, who) = match notice {
            // Renewals are the pulse of every holder: thousands an hour, and status.renewals counts them.
            Notice::Renewed { .. } => return,
            Notice::Granted { holder, token, .. } => {
                (normal, EVENT_GRANTED, format!("Granted to {holder} with fencing token {token}."), token.to_string())
            }
            Notice::Ended { holder, token, how } => {
                let (type_, reason, what) = match how {
                    Ending::Released => (normal, EVENT_RELEASED, "released it"),
                    Ending::Expired => (warning, EVENT_EXPIRED, "did not release it in time; its hold ran out"),
                    Ending::Preempted => (normal, EVENT_PREEMPTED, "lost it to another request"),
                    Ending::ForceReleased => (warning, EVENT_FORCE_RELEASED, "lost it: a person took it away"),
                    Ending::Superseded => (normal, EVENT_SUPERSEDED, "asked anew; its old hold is over"),
                };
                (type_, reason, format!("{holder} (fencing token {token}) {what}."), token.to_string())
            }
            Notice::RenewalRefused { holder, reason } => {
                (warning, EVENT_RENEWAL_REFUSED, format!("A renewal of {holder} was refused: {reason}"), holder.clone())
            }
            Notice::Preempting { holder, by, deadline } => {
                let until = format_timestamp(deadline.0);
                (normal, EVENT_PREEMPTED, format!("{holder} is asked to hand over to {by} by {until}."), by.clone())
            }
            Notice::Denied { holder, reason } => {
                (warning, EVENT_DENIED, format!("The request of {holder} was denied: {reason}"), holder.clone())
            }
        };
        self.send(type_, reason, "Arbitrate", note, super::reference(lease, super::API_VERSION, "Lease"), Some(who));
    }

    /// Tells that a lease's policy fails.
    pub fn policy_failed(&self, lease: ObjectReference, message: &str) {
        self.send(EventType::Warning, EVENT_POLICY_FAILED, "Arbitrate", message.to_owned(), lease, None);
    }

    /// Tells that a lease's shadow policy would have decided differently.
    pub fn shadow_differs(&self, lease: ObjectReference, note: String) {
        self.send(EventType::Normal, EVENT_SHADOW_DIFFERS, "Arbitrate", note, lease, None);
    }

    /// Tells that a ConfigMap's module is in use.
    pub fn policy_activated(&self, map: ObjectReference, note: String) {
        self.send(EventType::Normal, EVENT_POLICY_ACTIVATED, "Load", note, map, None);
    }

    /// Tells that a ConfigMap's module was refused.
    pub fn policy_rejected(&self, map: ObjectReference, note: String) {
        self.send(EventType::Warning, EVENT_POLICY_REJECTED, "Load", note, map, None);
    }

    fn send(
        &self,
        type_: EventType,
        reason: &str,
        action: &str,
        mut note: String,
        about: ObjectReference,
        who: Option<String>,
    ) {
        if note.len() > NOTE_MAX {
            let end = (0..=NOTE_MAX).rev().find(|&i| note.is_char_boundary(i)).unwrap_or(0);
            note.truncate(end);
        }
        // The recorder counts Events that look alike as one. Two grants are two things to know, so
        // each is about a holder or a token of its own.
        let secondary = who.map(|who| ObjectReference {
            api_version: Some(super::API_VERSION.to_owned()),
            kind: Some("LeaseRequest".to_owned()),
            namespace: about.namespace.clone(),
            field_path: Some(who),
            ..ObjectReference::default()
        });
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action: action.to_owned(), secondary };
        if self.jobs.try_send((event, about)).is_err() {
            self.metrics.event_dropped();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_event_that_is_never_answered_does_not_keep_the_next_from_being_written() {
        let (asked, mut seen) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let asked = asked.clone();
            async move {
                let body = request.into_body().collect_bytes().await.expect("a body");
                let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                let note = event["note"].as_str().unwrap_or_default().to_owned();
                asked.send(note.clone()).expect("the test looks");
                if note == "first" {
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(body.to_vec())))
            }
        });
        let metrics = Arc::new(Metrics::new());
        let (events, jobs) = Events::new(metrics.clone());
        let _running = tokio::spawn(jobs.run(Client::new(service, "team"), "one".to_owned(), metrics.clone()));
        for note in ["first", "second"] {
            let lease = ObjectReference { name: Some(note.to_owned()), ..ObjectReference::default() };
            events.policy_failed(lease, note);
        }
        let next = async |seen: &mut mpsc::UnboundedReceiver<String>| {
            tokio::time::timeout(API_TIMEOUT * 2, seen.recv()).await.expect("written").expect("it runs")
        };
        assert_eq!(next(&mut seen).await, "first");
        assert_eq!(next(&mut seen).await, "second");
        let text = metrics.encode().expect("text");
        assert!(text.contains("konductor_api_errors_total{operation=\"event\"} 1"), "{text}");
    }
}
