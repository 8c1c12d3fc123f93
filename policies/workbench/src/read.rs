//! Reading what a person wrote, member by member, so that an error can say where it is and what was
//! probably meant.

use std::{borrow::Cow, cell::Cell, fmt};

use konductor_crds::time::{parse_duration, parse_timestamp};
use konductor_policy_abi::v1::Labels;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The longest document that is read. A thousand fixtures are a tenth of it.
const DOCUMENT_MAX: usize = 4 * 1024 * 1024;

/// How much more than its own text a document may come to through aliases, in bytes: enough for an input
/// that hundreds of cases share. Without a bound, 400 KB of aliases of aliases are 400 MB.
const ALIASED_MAX: usize = 1024 * 1024;

/// From this likeness on (0 to 1) a known name is offered for an unknown one: `priorty` and
/// `priority` are 0.97, `ttl` and `ttlMs` 0.91, and words that have nothing to do with each other below 0.7.
const LIKENESS_MIN: f64 = 0.75;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    place: String,
    problem: String,
}

impl Mistake {
    /// A mistake at a place such as `case 2, input.requests[1]`; no place means the whole document.
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.problem) } else { write!(f, "{}: {}", self.place, self.problem) }
    }
}

impl std::error::Error for Mistake {}

/// Reads YAML, of which JSON is a part.
pub(crate) fn document(text: &str) -> Result<Value, Mistake> {
    if text.len() > DOCUMENT_MAX {
        let problem = format!("it has {} bytes; at most {DOCUMENT_MAX} are read, split it", text.len());
        return Err(Mistake::new("", problem));
    }
    // A value is a byte at least, and so is what separates it from the next. One of two bytes, such as \P in
    // quotes, may stand for three.
    let left = Cell::new(2 * text.len() + ALIASED_MAX);
    let read = Strict { left: &left }.deserialize(serde_yaml::Deserializer::from_str(text));
    read.map_err(|error| Mistake::new("", format!("it cannot be read as YAML: {error}")))
}

/// Reads a value as it stands there: of two members with one name none wins, and what JSON cannot say,
/// such as `.nan`, does not become null.
#[derive(Clone, Copy)]
struct Strict<'a> {
    /// How many bytes of values may still be read.
    left: &'a Cell<usize>,
}

