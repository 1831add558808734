//! Fetch (key 1), v4-18. The response is generic over where its records lie, so that a server can send them from
//! a file: [`FetchResponse::encode_chunks`].

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::protocol::wire::{self, EncodeError, Payload, Records, message};

impl<R: Payload> FetchResponse<R> {
    /// Encodes the body in pieces: bytes in between, and the records as they were given, in order.
    pub fn encode_chunks<C>(self, version: i16) -> Result<Vec<C>, EncodeError>
    where
        C: From<Bytes> + From<R>,
    {
        let unknown = EncodeError::UnknownVersion(version);
        let mut buf = BytesMut::with_capacity(256);
        let splices = wire::encode(&self, &mut buf, Self::version(version).ok_or(unknown)?)?;
        let mut chunks = Vec::with_capacity(2 * splices.len() + 1);
        let partitions = self
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions);
        let records = partitions.filter_map(|partition| partition.records.0);
        let mut position = 0;
        for (splice, records) in splices
            .iter()
            .zip(records.filter(|records| records.size_bytes() > 0))
        {
            chunks.push(buf.split_to(splice.position - position).freeze().into());
            chunks.push(records.into());
            position = splice.position;
        }
        if !buf.is_empty() {
            chunks.push(buf.freeze().into());
        }
        Ok(chunks)
    }
}

message! {
    FetchRequest(4..=18, flexible 12) {
        cluster_id: Option<StrBytes>, 12.., tag 0;
        replica_id: i32 = -1, ..=14;
        replica_state: ReplicaState, 15.., tag 1;
        max_wait_ms: i32, 0..;
        min_bytes: i32, 0..;
        max_bytes: i32 = i32::MAX, 3..;
        isolation_level: i8, 4..;
        session_id: i32, 7..;
        session_epoch: i32 = -1, 7..;
        topics: Vec<FetchTopic>, 0..;
        forgotten_topics_data: Vec<ForgottenTopic>, 7..;
        rack_id: StrBytes, 11..;
    }
    ReplicaState {
        replica_id: i32 = -1, 15..;
        replica_epoch: i64 = -1, 15..;
    }
    FetchTopic {
        topic: StrBytes, ..=12;
        topic_id: Uuid, 13..;
        partitions: Vec<FetchPartition>, 0..;
    }
    FetchPartition {
        partition: i32, 0..;
        current_leader_epoch: i32 = -1, 9..;
        fetch_offset: i64, 0..;
        last_fetched_epoch: i32 = -1, 12..;
        log_start_offset: i64 = -1, 5..;
        partition_max_bytes: i32, 0..;
        replica_directory_id: Uuid, 17.., tag 0;
        high_watermark: i64 = i64::MAX, 18.., tag 1;
    }
    ForgottenTopic {
        topic: StrBytes, 7..=12;
        topic_id: Uuid, 13..;
        partitions: Vec<i32>, 7..;
    }
}

message! {
    FetchResponse<R>(4..=18, flexible 12) {
        throttle_time_ms: i32, 1..;
        error_code: i16, 7..;
        session_id: i32, 7..;
        responses: Vec<FetchableTopicResponse<R>>, 0..;
        node_endpoints: Vec<NodeEndpoint>, 16.., tag 0;
    }
    FetchableTopicResponse<R> {
        topic: StrBytes, ..=12;
        topic_id: Uuid, 13..;
        partitions: Vec<PartitionData<R>>, 0..;
    }
    PartitionData<R> {
        partition_index: i32, 0..;
        error_code: i16, 0..;
        high_watermark: i64, 0..;
        last_stable_offset: i64 = -1, 4..;
        log_start_offset: i64 = -1, 5..;
        diverging_epoch: EpochEndOffset, 12.., tag 0;
        /// Who leads instead, with NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH.
        current_leader: LeaderIdAndEpoch, 12.., tag 1;
        snapshot_id: SnapshotId, 12.., tag 2;
        aborted_transactions: Option<Vec<AbortedTransaction>>, 4..;
        preferred_read_replica: i32 = -1, 11..;
        records: Records<R>, 0..;
    }
    EpochEndOffset {
        epoch: i32 = -1, 12..;
        end_offset: i64 = -1, 12..;
    }
    LeaderIdAndEpoch {
        leader_id: i32 = -1, 12..;
        leader_epoch: i32 = -1, 12..;
    }
    SnapshotId {
        end_offset: i64 = -1, 0..;
        epoch: i32 = -1, 0..;
    }
    AbortedTransaction {
        producer_id: i64, 4..;
        first_offset: i64, 4..;
    }
    NodeEndpoint {
        node_id: i32, 16..;
        host: StrBytes, 16..;
        port: i32, 16..;
        rack: Option<StrBytes>, 16..;
    }
}
