//! Partition reassignments: begun and cancelled by AlterPartitionReassignments, shown by ListPartitionReassignments
//! (KIP-455, KIP-860). They complete in `partition_change.rs`, with the ISR change that brings the last new replica in.
//!
//! ```text
//! replicas      adding  removing
//! 1 2 3                            at rest
//! 4 2 3 1       4       1          asked for 4 2 3; 4 is not in sync yet
//! 4 2 3                            4 joined the ISR
//! 2 3 1                            or: cancelled before
//! ```

use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    BrokerId as WireBrokerId, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::outcome::{Outcome, Turn};
use super::partition_change::Election;
use super::partition_control::{build, topic_rules};
use super::topic_control::validate_assignment;
use crate::metadata::{MetadataImage, PartitionRegistration, TopicImage};
use crate::protocol::metadata_records::{MetadataRecord, PartitionChangeRecord};
use crate::protocol::{Error, ErrorCode};
use crate::quorum::RECORDS_PER_BATCH_MAX;
use crate::types::BrokerId;

/// AlterPartitionReassignments: new replicas for partitions, or the end of what is under way.
pub(super) fn alter_partition_reassignments(
    turn: &mut Turn<'_>,
    request: &AlterPartitionReassignmentsRequest,
) -> Outcome<AlterPartitionReassignmentsResponse> {
    let may_resize = request.allow_replication_factor_change;
    if request.topics.is_empty() {
        // Kafka answers the empty text here, and none elsewhere.
        return Outcome::unchanged(AlterPartitionReassignmentsResponse::default());
    }
    let mut records: Vec<MetadataRecord> = Vec::new();
    let responses = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let result = alter(turn, &topic.name, asked, may_resize).and_then(|record| {
                if records.len() >= RECORDS_PER_BATCH_MAX {
                    let message = "too many partitions in one request";
                    return Err(Error::new(ErrorCode::PolicyViolation, message));
                }
                records.extend(record.map(MetadataRecord::from));
                Ok(())
            });
            let answer = ReassignablePartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_error_message(None);
            match result {
                Ok(()) => answer,
                Err(error) => answer
                    .with_error_code(error.code())
                    .with_error_message(error.text()),
            }
        });
        let partitions = partitions.collect();
        ReassignableTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions)
    });
    let response = AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(may_resize)
        .with_error_message(None)
        .with_responses(responses.collect());
    Outcome::atomic(records, response)
}

fn alter(
    turn: &Turn<'_>,
    topic: &str,
    asked: &ReassignablePartition,
    may_resize: bool,
) -> Result<Option<PartitionChangeRecord>, Error> {
    let unknown = |message: String| Error::new(ErrorCode::UnknownTopicOrPartition, message);
    let image = turn.image.topics.by_name(topic);
    let image = image.ok_or_else(|| unknown(format!("unable to find a topic named {topic}")))?;
    let index = asked.partition_index;
    let partition = image.partitions.get(&index);
    let partition =
        partition.ok_or_else(|| unknown(format!("unable to find partition {topic}:{index}")))?;
    match &asked.replicas {
        None => cancel(turn, image, index, partition),
        Some(replicas) => {
            let target: Vec<BrokerId> = replicas.iter().map(|id| id.0).collect();
            begin(turn, image, index, partition, target, may_resize)
        }
    }
}

fn begin(
    turn: &Turn<'_>,
    topic: &TopicImage,
    index: i32,
    partition: &PartitionRegistration,
    target: Vec<BrokerId>,
    may_resize: bool,
) -> Result<Option<PartitionChangeRecord>, Error> {
    validate_assignment(&turn.image.cluster, &target, None)?;
    let count = replicas_at_rest(partition);
    if !may_resize && count != target.len() {
        let message = format!(
            "the replication factor is changed from {count} to {}",
            target.len()
        );
        return Err(Error::new(ErrorCode::InvalidReplicationFactor, message));
    }
    let removing = difference(&partition.replicas, &target);
    let adding = difference(&target, &partition.replicas);
    let mut change = topic_rules(turn, topic).change(turn, topic, index, partition);
    change.election = Election::Online;
    change.replicas = target;
    change.replicas.extend(&removing);
    // Kafka leaves what was being added or removed before where nothing new is (`changePartitionReassignment`).
    if !removing.is_empty() {
        change.removing_replicas = removing;
    }
    if !adding.is_empty() {
        change.adding_replicas = adding;
    }
    Ok(build(turn, partition, change))
}

