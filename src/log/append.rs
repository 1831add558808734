//! Appending to a log: as leader, with offsets, epochs and producers' sequences checked and given; as follower, with those that
//! the leader gave. All batches of a call go out with one write.

use std::fs::File;
use std::io::{self, IoSlice};

use bytes::Bytes;

use super::error::{AppendError, StorageError};
use super::producer_state::{EndTxnMarker, Verdict};
use super::unified::Log;
use super::{AbortedTxn, AppendInfo, disk};
use crate::protocol::batch::{
    AppendOrigin, BatchHeader, HEADER_SIZE, Records, ValidBatch, check_crc, parse_header,
};
use crate::protocol::{Error, ErrorCode};
use crate::types::{LeaderEpoch, NO_TIMESTAMP, TimestampMs};

/// A control record is a few bytes; more is no control record.
const CONTROL_BYTES_MAX: usize = 1 << 20;

/// Batches accepted for the active segment that the next write carries. Headers and small batches are gathered in a
/// buffer: copying a few hundred bytes costs less than another slice in the system call.
#[derive(Default)]
struct Pending<'a> {
    position: u64,
    buffer: Vec<u8>,
    /// Up to where the buffer goes before each large batch's records.
    large: Vec<(usize, &'a [u8])>,
    /// What the transaction index gets once the batches are written.
    aborted: Vec<AbortedTxn>,
}

/// Records up to this size are copied.
const COPIED_MAX: usize = 2048;

impl Log {
    /// Appends all batches with one write. The outer error takes the directory offline; an inner one refuses one batch
    /// (sequence, epoch) and leaves the others alone.
    pub fn append_as_leader(
        &mut self,
        batches: &[ValidBatch],
        leader_epoch: LeaderEpoch,
        now_ms: TimestampMs,
    ) -> Result<Vec<Result<AppendInfo, Error>>, StorageError> {
        self.check_open()?;
        self.now_ms = now_ms;
        let mut pending = Pending::with_capacity(batches.iter().map(ValidBatch::size_bytes));
        let mut results = Vec::with_capacity(batches.len());
        for batch in batches {
            let verdict = match self.judge(batch) {
                Ok(verdict) => verdict,
                Err(error) => {
                    results.push(Err(error));
                    continue;
                }
            };
            if let Verdict::Duplicate(original) = verdict {
                results.push(Ok(AppendInfo {
                    first_offset: original.first_offset(),
                    last_offset: original.last_offset,
                    log_append_time_ms: original.timestamp,
                    log_start_offset: self.log_start_offset,
                    duplicate: true,
                }));
                continue;
            }
            let mut header = batch.header;
            header.base_offset = self.next_offset;
            header.partition_leader_epoch = leader_epoch;
            self.accept(&header, &batch.bytes, &mut pending)?;
            results.push(Ok(self.append_info(&header)));
        }
        self.write(&mut pending)?;
        Ok(results)
    }

    fn judge(&self, batch: &ValidBatch) -> Result<Verdict, Error> {
        if let AppendOrigin::Marker(transaction_version) = batch.origin
            && let Some(marker) = parse_end_txn_marker(&batch.header, &batch.bytes)
        {
            self.producers
                .check_marker(&batch.header, marker, transaction_version)?;
        }
        self.producers.check(&batch.header, batch.origin)
    }

    /// Appends batches that carry their offsets and epochs already: from a leader, or from consensus. A torn batch at the
    /// end is left out; an empty answer has `last_offset` below `first_offset`.
    pub fn append_as_follower(
        &mut self,
        records: Bytes,
        now_ms: TimestampMs,
    ) -> Result<AppendInfo, AppendError> {
        self.check_open()?;
        self.now_ms = now_ms;
        let headers = self.check_replicated(&records)?;
        let mut pending = Pending::with_capacity(headers.iter().map(BatchHeader::size_bytes));
        let mut info = AppendInfo {
            first_offset: headers.first().map_or(self.next_offset, |h| h.base_offset),
            last_offset: self.next_offset - 1,
            log_append_time_ms: NO_TIMESTAMP,
            log_start_offset: self.log_start_offset,
            duplicate: false,
        };
        let mut at = 0;
        for header in &headers {
            let batch = &records[at..at + header.size_bytes()];
            at += header.size_bytes();
            self.accept(header, batch, &mut pending)?;
            info.last_offset = header.last_offset();
        }
        self.write(&mut pending)?;
        Ok(info)
    }

    /// Headers of whole, sound batches in growing order that begin at or behind the log's end.
    fn check_replicated(&self, records: &[u8]) -> Result<Vec<BatchHeader>, AppendError> {
        let invalid =
            |text: String| AppendError::Invalid(Error::new(ErrorCode::CorruptMessage, text));
        let mut headers = Vec::new();
        let mut next_offset = self.next_offset;
        let mut rest = records;
        while rest.len() >= HEADER_SIZE {
            let header = parse_header(rest).map_err(|e| invalid(e.to_string()))?;
            if header.size_bytes() > rest.len() {
                break;
            }
            let (batch, behind) = rest.split_at(header.size_bytes());
            rest = behind;
            check_crc(&header, batch).map_err(|e| invalid(e.to_string()))?;
            if header.last_offset_delta < 0 || header.next_offset() == i64::MAX {
                return Err(invalid("batch has an invalid offset range".into()));
            }
            if header.base_offset < next_offset {
                return Err(AppendError::UnexpectedOffset {
                    found: header.base_offset,
                    next_offset,
                });
            }
            next_offset = header.next_offset();
            headers.push(header);
        }
        Ok(headers)
    }

