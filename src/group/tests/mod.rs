//! The group coordinator of one partition, driven by hand over a log in memory and a clock that stands still.

mod membership;
mod offsets;
mod replay;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupResponse,
};
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::ClientInfo;
use super::config::GroupConfig;
use super::hard_state::GroupState;
use super::member::{Protocol, Reply, wire};
use super::rebalance::{JoinRequest, SyncRequest};
use super::shard::{GroupShard, Operation};
use crate::coordinator::test_log::TestLog;
use crate::coordinator::{Executor, Now, PartitionWriter, RuntimeConfig, load};
use crate::protocol::batch::CompressionType;
use crate::protocol::error::ErrorCode;
use crate::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    OffsetCommitResponse,
};
use crate::protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use crate::types::{TopicPartition, Uuid};

const TOPIC_ID: Uuid = Uuid::from_u128(7);
const GROUP: &str = "group";

/// One partition's coordinator and its surroundings.
struct Sim {
    log: Arc<TestLog>,
    config: Arc<GroupConfig>,
    executor: Executor<GroupShard>,
    now_ms: i64,
    ids: u32,
}

/// An answer that has come, or has not.
type Answer<T> = Receiver<Result<T, ErrorCode>>;

impl Sim {
    fn new() -> Self {
        Self::with(GroupConfig::default())
    }

    fn with(config: GroupConfig) -> Self {
        let (log, config) = (Arc::new(TestLog::new()), Arc::new(config));
        let executor = Self::load(&log, &config);
        let mut sim = Self {
            log,
            config,
            executor,
            now_ms: 1_000_000,
            ids: 0,
        };
        sim.executor.on_loaded(sim.now());
        sim
    }

    fn load(log: &Arc<TestLog>, config: &Arc<GroupConfig>) -> Executor<GroupShard> {
        let tp = TopicPartition::new("__consumer_offsets", 0);
        let high_watermark = log.high_watermark(&tp).expect("a log");
        let committed = *high_watermark.borrow();
        let loaded =
            load(&**log, &tp, committed, config.offsets_load_buffer_bytes).expect("sound log");
        let runtime = RuntimeConfig {
            write_timeout_ms: 5_000,
            compression: CompressionType::None,
            load_bytes: config.offsets_load_buffer_bytes,
        };
        let shard = GroupShard::new(config.clone());
        Executor::new(tp, 0, runtime, log.clone(), high_watermark, loaded, shard)
    }

    /// The state that another broker would load now.
    fn loaded_state(&self) -> GroupState {
        let tp = TopicPartition::new("__consumer_offsets", 0);
        load(&*self.log, &tp, 0, self.config.offsets_load_buffer_bytes)
            .expect("sound log")
            .state
    }

    /// The coordinator moves to another broker.
    fn fail_over(&mut self) {
        let executor = Self::load(&self.log, &self.config);
        let old = std::mem::replace(&mut self.executor, executor);
        old.unload(self.now(), &ErrorCode::NotCoordinator.into());
        self.executor.on_loaded(self.now());
    }

    fn now(&self) -> Now {
        Now {
            monotonic_ms: self.now_ms,
            wall_ms: self.now_ms,
        }
    }

    /// Lets time pass, with every timer at its own time.
    fn advance(&mut self, by_ms: i64) {
        let end = self.now_ms + by_ms;
        while let Some(at) = self.executor.next_deadline_ms().filter(|at| *at <= end) {
            self.now_ms = self.now_ms.max(at);
            self.flush();
        }
        self.now_ms = end;
        self.flush();
    }

    fn flush(&mut self) {
        self.executor.advance(self.now());
        self.executor.flush(self.now());
    }

    fn send<T>(&mut self, op: impl FnOnce(Reply<T>) -> Operation) -> Answer<T> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.executor.handle(self.now(), op(reply));
        self.flush();
        answer
    }

    fn join(&mut self, join: Join) -> Answer<JoinGroupResponse> {
        self.ids += 1;
        let new_member_id = format!("m{}", self.ids).into();
        self.send(|reply| Operation::Join(Box::new(join.request(new_member_id)), reply))
    }

    /// Joins without an id and again with the one it gets; returns the id, too.
    fn join_new(&mut self, join: &Join) -> (String, Answer<JoinGroupResponse>) {
        let required = done(self.join(join.clone()));
        assert_eq!(required.error_code, ErrorCode::MemberIdRequired.code());
        let id = required.member_id.to_string();
        let answer = self.join(join.clone().member(&id));
        (id, answer)
    }

    fn sync(
        &mut self,
        member: &str,
        generation_id: i32,
        assignments: &[(&str, &str)],
    ) -> Answer<SyncGroupResponse> {
        let request = SyncRequest {
            group_id: GROUP.into(),
            member_id: member.into(),
            group_instance_id: None,
            generation_id,
            protocol_type: Some("consumer".into()),
            protocol_name: None,
            assignments: assignments
                .iter()
                .map(|(id, bytes)| ((*id).into(), Bytes::copy_from_slice(bytes.as_bytes())))
                .collect(),
        };
        self.send(|reply| Operation::Sync(Box::new(request), reply))
    }

    fn heartbeat(&mut self, member: &str, generation_id: i32) -> Result<(), ErrorCode> {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(wire(GROUP)))
            .with_member_id(wire(member))
            .with_generation_id(generation_id);
        outcome(self.send(|reply| Operation::Heartbeat(Box::new(request), reply)))
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Result<LeaveGroupResponse, ErrorCode> {
        let members = members.iter().map(|(id, instance)| {
            MemberIdentity::default()
                .with_member_id(wire(id))
                .with_group_instance_id(instance.map(wire))
        });
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(wire(GROUP)))
            .with_members(members.collect());
        outcome(self.send(|reply| Operation::Leave(Box::new(request), reply)))
    }

    fn describe(&mut self, group: &str) -> DescribedGroup {
        let groups = vec![group.into()];
        done(self.send(|reply| Operation::Describe(6, groups, reply))).remove(0)
    }

    fn state(&mut self) -> String {
        self.describe(GROUP).group_state.to_string()
    }

    /// One member, stable in generation 1.
    fn stable(&mut self) -> String {
        let (id, joined) = self.join_new(&Join::default());
        self.advance(3_000);
        assert_eq!(done(joined).generation_id, 1);
        assert_eq!(done(self.sync(&id, 1, &[(&id, "a")])).assignment, "a");
        id
    }

    fn commit(&mut self, commit: Commit) -> Answer<OffsetCommitResponse> {
        let request = commit.request();
        self.send(|reply| Operation::OffsetCommit(commit.version, Box::new(request), reply))
    }

    /// The group's offset of partition 0 of a topic; -1 for none, or the partition's error.
    fn fetch(&mut self, group: &str, topic: &str, require_stable: bool) -> Result<i64, i16> {
        let request = fetch_request(group, topic, Uuid::nil());
        let response =
            done(self.send(|r| Operation::OffsetFetch(require_stable, Box::new(request), r)));
        let partition = &response.topics[0].partitions[0];
        match partition.error_code {
            0 => Ok(partition.committed_offset),
            code => Err(code),
        }
    }
}

