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
use crate::partition::{CommittedIsr, ProposedIsr, Timer};
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
        let proposals = self.isr_proposals();
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
        for partition in self.touched().take(Timer::ShrinkIsr) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::IsrProposal;
    use crate::types::TopicPartition;

    /// Rule: one-alter-partition
    #[test]
    fn all_proposals_that_wait_go_in_one_request() {
        let proposed = |topic: u128, partition, isr: &[(BrokerId, i64)]| ProposedIsr {
            topic_partition: TopicPartition::new(format!("topic-{topic}").as_str(), partition),
            topic_id: Uuid::from_u128(topic),
            proposal: IsrProposal {
                leader_epoch: 4,
                partition_epoch: 9,
                isr: isr.to_vec(),
            },
        };
        let all = [
            proposed(1, 0, &[(1, 10), (2, 20)]),
            proposed(2, 0, &[(1, 10)]),
            proposed(1, 7, &[(1, 10), (3, -1)]),
        ];
        let request = alter_request(1, 10, &all);
        assert_eq!((request.broker_id.0, request.broker_epoch), (1, 10));
        let found = request.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|p| {
                assert_eq!((p.leader_epoch, p.partition_epoch), (4, 9));
                let isr = p.new_isr_with_epochs.iter();
                let isr: Vec<_> = isr.map(|b| (b.broker_id.0, b.broker_epoch)).collect();
                (topic.topic_id.as_u128(), p.partition_index, isr)
            })
        });
        let expected = [
            (1, 0, vec![(1, 10), (2, 20)]),
            (1, 7, vec![(1, 10), (3, -1)]),
            (2, 0, vec![(1, 10)]),
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_refusal_of_one_partition_is_its_own() {
        let answer = alter_partition_response::PartitionData::default()
            .with_leader_epoch(4)
            .with_partition_epoch(10)
            .with_isr(vec![WireBrokerId(1), WireBrokerId(3)]);
        let taken = committed(&answer).expect("accepted");
        assert_eq!((taken.leader_epoch, taken.partition_epoch), (4, 10));
        assert_eq!(taken.isr, [1, 3]);
        let refused = answer.with_error_code(ErrorCode::InvalidUpdateVersion.code());
        assert_eq!(committed(&refused), Err(ErrorCode::InvalidUpdateVersion));
    }
}
