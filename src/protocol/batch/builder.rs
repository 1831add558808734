//! Builds batches: records in, one batch of bytes out. Used by the coordinators, the metadata log and tests.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::{CompressionType, compress};
use super::header::{BatchHeader, HEADER_SIZE, LOG_OVERHEAD};
use super::record::{Record, RecordError};
use crate::types::{
    LeaderEpoch, NO_LEADER_EPOCH, NO_PRODUCER_ID, NO_TIMESTAMP, Offset, ProducerEpoch, ProducerId,
    TimestampMs,
};

/// Collects records of one batch. Offsets count up from `base_offset`; timestamps are create times.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    compression: CompressionType,
    level: Option<i32>,
    records: BytesMut,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    pub fn new() -> Self {
        Self {
            header: BatchHeader {
                base_offset: 0,
                batch_length: 0,
                partition_leader_epoch: NO_LEADER_EPOCH,
                magic: 2,
                crc: 0,
                attributes: 0,
                last_offset_delta: -1,
                base_timestamp: NO_TIMESTAMP,
                max_timestamp: NO_TIMESTAMP,
                producer_id: NO_PRODUCER_ID,
                producer_epoch: -1,
                base_sequence: -1,
                records_count: 0,
            },
            compression: CompressionType::None,
            level: None,
            records: BytesMut::new(),
        }
    }

    #[must_use]
    pub fn base_offset(mut self, offset: Offset) -> Self {
        self.header.base_offset = offset;
        self
    }

    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.header.partition_leader_epoch = epoch;
        self
    }

    #[must_use]
    pub fn compression(mut self, codec: CompressionType, level: Option<i32>) -> Self {
        self.compression = codec;
        self.level = level;
        self
    }

    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    #[must_use]
    pub fn transactional(mut self, on: bool) -> Self {
        self.set_attribute(0x10, on);
        self
    }

    #[must_use]
    pub fn control(mut self, on: bool) -> Self {
        self.set_attribute(0x20, on);
        self
    }

    /// All records carry the time of the append: the batch's maximal timestamp.
    #[must_use]
    pub fn log_append_time(mut self, now_ms: TimestampMs) -> Self {
        self.set_attribute(0x08, true);
        self.header.max_timestamp = now_ms;
        self
    }

    fn set_attribute(&mut self, bit: i16, on: bool) {
        self.header.attributes &= !bit;
        if on {
            self.header.attributes |= bit;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.header.records_count == 0
    }

    pub fn records_count(&self) -> i32 {
        self.header.records_count
    }

    /// What the batch takes before compression.
    pub fn size_bytes(&self) -> usize {
        HEADER_SIZE + self.records.len()
    }

    /// Appends a record without headers.
    pub fn append(&mut self, timestamp: TimestampMs, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.append_with_headers(timestamp, key, value, &[]);
    }

    pub fn append_record(&mut self, record: &Record) {
        self.append_with_headers(
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
    }

    pub fn append_with_headers(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(Bytes, Option<Bytes>)],
    ) {
        let header = &mut self.header;
        if header.records_count == 0 {
            header.base_timestamp = timestamp;
        }
        if !header.is_log_append_time() {
            header.max_timestamp = header.max_timestamp.max(timestamp);
        }
        let timestamp_delta = timestamp.wrapping_sub(header.base_timestamp);
        let offset_delta = i64::from(header.records_count);
        header.last_offset_delta = header.records_count;
        header.records_count += 1;
        let size = 1
            + varlong_size(timestamp_delta)
            + varlong_size(offset_delta)
            + nullable_size(key)
            + nullable_size(value)
            + varlong_size(headers.len() as i64)
            + headers
                .iter()
                .map(|(key, value)| nullable_size(Some(key)) + nullable_size(value.as_deref()))
                .sum::<usize>();
        let out = &mut self.records;
        out.reserve(size + 5);
        put_varlong(out, size as i64);
        out.put_u8(0);
        put_varlong(out, timestamp_delta);
        put_varlong(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        put_varlong(out, headers.len() as i64);
        for (key, value) in headers {
            put_nullable(out, Some(key));
            put_nullable(out, value.as_deref());
        }
    }

    /// The batch. Fails only where the codec does.
    pub fn try_build(mut self) -> Result<Bytes, RecordError> {
        if self.compression != CompressionType::None {
            let deflated = compress(self.compression, &self.records, self.level)?;
            self.records = BytesMut::from(deflated.as_slice());
            self.header.attributes |= self.compression.id();
        }
        let header = &mut self.header;
        header.batch_length = (HEADER_SIZE - LOG_OVERHEAD + self.records.len()) as i32;
        header.update_crc(&self.records);
        let mut out = BytesMut::with_capacity(HEADER_SIZE + self.records.len());
        out.put_slice(&header.encode());
        out.put_slice(&self.records);
        Ok(out.freeze())
    }

    /// The batch; the codecs cannot fail on memory.
    pub fn build(self) -> Bytes {
        self.try_build().expect("compressing into memory works")
    }
}

/// A control batch of one record (`type` in the key as i16 version, i16 type), as the leader of a partition writes it.
pub fn control_batch(builder: BatchBuilder, now_ms: TimestampMs, kind: i16, value: &[u8]) -> Bytes {
    let mut key = [0; 4];
    key[2..].copy_from_slice(&kind.to_be_bytes());
    let mut builder = builder.control(true);
    builder.append(now_ms, Some(&key), Some(value));
    builder.build()
}

pub(super) fn varlong_size(value: i64) -> usize {
    let zigzag = (value << 1 ^ value >> 63) as u64;
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn put_varlong(out: &mut impl BufMut, value: i64) {
    let mut zigzag = (value << 1 ^ value >> 63) as u64;
    while zigzag >= 0x80 {
        out.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(zigzag as u8);
}

fn nullable_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varlong_size(bytes.len() as i64) + bytes.len())
}

fn put_nullable(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
        None => put_varlong(out, -1),
    }
}
