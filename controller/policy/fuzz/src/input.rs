//! A question and params, as a policy is told them.

use arbitrary::{Result, Unstructured};
use konductor_core::{Question, check};
use konductor_policy::Policy;
use konductor_policy_abi::{limits, v1};
use serde_json::value::RawValue;

use crate::{module::host, questions};

pub(crate) fn run(bytes: &[u8]) -> String {
    let mut u = Unstructured::new(bytes);
    let Ok((question, params)) = case(&mut u) else { return "too short".to_owned() };
    let input = match Policy::input(&question, &params) {
        Ok(input) => input,
        Err(fault) => {
            let known = ["ParamsNotJson", "InputTooLarge"].contains(&fault.reason());
            assert!(known, "neither the params nor the size is the matter: {fault}");
            return fault.reason().to_owned();
        }
    };
    assert!(input.len() <= limits::INPUT_MAX, "an input of {} bytes", input.len());
    tells_the_question(&question, &input);

    let builtin = host().builtin();
    match builtin.validate(&params) {
        Err(fault) => {
            assert!(!fault.is_infrastructure(), "{fault}");
            format!("validate {}", fault.reason())
        }
        Ok(errors) if !errors.is_empty() => "params refused".to_owned(),
        Ok(_) => match builtin.answer(&input) {
            Err(fault) => {
                assert!(!fault.is_infrastructure(), "{fault}");
                // More requests than this host's small budget is for.
                assert_eq!(fault.reason(), "FuelExhausted", "params that it took, and then: {fault}");
                fault.reason().to_owned()
            }
            Ok(answer) => {
                let native = konductor_policy_default::decide_json(&input);
                assert_eq!(answer.output, native, "natively the same rules answer something else");
                let decided = builtin.decide(&question, &params).expect("what it has just answered");
                check(&question, decided.decision).expect("the built-in policy proposes what is legal");
                "decided".to_owned()
            }
        },
    }
}

fn case(u: &mut Unstructured<'_>) -> Result<(Question, String)> {
    Ok((questions::question(u)?, params(u)?))
}

/// The ABI's own types read from the input what the question says.
fn tells_the_question(question: &Question, input: &[u8]) {
    let told: v1::Input<'_, Box<RawValue>> = serde_json::from_slice(input).expect("an input of the ABI");
    assert_eq!((told.now, told.waiting), (question.now.0, question.waiting as u64));
    assert_eq!((told.lease.name.as_ref(), told.state.as_ref()), (&*question.lease.name, &*question.state));
    assert_eq!(told.hold.is_some(), question.hold.is_some());
    assert_eq!(told.history.len(), question.history.len());
    assert!(told.requests.len() <= limits::REQUESTS_MAX.min(question.requests.len()));
    // In order of arrival, each as it is, whichever were left out.
    let mut rest = question.requests.iter();
    for request in &told.requests {
        let same = rest.any(|candidate| {
            (candidate.holder.as_str(), candidate.priority, candidate.ttl.0, candidate.arrived.0)
                == (request.holder.as_ref(), request.priority, request.ttl_ms, request.arrived)
        });
        assert!(same, "a request that nobody made, or out of order: {request:?}");
    }
}

/// Params: those that the built-in policy knows with all kinds of values, any JSON, and any text.
fn params(u: &mut Unstructured<'_>) -> Result<String> {
    match u.int_in_range(0u8..=5)? {
        0 => Ok(u.arbitrary::<&str>()?.to_owned()),
        1 => Ok(String::new()),
        2 => json(u, 0),
        _ => {
            let members = (0..u.int_in_range(0..=4)?).map(|_| member(u)).collect::<Result<Vec<_>>>()?;
            Ok(format!("{{{}}}", members.join(",")))
        }
    }
}

fn member(u: &mut Unstructured<'_>) -> Result<String> {
    let name = *u.choose(&["preemption", "gracePeriod", "minHold", "lockDelay", "aging", "agin", ""])?;
    const VALUES: [&str; 16] = [
        "\"Never\"",
        "\"LowerPriority\"",
        "\"10s\"",
        "\"1h30m\"",
        "\"0s\"",
        "\"-1s\"",
        "\"366d\"",
        "\"99999999999h\"",
        "1",
        "0.5",
        "-1",
        "1e300",
        "1e-300",
        "null",
        "{}",
        "\"\\u0000\"",
    ];
    let value = if u.ratio(1, 8)? { json(u, 0)? } else { (*u.choose(&VALUES)?).to_owned() };
    Ok(format!("{}:{value}", serde_json::Value::from(name)))
}

/// Any JSON, up to a depth that no parser minds, and now and then one that it does.
fn json(u: &mut Unstructured<'_>, depth: usize) -> Result<String> {
    Ok(match u.int_in_range(0u8..=if depth > 4 { 4 } else { 7 })? {
        0 => "null".to_owned(),
        1 => u.arbitrary::<i64>()?.to_string(),
        2 => format!("{:e}", f64::from(u.arbitrary::<f32>()?)),
        3 => serde_json::Value::from(questions::text(u)?).to_string(),
        4 => "[".repeat(u.int_in_range(0..=200)?),
        5 => format!(
            "[{}]",
            (0..u.int_in_range(0..=3)?).map(|_| json(u, depth + 1)).collect::<Result<Vec<_>>>()?.join(",")
        ),
        _ => {
            let member = |u: &mut Unstructured<'_>| {
                Ok(format!("{}:{}", serde_json::Value::from(questions::text(u)?), json(u, depth + 1)?))
            };
            format!("{{{}}}", (0..u.int_in_range(0..=3)?).map(|_| member(u)).collect::<Result<Vec<_>>>()?.join(","))
        }
    })
}
