//! Records inside a batch: variable-length integers, one record's fields, and the capped, streaming walk over all of them.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use super::compression::{CompressionType, decompressor};
use super::header::{BatchHeader, HEADER_SIZE};
use crate::types::{Offset, TimestampMs};

/// Why the records of a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The payload does not decompress, or the codec does not exist.
    #[error("payload does not decompress: {0}")]
    Compression(String),
    #[error("malformed record: {0}")]
    Malformed(&'static str),
    #[error("batch inflates to more than {0} bytes")]
    TooLarge(usize),
}

/// One record. Header keys are kept as bytes: Kafka stores what clients send.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Record {
    pub offset: Offset,
    pub timestamp: TimestampMs,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What the walk tells about each record without copying its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView {
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub has_key: bool,
}

/// Cursor over bytes already in memory.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Zigzag varint of at most ten bytes.
    #[inline]
    pub(super) fn varlong(&mut self) -> Option<i64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(i64::from(first >> 1) ^ -i64::from(first & 1));
        }
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Option<i32> {
        i32::try_from(self.varlong()?).ok()
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let slice = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(slice)
    }

    /// Length-prefixed bytes; a negative length is null.
    #[allow(
        clippy::option_option,
        reason = "outer: whether it could be read; inner: null"
    )]
    pub(super) fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        let len = self.varint()?;
        if len < 0 {
            return Some(None);
        }
        self.take(len as usize).map(Some)
    }
}

/// Reads the body of one record (behind its length) and checks that it fills the body exactly.
fn parse_body(body: &[u8], header: &BatchHeader) -> Option<Record> {
    let mut cursor = Cursor::new(body);
    cursor.byte()?;
    let timestamp_delta = cursor.varlong()?;
    let offset_delta = cursor.varint()?;
    let key = cursor.nullable()?.map(Bytes::copy_from_slice);
    let value = cursor.nullable()?.map(Bytes::copy_from_slice);
    let count = cursor.varint()?;
    if count < 0 || count as usize > cursor.remaining() {
        return None;
    }
    let mut headers = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let key = Bytes::copy_from_slice(cursor.nullable()??);
        headers.push((key, cursor.nullable()?.map(Bytes::copy_from_slice)));
    }
    let timestamp = if header.is_log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.wrapping_add(timestamp_delta)
    };
    (cursor.remaining() == 0).then_some(Record {
        offset: header.base_offset.wrapping_add(i64::from(offset_delta)),
        timestamp,
        key,
        value,
        headers,
    })
}

/// The same for the walk that needs no key or value: only lengths are followed.
fn view_body(body: &[u8]) -> Option<RecordView> {
    let mut cursor = Cursor::new(body);
    cursor.byte()?;
    let timestamp_delta = cursor.varlong()?;
    let offset_delta = cursor.varint()?;
    let has_key = cursor.nullable()?.is_some();
    cursor.nullable()?;
    let count = cursor.varint()?;
    if count < 0 || count as usize > cursor.remaining() {
        return None;
    }
    for _ in 0..count {
        cursor.nullable()??;
        cursor.nullable()?;
    }
    (cursor.remaining() == 0).then_some(RecordView {
        offset_delta,
        timestamp_delta,
        has_key,
    })
}

/// Walks the records of one whole batch without keeping them; `each` returns false to stop. Returns how many it saw.
/// Compressed payloads are inflated through a small buffer, at most `cap` bytes in all and for one record.
pub fn for_each_record(
    header: &BatchHeader,
    batch: &[u8],
    cap: usize,
    mut each: impl FnMut(RecordView) -> bool,
) -> Result<usize, RecordError> {
    let payload = batch
        .get(HEADER_SIZE..)
        .ok_or(RecordError::Malformed("short batch"))?;
    if !header.is_compressed() {
        return walk_plain(payload, each);
    }
    let mut stream = RecordStream::new(header, payload, cap)?;
    let mut seen = 0;
    while let Some(view) = stream.next_view()? {
        seen += 1;
        if !each(view) {
            break;
        }
    }
    Ok(seen)
}

/// The walk over an uncompressed payload.
fn walk_plain(
    payload: &[u8],
    mut each: impl FnMut(RecordView) -> bool,
) -> Result<usize, RecordError> {
    let mut seen = 0;
    let mut rest = payload;
    while !rest.is_empty() {
        let (view, size) = match view_plain(rest) {
            Some(found) => found,
            None => view_any(rest)?,
        };
        rest = &rest[size..];
        seen += 1;
        if !each(view) {
            break;
        }
    }
    Ok(seen)
}

/// The usual record, quickly: short fields, no headers, not the last few bytes of the batch. Everything else is left to
/// [`view_any`]. Two words hold all the fields in front of the key, so that nothing is checked byte by byte.
#[inline]
fn view_plain(rest: &[u8]) -> Option<(RecordView, usize)> {
    let head = rest.first_chunk::<12>()?;
    let (len, body) = short_varint(u64::from(u32::from_le_bytes(*head.first_chunk()?)))?;
    let end = body + usize::try_from(len).ok()?;
    // Behind the length, of which three bytes are most, and the attributes.
    let mut fields = u64::from_le_bytes(*rest[body + 1..].first_chunk()?);
    let mut at = body + 1;
    let mut next = || {
        let (value, size) = short_varint(fields)?;
        fields >>= 8 * size;
        at += size;
        Some(value)
    };
    let (timestamp_delta, offset_delta, key_len) = (next()?, next()?, next()?);
    if at > body + 9 {
        // Zeros that were shifted in, not the record's bytes.
        return None;
    }
    let value = at + key_len.max(0) as usize;
    let value_head = u32::from_le_bytes(*rest.get(value..)?.first_chunk()?);
    let (value_len, size) = short_varint(u64::from(value_head))?;
    let headers = value + size + value_len.max(0) as usize;
    if headers + 1 != end || *rest.get(headers)? != 0 {
        return None;
    }
    let view = RecordView {
        offset_delta,
        timestamp_delta: i64::from(timestamp_delta),
        has_key: key_len >= 0,
    };
    Some((view, end))
}

