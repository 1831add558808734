//! The 61-byte header of a record batch, and the walk from batch to batch in a buffer.

use bytes::Bytes;

use super::compression::CompressionType;
use crate::types::{LeaderEpoch, NO_PRODUCER_ID, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// Bytes before the records.
pub const HEADER_SIZE: usize = 61;
/// Base offset and length: what the length field does not count.
pub const LOG_OVERHEAD: usize = 12;
/// Where the bytes begin that the CRC covers.
pub(super) const ATTRIBUTES_AT: usize = 21;

const COMPRESSION_MASK: i16 = 0x07;
const TIMESTAMP_TYPE_MASK: i16 = 0x08;
const TRANSACTIONAL_MASK: i16 = 0x10;
const CONTROL_MASK: i16 = 0x20;
const DELETE_HORIZON_MASK: i16 = 0x40;

/// Why bytes are not a whole, sound batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("batch is cut off")]
    Truncated,
    #[error("batch length {0} is too small")]
    InvalidLength(i32),
    #[error("unsupported magic {0}")]
    UnsupportedMagic(i8),
    #[error("stored crc {stored} differs from computed {computed}")]
    BadCrc { stored: u32, computed: u32 },
}

/// The fields of a batch header, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes behind the length field.
    pub batch_length: i32,
    pub partition_leader_epoch: LeaderEpoch,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: TimestampMs,
    pub max_timestamp: TimestampMs,
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: i32,
    pub records_count: i32,
}

impl BatchHeader {
    /// Whole batch, header included.
    pub fn size_bytes(&self) -> usize {
        LOG_OVERHEAD + self.batch_length.max(0) as usize
    }

    pub fn last_offset(&self) -> Offset {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// First offset behind the batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().saturating_add(1)
    }

    /// `None` for a codec that does not exist.
    pub fn compression(&self) -> Option<CompressionType> {
        CompressionType::from_id(self.attributes & COMPRESSION_MASK)
    }

    pub fn is_compressed(&self) -> bool {
        self.attributes & COMPRESSION_MASK != 0
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & TIMESTAMP_TYPE_MASK != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_MASK != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_MASK != 0
    }

    /// From when on compaction may drop the batch's tombstones or marker (KIP-534); the base timestamp holds it.
    pub fn delete_horizon_ms(&self) -> Option<TimestampMs> {
        (self.attributes & DELETE_HORIZON_MASK != 0).then_some(self.base_timestamp)
    }

    pub fn set_delete_horizon_ms(&mut self, horizon_ms: TimestampMs) {
        self.attributes |= DELETE_HORIZON_MASK;
        self.base_timestamp = horizon_ms;
    }

    /// The records are not compressed (any more).
    pub fn clear_compression(&mut self) {
        self.attributes &= !COMPRESSION_MASK;
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Sequence of the last record; sequences wrap to 0 behind `i32::MAX`.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        increment_sequence(self.base_sequence, self.last_offset_delta)
    }

    pub fn set_log_append_time(&mut self, on: bool) {
        if on {
            self.attributes |= TIMESTAMP_TYPE_MASK;
        } else {
            self.attributes &= !TIMESTAMP_TYPE_MASK;
        }
    }

    /// Bits that mean nothing (yet) do not survive a change of the others (`DefaultRecordBatch.computeAttributes`).
    pub fn clear_unknown_attributes(&mut self) {
        self.attributes &= COMPRESSION_MASK
            | TIMESTAMP_TYPE_MASK
            | TRANSACTIONAL_MASK
            | CONTROL_MASK
            | DELETE_HORIZON_MASK;
    }

    /// The header's bytes, `crc` as stored.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out[16] = self.magic as u8;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.records_count.to_be_bytes());
        out
    }

    /// Sets `crc` to that of this header followed by `records`.
    pub fn update_crc(&mut self, records: &[u8]) {
        let head = self.encode();
        let crc = crc32c::crc32c(&head[ATTRIBUTES_AT..]);
        self.crc = crc32c::crc32c_append(crc, records);
    }
}

/// `sequence + increment`, wrapped as Kafka's `DefaultRecordBatch.incrementSequence`.
pub fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    if sequence > i32::MAX - increment.max(0) {
        increment - (i32::MAX - sequence) - 1
    } else {
        sequence.wrapping_add(increment)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Reads a header. The batch itself may be longer than `bytes`; nothing but the length and the magic is judged.
pub fn parse_header(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    // An old magic is told apart from a short batch: its header is shorter than ours.
    if let (Some(length), Some(magic)) = (array(bytes, 8), bytes.get(16)) {
        let length = i32::from_be_bytes(length);
        if *magic as i8 != 2 {
            return Err(BatchError::UnsupportedMagic(*magic as i8));
        }
        if length < (HEADER_SIZE - LOG_OVERHEAD) as i32 {
            return Err(BatchError::InvalidLength(length));
        }
    }
    read_fields(bytes).ok_or(BatchError::Truncated)
}

fn read_fields(bytes: &[u8]) -> Option<BatchHeader> {
    Some(BatchHeader {
        base_offset: i64::from_be_bytes(array(bytes, 0)?),
        batch_length: i32::from_be_bytes(array(bytes, 8)?),
        partition_leader_epoch: i32::from_be_bytes(array(bytes, 12)?),
        magic: i8::from_be_bytes(array(bytes, 16)?),
        crc: u32::from_be_bytes(array(bytes, 17)?),
        attributes: i16::from_be_bytes(array(bytes, 21)?),
        last_offset_delta: i32::from_be_bytes(array(bytes, 23)?),
        base_timestamp: i64::from_be_bytes(array(bytes, 27)?),
        max_timestamp: i64::from_be_bytes(array(bytes, 35)?),
        producer_id: i64::from_be_bytes(array(bytes, 43)?),
        producer_epoch: i16::from_be_bytes(array(bytes, 51)?),
        base_sequence: i32::from_be_bytes(array(bytes, 53)?),
        records_count: i32::from_be_bytes(array(bytes, 57)?),
    })
}

/// Checks the CRC of one whole batch.
pub fn check_crc(header: &BatchHeader, batch: &[u8]) -> Result<(), BatchError> {
    let covered = batch
        .get(ATTRIBUTES_AT..header.size_bytes())
        .ok_or(BatchError::Truncated)?;
    let computed = crc32c::crc32c(covered);
    if computed == header.crc {
        Ok(())
    } else {
        Err(BatchError::BadCrc {
            stored: header.crc,
            computed,
        })
    }
}

/// The batches in a buffer, each with its own bytes. Ends behind the first error; a torn tail is `Truncated`.
pub struct Batches {
    bytes: Bytes,
    failed: bool,
}

impl Batches {
    pub fn new(bytes: Bytes) -> Self {
        Self {
            bytes,
            failed: false,
        }
    }
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.bytes.is_empty() {
            return None;
        }
        let next = parse_header(&self.bytes).and_then(|header| {
            if header.size_bytes() > self.bytes.len() {
                return Err(BatchError::Truncated);
            }
            Ok((header, self.bytes.split_to(header.size_bytes())))
        });
        self.failed = next.is_err();
        Some(next)
    }
}
