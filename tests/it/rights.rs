//! Who may do what, with real tokens of service accounts that have exactly the roles of `deploy/rbac`.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::{ConfigMap, ResourceQuota, Secret},
};
use konductor_crds::{
    Lease, LeaseRequest,
    v1::{LeasePhase, RequestPhase},
};
use konductor_tests::*;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    lifecycle::{ask, hold, holds, patch_status},
    pods::{asks_from, has, pod},
};

/// Asks the API server: may the owner of this client `verb` this `resource.group/subresource` in this namespace?
async fn may(client: &Client, namespace: &str, verb: &str, what: &str) -> bool {
    let (what, subresource) = what.split_once('/').map_or((what, None), |(what, sub)| (what, Some(sub.to_owned())));
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let attributes = ResourceAttributes {
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.expect("everybody may ask");
    answer.status.is_some_and(|status| status.allowed)
}

/// Of a table of "verb verb: resource resource", what is allowed other than it says.
async fn differences(client: &Client, namespace: &str, allowed: bool, table: &[&str]) -> Vec<String> {
    let mut differences = Vec::new();
    for row in table {
        let (verbs, resources) = row.split_once(": ").expect("verbs: resources");
        for verb in verbs.split(' ') {
            for resource in resources.split(' ') {
                if may(client, namespace, verb, resource).await != allowed {
                    differences.push(format!("{verb} {resource} in {namespace:?}: allowed={}", !allowed));
                }
            }
        }
    }
    differences
}

#[track_caller]
fn is_forbidden<T: std::fmt::Debug>(outcome: kube::Result<T>) {
    match outcome {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{status:?}"),
        odd => panic!("not forbidden: {odd:?}"),
    }
}

#[tokio::test]
async fn the_controller_may_do_its_work_and_nothing_else() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    team.create_lease("x", "10m").await;
    let kubeconfig = plane.kubeconfig_for_service_account("konductor-system", "konductor-controller").await;
    let client = kubeconfig::client(&kubeconfig).await.expect("a client");

    let own = [
        "get list watch: leases.konductor.io",
        "update: leases.konductor.io/status",
        "get list watch delete: leaserequests.konductor.io",
        "patch: leaserequests.konductor.io/status",
        "list watch: configmaps namespaces",
        "get list watch: pods",
        "create patch: events.events.k8s.io",
    ];
    assert_eq!(differences(&client, "", true, &own).await, [""; 0], "in every namespace");
    let not_own = [
        "create update patch delete deletecollection: leases.konductor.io",
        "create update patch deletecollection: leaserequests.konductor.io",
        "get create update patch delete: configmaps",
        "create update patch delete: namespaces",
        EVERY_VERB_OF_OTHERS,
        "create update patch delete: pods",
        "create: pods/exec pods/eviction serviceaccounts/token",
        "impersonate: users groups serviceaccounts",
        "bind escalate: clusterroles.rbac.authorization.k8s.io",
    ];
    assert_eq!(differences(&client, "team", false, &not_own).await, [""; 0]);
    assert_eq!(differences(&client, "", false, &not_own).await, [""; 0]);
    // Its own leader election, in its own namespace and by its own name.
    assert!(may(&client, "konductor-system", "create", "leases.coordination.k8s.io").await);
    assert!(!may(&client, "konductor-system", "delete", "leases.coordination.k8s.io").await);
    assert!(!may(&client, "team", "create", "leases.coordination.k8s.io").await);
    assert!(!may(&client, "konductor-system", "watch", "leases.coordination.k8s.io").await, "only the one of its name");
    assert!(!may(&client, "konductor-system", "get", "secrets").await);

    // Not only said: tried.
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "konductor-system");
    is_forbidden(secrets.list(&ListParams::default()).await);
    let leases: Api<Lease> = Api::namespaced(client.clone(), "team");
    is_forbidden(leases.patch("x", &PatchParams::default(), &Patch::Merge(json!({"spec": {"ttl": "1h"}}))).await);
    let mut lease = leases.get("x").await.expect("it may look");
    lease.spec.ttl = "1h".to_owned();
    is_forbidden(leases.replace("x", &PostParams::default(), &lease).await);
    is_forbidden(leases.delete("x", &DeleteParams::default()).await);
    // What it writes as a status changes no spec.
    let written = leases.replace_status("x", &PostParams::default(), &lease).await.expect("its one write");
    assert_eq!(written.spec.ttl, "10m");
}

