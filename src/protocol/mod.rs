//! The wire protocol: errors, headers, messages, record batches. Pure: bytes in, values out.

pub mod error;

pub use error::{Error, ErrorCode};
