//! Params: read one by one, so that each error names its param and all are told at once.
//!
//! A policy says what its params are with [`Params`]. [`Reading`] is then the type of its input's
//! params, and [`validate`] what it exports as `konductor_validate`.

use alloc::{borrow::Cow, format, string::String, vec, vec::Vec};
use core::{
    fmt::{self, Write as _},
    marker::PhantomData,
};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{duration, json};

/// The most errors that are reported at once; a person repairs a few and asks again.
const ERRORS_MAX: usize = 16;

/// The most characters of a value that an error repeats; a longer one is recognised by its beginning.
const SHOWN_MAX: usize = 40;

/// What is wrong with a value, so that it reads on after the value: `"5 minutes" is not a duration`.
pub type Problem = &'static str;

/// The params of a policy. Their default is what holds where none are given.
pub trait Params: Default {
    /// Their names, for the sentence about one that is unknown.
    const NAMES: &'static [&'static str];

    /// Sets one of them; `None` if it does not know the name.
    fn set(&mut self, name: &str, value: &Value<'_>) -> Option<Result<(), Problem>>;
}

/// What is wrong with these params, a JSON object; one sentence each, each naming its param.
#[must_use]
pub fn validate<P: Params>(params: &str) -> Vec<String> {
    match json::from_str::<Reading<P>>(params) {
        Some(reading) => reading.errors,
        None => vec![String::from("params: not a JSON object")],
    }
}

/// Params as they were read, with what is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading<P> {
    /// The params, with the default where there is an error.
    pub params: P,
    /// One sentence for each error.
    pub errors: Vec<String>,
}

impl<P: Params> Reading<P> {
    /// The params to decide by.
    ///
    /// # Panics
    /// On params that [`validate`] refuses. To go on with half of what somebody asked for would be a
    /// silent surprise; a trap is a loud one, and the lease says what then happens.
    pub fn accepted(&self) -> &P {
        if !self.errors.is_empty() {
            params_are_refused_by_validate();
        }
        &self.params
    }

    fn set(&mut self, name: &str, value: &Value<'_>) {
        let error = match self.params.set(name, value) {
            Some(Ok(())) => return,
            Some(Err(problem)) => format!("{name}: {value} {problem}"),
            None => format!("{name}: {value} is not a param of this policy, which knows {}", Listed(P::NAMES)),
        };
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }
}

// Never inlined: its name is what a trap's backtrace shows.
#[cold]
#[inline(never)]
fn params_are_refused_by_validate() -> ! {
    panic!("the params are refused by konductor_validate")
}

/// Names as a sentence lists them.
struct Listed(&'static [&'static str]);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.0.iter().enumerate() {
            match place {
                0 => {}
                last if last + 1 == self.0.len() => f.write_str(" and ")?,
                _ => f.write_str(", ")?,
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl<'de, P: Params> Deserialize<'de> for Reading<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<P>(PhantomData<P>);
        impl<'de, P: Params> Visitor<'de> for Members<P> {
            type Value = Reading<P>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reading<P>, A::Error> {
                let mut reading = Reading { params: P::default(), errors: Vec::new() };
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, Value<'de>>()? {
                    reading.set(&name, &value);
                }
                Ok(reading)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// One param's value as it stands in the JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// Nothing that any param takes; what it is.
    Other(&'static str),
}

impl Value<'_> {
    /// A duration as a Lease writes it, in milliseconds.
    ///
    /// # Errors
    /// If it is none.
    pub fn duration(&self) -> Result<i64, Problem> {
        let Self::Text(text) = self else { return Err("is not a duration; write a text such as \"30s\" or \"1h30m\"") };
        duration::parse_ms(text).ok_or("is not a duration up to 366 days; write one such as \"30s\" or \"1h30m\"")
    }

    /// A text.
    ///
    /// # Errors
    /// If it is none.
    pub fn text(&self) -> Result<&str, Problem> {
        if let Self::Text(text) = self { Ok(text) } else { Err("is not a text") }
    }

    /// True or false.
    ///
    /// # Errors
    /// If it is neither.
    pub fn flag(&self) -> Result<bool, Problem> {
        if let Self::Flag(flag) = self { Ok(*flag) } else { Err("is neither true nor false") }
    }

    /// A whole number from 0 to `most`; `None` if it is none.
    #[must_use]
    pub fn whole(&self, most: u32) -> Option<u32> {
        match self {
            // The bounds keep the cast exact.
            Self::Number(n) if (0.0..=f64::from(most)).contains(n) && f64::from(*n as u32) == *n => Some(*n as u32),
            _ => None,
        }
    }

    /// A number from 0 to `most` in thousandths, rounded to the nearest; `None` if it is none. Whole
    /// numbers compare the same way everywhere.
    #[must_use]
    pub fn thousandths(&self, most: u32) -> Option<i64> {
        match self {
            // The bounds keep the cast exact.
            Self::Number(n) if (0.0..=f64::from(most)).contains(n) => Some((n * 1000.0 + 0.5) as i64),
            _ => None,
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
                for c in text.chars().take(SHOWN_MAX) {
                    f.write_char(c)?;
                }
                f.write_str("\"")
            }
            Self::Number(_) => f.write_str("this number"),
            Self::Flag(flag) => f.write_str(if *flag { "true" } else { "false" }),
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
                Ok(Value::Flag(value))
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