/// What a rule of a role allows, as "verb resource.group/subresource".
fn allows(role: &serde_json::Value) -> BTreeSet<String> {
    let words = |rule: &serde_json::Value, name: &str| -> Vec<String> {
        let list = rule[name].as_array().unwrap_or_else(|| panic!("no {name} in {rule}"));
        list.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().expect("rules") {
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                let (resource, subresource) = resource.split_once('/').unwrap_or((&resource, ""));
                all.extend(words(rule, "verbs").iter().map(|verb| right(verb, resource, &group, subresource)));
            }
        }
    }
    all
}

fn right(verb: &str, resource: &str, group: &str, subresource: &str) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    let slash = if subresource.is_empty() { "" } else { "/" };
    format!("{verb} {resource}{dot}{group}{slash}{subresource}")
}

/// By the API server's own log: a right that no part of a controller's life needs has no place in its roles.
#[tokio::test]
async fn the_controller_uses_every_right_that_it_has_and_asks_for_no_other() {
    let who = "system:serviceaccount:konductor-system:konductor-controller";
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": [who]}]});
    let (plane, log) = audited(&policy.to_string()).await;
    let granted: BTreeSet<String> = manifests::read(&repo::path("deploy/rbac/controller.yaml"))
        .expect("our roles")
        .into_iter()
        .map(|manifest| manifest.object)
        .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")))
        .flat_map(|role| allows(&role))
        .collect();
    assert!(granted.len() > 15, "{granted:?}");

    // A life: elected, a policy, a lease that is not there, a grant, the same refusal twice, a Pod that ends, a Pod that
    // was never seen, and a hold whose request went while nobody looked.
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    policies::upload(&team, "no", "policy.wasm", &policies::always(r#"{"deny":[{"request":0,"reason":"no"}]}"#)).await;
    team.create_lease("x", "10m").await;
    team.create_lease_with("closed", json!({"ttl": "10m", "policy": {"name": "no"}})).await;
    team.request("nothing", "a").await;
    for name in ["first", "second"] {
        let request = LeaseRequest::new(name, ask("closed", "a"));
        let request = team.requests().create(&PostParams::default(), &request).await.expect("accepted");
        team.request_is(&request, "denied", |r| r.phase() == Some(RequestPhase::Denied)).await;
    }
    let ends = pod(&team, "ends").await;
    let mut unseen = ends.clone();
    (unseen.metadata.name, unseen.metadata.uid) = (Some("unseen".to_owned()), Some("never-there".to_owned()));
    for (pod, end) in [(ends, json!({"phase": "Failed"})), (unseen, json!(null))] {
        let bound = asks_from(&team, &pod, "x").await;
        if !end.is_null() {
            holds(&team, &bound).await;
            has(&team, "ends", end).await;
        }
        team.request_is_gone(&bound).await;
    }
    let (request, _) = hold(&team, "x", "a").await;
    assert_eq!(controller.terminate().await.code, 0);
    team.delete_request(&request).await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    team.lease_is("x", "free", |lease| lease.phase() == LeasePhase::Available).await;
    // A watch is logged when it is over.
    assert_eq!(controller.terminate().await.code, 0);

    let seen = |allowed: bool| -> BTreeSet<String> {
        let events = audit_events(&log).into_iter().filter(|event| {
            let refused = event["annotations"]["authorization.k8s.io/decision"] == "forbid";
            event["user"]["username"] == who && !event["objectRef"].is_null() && refused != allowed
        });
        let word = |event: &serde_json::Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
        events
            .map(|event| {
                let object = &event["objectRef"];
                let [resource, group, subresource] = ["resource", "apiGroup", "subresource"].map(|n| word(object, n));
                right(&word(&event, "verb"), &resource, &group, &subresource)
            })
            .collect()
    };
    eventually("every right is used", async || {
        let unused: Vec<_> = granted.difference(&seen(true)).cloned().collect();
        if unused.is_empty() { Ok(()) } else { Err(unused.join(", ")) }
    })
    .await;
    assert_eq!(seen(false), BTreeSet::new(), "it was refused");
    let elsewhere: Vec<_> = seen(true).difference(&granted).cloned().collect();
    assert_eq!(elsewhere, [""; 0], "it may do what its roles do not say");
}

const EVERY_VERB_OF_OTHERS: &str = "get list watch create update patch delete: \
    secrets nodes services serviceaccounts deployments.apps jobs.batch \
    roles.rbac.authorization.k8s.io clusterroles.rbac.authorization.k8s.io \
    customresourcedefinitions.apiextensions.k8s.io";

#[tokio::test]
async fn people_have_the_rights_of_their_role_and_the_status_belongs_to_the_controller() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let other = plane.namespace("other").await;
    other.create_lease("theirs", "10m").await;
    let (user, viewer, operator, author) = tokio::join!(
        team.user(&["konductor-lease-user"]),
        team.user(&["konductor-lease-viewer"]),
        team.user(&["konductor-lease-operator"]),
        team.user(&["konductor-policy-author"]),
    );
    let leases = |user: &User<'_>, namespace: &str| Api::<Lease>::namespaced(user.client().clone(), namespace);
    let requests = |user: &User<'_>, namespace: &str| Api::<LeaseRequest>::namespaced(user.client().clone(), namespace);
    let request = |holder: &str| LeaseRequest::new(holder, ask("x", holder));
    let how = PostParams::default();
    let pretend = json!({"phase": "Held", "holder": "me"});

    // A user: everything about leases and requests of the namespace, but no status.
    let lease: Lease =
        serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {"ttl": "10m"}})).expect("a Lease");
    leases(&user, "team").create(&how, &lease).await.expect("a user makes leases");
    let own = requests(&user, "team").create(&how, &request("me")).await.expect("a user asks");
    let holding = holds(&team, &own).await;
    let renew = Patch::Merge(json!({"spec": {"renewals": 1}}));
    requests(&user, "team").patch("me", &PatchParams::default(), &renew).await.expect("a user renews");
    team.lease_is("x", "renewed", |l| l.status.as_ref().is_some_and(|s| s.renewals == Some(1))).await;
    is_forbidden(patch_status(&leases(&user, "team"), "x", pretend.clone()).await);
    let seen = leases(&user, "team").get("x").await.expect("a user looks");
    is_forbidden(leases(&user, "team").replace_status("x", &how, &seen).await);
    let status = Patch::Merge(json!({"status": {"phase": "Granted"}}));
    is_forbidden(requests(&user, "team").patch_status("me", &PatchParams::default(), &status).await);
    // A status that comes with an object, or with a change of it, is dropped.
    let patched =
        Patch::Merge(json!({"spec": {"priority": 1}, "status": {"holder": "me-too", "fencingToken": 999_999}}));
    let patched =
        leases(&user, "team").patch("x", &PatchParams::default(), &patched).await.expect("a user changes specs");
    assert_eq!((patched.holder(), patched.token()), (Some("me"), Some(holding.token)));
    let mut forged = lease.clone();
    forged.metadata.name = Some("forged".to_owned());
    forged.status = serde_json::from_value(pretend.clone()).expect("a status");
    let forged = leases(&user, "team").create(&how, &forged).await.expect("a user makes leases");
    assert_eq!(forged.status, None);
    // Nothing of it elsewhere.
    is_forbidden(leases(&user, "other").list(&ListParams::default()).await);
    is_forbidden(leases(&user, "other").delete("theirs", &DeleteParams::default()).await);
    is_forbidden(requests(&user, "other").create(&how, &request("me")).await);
    is_forbidden(Api::<Lease>::all(user.client().clone()).list(&ListParams::default()).await);
    is_forbidden(Api::<Secret>::namespaced(user.client().clone(), "team").list(&ListParams::default()).await);
    is_forbidden(Api::<ConfigMap>::namespaced(user.client().clone(), "team").list(&ListParams::default()).await);

    // A viewer looks.
    assert_eq!(leases(&viewer, "team").get("x").await.expect("a viewer looks").holder(), Some("me"));
    assert_eq!(requests(&viewer, "team").list(&ListParams::default()).await.expect("a viewer looks").items.len(), 1);
    is_forbidden(requests(&viewer, "team").create(&how, &request("viewer")).await);
    is_forbidden(requests(&viewer, "team").delete("me", &DeleteParams::default()).await);
    is_forbidden(
        leases(&viewer, "team")
            .patch("x", &PatchParams::default(), &Patch::Merge(json!({"spec": {"ttl": "1h"}})))
            .await,
    );
    is_forbidden(patch_status(&leases(&viewer, "team"), "x", pretend.clone()).await);

    // A policy author uploads policies, and takes no lease.
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "p"}, "data": {"a": "1"}})).expect("a ConfigMap");
    Api::<ConfigMap>::namespaced(author.client().clone(), "team").create(&how, &map).await.expect("an author uploads");
    is_forbidden(Api::<ConfigMap>::namespaced(author.client().clone(), "other").create(&how, &map).await);
    is_forbidden(requests(&author, "team").create(&how, &request("author")).await);

    // An operator takes a lease away, here, and does nothing else.
    is_forbidden(requests(&operator, "team").create(&how, &request("operator")).await);
    is_forbidden(requests(&operator, "team").delete("me", &DeleteParams::default()).await);
    is_forbidden(
        leases(&operator, "team")
            .patch("x", &PatchParams::default(), &Patch::Merge(json!({"spec": {"ttl": "1h"}})))
            .await,
    );
    is_forbidden(patch_status(&leases(&operator, "other"), "theirs", json!({"phase": "Available"})).await);
    let release = json!({"phase": "Available", "holder": ""});
    patch_status(&leases(&operator, "team"), "x", release).await.expect("an operator forces a release");
    team.lease_is("x", "taken away", |l| l.phase() == LeasePhase::Available && l.ending_of(holding.token).is_some())
        .await;
    hold(&team, "x", "next").await;

    // What is aggregated into Kubernetes' own roles. Its controller does that; without one it is a matter of labels.
    let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(plane.admin().clone());
    for (role, into) in [
        ("konductor-lease-user", &["edit", "admin"][..]),
        ("konductor-lease-viewer", &["view"]),
        ("konductor-lease-operator", &["admin"]),
        ("konductor-policy-author", &[]),
    ] {
        let labels = roles.get(role).await.expect("it is there").metadata.labels.unwrap_or_default();
        let aggregated: Vec<_> =
            labels.keys().filter_map(|l| l.strip_prefix("rbac.authorization.k8s.io/aggregate-to-")).collect();
        let mut into = into.to_vec();
        into.sort_unstable();
        assert_eq!(aggregated, into, "{role}");
    }
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

