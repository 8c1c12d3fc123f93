//! Version 1 of the ABI.
//!
//! Every time is an integer: milliseconds since the epoch (1970-01-01T00:00:00Z) on the
//! controller's clock. Every duration is an integer in milliseconds. JSON member names are camelCase.
//!
//! A member that is missing reads as its default, so that an author's hand-written test input may be
//! short. The host always sends every member.

use alloc::{borrow::Cow, vec::Vec};
use core::{fmt, marker::PhantomData, ops::Deref};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// What a policy is asked: everything that it may know. It has no clock and no memory besides.
///
/// `P` is the type of the params: a policy's own struct in a guest, raw JSON in the host.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(bound = "P: schemars::JsonSchema + Serialize + Default"))]
#[serde(rename_all = "camelCase", default, bound(deserialize = "P: Deserialize<'de> + Default"))]
pub struct Input<'a, P> {
    /// The time, in milliseconds since the epoch. The only clock there is.
    pub now: i64,
    /// Why the policy is asked. A hint for logs and short cuts; everything is in the other members too.
    pub cause: Cause,
    /// The lease.
    #[serde(borrow)]
    pub lease: Lease<'a>,
    /// `spec.policy.params`, as it is; `{}` if there is none.
    pub params: P,
    /// The hold that stands; null when nobody holds the lease. A hold that was released is freed
    /// before the policy is asked.
    #[serde(borrow)]
    pub hold: Option<Hold<'a>>,
    /// The waiting requests in order of arrival. An answer names them by their index here.
    #[serde(borrow)]
    pub requests: Vec<Request<'a>>,
    /// How many requests wait in all; more than are shown in `requests` when the limits cut some off.
    pub waiting: u64,
    /// The last holds, newest first, at most 8; the one that has just ended among them.
    #[serde(borrow)]
    pub history: Vec<Past<'a>>,
    /// The policy's own state, as it last returned it; empty at first.
    #[serde(borrow)]
    pub state: Cow<'a, str>,
}

/// Why a policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// Requests are waiting.
    #[default]
    Request,
    /// The holder asks for a renewal.
    Renewal,
    /// The hold is due: its time is over.
    Due,
    /// A hold has just ended, and requests are waiting.
    Release,
    /// A cause that was added to the ABI after this guest was built. The host never sends this text.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Other,
}

/// The lease in question.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Lease<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its namespace.
    #[serde(borrow)]
    pub namespace: Cow<'a, str>,
    /// Its uid: another one after it was deleted and made again.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// `spec.ttl` in milliseconds, above zero: how long a grant lasts unless it is renewed.
    pub ttl_ms: i64,
    /// `spec.priority`: what a request has that states none.
    pub priority: i32,
    /// `spec.renewable`: what its owner wants to be done with renewals. The policy is asked either way.
    pub renewable: bool,
    /// Its labels.
    #[serde(borrow)]
    pub labels: Labels<'a>,
}

/// The hold that stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Hold<'a> {
    /// Who holds the lease.
    #[serde(borrow)]
    pub holder: Cow<'a, str>,
    /// The priority of its request, or the lease's.
    pub priority: i32,
    /// The ttl in milliseconds that its request asks for, or the lease's. May be above the lease's.
    pub ttl_ms: i64,
    /// When it was granted, in milliseconds since the epoch.
    pub acquired: i64,
    /// Until when it lasts, in milliseconds since the epoch. Use `due`, not a comparison with `now`:
    /// the host measures the rest of a hold on a clock that does not jump.
    pub expires: i64,
    /// How many times it was renewed.
    pub renewals: i64,
    /// Its fencing token.
    pub token: i64,
    /// Whether the holder asks for a renewal now.
    pub renewal_requested: bool,
    /// Whether its time is over. Unless the answer renews it, the host expires it.
    pub due: bool,
    /// The labels of its request.
    #[serde(borrow)]
    pub labels: Labels<'a>,
    /// The hand-over under way; null if there is none. While there is one the host refuses renewals.
    #[serde(borrow)]
    pub preemption: Option<Preemption<'a>>,
}

/// A hand-over under way: the holder was asked to leave.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Preemption<'a> {
    /// The holder of the request in whose favour it is.
    #[serde(borrow)]
    pub by: Cow<'a, str>,
    /// Until when the holder should have left, in milliseconds since the epoch.
    pub deadline: i64,
    /// Whether the hold ends then even if the holder has not left.
    pub force: bool,
    /// The words of the policy that asked for it.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

/// A waiting request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Request<'a> {
    /// Who asks. One holder has one waiting request at most: the newest.
    #[serde(borrow)]
    pub holder: Cow<'a, str>,
    /// Its priority, or the lease's; higher is more urgent.
    pub priority: i32,
    /// The ttl in milliseconds that it asks for, or the lease's. May be above the lease's.
    pub ttl_ms: i64,
    /// When it was made, in milliseconds since the epoch, to the second. The order of `requests`
    /// is finer.
    pub arrived: i64,
    /// Its labels.
    #[serde(borrow)]
    pub labels: Labels<'a>,
}

