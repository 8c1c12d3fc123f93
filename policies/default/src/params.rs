//! The params: what they mean, their defaults, and what is wrong with bad ones.

use alloc::{borrow::Cow, format, string::String, vec::Vec};
use core::fmt::{self, Write as _};

use konductor_policy_sdk::{duration, json};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// How long a holder that is asked to leave has to do so, if the params do not say: what Kubernetes
/// gives a Pod between SIGTERM and SIGKILL.
pub const GRACE_PERIOD_DEFAULT_MS: i64 = 30_000;

/// The most priority per minute: it lets the lowest priority overtake the highest within three days,
/// and keeps the arithmetic far from its ends.
pub const AGING_MAX: f64 = 1_000_000.0;

/// The most errors that are reported at once; a person repairs a few and asks again.
const ERRORS_MAX: usize = 16;

/// The params.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// When a holder is asked to leave.
    pub preemption: Preemption,
    /// How long it then has, in milliseconds.
    pub grace_period_ms: i64,
    /// How long a holder is left alone first, in milliseconds since its grant.
    pub min_hold_ms: i64,
    /// The pause before the next grant after a hold that was not given back, in milliseconds.
    pub lock_delay_ms: i64,
    /// The priority gained per minute of waiting, in thousandths: whole numbers compare the same
    /// way everywhere.
    pub aging_milli: i64,
}

/// When a holder is asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preemption {
    /// Never.
    Never,
    /// When the next request has a higher priority.
    LowerPriority,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            preemption: Preemption::Never,
            grace_period_ms: GRACE_PERIOD_DEFAULT_MS,
            min_hold_ms: 0,
            lock_delay_ms: 0,
            aging_milli: 0,
        }
    }
}

/// What is wrong with these params, a JSON object; one sentence each, each naming its param.
#[must_use]
pub fn validate(params: &str) -> Vec<String> {
    match json::from_str::<Reading>(params) {
        Some(reading) => reading.errors,
        None => alloc::vec![String::from("params: not a JSON object")],
    }
}

/// Params as they were read, with what is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The params, with the default where there is an error.
    pub params: Params,
    /// One sentence for each error.
    pub errors: Vec<String>,
}

impl Reading {
    fn set(&mut self, name: &str, value: &Value<'_>) {
        let params = &mut self.params;
        let done = match name {
            "preemption" => value.preemption().map(|v| params.preemption = v),
            "gracePeriod" => value.duration().map(|v| params.grace_period_ms = v),
            "minHold" => value.duration().map(|v| params.min_hold_ms = v),
            "lockDelay" => value.duration().map(|v| params.lock_delay_ms = v),
            "aging" => value.aging().map(|v| params.aging_milli = v),
            _ => {
                Err("is not a param of this policy, which knows preemption, gracePeriod, minHold, lockDelay and aging")
            }
        };
        if let Err(problem) = done
            && self.errors.len() < ERRORS_MAX
        {
            self.errors.push(format!("{name}: {value} {problem}"));
        }
    }
}

impl<'de> Deserialize<'de> for Reading {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Reading;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reading, A::Error> {
                let mut reading = Reading::default();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, Value<'de>>()? {
                    reading.set(&name, &value);
                }
                Ok(reading)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// One param's value as it stands in the JSON.
enum Value<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    /// Nothing that any param takes; what it is.
    Other(&'static str),
}

impl Value<'_> {
    fn preemption(&self) -> Result<Preemption, &'static str> {
        match self {
            Self::Text(text) if text == "Never" => Ok(Preemption::Never),
            Self::Text(text) if text == "LowerPriority" => Ok(Preemption::LowerPriority),
            _ => Err("is neither Never nor LowerPriority"),
        }
    }

    fn duration(&self) -> Result<i64, &'static str> {
        let Self::Text(text) = self else { return Err("is not a duration; write a text such as \"30s\" or \"1h30m\"") };
        duration::parse_ms(text).ok_or("is not a duration up to 366 days; write one such as \"30s\" or \"1h30m\"")
    }

    fn aging(&self) -> Result<i64, &'static str> {
        match self {
            // In thousandths, rounded to the nearest; the bounds keep the cast exact.
            Self::Number(n) if (0.0..=AGING_MAX).contains(n) => Ok((n * 1000.0 + 0.5) as i64),
            _ => Err("is not a number from 0 to 1000000"),
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As it is: the host makes it fit to be shown. Numbers are only named, because the code
            // that writes a float is a tenth of the module.
            Self::Text(text) => {
                f.write_str("\"")?;
                for c in text.chars().take(40) {
                    f.write_char(c)?;
                }
                f.write_str("\"")
            }
            Self::Number(_) => f.write_str("this number"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
                Ok(Value::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
                Ok(Value::Text(Cow::Owned(text.into())))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
                Ok(Value::Number(number as f64))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
                Ok(Value::Number(number as f64))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
                Ok(Value::Number(number))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
                Ok(Value::Other(if value { "true" } else { "false" }))
            }
            fn visit_unit<E>(self) -> Result<Value<'de>, E> {
                Ok(Value::Other("null"))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Other("a list"))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Other("an object"))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A member's name, borrowed where the JSON allows it.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.into())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}
