//! The records that consumer groups of the newer protocol (KIP-848), share groups (KIP-932) and streams groups (KIP-1071) have
//! in `__consumer_offsets`, in Kafka's schemas. Only shown (`ottla dump-log`): nothing here writes them.
//!
//! | type | what | | type | what | | type | what |
//! |--:|---|---|--:|---|---|--:|---|
//! | 3 | consumer group | | 10 | share group's member | | 17 | streams group |
//! | 4 | its partitions | | 11 | share group | | 19 | its member |
//! | 5 | its member | | 12 | its target assignment | | 20 | its target assignment |
//! | 6 | its target assignment | | 13 | the same of a member | | 21 | the same of a member |
//! | 7 | the same of a member | | 14 | what a member has | | 22 | what a member has |
//! | 8 | what a member has | | 15 | partitions with state | | 23 | its topology |
//! | 16 | its regular expression | | | | | | |

use bytes::Bytes;
use uuid::Uuid;

use super::json::{self, ToJson};
use super::wire::{self, Decode, DecodeError, Encode, Encoder, Reader, Version, message};

/// The body of a key of type `kind` as JSON.
pub fn key_json(kind: i16, body: &mut Bytes) -> Result<String, DecodeError> {
    Ok(match kind {
        3 | 4 | 6 | 11 | 12 | 15 | 17 | 20 | 23 => json::text(&GroupKey::decode(body, 0)?, 0),
        5 | 7 | 8 | 10 | 13 | 14 | 19 | 21 | 22 => json::text(&MemberKey::decode(body, 0)?, 0),
        16 => json::text(&RegularExpressionKey::decode(body, 0)?, 0),
        _ => return Err(DecodeError::UnknownType(i32::from(kind))),
    })
}

/// The body of a value that belongs to a key of type `kind`, as JSON.
pub fn value_json(kind: i16, body: &mut Bytes, version: i16) -> Result<String, DecodeError> {
    match kind {
        3 => show::<ConsumerGroupMetadataValue>(body, version),
        4 => show::<ConsumerGroupPartitionMetadataValue>(body, version),
        5 => show::<ConsumerGroupMemberMetadataValue>(body, version),
        6 | 12 | 20 => show::<TargetAssignmentMetadataValue>(body, version),
        7 | 13 => show::<TargetAssignmentMemberValue>(body, version),
        8 => show::<ConsumerGroupCurrentMemberAssignmentValue>(body, version),
        10 => show::<ShareGroupMemberMetadataValue>(body, version),
        11 => show::<ShareGroupMetadataValue>(body, version),
        14 => show::<ShareGroupCurrentMemberAssignmentValue>(body, version),
        15 => show::<ShareGroupStatePartitionMetadataValue>(body, version),
        16 => show::<ConsumerGroupRegularExpressionValue>(body, version),
        17 => show::<StreamsGroupMetadataValue>(body, version),
        19 => show::<StreamsGroupMemberMetadataValue>(body, version),
        21 => show::<StreamsGroupTargetAssignmentMemberValue>(body, version),
        22 => show::<StreamsGroupCurrentMemberAssignmentValue>(body, version),
        23 => show::<StreamsGroupTopologyValue>(body, version),
        _ => Err(DecodeError::UnknownType(i32::from(kind))),
    }
}

/// All values have one version so far, and it is flexible.
fn show<T: Decode + ToJson>(body: &mut Bytes, version: i16) -> Result<String, DecodeError> {
    let first = Version {
        number: 0,
        flexible: true,
    };
    if version != first.number {
        return Err(DecodeError::UnknownVersion(version));
    }
    let value: T = wire::decode(body, first)?;
    Ok(json::text(&value, version))
}

/// A structure that may be null has a byte in front: 1, or for null -1, but 0 where it is a tagged field.
macro_rules! nullable {
    ($($type:ident: $null:literal),*) => { $(
        impl Encode for Option<$type> {
            fn write(&self, out: &mut Encoder<'_>, version: Version) {
                match self {
                    Some(value) => {
                        1i8.write(out, version);
                        value.write(out, version);
                    }
                    None => i8::write(&$null, out, version),
                }
            }
            fn is_null(&self) -> bool {
                self.is_none()
            }
        }
        impl Decode for Option<$type> {
            fn read(from: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
                if i8::read(from, version)? == $null {
                    return Ok(None);
                }
                $type::read(from, version).map(Some)
            }
        }
    )* };
}
nullable!(ClassicMemberMetadata: 0, Endpoint: -1);

message! {
    GroupKey(0..=0) {
        group_id: String, 0..;
    }
}

message! {
    MemberKey(0..=0) {
        group_id: String, 0..;
        member_id: String, 0..;
    }
}

