//! End-of-transaction markers as control batches (Kafka's `EndTransactionMarker`). Transaction coordinators have them written
//! behind a transaction's records, in every partition that has some.

use super::AppendOrigin;
use super::builder::{BatchBuilder, control_batch};
use super::validate::ValidBatch;
use crate::types::{ProducerEpoch, ProducerId, TimestampMs};

/// Control record types.
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// What a transaction coordinator decided about a producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionMarker {
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub coordinator_epoch: i32,
    pub commit: bool,
    /// From 2 on the epoch grows with every transaction (KIP-890, KIP-1228).
    pub transaction_version: i8,
}

impl TransactionMarker {
    /// The batch of one control record. With `log_append_time` it is stamped as such topics' batches are.
    pub fn to_batch(&self, now_ms: TimestampMs, log_append_time: bool) -> ValidBatch {
        let mut builder = BatchBuilder::new()
            .producer(self.producer_id, self.producer_epoch, -1)
            .transactional(true);
        if log_append_time {
            builder = builder.log_append_time(now_ms);
        }
        let kind = if self.commit { COMMIT } else { ABORT };
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let bytes = control_batch(builder, now_ms, kind, &value);
        let batch = ValidBatch::internal(bytes).expect("the builder writes whole batches");
        ValidBatch {
            origin: AppendOrigin::Marker(self.transaction_version),
            ..batch
        }
    }
}
