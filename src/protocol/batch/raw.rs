//! The records of an inflated payload as slices of it, and copying them with another timestamp delta: what compaction works
//! on. Nothing is allocated and a record that stays is copied once.

use bytes::BufMut;

use super::builder::{put_varlong, varlong_size};
use super::record::{Cursor, RecordError};

/// One record of a payload.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub key: Option<&'a [u8]>,
    pub has_value: bool,
    /// The value; empty where there is none.
    pub value: &'a [u8],
    /// The whole record, its length in front.
    bytes: &'a [u8],
    /// What follows the timestamp delta.
    tail: &'a [u8],
}

impl RawRecord<'_> {
    /// Copies the record as it is.
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bytes);
    }

    /// Copies the record with another timestamp delta.
    pub fn copy_with_timestamp_delta(&self, timestamp_delta: i64, out: &mut Vec<u8>) {
        if timestamp_delta == self.timestamp_delta {
            return self.copy_to(out);
        }
        let size = 1 + varlong_size(timestamp_delta) + self.tail.len();
        put_varlong(out, size as i64);
        out.put_u8(0);
        put_varlong(out, timestamp_delta);
        out.extend_from_slice(self.tail);
    }
}

/// The records of a payload that is not compressed (any more).
#[derive(Clone, Debug)]
pub struct RawRecords<'a> {
    rest: &'a [u8],
}

impl<'a> RawRecords<'a> {
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    fn parse(&mut self) -> Option<RawRecord<'a>> {
        let mut cursor = Cursor::new(self.rest);
        let size = usize::try_from(cursor.varint()?).ok()?;
        let head = self.rest.len() - cursor.remaining();
        let body = cursor.take(size)?;
        let (bytes, rest) = self.rest.split_at(head + size);
        let mut fields = Cursor::new(body.get(1..)?);
        let timestamp_delta = fields.varlong()?;
        let tail = &body[body.len() - fields.remaining()..];
        let offset_delta = fields.varint()?;
        let key = fields.nullable()?;
        let value = fields.nullable()?;
        self.rest = rest;
        Some(RawRecord {
            offset_delta,
            timestamp_delta,
            key,
            has_value: value.is_some(),
            value: value.unwrap_or_default(),
            bytes,
            tail,
        })
    }
}

/// Ends behind the first error.
impl<'a> Iterator for RawRecords<'a> {
    type Item = Result<RawRecord<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.parse().ok_or_else(|| {
            self.rest = &[];
            RecordError::Malformed("record")
        }))
    }
}
