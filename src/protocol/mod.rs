//! The wire protocol: errors, headers, messages, record batches. Pure: bytes in, values out.

pub mod batch;
pub mod error;
pub mod metadata_records;

pub use error::{Error, ErrorCode};
