//! `.snapshot` files: the producer state at the offset in their name, so that a start does not read the whole log
//! (Kafka's `ProducerSnapshot`, version 1).
//!
//! ```text
//! 0 version i16 | 2 crc u32 of what follows | 6 count i32 | entries of 46 bytes:
//! producer id i64 | epoch i16 | last sequence i32 | last offset i64 | offset delta i32 | timestamp i64
//! coordinator epoch i32 | first offset of the open transaction i64 or -1
//! ```

use bytes::{Buf, BufMut};

use super::producer_state::{BatchMetadata, ProducerEntry, ProducerState};
use crate::types::ProducerId;

const VERSION: i16 = 1;
const CRC_AT: usize = 2;
const ENTRIES_AT: usize = 6;
const ENTRY_SIZE: usize = 46;

pub fn encode(state: &ProducerState) -> Vec<u8> {
    let entries = state.entries();
    let mut out = Vec::with_capacity(ENTRIES_AT + 4 + entries.len() * ENTRY_SIZE);
    out.put_i16(VERSION);
    out.put_u32(0);
    out.put_i32(entries.len() as i32);
    for (id, entry) in entries {
        let last = entry.last_batch();
        out.put_i64(id);
        out.put_i16(entry.epoch);
        out.put_i32(entry.last_sequence());
        out.put_i64(last.map_or(-1, |batch| batch.last_offset));
        out.put_i32(last.map_or(0, |batch| batch.offset_delta));
        out.put_i64(entry.last_timestamp);
        out.put_i32(entry.coordinator_epoch);
        out.put_i64(entry.current_txn_first_offset);
    }
    let crc = crc32c::crc32c(&out[ENTRIES_AT..]);
    out[CRC_AT..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
    out
}

/// `None` for a file that is damaged or of another version.
pub fn decode(bytes: &[u8]) -> Option<Vec<(ProducerId, ProducerEntry)>> {
    let mut head = bytes.get(..ENTRIES_AT + 4)?;
    if head.get_i16() != VERSION || head.get_u32() != crc32c::crc32c(&bytes[ENTRIES_AT..]) {
        return None;
    }
    let count = usize::try_from(head.get_i32()).ok()?;
    let entries = &bytes[ENTRIES_AT + 4..];
    if Some(entries.len()) != count.checked_mul(ENTRY_SIZE) {
        return None;
    }
    Some(entries.chunks_exact(ENTRY_SIZE).map(decode_entry).collect())
}

/// What is wrong with a file that [`decode`] refuses, in Kafka's words.
pub fn fault(bytes: &[u8]) -> String {
    let Some(mut head) = bytes.get(..ENTRIES_AT + 4) else {
        return format!("Snapshot failed schema validation: {} bytes", bytes.len());
    };
    let version = head.get_i16();
    if version != VERSION {
        return format!(
            "Snapshot failed schema validation: Snapshot contained an unknown file version {version}"
        );
    }
    let (stored, computed) = (head.get_u32(), crc32c::crc32c(&bytes[ENTRIES_AT..]));
    if stored != computed {
        return format!(
            "Snapshot is corrupt (CRC is no longer valid). Stored crc: {stored}. Computed crc: {computed}"
        );
    }
    let (count, left) = (head.get_i32(), bytes.len() - ENTRIES_AT - 4);
    format!("Snapshot failed schema validation: {count} entries in {left} bytes")
}

fn decode_entry(mut bytes: &[u8]) -> (ProducerId, ProducerEntry) {
    let id = bytes.get_i64();
    let mut entry = ProducerEntry::new(bytes.get_i16());
    let batch = BatchMetadata {
        last_sequence: bytes.get_i32(),
        last_offset: bytes.get_i64(),
        offset_delta: bytes.get_i32(),
        timestamp: bytes.get_i64(),
    };
    if batch.last_offset >= 0 {
        entry.add_batch(entry.epoch, batch);
    }
    entry.last_timestamp = batch.timestamp;
    entry.coordinator_epoch = bytes.get_i32();
    entry.current_txn_first_offset = bytes.get_i64();
    (id, entry)
}