/// How many replicas the partition will have once a reassignment under way is complete.
fn replicas_at_rest(partition: &PartitionRegistration) -> usize {
    difference(&partition.replicas, &partition.removing_replicas).len()
}

/// What is in `of` and not in `without`, in the order of the ids.
fn difference(of: &[BrokerId], without: &[BrokerId]) -> Vec<BrokerId> {
    let mut left: Vec<BrokerId> = of.to_vec();
    left.retain(|id| !without.contains(id));
    left.sort_unstable();
    left.dedup();
    left
}

fn is_reassigned(partition: &PartitionRegistration) -> bool {
    !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty()
}

fn cancel(
    turn: &Turn<'_>,
    topic: &TopicImage,
    index: i32,
    partition: &PartitionRegistration,
) -> Result<Option<PartitionChangeRecord>, Error> {
    if !is_reassigned(partition) {
        return Err(ErrorCode::NoReassignmentInProgress.into());
    }
    let rules = topic_rules(turn, topic);
    let mut change = rules.change(turn, topic, index, partition);
    let stays = |id: &BrokerId| !partition.adding_replicas.contains(id);
    change.replicas.retain(stays);
    change.isr.retain(stays);
    if change.isr.is_empty() {
        // Only the new replicas are in sync: going back loses what the old ones do not have.
        let Some(first) = change.replicas.first().copied() else {
            let message = "the reassignment adds all replicas of the partition";
            return Err(Error::new(ErrorCode::InvalidReplicaAssignment, message));
        };
        if rules.election != Election::Unclean {
            let message = format!(
                "unable to revert the assignment of {}:{index}: it would take an unclean leader election",
                topic.name
            );
            return Err(Error::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        change.isr.push(first);
    }
    change.adding_replicas.clear();
    change.removing_replicas.clear();
    Ok(build(turn, partition, change))
}

/// ListPartitionReassignments: what is under way, of some topics or of all.
pub(super) fn list_partition_reassignments(
    image: &MetadataImage,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let topics = match &request.topics {
        None => image
            .topics
            .iter()
            .filter_map(|topic| ongoing(topic, topic.partitions.keys().copied()))
            .collect(),
        Some(topics) => topics
            .iter()
            .filter_map(|asked| {
                let topic = image.topics.by_name(&asked.name)?;
                ongoing(topic, asked.partition_indexes.iter().copied())
            })
            .collect(),
    };
    ListPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_topics(topics)
}

fn ongoing(
    topic: &TopicImage,
    indexes: impl Iterator<Item = i32>,
) -> Option<OngoingTopicReassignment> {
    let wire = |ids: &[BrokerId]| ids.iter().copied().map(WireBrokerId).collect();
    let partitions: Vec<_> = indexes
        .filter_map(|index| {
            let partition = topic.partitions.get(&index).filter(|p| is_reassigned(p))?;
            let ongoing = OngoingPartitionReassignment::default()
                .with_partition_index(index)
                .with_replicas(wire(&partition.replicas))
                .with_adding_replicas(wire(&partition.adding_replicas))
                .with_removing_replicas(wire(&partition.removing_replicas));
            Some(ongoing)
        })
        .collect();
    let name = TopicName(StrBytes::from_string(topic.name.to_string()));
    let found = OngoingTopicReassignment::default().with_name(name);
    (!partitions.is_empty()).then(|| found.with_partitions(partitions))
}