/// The varint of at most three bytes at the low end of `word`, and its size.
#[inline]
fn short_varint(word: u64) -> Option<(i32, usize)> {
    let word = word as u32;
    let (value, size) = if word & 0x80 == 0 {
        (word & 0x7f, 1)
    } else if word & 0x8000 == 0 {
        (word & 0x7f | word >> 1 & 0x3f80, 2)
    } else if word & 0x0080_0000 == 0 {
        (
            word & 0x7f | word >> 1 & 0x3f80 | word >> 2 & 0x001f_c000,
            3,
        )
    } else {
        return None;
    };
    Some(((value >> 1) as i32 ^ -((value & 1) as i32), size))
}

/// Any record at the begin of `rest`, and its size.
#[cold]
fn view_any(rest: &[u8]) -> Result<(RecordView, usize), RecordError> {
    let mut cursor = Cursor::new(rest);
    let body = cursor
        .varint()
        .and_then(|len| cursor.take(usize::try_from(len).ok()?))
        .ok_or(RecordError::Malformed("record length"))?;
    let view = view_body(body).ok_or(RecordError::Malformed("record body"))?;
    Ok((view, cursor.at))
}

/// The records of a batch one by one, inflated as they are asked for.
pub struct Records<'a> {
    header: BatchHeader,
    stream: Option<RecordStream<'a>>,
    left: i32,
}

impl<'a> Records<'a> {
    /// `batch` is one whole batch; `cap` bounds what it may inflate to.
    pub fn new(header: &BatchHeader, batch: &'a [u8], cap: usize) -> Result<Self, RecordError> {
        let payload = batch
            .get(HEADER_SIZE..)
            .ok_or(RecordError::Malformed("short batch"))?;
        Ok(Self {
            header: *header,
            stream: Some(RecordStream::new(header, payload, cap)?),
            left: header.records_count,
        })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stream = self.stream.as_mut()?;
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let next = stream.next_body().and_then(|body| match body {
            Some(body) => parse_body(body, &self.header)
                .map(Some)
                .ok_or(RecordError::Malformed("record body")),
            None => Err(RecordError::Malformed("fewer records than the header says")),
        });
        match next {
            Ok(record) => record.map(Ok),
            Err(error) => {
                self.stream = None;
                Some(Err(error))
            }
        }
    }
}

/// Record bodies out of a possibly compressed payload.
struct RecordStream<'a> {
    reader: Box<dyn BufRead + 'a>,
    /// Bytes that may still be inflated.
    left: usize,
    cap: usize,
    body: Vec<u8>,
}

impl<'a> RecordStream<'a> {
    fn new(header: &BatchHeader, payload: &'a [u8], cap: usize) -> Result<Self, RecordError> {
        let codec = header
            .compression()
            .ok_or_else(|| RecordError::Compression("unknown codec".into()))?;
        let (reader, left): (Box<dyn BufRead + 'a>, usize) = match codec {
            CompressionType::None => (Box::new(payload), payload.len()),
            codec => (decompressor(codec, payload)?, cap),
        };
        Ok(Self {
            reader,
            left,
            cap,
            body: Vec::new(),
        })
    }

    fn io(error: &io::Error) -> RecordError {
        RecordError::Compression(error.to_string())
    }

    /// `None` at the end of the payload.
    fn next_body(&mut self) -> Result<Option<&[u8]>, RecordError> {
        if self.reader.fill_buf().map_err(|e| Self::io(&e))?.is_empty() {
            return Ok(None);
        }
        let len = self.read_varint()?;
        let len = usize::try_from(len).map_err(|_| RecordError::Malformed("record length"))?;
        if len > self.left {
            return Err(RecordError::TooLarge(self.cap));
        }
        self.left -= len;
        self.body.clear();
        // `take` grows the buffer as bytes arrive: a lying length reserves nothing.
        let read = (&mut self.reader)
            .take(len as u64)
            .read_to_end(&mut self.body)
            .map_err(|e| Self::io(&e))?;
        if read < len {
            return Err(RecordError::Malformed("record is cut off"));
        }
        Ok(Some(&self.body))
    }

    /// Looks at the next record; no copy where the buffer holds all of it.
    fn next_view(&mut self) -> Result<Option<RecordView>, RecordError> {
        let buffer = self.reader.fill_buf().map_err(|e| Self::io(&e))?;
        let mut cursor = Cursor::new(buffer);
        let body = cursor
            .varint()
            .and_then(|len| cursor.take(usize::try_from(len).ok()?));
        if let Some(body) = body {
            let view = view_body(body).ok_or(RecordError::Malformed("record body"))?;
            self.left = self
                .left
                .checked_sub(body.len())
                .ok_or(RecordError::TooLarge(self.cap))?;
            let used = cursor.at;
            self.reader.consume(used);
            return Ok(Some(view));
        }
        match self.next_body()? {
            Some(body) => view_body(body)
                .map(Some)
                .ok_or(RecordError::Malformed("record body")),
            None => Ok(None),
        }
    }

    fn read_varint(&mut self) -> Result<i32, RecordError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let mut byte = [0];
            if self.reader.read(&mut byte).map_err(|e| Self::io(&e))? == 0 {
                break;
            }
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                let value = (value >> 1) as i64 ^ -((value & 1) as i64);
                return i32::try_from(value).map_err(|_| RecordError::Malformed("record length"));
            }
        }
        Err(RecordError::Malformed("record length"))
    }
}