/// As README.md says it.
#[tokio::test]
async fn a_quota_bounds_a_namespace_and_says_so() {
    let plane = ControlPlane::start(Options { controller_manager: true, ..Options::default() }).await;
    plane.install().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let (team, other) = (plane.namespace("team").await, plane.namespace("other").await);
    let user = team.user(&["konductor-lease-user"]).await;
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        team.create_lease(name, "10m").await;
    }
    let quota = "create quota leases --hard=count/leaserequests.konductor.io=2,count/leases.konductor.io=6 -n team";
    plane.kubectl(quota).run().await.succeeds();
    let quotas: Api<ResourceQuota> = Api::namespaced(plane.admin().clone(), "team");
    eventually("the quota is in force", async || {
        let quota = quotas.get("leases").await.expect("it is there");
        let used = quota.status.and_then(|status| status.used).unwrap_or_default();
        let used = |what: &str| used.get(&format!("count/{what}.konductor.io")).map(|used| used.0.clone());
        let now = (used("leases"), used("leaserequests"));
        if now == (Some("6".to_owned()), Some("0".to_owned())) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;

    // kube-apiserver may learn of a new quota a moment after it is in force, and counts from then on.
    let mut held = Vec::new();
    let refused = loop {
        let name = names[held.len()];
        let tried = user.koncli(&format!("lease acquire {name} --holder me")).run().await;
        if tried.code != 0 {
            break tried.exits_with(6);
        }
        held.push(name);
        assert!(held.len() < names.len(), "as many as one likes");
    };
    refused.complains("the cluster does not admit it").complains("exceeded quota").complains("larger ResourceQuota");
    user.koncli("lease create g --ttl 1m").run().await.exits_with(6).complains("exceeded quota");
    // Only here, and only until somebody is done.
    for holder in ["a", "b", "c"] {
        other.create_lease(holder, "10m").await;
        hold(&other, holder, holder).await;
    }
    for name in &held {
        user.koncli(&format!("lease release {name} --holder me")).run().await.succeeds();
    }
    eventually("there is room", async || {
        let tried = user.koncli("lease acquire f --holder me").run().await;
        if tried.code == 0 { Ok(()) } else { Err(tried.stderr) }
    })
    .await;
}
