//! Valid frames for a controller's listener that get further than made-up ones: with the ids and epochs of the quorum there, for a
//! broker of their own that may come to harm, inside an Envelope, and raft's private requests.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_partition_request as alter;
use kafka_protocol::messages::assign_replicas_to_dirs_request as assign;
use kafka_protocol::messages::describe_quorum_request as quorum;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use kafka_protocol::messages::fetch_snapshot_request as snapshot;
use kafka_protocol::messages::update_raft_voter_request as voter;
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, ApiVersionsRequest,
    AssignReplicasToDirsRequest, BrokerHeartbeatRequest, BrokerId, BrokerRegistrationRequest,
    ControllerRegistrationRequest, DescribeClusterRequest, DescribeQuorumRequest, EnvelopeRequest,
    FetchRequest, FetchSnapshotRequest, RequestHeader, UpdateRaftVoterRequest,
    broker_registration_request, controller_registration_request,
};
use kafka_protocol::protocol::{Encodable, Message, Request, StrBytes};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use openraft::type_config::alias::SnapshotMetaOf;
use openraft::{LogId, Vote};
use ottla::protocol::principal::Principal;
use ottla::quorum::{RAFT_API_KEY, RaftRequest, TypeConfig, VoterEndpoint, VoterNode, raft_id};
use uuid::Uuid;

use crate::seeds::{self, PHANTOM, Seed};
use crate::setup::topic_name;
use crate::wire::{Connection, Outcome};

type SnapshotMeta = SnapshotMetaOf<TypeConfig>;

const METADATA_TOPIC: &str = "__cluster_metadata";
const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);
const CONTROLLERS: i8 = 2;
/// Nobody listens there.
const NOWHERE: (&str, u16) = ("127.0.0.1", 1);
/// A term that no quorum here comes to by itself.
const HIGH_TERM: u64 = 10_000;
/// What brokers pass on (`ApiKeys.forwardable`), as far as frames are made up for it.
const FORWARDABLE: [i16; 11] = [19, 20, 33, 37, 43, 44, 45, 46, 55, 57, 80];

/// What a controller tells of itself and its quorum.
struct Target {
    cluster_id: StrBytes,
    voter: i32,
    directory: Uuid,
    leader_epoch: i32,
    end_offset: i64,
    topic_id: Uuid,
    /// Those finalized, with their levels.
    features: Vec<(StrBytes, i16)>,
    /// Of the broker that the frames are about.
    phantom_epoch: i64,
}

/// Frames for the active controller at the other end of `conn`; `plain` are those for any listener, to go in envelopes.
pub fn all(conn: &mut Connection, topic_id: Uuid, plain: &[Seed]) -> Outcome<Vec<Seed>> {
    let mut target = Target::ask(conn, topic_id)?;
    target.register_phantom(conn)?;
    let mut out = Vec::new();
    target.of_brokers(&mut out);
    target.of_replicas(&mut out);
    target.of_observers(&mut out);
    target.of_controllers(&mut out);
    let key = |seed: &Seed| i16::from_be_bytes([seed.bytes[0], seed.bytes[1]]);
    let passed_on = plain.iter().filter(|seed| FORWARDABLE.contains(&key(seed)));
    for inside in passed_on.step_by(3) {
        let request = EnvelopeRequest::default()
            .with_request_data(inside.bytes.clone().into())
            .with_request_principal(Some(Principal::anonymous().to_bytes()))
            .with_client_host_address(Bytes::from_static(&[127, 0, 0, 1]));
        every_version(&request, &mut out);
    }
    target.of_voters(&mut out)?;
    Ok(out)
}