message! {
    RegularExpressionKey(0..=0) {
        group_id: String, 0..;
        regular_expression: String, 0..;
    }
}

message! {
    ConsumerGroupMetadataValue(0..=0, flexible 0) {
        epoch: i32, 0..;
        metadata_hash: i64, 0.., tag 0;
    }
}

message! {
    /// Since Kafka 4.1 only with a null value, to take out what older releases wrote.
    ConsumerGroupPartitionMetadataValue(0..=0, flexible 0) {
        topics: Vec<TopicMetadata>, 0..;
    }
    TopicMetadata {
        topic_id: Uuid, 0..;
        topic_name: String, 0..;
        num_partitions: i32, 0..;
        partition_metadata: Vec<PartitionMetadata>, 0..;
    }
    PartitionMetadata {
        partition: i32, 0..;
        racks: Vec<String>, 0..;
    }
}

message! {
    ConsumerGroupMemberMetadataValue(0..=0, flexible 0) {
        instance_id: Option<String>, 0..;
        rack_id: Option<String>, 0..;
        client_id: String, 0..;
        client_host: String, 0..;
        subscribed_topic_names: Vec<String>, 0..;
        subscribed_topic_regex: Option<String>, 0..;
        rebalance_timeout_ms: i32 = -1, 0..;
        server_assignor: Option<String>, 0..;
        classic_member_metadata: Option<ClassicMemberMetadata> = Some(ClassicMemberMetadata::default()), 0.., tag 0;
    }
    /// Of a member that uses the classic protocol.
    ClassicMemberMetadata {
        session_timeout_ms: i32, 0..;
        supported_protocols: Vec<ClassicProtocol>, 0..;
    }
    ClassicProtocol {
        name: String, 0..;
        metadata: Bytes, 0..;
    }
}

message! {
    /// Of all three kinds of groups.
    TargetAssignmentMetadataValue(0..=0, flexible 0) {
        assignment_epoch: i32, 0..;
        assignment_timestamp: i64, 0.., tag 0;
    }
}

message! {
    /// Of consumer and share groups.
    TargetAssignmentMemberValue(0..=0, flexible 0) {
        topic_partitions: Vec<TopicPartitions>, 0..;
    }
    TopicPartitions {
        topic_id: Uuid, 0..;
        partitions: Vec<i32>, 0..;
    }
}

message! {
    ConsumerGroupCurrentMemberAssignmentValue(0..=0, flexible 0) {
        member_epoch: i32, 0..;
        previous_member_epoch: i32, 0..;
        state: i8, 0..;
        assigned_partitions: Vec<TopicPartitionsWithEpochs>, 0..;
        partitions_pending_revocation: Vec<TopicPartitionsWithEpochs>, 0..;
    }
    TopicPartitionsWithEpochs {
        topic_id: Uuid, 0..;
        partitions: Vec<i32>, 0..;
        assignment_epochs: Option<Vec<i32>> = Some(Vec::new()), 0.., tag 0;
    }
}

message! {
    ShareGroupMemberMetadataValue(0..=0, flexible 0) {
        rack_id: Option<String>, 0..;
        client_id: String, 0..;
        client_host: String, 0..;
        subscribed_topic_names: Vec<String>, 0..;
    }
}

message! {
    ShareGroupMetadataValue(0..=0, flexible 0) {
        epoch: i32, 0..;
        metadata_hash: i64, 0..;
    }
}

message! {
    ShareGroupCurrentMemberAssignmentValue(0..=0, flexible 0) {
        member_epoch: i32, 0..;
        previous_member_epoch: i32, 0..;
        state: i8, 0..;
        assigned_partitions: Vec<TopicPartitions>, 0..;
    }
}

message! {
    ShareGroupStatePartitionMetadataValue(0..=0, flexible 0) {
        initializing_topics: Vec<TopicPartitionsInfo>, 0..;
        initialized_topics: Vec<TopicPartitionsInfo>, 0..;
        deleting_topics: Vec<TopicInfo>, 0..;
    }
    TopicPartitionsInfo {
        topic_id: Uuid, 0..;
        topic_name: String, 0..;
        partitions: Vec<i32>, 0..;
    }
    TopicInfo {
        topic_id: Uuid, 0..;
        topic_name: String, 0..;
    }
}

message! {
    ConsumerGroupRegularExpressionValue(0..=0, flexible 0) {
        topics: Vec<String>, 0..;
        version: i64, 0..;
        timestamp: i64, 0..;
    }
}

message! {
    StreamsGroupMetadataValue(0..=0, flexible 0) {
        epoch: i32, 0..;
        metadata_hash: i64, 0..;
        validated_topology_epoch: i32 = -1, 0.., tag 0;
        last_assignment_configs: Option<Vec<KeyValue>> = Some(Vec::new()), 0.., tag 1;
    }
    KeyValue {
        key: String, 0..;
        value: String, 0..;
    }
}

