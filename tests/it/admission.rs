//! The optional admission policy of `deploy/admission`. There is no API server here that knows the kind: its fields are
//! held against the API's own types, and its expressions are evaluated by an interpreter of the same language.

use std::sync::Arc;

use cel::{Context, Program, Value, extractors::This, objects::Map};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use konductor_crds::CREATOR_ANNOTATION;
use konductor_tests::*;
use serde_json::{Value as Json, json};

fn policy() -> ValidatingAdmissionPolicy {
    let file = repo::path("deploy/admission/creator.yaml");
    let manifests = manifests::read(&file).expect("our manifests");
    let [policy, binding] = &manifests[..] else { panic!("{} manifests", manifests.len()) };
    fn typed<K: serde::Serialize + serde::de::DeserializeOwned>(object: &Json) -> K {
        let typed: K = serde_json::from_value(object.clone()).expect("the fields of the API");
        // What the API does not know is lost on the way.
        assert_eq!(&serde_json::to_value(&typed).expect("JSON"), object);
        typed
    }
    let binding: ValidatingAdmissionPolicyBinding = typed(&binding.object);
    let policy: ValidatingAdmissionPolicy = typed(&policy.object);
    let bound = binding.spec.expect("a spec");
    assert_eq!(bound.policy_name, policy.metadata.name);
    assert_eq!(bound.validation_actions.as_deref(), Some(&["Deny".to_owned()][..]));
    policy
}

/// The API server's `authorizer`: a question that grows word by word, and whether it is allowed.
fn authorizer(context: &mut Context<'_, '_>, allowed: &'static [&'static str], who: &str) {
    let who = who.to_owned();
    fn word(This(asked): This<Value>, word: Arc<String>) -> Value {
        let Value::String(asked) = asked else { panic!("no authorizer: {asked:?}") };
        Value::String(Arc::new(format!("{asked} {word}")))
    }
    for name in ["group", "resource", "subresource", "namespace", "check"] {
        context.add_function(name, word).expect("a function");
    }
    context
        .add_function("allowed", move |This(asked): This<Arc<String>>| {
            assert_eq!(*asked, " konductor.io leaserequests status team patch");
            allowed.contains(&who.as_str())
        })
        .expect("a function");
    context.add_variable("authorizer", "").expect("a value");
}

/// What the policy says to somebody's operation: why not, or nothing.
fn refused(
    policy: &ValidatingAdmissionPolicy,
    who: &str,
    operation: &str,
    before: &Json,
    after: &Json,
) -> Option<String> {
    let spec = policy.spec.as_ref().expect("a spec");
    let mut context = Context::default();
    let request = json!({"operation": operation, "namespace": "team", "userInfo": {"username": who}});
    for (name, value) in [("request", &request), ("oldObject", before), ("object", after)] {
        context.add_variable(name, value.clone()).expect("a value");
    }
    authorizer(&mut context, &["controller"], who);
    let run = |context: &Context<'_, '_>, text: &str| {
        Program::compile(text).expect(text).execute(context).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let mut variables = std::collections::HashMap::new();
    for variable in spec.variables.as_deref().expect("variables") {
        let value = run(&context, &variable.expression);
        variables.insert(variable.name.clone(), value);
        context.add_variable_from_value("variables", Value::Map(Map::from(variables.clone())));
    }
    spec.validations.as_deref().expect("validations").iter().find_map(|validation| {
        let message = match run(&context, &validation.expression) {
            Value::Bool(true) => return None,
            Value::Bool(false) => validation.message_expression.as_deref().map(|text| run(&context, text)),
            odd => panic!("{odd:?}"),
        };
        assert_eq!(validation.reason.as_deref(), Some("Forbidden"));
        Some(match message {
            Some(Value::String(text)) => text.to_string(),
            Some(odd) => panic!("{odd:?}"),
            None => validation.message.clone().expect("a message"),
        })
    })
}

#[test]
fn only_its_creator_touches_a_request() {
    let policy = policy();
    let none = &json!(null);
    let bare = &json!({"metadata": {"name": "r"}});
    let by = |who: &str| json!({"metadata": {"name": "r", "annotations": {"other": "x", (CREATOR_ANNOTATION): who}}});
    let (ann, ben) = (&by("ann"), &by("ben"));
    let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
    for (who, operation, before, after, because) in [
        ("ann", "CREATE", none, ann, None),
        ("ann", "CREATE", none, ben, Some("set the annotation konductor.io/creator to \"ann\"")),
        ("ann", "CREATE", none, bare, Some("set the annotation konductor.io/creator to \"ann\"")),
        ("controller", "CREATE", none, bare, None),
        // A renewal.
        ("ann", "UPDATE", ann, ann, None),
        ("ben", "UPDATE", ann, ann, Some("only \"ann\" may renew or delete")),
        ("controller", "UPDATE", ann, ann, None),
        // Somebody else's is not taken over, and nobody passes on their own.
        ("ben", "UPDATE", ann, ben, Some("does not change")),
        ("ann", "UPDATE", ann, ben, Some("does not change")),
        ("ann", "UPDATE", ann, bare, Some("does not change")),
        // Its release.
        ("ann", "DELETE", ann, none, None),
        ("ben", "DELETE", ann, none, Some("only \"ann\" may renew or delete")),
        ("controller", "DELETE", ann, none, None),
        (collector, "DELETE", ann, none, None),
        ("system:serviceaccount:kube-system-2:x", "DELETE", ann, none, Some("only \"ann\"")),
        // One that was made before belongs to nobody, and may be made somebody's own.
        ("ben", "UPDATE", bare, bare, None),
        ("ben", "UPDATE", bare, ben, None),
        ("ben", "UPDATE", bare, ann, Some("does not change")),
        ("ben", "DELETE", bare, none, None),
    ] {
        let told = refused(&policy, who, operation, before, after);
        let case = format!("{who} {operation} {before} {after}");
        match (&told, because) {
            (None, None) => {}
            (Some(told), Some(because)) => {
                assert!(told.contains(because), "{case}: {told}");
                // By this koncli knows who refuses, and what to do.
                assert!(told.contains(CREATOR_ANNOTATION), "{told}");
            }
            _ => panic!("{case}: {told:?}, not {because:?}"),
        }
    }
}
