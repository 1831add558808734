//! Messages as JSON, the way Kafka's generated `JsonConverter`s write them: fields in schema order, those of other versions
//! and tagged fields at their default left out. `message!` implements [`ToJson`]; `ottla dump-log` prints it.

use std::fmt::Write as _;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::wire::{Payload, Records};
use crate::types::uuid_to_base64;

/// A value that has a JSON form in a version of its message.
pub trait ToJson {
    fn write_json(&self, out: &mut String, version: i16);
}

/// The whole message in one line.
pub fn text(message: &impl ToJson, version: i16) -> String {
    let mut out = String::new();
    message.write_json(&mut out, version);
    out
}

/// Writes `{"a":1,"b":2}` field by field.
pub struct Object<'a> {
    out: &'a mut String,
    empty: bool,
}

impl<'a> Object<'a> {
    pub fn new(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    /// `name` is the field's name in Rust.
    pub fn field(&mut self, name: &str, value: &impl ToJson, version: i16) {
        if !self.empty {
            self.out.push(',');
        }
        self.empty = false;
        self.out.push('"');
        push_field_name(self.out, name);
        self.out.push_str("\":");
        value.write_json(self.out, version);
    }

    pub fn end(self) {
        self.out.push('}');
    }
}

/// Kafka's name of a field: `broker_id` is `brokerId`. Only `KRaft` has a capital that the underscores do not tell.
fn push_field_name(out: &mut String, name: &str) {
    let rest = match name.strip_prefix("kraft") {
        Some(rest) => {
            out.push_str("kRaft");
            rest
        }
        None => name,
    };
    let mut upper = false;
    for c in rest.chars() {
        if c == '_' {
            upper = true;
        } else {
            out.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
}

/// A JSON string, escaped as Jackson does.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 with padding: Jackson's form of bytes.
fn push_base64(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let padded = [
            chunk[0],
            chunk.get(1).copied().unwrap_or(0),
            chunk.get(2).copied().unwrap_or(0),
        ];
        let word = padded
            .iter()
            .fold(0u32, |word, b| word << 8 | u32::from(*b));
        for digit in 0..4 {
            let c = BASE64[(word >> (18 - 6 * digit)) as usize & 63];
            out.push(if digit <= chunk.len() {
                char::from(c)
            } else {
                '='
            });
        }
    }
}

/// A double as Java prints it: `0.001` to ten million in plain digits, everything else with an exponent.
fn push_double(out: &mut String, value: f64) {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e7).contains(&size) {
        let _ = write!(out, "{value:?}");
    } else if value.is_finite() {
        let text = format!("{value:E}");
        let (digits, exponent) = text.split_once('E').unwrap_or((&text, "0"));
        let point = if digits.contains('.') { "" } else { ".0" };
        let _ = write!(out, "{digits}{point}E{exponent}");
    } else {
        // Not JSON; Jackson quotes what is no number.
        let _ = write!(
            out,
            "\"{}\"",
            if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            }
        );
    }
}

macro_rules! plain {
    ($($type:ty),*) => { $(
        impl ToJson for $type {
            fn write_json(&self, out: &mut String, _: i16) {
                let _ = write!(out, "{self}");
            }
        }
    )* };
}
plain!(bool, i8, i16, i32, i64, u16, u32);

impl ToJson for f64 {
    fn write_json(&self, out: &mut String, _: i16) {
        push_double(out, *self);
    }
}

impl ToJson for Uuid {
    fn write_json(&self, out: &mut String, _: i16) {
        push_string(out, &uuid_to_base64(*self));
    }
}

impl ToJson for String {
    fn write_json(&self, out: &mut String, _: i16) {
        push_string(out, self);
    }
}

impl ToJson for StrBytes {
    fn write_json(&self, out: &mut String, _: i16) {
        push_string(out, self);
    }
}

impl ToJson for Bytes {
    fn write_json(&self, out: &mut String, _: i16) {
        out.push('"');
        push_base64(out, self);
        out.push('"');
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn write_json(&self, out: &mut String, version: i16) {
        match self {
            Some(value) => value.write_json(out, version),
            None => out.push_str("null"),
        }
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn write_json(&self, out: &mut String, version: i16) {
        out.push('[');
        for (at, element) in self.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            element.write_json(out, version);
        }
        out.push(']');
    }
}

/// Of records only the size is told.
impl<R: Payload> ToJson for Records<R> {
    fn write_json(&self, out: &mut String, version: i16) {
        let size = self.0.as_ref().map(|records| records.size_bytes() as i64);
        size.write_json(out, version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::control_records::{KRaftVersionRecord, Voter};
    use crate::protocol::metadata_records::{PartitionChangeRecord, UserScramCredentialRecord};

    #[test]
    fn messages_look_as_kafkas_json_converters_write_them() {
        let version = KRaftVersionRecord {
            version: 0,
            kraft_version: 1,
        };
        assert_eq!(text(&version, 0), r#"{"version":0,"kRaftVersion":1}"#);
        let voter = Voter {
            voter_id: 3,
            voter_directory_id: Uuid::from_u128(1),
        };
        assert_eq!(text(&voter, 0), r#"{"voterId":3}"#);
        assert_eq!(
            text(&voter, 1),
            r#"{"voterId":3,"voterDirectoryId":"AAAAAAAAAAAAAAAAAAAAAQ"}"#
        );
        let change = PartitionChangeRecord {
            isr: Some(vec![1, 2]),
            ..Default::default()
        };
        assert_eq!(
            text(&change, 2),
            r#"{"partitionId":-1,"topicId":"AAAAAAAAAAAAAAAAAAAAAA","isr":[1,2]}"#
        );
        let user = UserScramCredentialRecord {
            name: "a\"\n\u{1}\u{e9}/".into(),
            salt: Bytes::from_static(b"\xff\xfe\xfd\xfc"),
            ..Default::default()
        };
        assert_eq!(
            text(&user, 0),
            "{\"name\":\"a\\\"\\n\\u0001\u{e9}/\",\"mechanism\":0,\"salt\":\"//79/A==\",\
             \"storedKey\":\"\",\"serverKey\":\"\",\"iterations\":0}"
        );
    }

    #[test]
    fn doubles_are_javas() {
        let check = |value: f64, expected: &str| assert_eq!(text(&value, 0), expected);
        check(0.0, "0.0");
        check(1000.0, "1000.0");
        check(0.001, "0.001");
        check(1_048_576.5, "1048576.5");
        check(1e7, "1.0E7");
        check(1.25e-4, "1.25E-4");
        check(9_223_372_036_854_775_807.0, "9.223372036854776E18");
        check(f64::NAN, "\"NaN\"");
    }
}
