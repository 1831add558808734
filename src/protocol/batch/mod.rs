//! Record batches (magic 2): header view, records, building, and validation on the produce path. Pure; used by the log,
//! the coordinators, the metadata log and the produce handler.
//!
//! ```text
//!  0 base offset i64 | 8 length i32 (of what follows) | 12 partition leader epoch i32 | 16 magic i8 | 17 crc u32
//! 21 attributes i16 | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64 | 43 producer id i64
//! 51 producer epoch i16 | 53 base sequence i32 | 57 records count i32 | 61 records; the crc covers byte 21 to the end
//! ```

mod builder;
mod compression;
mod header;
mod marker;
mod raw;
mod record;
mod validate;

#[cfg(test)]
mod tests;

pub use builder::{BatchBuilder, control_batch};
pub use compression::{CompressionType, compress, decompress};
pub use header::{
    BatchError, BatchHeader, Batches, HEADER_SIZE, LOG_OVERHEAD, check_crc, increment_sequence,
    parse_header,
};
pub use marker::TransactionMarker;
pub use raw::{RawRecord, RawRecords};
pub use record::{Record, RecordError, RecordView, Records, for_each_record};
pub use validate::{
    ProduceError, RecordErrorAt, ValidBatch, ValidateContext, begins_transactional,
    validate_produced,
};

/// Who appends, which decides what is checked (Kafka's `AppendOrigin`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    Client,
    /// A client's batch that must belong to a transaction which is open in the partition: no transaction coordinator vouched
    /// for it (`transaction.partition.verification.enable`).
    OpenTransaction,
    Coordinator,
    /// The end of a transaction of this version.
    Marker(i8),
    Replication,
}