message! {
    StreamsGroupMemberMetadataValue(0..=0, flexible 0) {
        instance_id: Option<String>, 0..;
        rack_id: Option<String>, 0..;
        client_id: String, 0..;
        client_host: String, 0..;
        rebalance_timeout_ms: i32 = -1, 0..;
        topology_epoch: i32, 0..;
        process_id: String, 0..;
        user_endpoint: Option<Endpoint>, 0..;
        client_tags: Vec<KeyValue>, 0..;
    }
    Endpoint {
        host: String, 0..;
        port: u16, 0..;
    }
}

message! {
    StreamsGroupTargetAssignmentMemberValue(0..=0, flexible 0) {
        active_tasks: Vec<TaskIds>, 0..;
        standby_tasks: Vec<TaskIds>, 0..;
        warmup_tasks: Vec<TaskIds>, 0..;
    }
    TaskIds {
        subtopology_id: String, 0..;
        partitions: Vec<i32>, 0..;
    }
}

message! {
    StreamsGroupCurrentMemberAssignmentValue(0..=0, flexible 0) {
        member_epoch: i32, 0..;
        previous_member_epoch: i32, 0..;
        state: i8, 0..;
        active_tasks: Vec<TaskIdsWithEpochs>, 0..;
        standby_tasks: Vec<TaskIdsWithEpochs>, 0..;
        warmup_tasks: Vec<TaskIdsWithEpochs>, 0..;
        active_tasks_pending_revocation: Vec<TaskIdsWithEpochs>, 0..;
        standby_tasks_pending_revocation: Vec<TaskIdsWithEpochs>, 0..;
        warmup_tasks_pending_revocation: Vec<TaskIdsWithEpochs>, 0..;
    }
    TaskIdsWithEpochs {
        subtopology_id: String, 0..;
        partitions: Vec<i32>, 0..;
        assignment_epochs: Option<Vec<i32>> = Some(Vec::new()), 0.., tag 0;
    }
}

message! {
    StreamsGroupTopologyValue(0..=0, flexible 0) {
        epoch: i32, 0..;
        subtopologies: Vec<Subtopology>, 0..;
    }
    Subtopology {
        subtopology_id: String, 0..;
        source_topics: Vec<String>, 0..;
        source_topic_regex: Vec<String>, 0..;
        state_changelog_topics: Vec<InternalTopic>, 0..;
        repartition_sink_topics: Vec<String>, 0..;
        repartition_source_topics: Vec<InternalTopic>, 0..;
        copartition_groups: Vec<CopartitionGroup>, 0..;
    }
    /// `TopicInfo` in Kafka's schema.
    InternalTopic {
        name: String, 0..;
        partitions: i32, 0..;
        replication_factor: i16, 0..;
        topic_configs: Vec<KeyValue>, 0..;
    }
    CopartitionGroup {
        source_topics: Vec<i16>, 0..;
        source_topic_regex: Vec<i16>, 0..;
        repartition_source_topics: Vec<i16>, 0..;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type, key, value (both in hex) and their JSON, of random records that Kafka 4.3.1's own classes wrote and printed.
    const GOLDEN: &str = include_str!("testdata/newer_group_records.tsv");

    fn unhex(text: &str) -> Bytes {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn records_of_every_type_look_as_kafka_prints_them() {
        let mut kinds = std::collections::BTreeSet::new();
        for line in GOLDEN.lines() {
            let [kind, key, value, key_text, value_text] = line.split('\t').collect::<Vec<_>>()[..]
            else {
                panic!("{line}");
            };
            let kind: i16 = kind.parse().unwrap();
            kinds.insert(kind);
            let shown = key_json(kind, &mut unhex(key).slice(2..));
            assert_eq!(shown.as_deref(), Ok(key_text), "{line}");
            let shown = value_json(kind, &mut unhex(value).slice(2..), 0);
            assert_eq!(shown.as_deref(), Ok(value_text), "{line}");
        }
        let all = (3..=23).filter(|kind| ![9, 18].contains(kind));
        assert!(kinds.into_iter().eq(all));
    }

    #[test]
    fn unknown_types_and_versions_are_refused() {
        let unknown = key_json(9, &mut Bytes::from_static(b"\0\0"));
        assert_eq!(unknown, Err(DecodeError::UnknownType(9)));
        let newer = value_json(3, &mut Bytes::from_static(b"\0\0\0\0\0"), 1);
        assert_eq!(newer, Err(DecodeError::UnknownVersion(1)));
    }
}
