//! Brings the in-sync replicas that leaders here propose to the controller: all that wait in one AlterPartition, one request
//! at a time (Kafka's `AlterPartitionManager`). And finds the followers that lag.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ParseResponseErrorCode;
use kafka_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use kafka_protocol::messages::alter_partition_response;
use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerId as WireBrokerId,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::ReplicaManager;
use crate::partition::{CommittedIsr, ProposedIsr};
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, Uuid};

/// Rest after a request that nobody answered.
const RETRY: Duration = Duration::from_millis(50);

/// The way to the active controller.
pub trait AlterPartitionChannel: Send + Sync + 'static {
    /// A request that does not get there is answered with an error code for the whole.
    fn alter_partition(
        &self,
        request: AlterPartitionRequest,
    ) -> Pin<Box<dyn Future<Output = AlterPartitionResponse> + Send + '_>>;
}

impl ReplicaManager {
    /// Sends proposals until `shutdown`.
    pub async fn send_isr_updates(
        self: Arc<Self>,
        channel: Arc<dyn AlterPartitionChannel>,
        shutdown: CancellationToken,
    ) {
        let proposals = Arc::clone(self.isr_proposals());
        while let Some(proposed) = shutdown.run_until_cancelled(proposals.next()).await {
            let request = alter_request(self.broker_id(), self.broker_epoch(), &proposed);
            let response = channel.alter_partition(request).await;
            if let Some(code) = response.error_code.err() {
                debug!(?code, "AlterPartition was not answered, trying again");
                tokio::time::sleep(RETRY).await;
            }
            self.isr_answered(&proposed, &response);
        }
    }

    fn isr_answered(&self, proposed: &[ProposedIsr], response: &AlterPartitionResponse) {
        let answers: BTreeMap<(Uuid, i32), _> = response
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|p| (topic.topic_id, p)))
            .map(|(topic_id, partition)| ((topic_id, partition.partition_index), partition))
            .collect();
        for each in proposed {
            let index = each.topic_partition.partition;
            // Deleted, or its directory failed meanwhile: nobody waits for the answer.
            let Ok(partition) = self.find_by_id(each.topic_id, index) else {
                continue;
            };
            let answer = match (response.error_code, answers.get(&(each.topic_id, index))) {
                (0, Some(answer)) => committed(answer),
                // The whole request failed, or this partition was left out: unknown what became of it.
                _ => Err(ErrorCode::UnknownServerError),
            };
            match &answer {
                Ok(committed) => {
                    info!(tp = %each.topic_partition, isr = ?committed.isr, partition_epoch = committed.partition_epoch, "in-sync replicas changed");
                }
                Err(code) => {
                    debug!(tp = %each.topic_partition, ?code, "in-sync replicas were refused");
                }
            }
            partition.alter_partition_answered(&each.proposal, answer.as_ref().map_err(|c| *c));
        }
    }

    /// Looks for followers that lag; call it every half `replica.lag.time.max.ms`.
    pub fn shrink_isrs(&self) {
        let now_ms = self.clock().monotonic_ms();
        for partition in self.partitions() {
            partition.tick(now_ms);
        }
    }
}

fn committed(answer: &alter_partition_response::PartitionData) -> Result<CommittedIsr, ErrorCode> {
    if let Some(code) = answer.error_code.err() {
        return Err(code);
    }
    Ok(CommittedIsr {
        leader_epoch: answer.leader_epoch,
        partition_epoch: answer.partition_epoch,
        isr: answer.isr.iter().map(|id| id.0).collect(),
    })
}

fn alter_request(
    broker_id: BrokerId,
    broker_epoch: i64,
    proposed: &[ProposedIsr],
) -> AlterPartitionRequest {
    let mut topics: BTreeMap<Uuid, Vec<PartitionData>> = BTreeMap::new();
    for each in proposed {
        let isr = each.proposal.isr.iter().map(|(id, epoch)| {
            let broker = BrokerState::default().with_broker_id(WireBrokerId(*id));
            broker.with_broker_epoch(*epoch)
        });
        // The leader itself is here to say so; the recovery of an unclean election ends with its first ISR (KIP-704).
        let partition = PartitionData::default()
            .with_partition_index(each.topic_partition.partition)
            .with_leader_epoch(each.proposal.leader_epoch)
            .with_partition_epoch(each.proposal.partition_epoch)
            .with_new_isr_with_epochs(isr.collect());
        topics.entry(each.topic_id).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(topic_id, partitions)| {
        TopicData::default()
            .with_topic_id(topic_id)
            .with_partitions(partitions)
    });
    AlterPartitionRequest::default()
        .with_broker_id(WireBrokerId(broker_id))
        .with_broker_epoch(broker_epoch)
        .with_topics(topics.collect())
}
