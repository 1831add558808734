//! The records of `__transaction_state`, one a transactional id, in Kafka's schemas.

use bytes::{BufMut, Bytes, BytesMut};

use super::group_records::split;
use super::wire::{DecodeError, EncodeError, message};

impl TransactionLogKey {
    /// The key of a log record: type 0 and the body.
    pub fn to_record(&self) -> Result<Bytes, EncodeError> {
        let mut buf = BytesMut::with_capacity(32);
        buf.put_i16(0);
        self.encode(&mut buf, 0)?;
        Ok(buf.freeze())
    }

    pub fn from_record(key: &Bytes) -> Result<Self, DecodeError> {
        match split(key)? {
            (0, mut body) => Self::decode(&mut body, 0),
            (kind, _) => Err(DecodeError::UnknownType(i32::from(kind))),
        }
    }
}

impl TransactionLogValue {
    /// The value of a log record: version and body.
    pub fn to_record(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut buf = BytesMut::with_capacity(128);
        buf.put_i16(version);
        self.encode(&mut buf, version)?;
        Ok(buf.freeze())
    }

    pub fn from_record(value: &Bytes) -> Result<Self, DecodeError> {
        let (version, mut body) = split(value)?;
        Self::decode(&mut body, version)
    }
}

message! {
    TransactionLogKey(0..=0) {
        transactional_id: String, 0..;
    }
}

message! {
    TransactionLogValue(0..=1, flexible 1) {
        producer_id: i64, 0..;
        previous_producer_id: i64 = -1, 1.., tag 0;
        next_producer_id: i64 = -1, 1.., tag 1;
        client_transaction_version: i16, 1.., tag 2;
        next_producer_epoch: i16 = -1, 1.., tag 3;
        producer_epoch: i16, 0..;
        transaction_timeout_ms: i32, 0..;
        transaction_status: i8, 0..;
        transaction_partitions: Option<Vec<PartitionsSchema>>, 0..;
        transaction_last_update_timestamp_ms: i64, 0..;
        transaction_start_timestamp_ms: i64, 0..;
    }
    PartitionsSchema {
        topic: String, 0..;
        partition_ids: Vec<i32>, 0..;
    }
}