    fn append_info(&self, header: &BatchHeader) -> AppendInfo {
        AppendInfo {
            first_offset: header.base_offset,
            last_offset: header.last_offset(),
            log_append_time_ms: if header.is_log_append_time() {
                header.max_timestamp
            } else {
                NO_TIMESTAMP
            },
            log_start_offset: self.log_start_offset,
            duplicate: false,
        }
    }

    /// Queues one batch with its final header, after rolling where needed. State moves ahead of the write: a write that
    /// fails takes the directory offline, so nobody sees the difference.
    fn accept<'a>(
        &mut self,
        header: &BatchHeader,
        batch: &'a [u8],
        pending: &mut Pending<'a>,
    ) -> Result<(), StorageError> {
        if self.leader_epochs.latest_epoch() < Some(header.partition_leader_epoch) {
            self.assign_epoch(header.partition_leader_epoch, header.base_offset)?;
        }
        let should_roll = self
            .active
            .should_roll(&self.path, &self.config, header, self.now_ms)
            .map_err(|e| self.segment_error("read", e))?;
        if should_roll {
            self.write(pending)?;
            self.roll(header.base_offset)?;
        }
        if pending.buffer.is_empty() {
            pending.position = self.active.size;
        }
        pending.push(header, &batch[HEADER_SIZE..]);
        self.active
            .append(&self.path, header)
            .map_err(|e| self.segment_error("index", e))?;
        if header.is_control() && header.has_producer_id() {
            if let Some(marker) = parse_end_txn_marker(header, batch) {
                pending
                    .aborted
                    .extend(self.producers.end_transaction(header, marker));
            }
        } else {
            self.producers.update(header);
        }
        self.producers.map_end_offset = header.next_offset();
        self.next_offset = header.next_offset();
        self.unflushed_bytes += header.size_bytes() as u64;
        Ok(())
    }

    fn write(&mut self, pending: &mut Pending<'_>) -> Result<(), StorageError> {
        if pending.buffer.is_empty() {
            return Ok(());
        }
        let written = self
            .active
            .file(&self.path)
            .and_then(|file| pending.write(&file));
        pending.buffer.clear();
        pending.large.clear();
        written.map_err(|e| self.segment_error("append to", e))?;
        if pending.aborted.is_empty() {
            return Ok(());
        }
        let base_offset = self.active.base_offset;
        self.dir_dirty |= !self.txn_indexes.contains(base_offset);
        self.txn_indexes
            .append(&self.path, base_offset, &pending.aborted)
            .map_err(|e| self.txn_index_error(base_offset, e))?;
        pending.aborted.clear();
        Ok(())
    }
}

impl<'a> Pending<'a> {
    /// Room for batches of these sizes.
    fn with_capacity(sizes: impl Iterator<Item = usize>) -> Self {
        let copied = sizes.map(|size| {
            if size <= COPIED_MAX {
                size
            } else {
                HEADER_SIZE
            }
        });
        Self {
            position: 0,
            buffer: Vec::with_capacity(copied.sum()),
            large: Vec::new(),
            aborted: Vec::new(),
        }
    }

    fn push(&mut self, header: &BatchHeader, records: &'a [u8]) {
        self.buffer.extend_from_slice(&header.encode());
        if HEADER_SIZE + records.len() <= COPIED_MAX {
            self.buffer.extend_from_slice(records);
        } else {
            self.large.push((self.buffer.len(), records));
        }
    }

    fn write(&self, file: &File) -> io::Result<()> {
        if let [(end, records)] = self.large[..]
            && end == self.buffer.len()
        {
            let slices = &mut [IoSlice::new(&self.buffer), IoSlice::new(records)];
            return disk::write_all_at(file, slices, self.position);
        }
        let mut slices = Vec::with_capacity(2 * self.large.len() + 1);
        let mut from = 0;
        for (end, records) in &self.large {
            slices.push(IoSlice::new(&self.buffer[from..*end]));
            slices.push(IoSlice::new(records));
            from = *end;
        }
        slices.push(IoSlice::new(&self.buffer[from..]));
        disk::write_all_at(file, &mut slices, self.position)
    }
}

/// The marker in a control batch; `None` for control records of other kinds.
pub(super) fn parse_end_txn_marker(header: &BatchHeader, batch: &[u8]) -> Option<EndTxnMarker> {
    let record = Records::new(header, batch, CONTROL_BYTES_MAX)
        .ok()?
        .next()?
        .ok()?;
    let key = record.key?;
    let kind = i16::from_be_bytes(key.get(2..4)?.try_into().ok()?);
    if !matches!(kind, 0 | 1) {
        return None;
    }
    let value = record.value?;
    Some(EndTxnMarker {
        commit: kind == 1,
        coordinator_epoch: i32::from_be_bytes(value.get(2..6)?.try_into().ok()?),
        timestamp: record.timestamp,
    })
}
