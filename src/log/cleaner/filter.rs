//! What cleaning leaves of one batch (Kafka's `Cleaner.cleanInto` and `MemoryRecords.filterTo`). Pure; `cleaning.rs` feeds it
//! batch after batch.
//!
//! A batch keeps its base and last offset whatever goes, so that offsets and sequence numbers stay what they were. What is
//! left is the batch as it was, a batch of fewer records, an empty header, or nothing:
//!
//! ```text
//! is it the last batch of an active producer, or the last of the cleaned range?   an empty batch stays at the least
//! was its transaction aborted?                                                     no record stays
//! is it a marker without records before it?                 it gets a delete horizon, and goes when that has passed
//! is there a later record with the key?                                            the record goes
//! is it a tombstone?                     its batch gets a delete horizon, and the tombstone goes when that has passed
//! ```

use std::collections::HashMap;

use super::offset_map::OffsetMap;
use super::transactions::{CleanedTransactions, Marker};
use crate::protocol::batch::{
    BatchHeader, CompressionType, HEADER_SIZE, LOG_OVERHEAD, RawRecord, RawRecords, RecordError,
    compress, decompress,
};
use crate::types::{NO_TIMESTAMP, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// What one stored batch may inflate to.
const INFLATED_BYTES_MAX: usize = 1 << 30;
const CONTROL_ABORT: i16 = 0;
const CONTROL_COMMIT: i16 = 1;

/// The last thing that an active producer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Last offset of its last batch of data; `None` where only its marker is known.
    pub last_data_offset: Option<Offset>,
    pub producer_epoch: ProducerEpoch,
}

/// What there is to know for judging batches.
pub struct Filter<'a> {
    pub map: &'a OffsetMap,
    pub last_records: &'a HashMap<ProducerId, LastRecord>,
    /// The batch that ends here keeps its header: the end of the cleaned range stays known.
    pub round_end: Offset,
    pub now_ms: TimestampMs,
    pub delete_retention_ms: i64,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Dropped,
    /// All of it stays, byte for byte; nothing was written to `out`.
    Original,
    /// What stays is in `out`.
    Rewritten,
}

/// Counts of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub read: u64,
    pub retained: u64,
    /// Records without key, which a compacted log should not have.
    pub invalid: u64,
}

/// The payload of a batch, inflated where it is compressed.
pub fn inflate<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    inflated: &'a mut Vec<u8>,
) -> Result<&'a [u8], RecordError> {
    let payload = batch.get(HEADER_SIZE..).unwrap_or_default();
    let codec = header
        .compression()
        .ok_or_else(|| RecordError::Compression("unknown codec".into()))?;
    if codec == CompressionType::None || header.records_count == 0 {
        return Ok(payload);
    }
    *inflated = decompress(codec, payload, INFLATED_BYTES_MAX)?;
    Ok(inflated)
}

/// What a control batch says.
pub fn read_marker(header: &BatchHeader, batch: &[u8]) -> Result<Marker, RecordError> {
    let mut inflated = Vec::new();
    let Some(record) = RawRecords::new(inflate(header, batch, &mut inflated)?).next() else {
        return Ok(Marker::Empty);
    };
    let key = record?.key.unwrap_or_default();
    let kind = key
        .get(2..4)
        .map(|kind| i16::from_be_bytes([kind[0], kind[1]]));
    Ok(match kind {
        Some(CONTROL_ABORT) => Marker::Abort,
        Some(CONTROL_COMMIT) => Marker::Commit,
        _ => Marker::Other,
    })
}

/// How a batch as a whole is judged.
#[derive(Clone, Copy)]
struct Verdict {
    discard_records: bool,
    retain_empty: bool,
    is_marker_of_empty_txn: bool,
}

