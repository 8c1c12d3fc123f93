//! A reader of JSON for guests: small, quick, and without words.
//!
//! serde_json's reader explains every error, and the code that writes those sentences (floats
//! among them) was more than half of a policy's module. A guest has nobody to explain them to: its
//! input comes from the host, which writes it. So this one says yes or no. It reads what serde_json
//! reads (a test compares the two), except that a struct is an object, never a list, and that an
//! enum is a text: one with data needs `#[serde(tag = "…")]`.

use alloc::{borrow::Cow, string::String};
use core::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeSeed, IntoDeserializer as _, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

/// How deep lists and objects may be nested: as deep as serde_json reads, and little enough for a small stack.
const DEPTH_MAX: u8 = 128;

/// Reads a value; `None` if this is not JSON, or not JSON of this shape.
#[must_use]
pub fn from_str<'de, T: Deserialize<'de>>(json: &'de str) -> Option<T> {
    let mut reader = Reader { json, at: 0, depth: 0 };
    let value = T::deserialize(&mut reader).ok()?;
    reader.skip_space();
    (reader.at == json.len()).then_some(value)
}

/// Writes a value: what a policy keeps as its state.
///
/// # Panics
/// On a map with keys that are not texts.
#[must_use]
pub fn to_string(value: &impl Serialize) -> String {
    match serde_json::to_string(value) {
        Ok(json) => json,
        Err(_) => panic!("the value cannot be written as JSON"),
    }
}

/// That it is not JSON, or not of the shape that was wanted.
#[derive(Debug, Clone, Copy)]
struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed")
    }
}

impl core::error::Error for Malformed {}

impl de::Error for Malformed {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Reader<'de> {
    json: &'de str,
    at: usize,
    depth: u8,
}

impl<'de> Reader<'de> {
    fn byte(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    /// The next byte that is not white space. It stays where it is.
    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.byte()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), Malformed> {
        if !self.json.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Malformed);
        }
        self.at += word.len();
        Ok(())
    }

    fn slice(&self, from: usize) -> Result<&'de str, Malformed> {
        self.json.get(from..self.at).ok_or(Malformed)
    }

    /// Reads a text, after its opening quote: borrowed, unless there is an escape in it.
    fn text(&mut self) -> Result<Cow<'de, str>, Malformed> {
        let start = self.at;
        self.at = end_of_plain(self.json.as_bytes(), start);
        let plain = self.slice(start)?;
        match self.byte() {
            Some(b'"') => {
                self.at += 1;
                Ok(Cow::Borrowed(plain))
            }
            Some(b'\\') => self.escaped(String::from(plain)).map(Cow::Owned),
            _ => Err(Malformed),
        }
    }

    /// Reads the rest of a text, from its first escape on.
    #[cold]
    fn escaped(&mut self, mut text: String) -> Result<String, Malformed> {
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                // A control character, or the end.
                _ => return Err(Malformed),
            }
            let start = self.at;
            self.at = end_of_plain(self.json.as_bytes(), start);
            text.push_str(self.slice(start)?);
        }
    }

    /// The character that an escape stands for, after its backslash.
    fn escape(&mut self) -> Result<char, Malformed> {
        let byte = self.byte().ok_or(Malformed)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first).ok_or(Malformed);
                }
                // A surrogate has meaning only with its other half.
                self.word("\\u")?;
                let second = self.hex()?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(Malformed);
                }
                return char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(Malformed);
            }
            _ => return Err(Malformed),
        })
    }

    fn hex(&mut self) -> Result<u32, Malformed> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|b| char::from(b).to_digit(16)).ok_or(Malformed)?;
            value = value << 4 | digit;
            self.at += 1;
        }
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == start { Err(Malformed) } else { Ok(()) }
    }

    #[inline]
    fn number(&mut self) -> Result<Number, Malformed> {
        let start = self.at;
        let negative = self.byte() == Some(b'-');
        if negative {
            self.at += 1;
        }
        let first_digit = self.at;
        let mut magnitude = 0u64;
        while let Some(digit @ b'0'..=b'9') = self.byte() {
            // It wraps only where there are too many digits, and is then not used.
            magnitude = magnitude.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first_digit;
        if digits == 0 || (digits > 1 && self.json.as_bytes().get(first_digit) == Some(&b'0')) {
            return Err(Malformed);
        }
        // 18 digits fit any integer. A minus zero is a float.
        if digits > 18 || matches!(self.byte(), Some(b'.' | b'e' | b'E')) || (negative && magnitude == 0) {
            return self.unusual_number(start);
        }
        Ok(if negative { Number::Negative(0i64.wrapping_sub_unsigned(magnitude)) } else { Number::Positive(magnitude) })
    }

    /// Reads the rest of a number that has a fraction, an exponent or many digits.
    #[cold]
    fn unusual_number(&mut self, start: usize) -> Result<Number, Malformed> {
        if !matches!(self.byte(), Some(b'.' | b'e' | b'E')) {
            let text = self.slice(start)?;
            if let Ok(number) = text.parse() {
                return Ok(Number::Positive(number));
            }
            if let Some(number) = text.parse().ok().filter(|&number| number != 0) {
                return Ok(Number::Negative(number));
            }
        }
        self.float(start).map(Number::Float)
    }

    fn float(&mut self, start: usize) -> Result<f64, Malformed> {
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        let value: f64 = self.slice(start)?.parse().map_err(|_| Malformed)?;
        if value.is_finite() { Ok(value) } else { Err(Malformed) }
    }

    /// Reads what is inside of a list or an object, and makes sure that its end was reached.
    fn nested<T>(
        &mut self,
        end: u8,
        read: impl FnOnce(&mut Members<'_, 'de>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        if self.depth == DEPTH_MAX {
            return Err(Malformed);
        }
        self.depth += 1;
        self.at += 1;
        let mut members = Members { reader: self, end, begun: false, ended: false };
        let value = read(&mut members)?;
        // Who wants two members does not look for a third.
        if !members.ended {
            self.expect(end)?;
        }
        self.depth -= 1;
        Ok(value)
    }
}

enum Number {
    Positive(u64),
    Negative(i64),
    Float(f64),
}

/// The place of the first byte of a text that is a quote, a backslash or a control character; eight
/// bytes at a step.
fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    while let Some(&chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(chunk);
        let quotes = word ^ (ONES * b'"' as u64);
        let backslashes = word ^ (ONES * b'\\' as u64);
        // The high bit of each byte that is zero, or below 0x20. A borrow may set bits above the
        // first that is meant, never below it.
        let found = (quotes.wrapping_sub(ONES) & !quotes)
            | (backslashes.wrapping_sub(ONES) & !backslashes)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let found = found & HIGH;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&b| b != b'"' && b != b'\\' && b >= 0x20) {
        at += 1;
    }
    at
}

