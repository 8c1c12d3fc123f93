//! The small reader reads what serde_json reads, and refuses what it refuses.

mod texts;

use std::borrow::Cow;

use konductor_policy_sdk::{Input, NoParams, Output, json};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

/// Both readers' opinion of a text: a value, or that it is none. Where they are the same but for the
/// last bit of a float, which serde_json rounds in its own way, they are the same.
fn both(text: &str) -> (Option<Value>, Option<Value>) {
    let (ours, theirs) = (json::from_str(text), serde_json::from_str(text).ok());
    match (&ours, &theirs) {
        (Some(a), Some(b)) if alike(a, b) => (theirs.clone(), theirs),
        _ => (ours, theirs),
    }
}

fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((j, a), (k, b))| j == k && alike(a, b))
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            (a - b).abs() <= a.abs() * 1e-15 + f64::MIN_POSITIVE
        }
        _ => a == b,
    }
}

#[test]
fn texts_numbers_and_nesting_are_read_alike() {
    let deepest = "[".repeat(127) + &"]".repeat(127);
    for text in texts::GOOD.iter().copied().chain([&*deepest]) {
        let (ours, theirs) = both(text);
        assert!(ours.is_some() && ours == theirs, "{text}: {ours:?}, {theirs:?}");
    }
    // What is too deep, too large for a float, or begins with a mark, every reader may take in its own way.
    let too_deep = "[".repeat(200) + &"]".repeat(200);
    for text in texts::BAD.iter().copied().chain([&*too_deep, "1e400", "\u{feff}{}"]) {
        assert_eq!(both(text), (None, None), "{text}");
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum Colour {
    Red,
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(tag = "kind")]
enum Tagged {
    Point { x: i8 },
    Empty,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Everything<'a> {
    colour: Colour,
    tagged: Vec<Tagged>,
    small: Option<u8>,
    letter: char,
    pair: (i64, f64),
    nothing: (),
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(default)]
    absent: bool,
}

#[test]
fn all_that_serde_derives_is_read_alike() {
    for text in [
        r#"{"colour":"red","tagged":[{"kind":"Point","x":-5},{"kind":"Empty"}],"small":null,"letter":"ü","pair":[1,2],"nothing":null,"text":"t","unknown":{"a":[1,{"b":"c"}]}}"#,
        r#"{"colour":"blue","tagged":[],"small":255,"letter":"x","pair":[-1,2.5],"nothing":null,"text":"esc\"aped","absent":true}"#,
        r#"{"colour":"red","tagged":[],"small":256,"letter":"x","pair":[1,2],"nothing":null,"text":""}"#,
        r#"{"colour":"red","tagged":[],"small":-1,"letter":"x","pair":[1,2],"nothing":null,"text":""}"#,
        r#"{"colour":"red","tagged":[],"small":1,"letter":"xy","pair":[1,2],"nothing":null,"text":""}"#,
        r#"{"colour":"red","tagged":[],"small":1,"letter":"x","pair":[1,2,3],"nothing":null,"text":""}"#,
        r#"{"colour":"red","tagged":[],"small":1,"letter":"x","pair":[1],"nothing":null,"text":""}"#,
        r#"{"colour":5}"#,
    ] {
        assert_eq!(json::from_str::<Everything<'_>>(text), serde_json::from_str(text).ok(), "{text}");
    }
}

#[test]
fn text_without_escapes_is_borrowed() {
    let input: Input<'_, NoParams> =
        json::from_str(r#"{"state": "plain", "lease": {"name": "a\nb"}}"#).expect("an input");
    assert!(matches!(input.state, Cow::Borrowed("plain")));
    assert!(matches!(input.lease.name, Cow::Owned(_)));
}

#[test]
fn glue_answers_what_the_policy_answers() {
    let decide = |input: &Input<'_, NoParams>| Output { wake_in_ms: Some(input.now), ..Output::default() };
    assert_eq!(konductor_policy_sdk::glue::decide_json(br#"{"now": 5}"#, |input| decide(input)), br#"{"wakeInMs":5}"#);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..6).prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_value_is_read_alike(value in value(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("written");
        let (ours, theirs) = both(&text);
        prop_assert!(ours.is_some());
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn any_damaged_value_is_read_alike(value in value(), place in any::<prop::sample::Index>(), c in any::<char>()) {
        let mut text: Vec<char> = serde_json::to_string(&value).expect("written").chars().collect();
        let place = place.index(text.len());
        text[place] = c;
        let text: String = text.into_iter().collect();
        let (ours, theirs) = both(&text);
        prop_assert_eq!(ours, theirs, "{}", text);
    }

    #[test]
    fn any_text_is_read_alike(text in "[\\[\\]{}:,\"0-9eE.+\\-\\\\ntrulfas ]{0,20}") {
        let (ours, theirs) = both(&text);
        prop_assert_eq!(ours, theirs, "{}", text);
    }
}
