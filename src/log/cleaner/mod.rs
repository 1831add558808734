//! Log compaction: of every key of a compacted topic the last record stays (Kafka's `LogCleaner`). Here are the rules and the
//! files; `replica::log_cleaner` owns the threads, chooses among the logs and keeps the books.
//!
//! Pure: `plan` (what is to be cleaned), `offset_map`, `transactions`, `filter` (what stays of a batch). Files: `select`
//! (what a log has to offer), `cleaning` (the reading and copying), `output` (the new segment), `swap` (putting it in place, and
//! finishing that after a crash).

mod cleaning;
mod filter;
mod offset_map;
mod output;
mod plan;
mod select;
mod swap;
mod transactions;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use cleaning::{CleanedGroup, Cleaning, Progress};
pub(super) use filter::LastRecord;
pub use plan::{CleanableRange, LogToClean};
pub(super) use swap::finish_swaps;

/// What one cleaner thread may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanerSettings {
    /// Memory of the offset map: `log.cleaner.dedupe.buffer.size`, shared among the threads.
    pub dedupe_buffer_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`
    pub load_factor: f64,
    /// Read-ahead, and bytes gathered for a write: `log.cleaner.io.buffer.size`, shared among the threads and for both.
    pub io_buffer_bytes: usize,
}

/// What a cleaning did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CleanerStats {
    /// Share of the offset map that was used.
    pub buffer_utilization: f64,
    /// Read to build the map.
    pub map_bytes_read: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub messages_read: u64,
    pub messages_written: u64,
    /// Records without key, dropped.
    pub invalid_messages: u64,
}

/// Why a cleaning ended early. The log is as it was, or has some groups cleaned: both are fine.
#[derive(Debug, thiserror::Error)]
pub enum CleaningError {
    /// The caller said so, or the log lost segments meanwhile.
    #[error("aborted")]
    Aborted,
    /// A file could not be read or written.
    #[error("{0}")]
    Io(io::Error),
    /// The log holds what is no record.
    #[error("{path}: {reason} at position {position}", path = path.display())]
    Corrupt {
        path: PathBuf,
        position: u64,
        reason: String,
    },
}
