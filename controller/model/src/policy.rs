//! Who decides: anybody, or the rules of the built-in policy.

use std::ops::ControlFlow;

use konductor_core::{
    Decision, Denial, Ending, Grant, HoldAction, Inquiry, Millis, Plan, Question, Snapshot, Verdict, check,
};
use konductor_policy_default::{Params, decide, params::Preemption};
use konductor_policy_sdk as sdk;

use crate::{
    config::{Config, Rules},
    shell::TICK,
};

/// Every plan that the policy can bring about, each once.
pub(crate) fn plans(config: &Config, rules: Rules, snapshot: &Snapshot) -> Vec<Plan> {
    let mut plans = Vec::new();
    walk(config, rules, Inquiry::of(snapshot), &mut plans);
    plans
}

fn walk(config: &Config, rules: Rules, inquiry: Inquiry<'_>, plans: &mut Vec<Plan>) {
    for verdict in verdicts(config, rules, inquiry.question()) {
        match inquiry.clone().conclude(&verdict) {
            ControlFlow::Continue(next) => walk(config, rules, next, plans),
            ControlFlow::Break(plan) => {
                let same =
                    |p: &Plan| p.next == plan.next && p.answers == plan.answers && p.transition == plan.transition;
                if !plans.iter().any(same) {
                    plans.push(plan);
                }
            }
        }
    }
}

fn verdicts(config: &Config, rules: Rules, question: Option<&Question>) -> Vec<Verdict> {
    let Some(question) = question else { return vec![Verdict::NotAsked] };
    let proposals = match rules {
        Rules::Any => proposals(config, question),
        Rules::Default => vec![built_in(config, question)],
    };
    let mut refused = rules == Rules::Any;
    let mut verdicts = Vec::new();
    for proposal in proposals {
        match check(question, proposal) {
            Ok(checked) => verdicts.push(Verdict::Decided(checked)),
            Err(_) => refused = true,
        }
    }
    if refused {
        // What the guard refuses, and a policy that fails, is nobody's decision.
        verdicts.push(Verdict::Unavailable("the model's policy fails".to_owned()));
    }
    verdicts
}

/// What a policy can say, legal or not.
fn proposals(config: &Config, question: &Question) -> Vec<Decision> {
    let ttl = Millis(i64::from(config.ttl) * TICK);
    let keep = Decision::default;
    let grants = || (0..question.requests.len()).map(move |request| Grant { request, ttl });
    let mut all = vec![keep()];
    // While there is a hold these are for the guard to refuse.
    all.extend(grants().map(|grant| Decision { grant: Some(grant), ..keep() }));
    if let Some(hold) = &question.hold {
        // Unasked, a hold that is due may be renewed for ever: here once, or a run would have no end.
        if hold.renewal_requested || hold.renewals == 0 {
            all.push(Decision { hold: HoldAction::Renew { ttl }, ..keep() });
        }
        all.push(Decision { hold: HoldAction::Expire, ..keep() });
        all.extend(grants().map(|grant| Decision { hold: HoldAction::Expire, grant: Some(grant), ..keep() }));
    }
    if let (Some(by_force), Some(_)) = (config.preemption, &question.hold) {
        for in_favour_of in 0..question.requests.len() {
            let grace = Millis(TICK);
            all.push(Decision { hold: HoldAction::Preempt { in_favour_of, grace, force: by_force }, ..keep() });
        }
    }
    if config.denials {
        let denial = |request| Denial { request, reason: String::new() };
        for request in 0..question.requests.len() {
            all.push(Decision { deny: vec![denial(request)], ..keep() });
        }
    }
    all
}

/// What the built-in policy says.
fn built_in(config: &Config, question: &Question) -> Decision {
    let preemption = if config.preemption.is_some() { Preemption::LowerPriority } else { Preemption::Never };
    let params = Params { preemption, grace_period_ms: TICK, ..Params::default() };
    let input = sdk::Input {
        now: question.now.0,
        lease: sdk::Lease { ttl_ms: question.ttl.0, renewable: true, ..sdk::Lease::default() },
        params: sdk::params::Reading { params, errors: Vec::new() },
        hold: question.hold.as_ref().map(|hold| sdk::Hold {
            holder: hold.holder.as_str().into(),
            priority: hold.priority,
            ttl_ms: hold.ttl.0,
            acquired: hold.acquired.0,
            expires: hold.expires.0,
            renewals: hold.renewals,
            token: hold.token,
            renewal_requested: hold.renewal_requested,
            due: hold.due,
            preemption: hold.preemption.as_ref().map(|p| sdk::Preemption {
                by: p.by.as_str().into(),
                deadline: p.deadline.0,
                force: p.force,
                ..sdk::Preemption::default()
            }),
            ..sdk::Hold::default()
        }),
        requests: question
            .requests
            .iter()
            .map(|r| sdk::Request {
                holder: r.holder.as_str().into(),
                priority: r.priority,
                ttl_ms: r.ttl.0,
                arrived: r.arrived.0,
                ..sdk::Request::default()
            })
            .collect(),
        waiting: question.waiting as u64,
        history: question
            .history
            .iter()
            .map(|past| sdk::Past {
                holder: past.holder.as_str().into(),
                token: past.token,
                ended: past.ended.0,
                how: match past.how {
                    Ending::Released => sdk::Ending::Released,
                    Ending::Expired => sdk::Ending::Expired,
                    Ending::Preempted => sdk::Ending::Preempted,
                    Ending::ForceReleased => sdk::Ending::ForceReleased,
                    Ending::Superseded => sdk::Ending::Superseded,
                },
                ..sdk::Past::default()
            })
            .collect(),
        ..sdk::Input::default()
    };
    let output = decide(&input);
    Decision {
        hold: match output.hold {
            None | Some(sdk::HoldAction::Keep) => HoldAction::Keep,
            Some(sdk::HoldAction::Renew { ttl_ms }) => HoldAction::Renew { ttl: Millis(ttl_ms) },
            Some(sdk::HoldAction::Expire) => HoldAction::Expire,
            Some(sdk::HoldAction::Preempt { r#for, grace_ms, force }) => {
                HoldAction::Preempt { in_favour_of: r#for as usize, grace: Millis(grace_ms), force }
            }
        },
        grant: output.grant.map(|g| Grant { request: g.request as usize, ttl: Millis(g.ttl_ms) }),
        deny: Vec::new(),
        wake_in: output.wake_in_ms.map(Millis),
        state: None,
        reason: String::new(),
    }
}