impl Filter<'_> {
    /// Judges one whole batch and appends what is left to `out`, unless it stays as it is.
    pub fn filter(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        transactions: &mut CleanedTransactions,
        counts: &mut Counts,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, RecordError> {
        let verdict = self.judge(header, batch, transactions)?;
        if verdict.discard_records {
            counts.read += header.records_count.max(0) as u64;
            return Ok(without_records(header, verdict, out));
        }
        let mut inflated = Vec::new();
        let payload = inflate(header, batch, &mut inflated)?;
        let kept = self.select(header, payload, counts)?;
        counts.retained += kept.count;
        if kept.count == 0 {
            return Ok(without_records(header, verdict, out));
        }
        let needs_horizon = (kept.has_tombstones || verdict.is_marker_of_empty_txn)
            && header.delete_horizon_ms().is_none();
        if kept.is_all && !needs_horizon {
            return Ok(Outcome::Original);
        }
        let horizon_ms = if needs_horizon {
            Some(self.now_ms.saturating_add(self.delete_retention_ms))
        } else {
            header.delete_horizon_ms()
        };
        rewrite(header, payload, horizon_ms, &kept, out)?;
        Ok(Outcome::Rewritten)
    }

    fn judge(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        transactions: &mut CleanedTransactions,
    ) -> Result<Verdict, RecordError> {
        let (id, last_offset) = (header.producer_id, header.last_offset());
        let can_discard = if header.is_control() {
            transactions.on_marker(id, read_marker(header, batch)?, last_offset)
        } else {
            transactions.on_batch(id, header.is_transactional(), last_offset)
        };
        let horizon_passed = header
            .delete_horizon_ms()
            .is_some_and(|ms| ms <= self.now_ms);
        let last_record = self
            .last_records
            .get(&id)
            .filter(|_| header.has_producer_id());
        let is_last_of_producer = last_record.is_some_and(|last| match last.last_data_offset {
            Some(offset) => offset == last_offset,
            None => header.is_control() && header.producer_epoch == last.producer_epoch,
        });
        Ok(Verdict {
            discard_records: can_discard && (!header.is_control() || horizon_passed),
            retain_empty: is_last_of_producer || header.next_offset() == self.round_end,
            is_marker_of_empty_txn: can_discard && header.is_control(),
        })
    }

    fn retains(&self, header: &BatchHeader, record: &RawRecord<'_>, counts: &mut Counts) -> bool {
        if header.is_control() {
            return true;
        }
        let offset = offset_of(header, record);
        if offset > self.map.latest_offset() {
            return true;
        }
        let Some(key) = record.key else {
            counts.invalid += 1;
            return false;
        };
        let keeps_tombstones = header.delete_horizon_ms().is_none_or(|ms| self.now_ms < ms);
        (record.has_value || keeps_tombstones) && offset >= self.map.get(key)
    }

    fn select(
        &self,
        header: &BatchHeader,
        payload: &[u8],
        counts: &mut Counts,
    ) -> Result<Kept, RecordError> {
        let mut kept = Kept {
            is_all: true,
            max_timestamp: NO_TIMESTAMP,
            ..Kept::default()
        };
        for (at, record) in RawRecords::new(payload).enumerate() {
            let record = record?;
            counts.read += 1;
            if !self.retains(header, &record, counts) {
                kept.is_all = false;
                kept.dropped.push(at as u32);
                continue;
            }
            kept.count += 1;
            kept.has_tombstones |= !record.has_value;
            let timestamp = timestamp_of(header, &record);
            kept.max_timestamp = kept.max_timestamp.max(timestamp);
            if kept.count == 1 {
                kept.first_timestamp = timestamp;
            }
        }
        Ok(kept)
    }
}

/// The records of a batch that stay.
#[derive(Default)]
struct Kept {
    count: u64,
    is_all: bool,
    /// Places in the batch, growing, of those that go.
    dropped: Vec<u32>,
    has_tombstones: bool,
    first_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
}

fn offset_of(header: &BatchHeader, record: &RawRecord<'_>) -> Offset {
    header
        .base_offset
        .wrapping_add(i64::from(record.offset_delta))
}

fn timestamp_of(header: &BatchHeader, record: &RawRecord<'_>) -> TimestampMs {
    if header.is_log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.wrapping_add(record.timestamp_delta)
    }
}

/// Codec, timestamp type, transactional, control: a delete horizon is set anew.
fn kept_attributes(header: &BatchHeader) -> i16 {
    header.attributes & 0x3f
}

fn push_batch(header: &mut BatchHeader, records: &[u8], out: &mut Vec<u8>) {
    header.batch_length = (HEADER_SIZE - LOG_OVERHEAD + records.len()) as i32;
    header.update_crc(records);
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(records);
}

/// An empty batch, or nothing.
fn without_records(header: &BatchHeader, verdict: Verdict, out: &mut Vec<u8>) -> Outcome {
    if !verdict.retain_empty {
        return Outcome::Dropped;
    }
    let mut empty = *header;
    empty.attributes = kept_attributes(header);
    empty.clear_compression();
    empty.base_timestamp = NO_TIMESTAMP;
    empty.records_count = 0;
    push_batch(&mut empty, &[], out);
    Outcome::Rewritten
}

/// The batch with the records that stay.
fn rewrite(
    header: &BatchHeader,
    payload: &[u8],
    horizon_ms: Option<TimestampMs>,
    kept: &Kept,
    out: &mut Vec<u8>,
) -> Result<(), RecordError> {
    let mut new = *header;
    new.attributes = kept_attributes(header);
    new.base_timestamp = kept.first_timestamp;
    if let Some(horizon_ms) = horizon_ms {
        new.set_delete_horizon_ms(horizon_ms);
    }
    new.max_timestamp = if header.is_log_append_time() {
        header.max_timestamp
    } else {
        kept.max_timestamp
    };
    new.records_count = kept.count as i32;
    let mut records = Vec::with_capacity(payload.len());
    let mut dropped = kept.dropped.iter().peekable();
    for (at, record) in RawRecords::new(payload).enumerate() {
        let record = record?;
        if dropped.next_if_eq(&&(at as u32)).is_none() {
            let delta = timestamp_of(header, &record).wrapping_sub(new.base_timestamp);
            record.copy_with_timestamp_delta(delta, &mut records);
        }
    }
    let codec = header.compression().unwrap_or_default();
    if codec != CompressionType::None {
        records = compress(codec, &records, None)?;
    }
    push_batch(&mut new, &records, out);
    Ok(())
}
