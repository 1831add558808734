//! An internal topic in memory, for tests: one log for all partitions asked for, with errors on demand.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::PartitionWriter;
use crate::protocol::batch::{Batches, HEADER_SIZE, TransactionMarker};
use crate::protocol::error::{Error, ErrorCode};
use crate::types::{LeaderEpoch, Offset, TopicPartition};

/// Batches with their offsets assigned. The high watermark follows the end unless held.
pub(crate) struct TestLog {
    inner: Mutex<Inner>,
    high_watermark: watch::Sender<Offset>,
}

#[derive(Default)]
struct Inner {
    bytes: BytesMut,
    next_offset: Offset,
    appends: usize,
    reads: Vec<usize>,
    hold: bool,
    fail_with: Option<ErrorCode>,
}

impl TestLog {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            high_watermark: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Batches appended so far.
    pub(crate) fn appends(&self) -> usize {
        self.lock().appends
    }

    /// How much each read asked for.
    pub(crate) fn reads(&self) -> Vec<usize> {
        self.lock().reads.clone()
    }

    pub(crate) fn next_offset(&self) -> Offset {
        self.lock().next_offset
    }

    /// Keeps the high watermark where it is until released.
    pub(crate) fn hold(&self, hold: bool) {
        let mut inner = self.lock();
        inner.hold = hold;
        if !hold {
            self.high_watermark.send_replace(inner.next_offset);
        }
    }

    pub(crate) fn fail_with(&self, code: Option<ErrorCode>) {
        self.lock().fail_with = code;
    }
}

impl PartitionWriter for TestLog {
    fn append(
        &self,
        _tp: &TopicPartition,
        leader_epoch: LeaderEpoch,
        batch: Bytes,
    ) -> Result<Offset, Error> {
        let mut inner = self.lock();
        if let Some(code) = inner.fail_with {
            return Err(code.into());
        }
        let (mut header, bytes) = Batches::new(batch).next().expect("a batch").expect("sound");
        header.base_offset = inner.next_offset;
        header.partition_leader_epoch = leader_epoch;
        inner.next_offset = header.next_offset();
        inner.bytes.extend_from_slice(&header.encode());
        inner.bytes.extend_from_slice(&bytes[HEADER_SIZE..]);
        inner.appends += 1;
        if !inner.hold {
            self.high_watermark.send_replace(inner.next_offset);
        }
        Ok(inner.next_offset)
    }

    fn append_marker(
        &self,
        tp: &TopicPartition,
        leader_epoch: LeaderEpoch,
        marker: &TransactionMarker,
    ) -> Result<Offset, Error> {
        self.append(tp, leader_epoch, marker.to_batch(0, false).bytes)
    }

    fn read(&self, _tp: &TopicPartition, from: Offset, max_bytes: usize) -> Result<Bytes, Error> {
        self.lock().reads.push(max_bytes);
        let all = self.lock().bytes.clone().freeze();
        let mut read = BytesMut::new();
        for batch in Batches::new(all) {
            let (header, bytes) = batch.expect("sound");
            if header.next_offset() > from
                && (read.is_empty() || read.len() + bytes.len() <= max_bytes)
            {
                read.extend_from_slice(&bytes);
            }
        }
        Ok(read.freeze())
    }

    fn offsets(&self, _tp: &TopicPartition) -> Result<(Offset, Offset), Error> {
        Ok((0, self.lock().next_offset))
    }

    fn high_watermark(&self, _tp: &TopicPartition) -> Result<watch::Receiver<Offset>, Error> {
        Ok(self.high_watermark.subscribe())
    }
}
