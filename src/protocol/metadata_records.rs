//! Metadata records, the payload of `__cluster_metadata`, in Kafka's schemas and framing.

use bytes::{Buf, Bytes};

/// One metadata record.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MetadataRecord {
    /// Carries nothing; takes an offset.
    NoOp,
}

/// Why bytes are not a metadata record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a metadata record that this release knows")]
pub struct RecordError;

/// The value of a record: frame version 1, api key, version, body (`AbstractApiMessageSerde`).
pub fn encode_record(record: &MetadataRecord) -> Bytes {
    match record {
        MetadataRecord::NoOp => Bytes::from_static(&[1, 20, 0, 0]),
    }
}

/// The inverse of [`encode_record`].
pub fn decode_record(value: Bytes) -> Result<MetadataRecord, RecordError> {
    if value.chunk() == [1, 20, 0, 0] {
        return Ok(MetadataRecord::NoOp);
    }
    Err(RecordError)
}
