//! Adapters between the coordinators and the broker: their records live in hosted partitions, and leadership of
//! those decides which groups are served here.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tracing::error;

use crate::clock::Clock;
use crate::coordinator::PartitionWriter;
use crate::group::GroupCoordinator;
use crate::metadata::{MetadataDelta, MetadataImage, Publisher};
use crate::partition::{Isolation, Partition, ReadRequest};
use crate::protocol::batch::{Batches, TransactionMarker, ValidBatch};
use crate::protocol::{Error, ErrorCode};
use crate::replica::ReplicaManager;
use crate::types::{
    BrokerId, GROUP_METADATA_TOPIC, LeaderEpoch, NO_LEADER_EPOCH, Offset, TopicPartition,
};

/// The replica manager, as coordinators write to it.
pub struct CoordinatorLog {
    pub replicas: Arc<ReplicaManager>,
    pub clock: Clock,
}

impl CoordinatorLog {
    fn partition(&self, tp: &TopicPartition) -> Result<Arc<Partition>, Error> {
        self.replicas.find(&tp.topic, tp.partition)
    }
}

impl PartitionWriter for CoordinatorLog {
    fn append(
        &self,
        tp: &TopicPartition,
        leader_epoch: LeaderEpoch,
        batch: Bytes,
    ) -> Result<Offset, Error> {
        let partition = self.partition(tp)?;
        partition.check_leader(leader_epoch)?;
        let batch = ValidBatch::internal(batch).map_err(|reason| {
            error!(%tp, %reason, "coordinator built an unsound batch");
            Error::from(ErrorCode::UnknownServerError)
        })?;
        let mut results = partition.append_as_leader(&[batch], true, self.clock.wall_ms());
        let appended = results.pop().ok_or(ErrorCode::UnknownServerError)??;
        Ok(appended.last_offset + 1)
    }

    fn append_marker(
        &self,
        tp: &TopicPartition,
        leader_epoch: LeaderEpoch,
        marker: &TransactionMarker,
    ) -> Result<Offset, Error> {
        let partition = self.partition(tp)?;
        partition.check_leader(leader_epoch)?;
        let appended = partition.append_marker(marker, self.clock.wall_ms())?;
        Ok(appended.last_offset + 1)
    }

    fn read(&self, tp: &TopicPartition, from: Offset, max_bytes: usize) -> Result<Bytes, Error> {
        let partition = self.partition(tp)?;
        let read = partition.read(&ReadRequest {
            offset: from,
            size_bytes_max: max_bytes,
            isolation: Isolation::LogEnd,
            current_leader_epoch: NO_LEADER_EPOCH,
            last_fetched_epoch: NO_LEADER_EPOCH,
            min_one_batch: true,
            leader_only: true,
            replica_id: None,
        })?;
        let Some(slice) = read.slice else {
            return Ok(Bytes::new());
        };
        let bytes = slice.read_bytes().map_err(|cause| {
            error!(%tp, %cause, "coordinator partition cannot be read");
            Error::from(ErrorCode::KafkaStorageError)
        })?;
        let whole: usize = Batches::new(bytes.clone())
            .map_while(Result::ok)
            .map(|(header, _)| header.size_bytes())
            .sum();
        Ok(bytes.slice(..whole))
    }

    fn offsets(&self, tp: &TopicPartition) -> Result<(Offset, Offset), Error> {
        let offsets = self.partition(tp)?.offsets()?;
        Ok((offsets.log_start_offset, offsets.next_offset))
    }

    fn high_watermark(&self, tp: &TopicPartition) -> Result<watch::Receiver<Offset>, Error> {
        Ok(self.partition(tp)?.watch_high_watermark())
    }
}

/// Tells the group coordinator which partitions of `__consumer_offsets` this broker leads.
pub struct GroupElections {
    pub broker_id: BrokerId,
    pub groups: GroupCoordinator,
}

impl Publisher for GroupElections {
    fn on_update(&self, delta: &MetadataDelta, image: &Arc<MetadataImage>) {
        if !delta.topics_deleted.is_empty() {
            let deleted: Vec<_> = delta
                .topics_deleted
                .iter()
                .map(|(id, name)| (Arc::clone(name), *id))
                .collect();
            self.groups.on_topics_deleted(&deleted);
        }
        for (topic_id, change) in &delta.topics_changed {
            if &*change.name != GROUP_METADATA_TOPIC {
                continue;
            }
            let Some(topic) = image.topics.by_id(*topic_id) else {
                continue;
            };
            self.groups
                .set_partitions_count(topic.partitions.len() as i32);
            for index in &change.partitions {
                let Some(registration) = topic.partitions.get(index) else {
                    continue;
                };
                if registration.leader == self.broker_id {
                    self.groups.on_elected(*index, registration.leader_epoch);
                } else {
                    self.groups
                        .on_resigned(*index, Some(registration.leader_epoch));
                }
            }
        }
    }
}