/// A JoinGroup of a consumer, version 9, to be varied.
#[derive(Clone)]
struct Join {
    group: &'static str,
    version: i16,
    member: String,
    instance: Option<&'static str>,
    protocols: Vec<(&'static str, Bytes)>,
    session_timeout_ms: i32,
    rebalance_timeout_ms: i32,
}

impl Default for Join {
    fn default() -> Self {
        Self {
            group: GROUP,
            version: 9,
            member: String::new(),
            instance: None,
            protocols: vec![("range", subscription(&["t"]))],
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
        }
    }
}

impl Join {
    fn member(mut self, id: &str) -> Self {
        self.member = id.to_owned();
        self
    }

    fn instance(mut self, id: &'static str) -> Self {
        self.instance = Some(id);
        self
    }

    fn version(mut self, version: i16) -> Self {
        self.version = version;
        self
    }

    fn protocols(mut self, names: &[&'static str]) -> Self {
        self.protocols = names
            .iter()
            .map(|name| (*name, subscription(&["t"])))
            .collect();
        self
    }

    fn request(self, new_member_id: Arc<str>) -> JoinRequest {
        JoinRequest {
            client: ClientInfo {
                client_id: "client".into(),
                client_host: "/127.0.0.1".into(),
            },
            version: self.version,
            group_id: self.group.into(),
            member_id: self.member.into(),
            new_member_id,
            group_instance_id: self.instance.map(Into::into),
            protocol_type: "consumer".into(),
            protocols: self
                .protocols
                .into_iter()
                .map(|(name, metadata)| Protocol {
                    name: name.into(),
                    metadata,
                })
                .collect(),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
        }
    }
}

/// An OffsetCommit of partition 0, without membership, to be varied.
#[derive(Clone)]
struct Commit {
    version: i16,
    group: &'static str,
    member: String,
    generation_id: i32,
    topic: &'static str,
    offset: i64,
    metadata: String,
    retention_time_ms: i64,
}

impl Default for Commit {
    fn default() -> Self {
        Self {
            version: 9,
            group: GROUP,
            member: String::new(),
            generation_id: -1,
            topic: "t",
            offset: 1,
            metadata: String::new(),
            retention_time_ms: -1,
        }
    }
}

impl Commit {
    fn request(&self) -> OffsetCommitRequest {
        let partition = OffsetCommitRequestPartition {
            committed_offset: self.offset,
            committed_metadata: Some(wire(&self.metadata)),
            ..Default::default()
        };
        OffsetCommitRequest {
            group_id: wire(self.group),
            member_id: wire(&self.member),
            generation_id_or_member_epoch: self.generation_id,
            retention_time_ms: self.retention_time_ms,
            topics: vec![OffsetCommitRequestTopic {
                name: wire(self.topic),
                topic_id: TOPIC_ID,
                partitions: vec![partition],
            }],
            ..Default::default()
        }
    }
}

/// Asks for partition 0 of a topic.
fn fetch_request(group: &str, topic: &str, topic_id: Uuid) -> OffsetFetchRequestGroup {
    OffsetFetchRequestGroup {
        group_id: wire(group),
        topics: Some(vec![OffsetFetchRequestTopics {
            name: wire(topic),
            topic_id,
            partition_indexes: vec![0],
        }]),
        ..Default::default()
    }
}

/// A consumer's subscription, version 0.
fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        bytes.put_i16(topic.len() as i16);
        bytes.put_slice(topic.as_bytes());
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

fn outcome<T>(mut answer: Answer<T>) -> Result<T, ErrorCode> {
    answer.try_recv().expect("an answer")
}

fn done<T>(answer: Answer<T>) -> T {
    outcome(answer).expect("success")
}

fn waits<T>(answer: &mut Answer<T>) -> bool {
    matches!(answer.try_recv(), Err(TryRecvError::Empty))
}
