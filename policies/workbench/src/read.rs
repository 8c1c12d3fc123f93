//! Reading what a person wrote, member by member, so that an error can say where it is and what was
//! probably meant.

use std::{borrow::Cow, fmt};

use konductor_crds::time::{parse_duration, parse_timestamp};
use konductor_policy_abi::v1::Labels;
use serde_json::{Map, Value};

/// The longest document that is read. A thousand fixtures are a tenth of it.
const DOCUMENT_MAX: usize = 4 * 1024 * 1024;

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
    serde_yaml::from_str(text).map_err(|error| Mistake::new("", format!("it is not YAML: {error}")))
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
