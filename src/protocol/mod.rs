//! The wire protocol: errors, headers, messages, record batches. Pure: bytes in, values out.

pub mod batch;
pub mod consumer_protocol;
pub mod control_records;
pub mod error;
pub mod group_records;
pub mod header;
pub mod json;
pub mod messages;
pub mod metadata_records;
pub mod newer_group_records;
pub mod principal;
#[cfg(test)]
mod sample;
pub mod share_records;
pub mod transaction_records;
pub mod wire;

pub use error::{Error, ErrorCode};