/// Requests for the vote of the active controller at the other end of `conn`, in terms to come: of the controller itself, which is
/// refused, and of another. Who asks wins no election, so the controller is to win the next.
pub fn candidacies(conn: &mut Connection, topic_id: Uuid) -> Outcome<Vec<Seed>> {
    let target = Target::ask(conn, topic_id)?;
    let (own_id, other_id) = target.raft_ids();
    let log_id = LogId::new_term_index(HIGH_TERM, HIGH_TERM);
    let asked = [(HIGH_TERM, own_id), (HIGH_TERM - 1, other_id)].map(|(term, candidate)| {
        let mut asked = VoteRequest::new(Vote::new(term, candidate), Some(log_id));
        // Else the leader's lease would protect it.
        asked.leadership_transfer = true;
        target.raft(own_id, term, &RaftRequest::Vote(asked))
    });
    asked.into_iter().collect()
}

fn every_version<R: Request + Message>(request: &R, out: &mut Vec<Seed>) {
    for version in R::VERSIONS.min..=R::VERSIONS.max {
        seeds::push(request, version, out);
    }
}

impl Target {
    fn ask(conn: &mut Connection, topic_id: Uuid) -> Outcome<Self> {
        let request = DescribeClusterRequest::default().with_endpoint_type(CONTROLLERS);
        let cluster_id = conn.call(&request, 1)?.cluster_id;
        let partitions = vec![quorum::PartitionData::default()];
        let topic = quorum::TopicData::default()
            .with_topic_name(topic_name(METADATA_TOPIC))
            .with_partitions(partitions);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        let response = conn.call(&request, 2)?;
        let partition = response.topics.first().and_then(|it| it.partitions.first());
        let partition = partition.ok_or("DescribeQuorum left the metadata log out")?;
        let mut voters = partition.current_voters.iter();
        let leader = voters.find(|it| it.replica_id == partition.leader_id);
        let leader = leader.ok_or("the controller that is attacked must be the active one")?;
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("loadgen"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        let finalized = conn.call(&request, 3)?;
        let finalized = finalized.finalized_features.into_iter();
        let features = finalized.map(|it| (it.name, it.max_version_level));
        Ok(Self {
            cluster_id,
            voter: leader.replica_id.0,
            directory: leader.replica_directory_id,
            leader_epoch: partition.leader_epoch,
            end_offset: partition.high_watermark,
            topic_id,
            features: features.collect(),
            phantom_epoch: -1,
        })
    }

    fn register_phantom(&mut self, conn: &mut Connection) -> Outcome<()> {
        let registered = conn.call(&self.registration(), 3)?;
        if registered.error_code != 0 {
            return Err(format!("BrokerRegistration: error {}", registered.error_code).into());
        }
        self.phantom_epoch = registered.broker_epoch;
        Ok(())
    }

    fn registration(&self) -> BrokerRegistrationRequest {
        let listener = broker_registration_request::Listener::default()
            .with_name(StrBytes::from_static_str("PLAINTEXT"))
            .with_host(StrBytes::from_static_str(NOWHERE.0))
            .with_port(NOWHERE.1);
        let finalized = self.features.iter();
        let features = finalized.map(|(name, level)| {
            broker_registration_request::Feature::default()
                .with_name(name.clone())
                .with_min_supported_version(*level)
                .with_max_supported_version(*level)
        });
        BrokerRegistrationRequest::default()
            .with_broker_id(BrokerId(PHANTOM))
            .with_cluster_id(self.cluster_id.clone())
            .with_incarnation_id(Uuid::from_u128(0xfa))
            .with_listeners(vec![listener])
            .with_features(features.collect())
            .with_log_dirs(vec![Uuid::from_u128(0xd1)])
    }

    /// Of a broker's session.
    fn of_brokers(&self, out: &mut Vec<Seed>) {
        every_version(&self.registration().with_rack(None), out);
        for [fence, stop] in [[false, false], [true, false], [false, true]] {
            let heartbeat = BrokerHeartbeatRequest::default()
                .with_broker_id(BrokerId(PHANTOM))
                .with_broker_epoch(self.phantom_epoch)
                .with_current_metadata_offset(self.end_offset)
                .with_want_fence(fence)
                .with_want_shut_down(stop);
            every_version(&heartbeat, out);
        }
        let ids = AllocateProducerIdsRequest::default()
            .with_broker_id(BrokerId(PHANTOM))
            .with_broker_epoch(self.phantom_epoch);
        every_version(&ids, out);
    }

    /// Of a broker's replicas, of which it has none.
    fn of_replicas(&self, out: &mut Vec<Seed>) {
        let state = alter::BrokerState::default().with_broker_id(BrokerId(PHANTOM));
        let partition = alter::PartitionData::default();
        let by_id = partition.clone().with_new_isr(vec![BrokerId(PHANTOM)]);
        for partition in [by_id, partition.with_new_isr_with_epochs(vec![state])] {
            let topic = alter::TopicData::default()
                .with_topic_id(self.topic_id)
                .with_partitions(vec![partition]);
            let request = AlterPartitionRequest::default()
                .with_broker_id(BrokerId(PHANTOM))
                .with_broker_epoch(self.phantom_epoch)
                .with_topics(vec![topic]);
            every_version(&request, out);
        }
        let topic = assign::TopicData::default()
            .with_topic_id(self.topic_id)
            .with_partitions(vec![assign::PartitionData::default()]);
        let directory = assign::DirectoryData::default()
            .with_id(Uuid::from_u128(0xd1))
            .with_topics(vec![topic]);
        let request = AssignReplicasToDirsRequest::default()
            .with_broker_id(BrokerId(PHANTOM))
            .with_broker_epoch(self.phantom_epoch)
            .with_directories(vec![directory]);
        every_version(&request, out);
    }

    /// Of those who follow the metadata log.
    fn of_observers(&self, out: &mut Vec<Seed>) {
        for (offset, epoch) in [(0, 0), (self.end_offset, self.leader_epoch)] {
            let partition = FetchPartition::default()
                .with_current_leader_epoch(self.leader_epoch)
                .with_fetch_offset(offset)
                .with_last_fetched_epoch(epoch)
                .with_partition_max_bytes(1 << 20);
            let topic = FetchTopic::default()
                .with_topic_id(METADATA_TOPIC_ID)
                .with_partitions(vec![partition]);
            let state = ReplicaState::default().with_replica_id(BrokerId(PHANTOM));
            let request = FetchRequest::default()
                .with_cluster_id(Some(self.cluster_id.clone()))
                .with_replica_state(state)
                .with_max_wait_ms(5)
                .with_max_bytes(1 << 20)
                .with_topics(vec![topic]);
            every_version(&request, out);
            let id = snapshot::SnapshotId::default()
                .with_end_offset(offset)
                .with_epoch(epoch);
            let partition = snapshot::PartitionSnapshot::default()
                .with_current_leader_epoch(self.leader_epoch)
                .with_snapshot_id(id);
            let topic = snapshot::TopicSnapshot::default()
                .with_name(topic_name(METADATA_TOPIC))
                .with_partitions(vec![partition]);
            let request = FetchSnapshotRequest::default()
                .with_cluster_id(Some(self.cluster_id.clone()))
                .with_replica_id(BrokerId(PHANTOM))
                .with_max_bytes(1 << 20)
                .with_topics(vec![topic]);
            every_version(&request, out);
        }
    }

    /// Of other controllers, as far as Kafka has them.
    fn of_controllers(&self, out: &mut Vec<Seed>) {
        let listener = controller_registration_request::Listener::default()
            .with_name(StrBytes::from_static_str("CONTROLLER"))
            .with_host(StrBytes::from_static_str(NOWHERE.0))
            .with_port(NOWHERE.1);
        let request = ControllerRegistrationRequest::default()
            .with_controller_id(PHANTOM)
            .with_listeners(vec![listener]);
        every_version(&request, out);
        let listener = voter::Listener::default()
            .with_name(StrBytes::from_static_str("CONTROLLER"))
            .with_host(StrBytes::from_static_str(NOWHERE.0))
            .with_port(NOWHERE.1);
        let request = UpdateRaftVoterRequest::default()
            .with_cluster_id(Some(self.cluster_id.clone()))
            .with_current_leader_epoch(self.leader_epoch)
            .with_voter_id(self.voter)
            .with_voter_directory_id(self.directory)
            .with_listeners(vec![listener])
            .with_k_raft_version_feature(
                voter::KRaftVersionFeature::default().with_max_supported_version(1),
            );
        every_version(&request, out);
    }

    /// Raft's. Who leads in a higher term is obeyed, whatever it says, and who wants to lead is waited for: a mutation may reach
    /// all of a request only where it is for another replica, else what stands behind the term, which is an old one.
    fn of_voters(&self, out: &mut Vec<Seed>) -> Outcome<()> {
        let (own_id, other_id) = self.raft_ids();
        let log_id = LogId::new_term_index(HIGH_TERM, HIGH_TERM);
        for target in [other_id, own_id] {
            for vote in [Vote::new_committed(0, other_id), Vote::new(0, own_id)] {
                let append = AppendEntriesRequest {
                    vote,
                    prev_log_id: None,
                    entries: Vec::new(),
                    leader_commit: Some(log_id),
                };
                let transfer = TransferLeaderRequest::new(vote, own_id, Some(log_id));
                let install = RaftRequest::InstallSnapshot {
                    vote,
                    meta: SnapshotMeta::default(),
                    checkpoint: None,
                };
                let asked = VoteRequest::new(vote, Some(log_id));
                out.push(self.raft(target, 0, &RaftRequest::AppendEntries(append))?);
                out.push(self.raft(target, 0, &RaftRequest::TransferLeader(transfer))?);
                out.push(self.raft(target, 0, &RaftRequest::Vote(asked))?);
                out.push(self.raft(target, 0, &install)?);
            }
            let asked = VoteRequest::new(Vote::new(HIGH_TERM, other_id), Some(log_id));
            out.push(self.raft(target, HIGH_TERM, &RaftRequest::PreVote(asked))?);
        }
        for as_voter in [false, true] {
            let endpoint = VoterEndpoint {
                name: "CONTROLLER".into(),
                host: NOWHERE.0.into(),
                port: NOWHERE.1,
            };
            let node = VoterNode {
                directory_id: Uuid::from_u128(0xfa),
                endpoints: vec![endpoint],
            };
            let join = RaftRequest::Join {
                node_id: PHANTOM,
                node,
                as_voter,
            };
            out.push(self.raft(other_id, 0, &join)?);
        }
        Ok(())
    }

    fn raft_ids(&self) -> (u64, u64) {
        (
            raft_id(self.voter, self.directory),
            raft_id(PHANTOM, self.directory),
        )
    }

    /// One of raft's requests as `quorum::transport` lays it out, with an empty checkpoint at the end; fixed up to its term.
    fn raft(&self, target: u64, term: u64, request: &RaftRequest) -> Outcome<Seed> {
        let checkpoint =
            matches!(request, RaftRequest::InstallSnapshot { .. }).then_some((9i64, 1i32));
        let envelope = postcard::to_stdvec(&(target, Some(&*self.cluster_id)))?;
        let mut head = envelope.clone();
        head.extend(postcard::to_stdvec(request)?);
        head.extend(postcard::to_stdvec(&checkpoint)?);
        let header = RequestHeader::default()
            .with_request_api_key(RAFT_API_KEY)
            .with_client_id(Some(StrBytes::from_static_str("fuzz")));
        let mut buf = BytesMut::new();
        header.encode(&mut buf, 1)?;
        let mut bytes = buf.to_vec();
        bytes.extend(u32::try_from(head.len())?.to_be_bytes());
        let which = 1;
        let fixed = bytes.len() + envelope.len() + which + postcard::to_stdvec(&term)?.len();
        bytes.extend(head);
        let is_meant = target == self.raft_ids().0;
        Ok(Seed {
            bytes,
            fixed: if is_meant { fixed } else { 0 },
        })
    }
}