impl Strict<'_> {
    /// Counts a value or a name, with what separates it from the next.
    fn take<E: de::Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(bytes.saturating_add(1));
        self.left.set(left.ok_or_else(|| {
            E::custom(format_args!("with what its aliases stand for it is longer than twice its text and {ALIASED_MAX} bytes; write out less by aliases, or split it"))
        })?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what JSON can say too: null, true, false, a number, a text, a list or a mapping")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.take(0)?;
        Ok(Value::Null)
    }

    /// A document without anything in it.
    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Value, E> {
        self.take(1)?;
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        self.take(1)?;
        Ok(Value::from(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        self.take(1)?;
        Ok(Value::from(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        self.take(1)?;
        let number = Number::from_f64(number);
        number.map(Value::Number).ok_or_else(|| E::custom("there is no such number in JSON (.nan or .inf)"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.take(text.len())?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.take(1)?;
        let mut list = Vec::new();
        while let Some(value) = entries.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.take(1)?;
        let mut members = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            self.take(name.len())?;
            if members.contains_key(&name) {
                return Err(de::Error::custom(format_args!(
                    "the member {name:?} stands there twice; leave one of them"
                )));
            }
            let value = entries.next_value_seed(self)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

/// "; did you mean x?", if one of the known names is like this one.
pub(crate) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let like = known.into_iter().map(|other| (strsim::jaro_winkler(name, other), other));
    match like.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, other)) if likeness >= LIKENESS_MIN => format!("; did you mean {other}?"),
        _ => String::new(),
    }
}

/// What kind of value this is, as YAML calls it.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// The times that RFC 3339 can write and that time can be added to: 1970 to 9999, in milliseconds.
pub(crate) const MOMENTS: std::ops::RangeInclusive<i64> = 0..=253_402_300_799_999;

/// A mapping of which every member is known. A member that is null is as good as absent.
pub(crate) struct Fields<'a> {
    place: String,
    members: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The members of a mapping.
    pub(crate) fn of(value: &'a Value, place: impl Into<String>, known: &[&str]) -> Result<Self, Mistake> {
        let place = place.into();
        let Value::Object(members) = value else {
            let problem = format!("this is {}; a mapping with {} belongs here", kind(value), known.join(", "));
            return Err(Mistake::new(place, problem));
        };
        if let Some(name) = members.keys().find(|name| !known.contains(&name.as_str())) {
            let suggestion = suggestion(name, known.iter().copied());
            let problem = format!("there is no member {name:?} here{suggestion} (there are {})", known.join(", "));
            return Err(Mistake::new(place, problem));
        }
        Ok(Self { place, members })
    }

    /// Where a member stands.
    pub(crate) fn place(&self, name: &str) -> String {
        member_place(&self.place, name)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// Whether the member was written at all, be it as null.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    pub(crate) fn mistake(&self, name: &str, problem: impl Into<String>) -> Mistake {
        Mistake::new(self.place(name), problem)
    }

    fn wrong(&self, name: &str, value: &Value, wanted: &str) -> Mistake {
        self.mistake(name, format!("this is {}; {wanted} belongs here", shown(value)))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, Mistake> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, other, "a text (in quotes, if it looks like a number)")),
        }
    }

    pub(crate) fn required_text(&self, name: &str) -> Result<&'a str, Mistake> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(Mistake::new(self.place.clone(), format!("{name} is missing"))),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Mistake> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(name, other, "true or false")),
        }
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, Mistake> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(name, value, "an integer")),
            },
        }
    }

    pub(crate) fn priority(&self, name: &str) -> Result<Option<i32>, Mistake> {
        let number = self.integer(name)?;
        let narrow = |n| i32::try_from(n).map_err(|_| self.mistake(name, format!("{n} does not fit 32 bits")));
        number.map(narrow).transpose()
    }

    /// A number that counts something.
    pub(crate) fn count(&self, name: &str) -> Result<Option<usize>, Mistake> {
        let number = self.integer(name)?;
        number.map(|n| usize::try_from(n).map_err(|_| self.mistake(name, format!("{n} is below zero")))).transpose()
    }

    /// A span of time: milliseconds, or a duration.
    pub(crate) fn span(&self, name: &str) -> Result<Option<i64>, Mistake> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => {
                parse_duration(text).map(Some).map_err(|error| self.mistake(name, error.to_string()))
            }
            Some(value) => match value.as_i64() {
                Some(ms) => Ok(Some(ms)),
                None => Err(self.wrong(name, value, "a duration such as 10m, or milliseconds")),
            },
        }
    }

    /// A point in time: milliseconds since the epoch, a duration from `now`, or RFC 3339.
    pub(crate) fn moment(&self, name: &str, now: i64) -> Result<Option<i64>, Mistake> {
        let moment = self.any_moment(name, now)?;
        match moment {
            Some(ms) if !MOMENTS.contains(&ms) => {
                Err(self.mistake(name, format!("{ms} ms are not in the years 1970 to 9999")))
            }
            _ => Ok(moment),
        }
    }

    fn any_moment(&self, name: &str, now: i64) -> Result<Option<i64>, Mistake> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let Value::String(text) = value else {
            return match value.as_i64() {
                Some(ms) => Ok(Some(ms)),
                None => Err(self.wrong(name, value, "a time such as -5m, or 2026-01-01T00:00:00Z")),
            };
        };
        if let Some(at) = parse_timestamp(text) {
            return Ok(Some(at));
        }
        let (sign, span) = match text.strip_prefix('-') {
            Some(span) => (-1, span),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        match parse_duration(span) {
            Ok(ms) => Ok(Some(now.saturating_add(sign * ms))),
            Err(_) => {
                let problem = format!(
                    "{text:?} is no time; write how far it is from now, such as -5m, or 2026-01-01T00:00:00Z, or milliseconds"
                );
                Err(self.mistake(name, problem))
            }
        }
    }

    pub(crate) fn labels(&self, name: &str) -> Result<Labels<'static>, Mistake> {
        let Some(value) = self.value(name) else { return Ok(Labels::default()) };
        let Value::Object(members) = value else { return Err(self.wrong(name, value, "a mapping of texts")) };
        let mut labels = Vec::new();
        for (key, value) in members {
            let Value::String(text) = value else {
                let problem = format!("this is {}; a label is a text, so put it into quotes", shown(value));
                return Err(Mistake::new(member_place(&self.place(name), key), problem));
            };
            labels.push((Cow::Owned(key.clone()), Cow::Owned(text.clone())));
        }
        Ok(Labels(labels))
    }

    /// A list, each entry with its place; empty if it is absent.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<(&'a Value, String)>, Mistake> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => {
                let place = self.place(name);
                Ok(list.iter().enumerate().map(|(i, value)| (value, format!("{place}[{i}]"))).collect())
            }
            Some(other) => Err(self.wrong(name, other, "a list")),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, Mistake> {
        let list = self.list(name)?;
        list.into_iter()
            .map(|(value, place)| match value {
                Value::String(text) => Ok(text.clone()),
                other => Err(Mistake::new(place, format!("this is {}; a text belongs here", shown(other)))),
            })
            .collect()
    }
}

/// A value as an error names it: itself if it is short, else its kind.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() <= 40 => format!("{text:?}"),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        other => kind(other).to_owned(),
    }
}

