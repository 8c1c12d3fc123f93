//! Who made a LeaseRequest, where the cluster insists that it says so: see `deploy/admission`.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use konductor_crds::{CREATOR_ANNOTATION, LeaseRequest};
use kube::{Api, api::PostParams};

use super::{
    Client,
    error::{Access, CallFailure},
};

/// Whether a create was refused because it does not say who makes it. The policy's message names the annotation.
pub(super) fn is_asked_for(failure: &CallFailure) -> bool {
    failure.is_refusal() && failure.status().is_some_and(|status| status.message.contains(CREATOR_ANNOTATION))
}

/// Writes into a request who makes it, in the API server's words. False if it does not say.
///
/// Only asked when the cluster insists: everywhere else it would be one call more for nothing.
pub(super) async fn sign(client: &Client, request: &mut LeaseRequest) -> bool {
    let reviews: Api<SelfSubjectReview> = Api::all(client.kube.clone());
    let access = Access { verb: "create", resource: "selfsubjectreviews.authentication.k8s.io" };
    let (how, question) = (PostParams::default(), SelfSubjectReview::default());
    let answer = client.call(access, || reviews.create(&how, &question)).await;
    let Some(who) = answer.ok().and_then(|review| review.status?.user_info?.username) else { return false };
    request.metadata.annotations.get_or_insert_default().insert(CREATOR_ANNOTATION.to_owned(), who);
    true
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;
    use crate::client::{Acquire, CallFailureKind, Problem, scripted};

    const ASKS: &str = "leaserequests \"r\" is forbidden: ValidatingAdmissionPolicy 'konductor-request-creator' with binding \
        'konductor-request-creator' denied request: a LeaseRequest has to say who makes it: set the annotation \
        konductor.io/creator to \"ann\"";

    fn refusal(message: &str) -> (u16, String) {
        let status = Status::failure(message, "Forbidden").with_code(403);
        (403, serde_json::to_string(&status).expect("JSON"))
    }

    #[test]
    fn only_the_policy_asks_for_a_name() {
        let failure = |(code, body): (u16, String)| {
            let status: Status = serde_json::from_str(&body).expect("a Status");
            assert_eq!(status.code, code);
            let kind = CallFailureKind::Kube(kube::Error::Api(status.boxed()));
            CallFailure { access: Access::requests("create"), kind }
        };
        assert!(is_asked_for(&failure(refusal(ASKS))));
        assert!(!is_asked_for(&failure(refusal("leaserequests is forbidden: User \"ann\" cannot create"))));
    }

    #[tokio::test]
    async fn who_is_asked_for_a_name_gives_it_and_tries_again() {
        let me = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {},
            "status": {"userInfo": {"username": "ann"}}});
        let (kube, asked) = scripted::writes(&[refusal(ASKS), (201, me.to_string()), refusal("no, and that is all")]);
        let want = Acquire::new("x", "h");
        let error = Client::new(kube, "team").acquire(&want).await.expect_err("refused");
        assert!(matches!(error.problem(), Problem::Forbidden { .. }), "{error}");
        let asked = asked.lock().expect("lock").clone();
        let creator = |n: usize| asked[n].1.pointer("/metadata/annotations/konductor.io~1creator").cloned();
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert_eq!((creator(0), creator(2)), (None, Some(json!("ann"))));
        assert!(asked[1].0.ends_with("/selfsubjectreviews"), "{}", asked[1].0);
        assert_eq!(asked[0].1["spec"], asked[2].1["spec"]);
    }
}
