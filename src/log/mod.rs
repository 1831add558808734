//! One partition's log and the directories that hold logs: segments, indexes, producer state, leader epochs, checkpoints,
//! recovery. Blocking file I/O, no async, no clock (`now_ms` is an argument). Each `Log` belongs to its partition, behind
//! that one's mutex; slices it hands out stay readable without the lock.
//!
//! Whatever changes the disk goes through `disk.rs`, so that tests can cut the power or fail a call at every step.
//!
//! Bytes on disk are Kafka's.

mod append;
mod batch_io;
mod checkpoint;
pub mod cleaner;
mod dir;
mod dirs;
pub mod disk;
mod error;
mod flush;
mod future;
mod handles;
mod index;
pub mod inspect;

mod leader_epochs;
mod load;
mod lookup;
mod paths;
mod producer_snapshot;
mod producer_state;
mod read;
mod reader;
mod recovery;
mod retention;
mod sanity;
pub mod scrub;
mod segment;
mod truncate;
mod txn_index;
mod unified;

#[cfg(test)]
pub mod tests;

pub use batch_io::{BatchAt, BatchScanner};
pub use checkpoint::{Checkpoint, MetaProperties};
pub use dir::LogDir;
pub use dirs::LogDirs;
pub use error::{AppendError, ReadError, StorageError};
pub use flush::FlushJob;
pub use future::CopyStep;
pub use leader_epochs::LeaderEpochCache;
pub use lookup::{TimestampSearch, Wanted};
pub use producer_state::{ProducerState, Verdict};
pub use retention::{DeletedSegment, DeletionReason};
pub use truncate::{StartOffsetReason, delete};
pub use txn_index::AbortedTxn;
pub use unified::Log;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::TopicConfig;
use crate::types::{LeaderEpoch, Offset, TimestampMs, TopicPartition, Uuid};

/// What opening (or creating) a log needs. Recovery point, log start and clean shutdown come from `dir`.
#[derive(Clone, Debug)]
pub struct OpenParams {
    pub dir: Arc<LogDir>,
    pub topic_partition: TopicPartition,
    /// Written to `partition.metadata`; `None` leaves the file alone.
    pub topic_id: Option<Uuid>,
    pub config: Arc<TopicConfig>,
    /// `producer.id.expiration.ms`
    pub producer_id_expiration_ms: i64,
    pub now_ms: TimestampMs,
}

/// Where an append ended up (Kafka's `LogAppendInfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    pub first_offset: Offset,
    pub last_offset: Offset,
    /// -1 unless the topic stamps records itself; for a duplicate the time of the first append.
    pub log_append_time_ms: TimestampMs,
    pub log_start_offset: Offset,
    /// The batch was there already: nothing was written.
    pub duplicate: bool,
}

/// A range of a segment file, served with sendfile. Stays readable after the log lets go of the file.
#[derive(Clone, Debug)]
pub struct LogSlice {
    /// `None` where the slice is empty.
    pub file: Option<Arc<File>>,
    pub position: u64,
    pub len: usize,
    /// Base offset of the segment.
    pub base_offset: Offset,
    /// The first batch is longer than what was asked for, and was not forced whole.
    pub first_batch_incomplete: bool,
}

impl LogSlice {
    pub const EMPTY: Self = Self {
        file: None,
        position: 0,
        len: 0,
        base_offset: 0,
        first_batch_incomplete: false,
    };

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies the range into memory.
    pub fn read_bytes(&self) -> io::Result<Bytes> {
        let Some(file) = &self.file else {
            return Ok(Bytes::new());
        };
        let mut buffer = vec![0; self.len];
        file.read_exact_at(&mut buffer, self.position)?;
        Ok(buffer.into())
    }
}

/// An answer of ListOffsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampAndOffset {
    pub timestamp: TimestampMs,
    pub offset: Offset,
    pub leader_epoch: Option<LeaderEpoch>,
}

/// An epoch and the end of its offsets; both -1 where unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    pub leader_epoch: LeaderEpoch,
    pub end_offset: Offset,
}

/// A producer as DescribeProducers shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp: TimestampMs,
    pub coordinator_epoch: i32,
    /// -1 outside a transaction.
    pub current_txn_start_offset: Offset,
}