fn member_place(place: &str, name: &str) -> String {
    match place.chars().last() {
        None => name.to_owned(),
        // "case 2 \"its name\", input"
        Some(')') | Some('"') => format!("{place}, {name}"),
        Some(_) => format!("{place}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: &Value) -> Fields<'_> {
        Fields::of(value, "case 1 \"x\"", &["a", "b"]).expect("known members")
    }

    #[test]
    fn unknown_members_are_told_with_the_nearest_known_one() {
        let value = document("priorty: 1").expect("YAML");
        let problem = Fields::of(&value, "", &["holder", "priority"]).err().expect("unknown").to_string();
        assert!(problem.contains("\"priorty\"") && problem.contains("did you mean priority?"), "{problem}");
        let value = document("zzz: 1").expect("YAML");
        let problem = Fields::of(&value, "", &["holder", "priority"]).err().expect("unknown").to_string();
        assert!(!problem.contains("did you mean") && problem.contains("holder, priority"), "{problem}");
    }

    #[test]
    fn a_moment_that_no_clock_shows_is_refused() {
        for yaml in ["a: 253402300800000", "a: 9223372036854775807", "a: -1", "a: -20m", "a: 100000000h"] {
            let value = document(yaml).expect(yaml);
            let problem = fields(&value).moment("a", 1_000_000).expect_err(yaml).to_string();
            assert!(problem.contains("1970 to 9999") || yaml.ends_with('h'), "{yaml}: {problem}");
        }
    }

    #[test]
    fn spans_and_moments_are_read_in_every_way_they_may_be_written() {
        for (yaml, ms) in [("a: 10m", 600_000), ("a: 500ms", 500), ("a: 1500", 1500), ("a: 0", 0), ("a: 0s", 0)] {
            assert_eq!(fields(&document(yaml).expect(yaml)).span("a"), Ok(Some(ms)), "{yaml}");
        }
        for (yaml, ms) in [
            ("a: -5m", 700_000),
            ("a: 5m", 1_300_000),
            ("a: +1s", 1_001_000),
            ("a: 42", 42),
            ("a: 1970-01-01T00:00:07Z", 7_000),
            ("a: 0s", 1_000_000),
            ("a: 253402300799999", 253_402_300_799_999),
        ] {
            assert_eq!(fields(&document(yaml).expect(yaml)).moment("a", 1_000_000), Ok(Some(ms)), "{yaml}");
        }
        let value = document("{a: banana, b: [1]}").expect("YAML");
        for problem in [fields(&value).span("a"), fields(&value).moment("a", 0), fields(&value).span("b")] {
            let problem = problem.expect_err("no time").to_string();
            assert!(problem.starts_with("case 1 \"x\", ") && problem.contains("such as"), "{problem}");
        }
    }

    #[test]
    fn of_two_members_with_one_name_none_wins() {
        for text in [
            "a: 1\nb: 2\na: 3",
            "{\"a\": {}, \"b\": 1, \"a\": {}}",
            "- b: {c: [{a: 1, \"a\": 1}]}",
            "x: &x {a: 1}\ny: {a: *x, a: *x}",
        ] {
            let problem = document(text).expect_err(text).to_string();
            assert!(problem.contains("the member \"a\" stands there twice"), "{text}: {problem}");
        }
        // One name in two mappings is two members.
        assert_eq!(document("{a: {a: 1}, b: {a: 2}}"), Ok(json!({ "a": { "a": 1 }, "b": { "a": 2 } })));
    }

    #[test]
    fn a_number_that_json_has_not_is_refused_and_not_null() {
        for text in ["a: .nan", "a: .inf", "a: [-.inf]"] {
            let problem = document(text).expect_err(text).to_string();
            assert!(problem.contains("no such number"), "{text}: {problem}");
        }
        assert_eq!(document("[1.5, -7, 18446744073709551615, ~]"), Ok(json!([1.5, -7, u64::MAX, null])));
    }

    #[test]
    fn aliases_are_read_as_far_as_they_stay_small() {
        assert_eq!(document("a: &a {x: [1]}\nb: *a"), Ok(json!({ "a": { "x": [1] }, "b": { "x": [1] } })));
        let long = format!("a: &a \"{}\"\nb: [{}]", "x".repeat(4_000), "*a, ".repeat(4_000));
        let wide = format!("- &a [{}]\n- [{}]", "1, ".repeat(4_000), "*a, ".repeat(4_000));
        for text in [long, wide] {
            let problem = document(&text).expect_err("it would be huge").to_string();
            assert!(problem.contains("aliases"), "{problem}");
        }
        // However a document is written that has none, it is never too much.
        for text in ["{a,b,c,d}", "[0,0,0,0]", "-\n-\n-", "[[],[],{}]", "[\"\\P\\P\\P\\P\\P\\P\"]"] {
            let left = Cell::new(2 * text.len());
            let read = Strict { left: &left }.deserialize(serde_yaml::Deserializer::from_str(text));
            read.unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn a_value_of_another_kind_is_told_with_what_belongs_there() {
        let value = document("{a: yes, b: {x: 1}}").expect("YAML");
        let fields = fields(&value);
        assert_eq!(fields.text("a"), Ok(Some("yes")), "YAML 1.2: yes is a text");
        assert!(fields.flag("a").expect_err("text").to_string().contains("true or false belongs here"));
        assert!(fields.labels("b").expect_err("number").to_string().contains("b.x: this is 1"));
        assert!(fields.list("b").expect_err("mapping").to_string().contains("a list belongs here"));
        assert!(fields.priority("a").expect_err("text").to_string().contains("an integer"));
    }
}