/// A hold that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Past<'a> {
    /// Who held the lease.
    #[serde(borrow)]
    pub holder: Cow<'a, str>,
    /// Its fencing token.
    pub token: i64,
    /// When it was granted, in milliseconds since the epoch.
    pub acquired: i64,
    /// When it ended, in milliseconds since the epoch.
    pub ended: i64,
    /// How it ended.
    pub how: Ending,
}

/// How a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Ending {
    /// The holder gave it back.
    #[default]
    Released,
    /// Its time was over and nobody renewed it.
    Expired,
    /// It was handed over: its time was over during a preemption, or a forced one's deadline came.
    Preempted,
    /// A person took it away.
    ForceReleased,
    /// A new request of the same holder took its place.
    Superseded,
    /// An ending that was added to the ABI after this guest was built. The host never sends this text.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Other,
}

/// What a policy answers. Every member is optional; an empty object changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Output<'a> {
    /// What happens to the hold; absent or null: keep.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "object_or_null")]
    pub hold: Option<HoldAction>,
    /// Which request gets the lease. Legal where nobody holds it, or where this answer expires a
    /// hold that is due.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "object_or_null")]
    pub grant: Option<Grant>,
    /// The requests that shall never be granted. They end as Denied.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "objects_or_null")]
    pub deny: Vec<Denial<'a>>,
    /// When to ask again at the latest, in milliseconds from now, zero or more. The host asks on
    /// every change anyway, and not more often than it thinks fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub wake_in_ms: Option<i64>,
    /// New state for the next question, at most 4 KiB; absent: as it was. Kept only when this answer
    /// changes the lease or denies a request: a policy cannot make the host write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Cow<'a, str>>,
    /// Why, for a person to read: one line, at most 256 bytes, the rest is cut off.
    #[serde(skip_serializing_if = "str::is_empty", deserialize_with = "null_is_default")]
    pub reason: Cow<'a, str>,
}

/// What happens to the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "action", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum HoldAction {
    /// It stays as it is. A renewal that was asked for is refused, with the answer's reason.
    Keep,
    /// It is renewed. Legal only when the holder asks for it or the hold is due.
    Renew {
        /// For how long from now, in milliseconds, above zero.
        #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
        ttl_ms: i64,
    },
    /// It ends. Legal only when it is due.
    Expire,
    /// The holder is asked to leave.
    Preempt {
        /// The index of the request in whose favour.
        r#for: u32,
        /// How long the holder has to leave, in milliseconds, zero or more.
        #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
        grace_ms: i64,
        /// Whether the hold ends then even if the holder has not left. The old holder may then still
        /// act for a while; only the fencing token keeps it out.
        #[serde(default)]
        force: bool,
    },
}

/// The request that gets the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Its index in the input's `requests`.
    pub request: u32,
    /// For how long from now, in milliseconds, above zero.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub ttl_ms: i64,
}

/// A request that shall never be granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Denial<'a> {
    /// Its index in the input's `requests`.
    pub request: u32,
    /// Why, for the requester to read: one line, at most 256 bytes, the rest is cut off.
    #[serde(default, deserialize_with = "null_is_default")]
    pub reason: Cow<'a, str>,
}

/// What `konductor_validate` answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Validation<'a> {
    /// What is wrong with the params, one sentence each, each naming its param; empty: nothing.
    #[serde(default, deserialize_with = "null_is_default")]
    pub errors: Vec<Cow<'a, str>>,
}

/// What `konductor_describe` answers: for `koncli policy inspect` and for people. Nothing depends on it.
///
/// `S` is the type of the schema: a JSON value in the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Description<'a, S> {
    /// The policy's name. The name that a Lease uses is that of the ConfigMap.
    #[serde(default)]
    pub name: Cow<'a, str>,
    /// The policy's version, in whatever way its author counts.
    #[serde(default)]
    pub version: Cow<'a, str>,
    /// What it does, in a sentence or two.
    #[serde(default)]
    pub description: Cow<'a, str>,
    /// The JSON Schema of its params.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params_schema: Option<S>,
}

/// Labels: a JSON object of strings, kept as pairs in the order of the JSON.
///
/// Pairs and not a map: there are few of them, a search of them is faster than building a map, and
/// their order is the same in every run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels<'a>(pub Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Labels<'_> {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_ref())
    }
}

impl<'a> Deref for Labels<'a> {
    type Target = [(Cow<'a, str>, Cow<'a, str>)];
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Labels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A text that is borrowed where the JSON allows it, which `Cow` alone does not do.
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(Cow<'de, str>, Cow<'de, str>)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), Text(value))) = map.next_entry()? {
                    pairs.push((key, value));
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs).map(Labels)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Labels<'_> {
    fn schema_name() -> Cow<'static, str> {
        "Labels".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        <alloc::collections::BTreeMap<alloc::string::String, alloc::string::String>>::json_schema(generator)
    }
}

/// A value that must be a JSON object.
///
/// serde would read a struct from a list of its members too. The ABI has no such lists, and a host
/// that took them would one day have to go on taking them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Members(PhantomData)).map(Object)
    }
}

/// Reads null as absent, and everything else but an object as an error.
fn object_or_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(value)| value))
}

/// Reads null as an empty list, and everything else but a list of objects as an error.
fn objects_or_null<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let objects = Option::<Vec<Object<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(objects.into_iter().map(|Object(value)| value).collect())
}

/// Reads null as the default: some languages' encoders write an empty list or text so.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
