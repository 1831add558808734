//! Brokers tell which log directories their replicas are in (AssignReplicasToDirs, KIP-858): the controller must know, to find
//! new leaders when one of several directories fails.

use kafka_protocol::messages::assign_replicas_to_dirs_request as request;
use kafka_protocol::messages::assign_replicas_to_dirs_response::{
    DirectoryData, PartitionData, TopicData,
};
use kafka_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};

use super::cluster_control::check_broker_epoch;
use super::outcome::{Outcome, Turn};
use super::partition_change::Election;
use super::partition_control::{build, leave_partition, topic_rules};
use crate::metadata::BrokerRegistration;
use crate::protocol::ErrorCode;
use crate::protocol::metadata_records::MetadataRecord;
use crate::types::Uuid;

/// AssignReplicasToDirs. Replicas in a directory that is offline lose their leadership at once.
pub(super) fn assign_replicas_to_dirs(
    turn: &mut Turn<'_>,
    request: &AssignReplicasToDirsRequest,
) -> Outcome<AssignReplicasToDirsResponse> {
    let id = request.broker_id.0;
    let broker = match check_broker_epoch(turn.image, id, request.broker_epoch) {
        Ok(broker) => broker,
        Err(error) => {
            let response = AssignReplicasToDirsResponse::default().with_error_code(error.code());
            return Outcome::unchanged(response);
        }
    };
    let mut records = Vec::new();
    let directories = request.directories.iter().map(|directory| {
        let topics = directory.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let result = assign(turn, topic, index, (broker, directory.id), &mut records);
                PartitionData::default()
                    .with_partition_index(index)
                    .with_error_code(result.err().map_or(0, |code| code.code()))
            });
            let partitions = partitions.collect();
            TopicData::default()
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions)
        });
        let topics = topics.collect();
        DirectoryData::default()
            .with_id(directory.id)
            .with_topics(topics)
    });
    let response = AssignReplicasToDirsResponse::default().with_directories(directories.collect());
    Outcome::new(records, response)
}

/// Notes that the broker has its replica in the directory.
fn assign(
    turn: &Turn<'_>,
    topic: &request::TopicData,
    index: i32,
    (broker, dir): (&BrokerRegistration, Uuid),
    records: &mut Vec<MetadataRecord>,
) -> Result<(), ErrorCode> {
    let topic = turn.image.topics.by_id(topic.topic_id);
    let topic = topic.ok_or(ErrorCode::UnknownTopicId)?;
    let partition = topic.partitions.get(&index);
    let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let id = broker.id;
    if !partition.replicas.contains(&id) {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let rules = topic_rules(turn, topic);
    let mut change = rules.change(turn, topic, index, partition);
    change.election = Election::Online;
    change.moved_to = Some((id, dir));
    let former = partition.directory(id);
    change.wiped = (former != dir && !broker.has_online_dir(former)).then_some(id);
    records.extend(build(turn, partition, change).map(MetadataRecord::from));
    if !broker.has_online_dir(dir) {
        let record = leave_partition(turn, topic, index, id);
        records.extend(record.map(MetadataRecord::from));
    }
    Ok(())
}