/// The ways to read a value whose kind is known are ways around asking for it.
impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Malformed;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.peek().ok_or(Malformed)? {
            b'"' => self.deserialize_str(visitor),
            b'{' => self.nested(b'}', |members| visitor.visit_map(members)),
            b'[' => self.nested(b']', |members| visitor.visit_seq(members)),
            b't' => {
                self.word("true")?;
                visitor.visit_bool(true)
            }
            b'f' => {
                self.word("false")?;
                visitor.visit_bool(false)
            }
            b'n' => {
                self.word("null")?;
                visitor.visit_unit()
            }
            _ => self.deserialize_i64(visitor),
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.expect(b'"')?;
        match self.text()? {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.skip_space();
        match self.number()? {
            Number::Positive(number) => visitor.visit_u64(number),
            Number::Negative(number) => visitor.visit_i64(number),
            Number::Float(number) => visitor.visit_f64(number),
        }
    }

    #[inline]
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.deserialize_i64(visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.peek() {
            Some(b'{') => self.nested(b'}', |members| visitor.visit_map(members)),
            _ => Err(Malformed),
        }
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        self.deserialize_map(visitor)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.peek() {
            Some(b'[') => self.nested(b']', |members| visitor.visit_seq(members)),
            _ => Err(Malformed),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        if self.peek() == Some(b'n') {
            self.word("null")?;
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        self.expect(b'"')?;
        visitor.visit_enum(self.text()?.into_deserializer())
    }

    forward_to_deserialize_any! {
        bool i8 i16 u8 u16 u32 u64 f32 f64 char bytes byte_buf unit unit_struct
        tuple tuple_struct ignored_any
    }
}

/// The members of a list or an object.
struct Members<'r, 'de> {
    reader: &'r mut Reader<'de>,
    end: u8,
    begun: bool,
    ended: bool,
}

impl Members<'_, '_> {
    /// Whether there is another member, past the comma before it.
    #[inline]
    fn another(&mut self) -> Result<bool, Malformed> {
        let byte = self.reader.peek();
        if byte == Some(self.end) {
            self.reader.at += 1;
            self.ended = true;
            return Ok(false);
        }
        if self.begun {
            if byte != Some(b',') {
                return Err(Malformed);
            }
            self.reader.at += 1;
        }
        self.begun = true;
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for &mut Members<'_, 'de> {
    type Error = Malformed;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Malformed> {
        if self.another()? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for &mut Members<'_, 'de> {
    type Error = Malformed;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Malformed> {
        if !self.another()? {
            return Ok(None);
        }
        if self.reader.peek() != Some(b'"') {
            return Err(Malformed);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Malformed> {
        self.reader.expect(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}
