//! What nodes and clients send each other, and what happens by itself.

use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerRegistrationRequest,
    BrokerRegistrationResponse,
};

use super::faults::Fault;
use super::replica_log::Entry;
use super::{NodeId, PartitionIndex};
use crate::log::EpochEndOffset;
use crate::protocol::ErrorCode;
use crate::protocol::messages::broker_heartbeat::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse,
};
use crate::replica::SessionRequest;
use crate::types::{LeaderEpoch, Offset, ProducerId};

/// Pairs an answer with its request; of the sender's counting.
pub type RequestId = u64;

#[derive(Clone, Debug)]
pub enum ControllerRequest {
    Register(BrokerRegistrationRequest),
    Heartbeat(BrokerHeartbeatRequest),
    AlterPartition(AlterPartitionRequest),
}

#[derive(Clone, Debug)]
pub enum ControllerAnswer {
    NotController,
    Registered(BrokerRegistrationResponse),
    Heartbeat(BrokerHeartbeatResponse),
    AlterPartition(AlterPartitionResponse),
}

/// A follower's fetch.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    pub broker_epoch: i64,
    pub session: SessionRequest,
}

/// What a leader answers: in a session that goes on, of those partitions only that have news.
#[derive(Clone, Debug)]
pub struct FetchResponse {
    pub session_id: i32,
    pub partitions: Vec<(PartitionIndex, Fetched)>,
}

#[derive(Clone, Debug)]
pub enum Fetched {
    Records {
        entries: Vec<Entry>,
        high_watermark: Offset,
    },
    Diverging(EpochEndOffset),
    /// The leader's log ends at this offset.
    OutOfRange(Offset),
    Refused,
}

#[derive(Clone, Copy, Debug)]
pub struct Produce {
    pub partition: PartitionIndex,
    pub producer_id: ProducerId,
    pub sequence: i32,
}

/// A consumer's fetch of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Consume {
    pub partition: PartitionIndex,
    pub leader_epoch: LeaderEpoch,
    pub offset: Offset,
    /// Else any replica will do (KIP-392).
    pub leader_only: bool,
}

#[derive(Clone, Debug)]
pub enum Message {
    ToController(RequestId, ControllerRequest),
    FromController(RequestId, ControllerAnswer),
    /// An observer asks for what is committed behind the batches that it has.
    FollowMetadata(usize),
    /// Batches from the first index to the second are committed.
    Metadata {
        from: usize,
        to: usize,
    },
    Fetch(RequestId, FetchRequest),
    Fetched(RequestId, Result<FetchResponse, ErrorCode>),
    Produce(RequestId, Produce),
    Produced(RequestId, Result<Offset, ErrorCode>),
    Consume(RequestId, Consume),
    Consumed(RequestId, Result<Vec<Entry>, ErrorCode>),
}

/// What a process wakes up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    FollowMetadata,
    Heartbeat,
    ReplicaTick,
    /// Fetch from that leader, now and then.
    Fetch(NodeId),
    /// Fetch from it once: the last answer had records.
    FetchMore(NodeId),
    /// Sync some log, write checkpoints.
    Flush,
    Controller,
    /// Send the proposals that wait.
    Propose,
    /// Whether the AlterPartition under way is answered by now.
    AlterPartition(RequestId),
}

#[derive(Clone, Debug)]
pub enum Event {
    Deliver {
        from: NodeId,
        to: NodeId,
        message: Message,
    },
    /// Of the process with that number on the node; void after its death.
    Timer {
        node: NodeId,
        process: u64,
        timer: Timer,
    },
    /// The oldest proposal of the controller on `node` is on a majority, if it still leads.
    Commit {
        node: NodeId,
        process: u64,
        epoch: LeaderEpoch,
    },
    /// The voters look whether they hear their leader.
    Quorum,
    /// Somebody has a voter added or removed.
    ChangeVoters,
    Client(usize),
    Consumer(usize),
    Fault(Fault),
    Restart(NodeId),
    Resume(NodeId),
    HealNetwork,
}
