//! [`MetaLog`] on openraft.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::impls::ProgressResponder;
use openraft::{Config, Instant, Raft, Snapshot, SnapshotPolicy};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::join::{self, Joining};
use super::log_storage::LogStore;
use super::network::{Heard, NetworkFactory, RaftRequest, RaftResponse, Transport};
use super::observers::Observers;
use super::proposals::{Forward, Proposals, run_forwarder};
use super::search::{self, Asked};
use super::state_machine::StateMachine;
use super::store::{Store, lock};
use super::timing::QuorumTiming;
use super::transport::address;
use super::types::{
    Membership, Vote, VoterEndpoint, VoterNode, by_raft_id, is_sole_voter, kraft_version,
    leader_epoch, leader_node, node_id, raft_id, voter_of,
};
use super::voters::{VoterChange, VoterChangeError};
use super::writer::Command;
use super::{
    BoxFuture, Committed, EndHeld, LeaderAndEpoch, MetaLog, ProposeError, QuorumInfo, ReplicaState,
    SnapshotError, TypeConfig, VoterWait,
};
use super::{subscriber, succession};
use crate::clock::Clock;
use crate::config::TopicConfig;
use crate::log::{Log, LogDir, OpenParams};
use crate::protocol::metadata_records::MetadataRecord;
use crate::types::{
    BrokerId, CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, LeaderEpoch, Offset, TimestampMs,
    TopicPartition, Uuid,
};

pub(super) type MetadataRaft = Raft<TypeConfig, StateMachine>;
pub(super) type Answer = openraft::raft::ClientWriteResult<TypeConfig>;
pub(super) type Responder = ProgressResponder<TypeConfig, Answer>;

/// What [`OpenraftMetaLog::open`] needs.
pub struct MetaLogParams {
    pub node_id: BrokerId,
    /// This node as a voter: the id of its directory and where its controller listens.
    pub own: VoterNode,
    /// `metadata.log.dir`
    pub log_dir: Arc<LogDir>,
    /// Segment sizes and the like of the metadata log.
    pub config: Arc<TopicConfig>,
    /// The first voters, this node among them; used once, in an empty directory. None: this node waits until it is added.
    pub voters: BTreeMap<BrokerId, VoterNode>,
    pub transport: Arc<dyn Transport>,
    /// Where static voters listen (`controller.quorum.voters`); of others their record in the log says it.
    pub addresses: BTreeMap<BrokerId, VoterEndpoint>,
    pub timing: QuorumTiming,
    /// How to come to a quorum that does not know this node.
    pub joining: Joining,
    pub clock: Clock,
}

/// Why the metadata log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    #[error("the metadata log cannot be opened: {0}")]
    Storage(#[from] io::Error),
    #[error("raft cannot start: {0}")]
    Raft(String),
}

/// The metadata log of a voter. Dropping it stops raft; [`OpenraftMetaLog::shutdown`] also waits.
pub struct OpenraftMetaLog {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) own_id: BrokerId,
    pub(super) own: VoterNode,
    /// Of `meta.properties`.
    cluster_id: Option<String>,
    /// Whether the log tells of another cluster's controllers.
    stranger_told: AtomicBool,
    pub(super) raft: MetadataRaft,
    pub(super) store: Arc<Store>,
    pub(super) transport: Arc<dyn Transport>,
    addresses: BTreeMap<BrokerId, VoterEndpoint>,
    pub(super) timing: QuorumTiming,
    pub(super) clock: Clock,
    pub(super) leader: watch::Sender<LeaderAndEpoch>,
    pub(super) asked: Arc<Asked>,
    heard: Arc<Heard>,
    /// Who follows the log without a vote, while this node leads.
    pub(super) observers: Mutex<Observers>,
    pub(super) proposals: Mutex<Proposals>,
    /// See [`MetaLog::hold_end`]. Locked before `proposals`, never behind it.
    pub(super) end_held: Mutex<()>,
    pub(super) forward: mpsc::UnboundedSender<Forward>,
    /// Held while the quorum's voters change: one change at a time.
    pub(super) voters_turn: Arc<tokio::sync::Mutex<()>>,
    /// Held while its members change, observers among them.
    pub(super) members_turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) stop: CancellationToken,
}

impl OpenraftMetaLog {
    /// Opens or creates the log and joins the quorum. A sole voter starts its election at once; wait for
    /// [`MetaLog::leader`] to see it lead.
    pub async fn open(params: MetaLogParams) -> Result<Self, QuorumError> {
        let own_id = params.node_id;
        let clock = params.clock.clone();
        let (log_dir, config, opening) = (params.log_dir, params.config, params.clock);
        let cluster_id = log_dir.meta_properties().map(|it| it.cluster_id.clone());
        let (voters, own) = (params.voters.clone(), params.own.clone());
        let store = tokio::task::spawn_blocking(move || {
            let raft_id = move |known: &Membership| own_raft_id(own_id, &own, known, &voters);
            open_store(raft_id, log_dir, config, opening)
        })
        .await
        .map_err(io::Error::other)??;
        let store = Arc::new(store);
        let alone = is_alone(&store, &params.voters);
        let asked = Arc::<Asked>::default();
        let heard = Arc::new(Heard::new(None));
        let network = NetworkFactory {
            transport: Arc::clone(&params.transport),
            store: Arc::clone(&store),
            asked: Arc::clone(&asked),
            heard: Arc::clone(&heard),
        };
        let raft = MetadataRaft::new(
            store.own_id(),
            Arc::new(raft_config(alone, &params.timing)?),
            network,
            LogStore(Arc::clone(&store)),
            StateMachine(Arc::clone(&store)),
        )
        .await
        .map_err(|error| QuorumError::Raft(error.to_string()))?;
        start(&raft, alone, params.voters).await?;
        let (forward, queue) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            own_id,
            own: params.own,
            cluster_id,
            stranger_told: AtomicBool::new(false),
            raft,
            store,
            transport: params.transport,
            addresses: params.addresses,
            timing: params.timing,
            clock,
            leader: watch::Sender::new(LeaderAndEpoch {
                leader_id: None,
                epoch: 0,
            }),
            asked,
            heard,
            observers: Mutex::default(),
            proposals: Mutex::default(),
            end_held: Mutex::default(),
            forward,
            voters_turn: Arc::default(),
            members_turn: Arc::default(),
            stop: CancellationToken::new(),
        });
        tokio::spawn(run_forwarder(Arc::clone(&inner), queue));
        tokio::spawn(run_leader_watch(Arc::clone(&inner)));
        tokio::spawn(join::run(Arc::clone(&inner), params.joining));
        tokio::spawn(succession::run(Arc::clone(&inner)));
        let (asked, stop) = (Arc::clone(&inner.asked), inner.stop.clone());
        tokio::spawn(search::run(inner.leader.subscribe(), asked, stop));
        tokio::spawn(Arc::clone(&inner).forget_silent_observers());
        Ok(Self { inner })
    }

    /// Handles a request of another voter.
    pub async fn handle(&self, request: RaftRequest) -> Result<RaftResponse, ProposeError> {
        let raft = &self.inner.raft;
        // Raft would take it for an election of its own, and wait for its end for good.
        if request.speaker() == Some(self.raft_id()) {
            return Err(closed("a request in this replica's own name"));
        }
        Ok(match request {
            RaftRequest::AppendEntries(rpc) => {
                self.inner.hears_of(rpc.vote);
                RaftResponse::AppendEntries(raft.append_entries(rpc).await.map_err(closed)?)
            }
            RaftRequest::Vote(rpc) => RaftResponse::Vote(raft.vote(rpc).await.map_err(closed)?),
            RaftRequest::PreVote(rpc) => {
                RaftResponse::PreVote(raft.pre_vote(rpc).await.map_err(closed)?)
            }
            RaftRequest::TransferLeader(rpc) => RaftResponse::TransferLeader(
                raft.handle_transfer_leader(rpc).await.map_err(closed)?,
            ),
            RaftRequest::InstallSnapshot {
                vote,
                meta,
                checkpoint,
            } => {
                self.inner.hears_of(vote);
                let snapshot = checkpoint.ok_or_else(|| closed("the checkpoint is missing"))?;
                let snapshot = Snapshot { meta, snapshot };
                RaftResponse::InstallSnapshot(
                    raft.install_full_snapshot(vote, snapshot)
                        .await
                        .map_err(closed)?,
                )
            }
            RaftRequest::Join {
                node_id,
                node,
                as_voter,
            } => {
                // A voter without a directory id would make the voters static.
                let is_replica = node_id >= 0 && !node.directory_id.is_nil();
                RaftResponse::Join(is_replica && self.inner.admit(node_id, node, as_voter).await)
            }
        })
    }

    /// Whether a controller of this cluster id may take part in the quorum: one that may not could win an election with
    /// another cluster's log, or have its own log overwritten (Kafka: INCONSISTENT_CLUSTER_ID). Says so once.
    pub(super) fn is_of(&self, theirs: Option<&str>) -> bool {
        let ours = self.cluster_id();
        let same = theirs == ours;
        if !same && !self.inner.stranger_told.swap(true, Ordering::Relaxed) {
            warn!(
                theirs,
                ours,
                "a controller of another cluster is refused: one of the two has the wrong address in controller.quorum.voters, or \
                 the wrong metadata log directory"
            );
        }
        same
    }

    pub(super) fn cluster_id(&self) -> Option<&str> {
        self.inner.cluster_id.as_deref()
    }

    /// The id by which raft knows this replica.
    pub(super) fn raft_id(&self) -> u64 {
        self.inner.store.own_id()
    }

    /// Where the log and its checkpoints are.
    pub(super) fn dir(&self) -> &std::path::Path {
        &self.inner.store.dir
    }

    /// Forgets observers now that it has not heard of for `silence`, however long it waits for them.
    #[cfg(test)]
    pub(super) async fn forget_observers_silent_for(&self, silence: Duration) {
        let long_ago = tokio::time::Instant::now() - silence;
        let observers = self.inner.members().0;
        let observers = observers.membership().learner_ids();
        let mut first_seen = observers.map(|id| (id, long_ago)).collect();
        self.inner
            .forget_observers_silent_for(silence, &mut first_seen)
            .await;
    }

    #[cfg(test)]
    pub(super) fn inner_id(&self) -> BrokerId {
        self.inner.own_id
    }

    /// As when it panics or its storage fails.
    #[cfg(test)]
    pub(super) async fn end_raft(&self) {
        let _ = self.inner.raft.shutdown().await;
    }

    /// Resolves with the reason when raft has ended by itself. The node takes no part in the quorum any more and would not
    /// notice what happens: the process is to end.
    pub fn failed(&self) -> impl Future<Output = String> + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            let mut metrics = inner.raft.server_metrics();
            while metrics.changed().await.is_ok() {}
            if inner.stop.is_cancelled() {
                std::future::pending::<()>().await;
            }
            "raft has ended".into()
        }
    }

    /// Stops raft and leaves the log durable.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.inner.stop.cancel();
        let _ = self.inner.raft.shutdown().await;
        let writer = self.inner.store.writer();
        writer.call(|reply| Command::Close { reply }).await
    }
}

impl Drop for OpenraftMetaLog {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

pub(super) fn closed(reason: impl ToString) -> ProposeError {
    ProposeError::Closed(reason.to_string().into())
}

/// The id of this replica: as its quorum has voters with directories or without.
fn own_raft_id(
    own_id: BrokerId,
    own: &VoterNode,
    known: &Membership,
    first: &BTreeMap<BrokerId, VoterNode>,
) -> u64 {
    let mut known = known.voter_ids().filter_map(|id| known.get_node(&id));
    let is_static = match known.next() {
        Some(voter) => voter.directory_id.is_nil(),
        None => first
            .get(&own_id)
            .is_some_and(|it| it.directory_id.is_nil()),
    };
    raft_id(
        own_id,
        if is_static {
            Uuid::nil()
        } else {
            own.directory_id
        },
    )
}

fn open_store(
    own_id: impl FnOnce(&Membership) -> u64,
    log_dir: Arc<LogDir>,
    config: Arc<TopicConfig>,
    clock: Clock,
) -> io::Result<Store> {
    let (log, dir) = open_log(log_dir, config, clock.wall_ms())?;
    Store::open(log, &dir, own_id, clock)
}

/// Opens or creates `__cluster_metadata-0`; tells where it is.
pub(super) fn open_log(
    log_dir: Arc<LogDir>,
    config: Arc<TopicConfig>,
    now_ms: TimestampMs,
) -> io::Result<(Log, PathBuf)> {
    let topic_partition = TopicPartition::new(CLUSTER_METADATA_TOPIC, 0);
    let dir: PathBuf = log_dir.path().join(topic_partition.to_string());
    let log = Log::open(OpenParams {
        dir: log_dir,
        topic_partition,
        topic_id: Some(CLUSTER_METADATA_TOPIC_ID),
        config,
        producer_id_expiration_ms: i64::MAX,
        now_ms,
    })
    .map_err(io::Error::other)?;
    Ok((log, dir))
}

/// Whether this node is the only voter, by the log or, before there is one, by the configuration.
fn is_alone(store: &Store, voters: &BTreeMap<BrokerId, VoterNode>) -> bool {
    let state = store.state();
    if state.last_log_id().is_none() {
        return by_raft_id(voters).into_keys().eq([store.own_id()]);
    }
    state.is_sole_voter(store.own_id())
}

fn raft_config(alone: bool, timing: &QuorumTiming) -> Result<Config, QuorumError> {
    let config = Config {
        cluster_name: CLUSTER_METADATA_TOPIC.into(),
        election_timeout_min: timing.election_timeout_min_ms,
        election_timeout_max: timing.election_timeout_max_ms,
        heartbeat_interval: timing.heartbeat_interval_ms,
        // A sole voter has nobody to hear from or to reassure. The clock is switched on when the quorum grows.
        enable_tick: !alone,
        enable_pre_vote: Some(true),
        // The controller decides when, because it has the image.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // A voter may come back with an empty disk, as with Kafka's static voters: the leader begins with it anew. Records
        // are lost if that happens to a majority of those who have them.
        allow_log_reversion: Some(true),
        ..Config::default()
    };
    config
        .validate()
        .map_err(|error| QuorumError::Raft(error.to_string()))
}

/// First start: writes the voters. A sole voter elects itself, without waiting for a timeout; who is no voter yet waits.
async fn start(
    raft: &MetadataRaft,
    alone: bool,
    voters: BTreeMap<BrokerId, VoterNode>,
) -> Result<(), QuorumError> {
    let failed = |error: &dyn std::error::Error| QuorumError::Raft(error.to_string());
    let initialized = raft.is_initialized().await.map_err(|e| failed(&e))?;
    if initialized {
        if alone {
            raft.trigger().elect(false).await.map_err(|e| failed(&e))?;
        }
    } else if !voters.is_empty() {
        // This begins an election too.
        let voters = by_raft_id(&voters);
        raft.initialize(voters).await.map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// Publishes who leads, and opens and closes the gate for proposals.
async fn run_leader_watch(inner: Arc<Inner>) {
    let mut metrics = inner.raft.server_metrics();
    let mut progress = inner.store.progress();
    let mut heard = inner.heard.subscribe();
    let own_id = inner.store.own_id();
    loop {
        let heard_of = *heard.borrow_and_update();
        let (vote, current_leader, sole) = {
            let now = metrics.borrow_watched();
            let members = now.membership_config.membership();
            let sole = is_sole_voter(members, own_id);
            let leader = now.current_leader;
            let is_heard = leader == Some(own_id) || heard_of == Some(now.vote);
            (now.vote, leader.filter(|_| is_heard), sole)
        };
        inner.raft.runtime_config().tick(!sole);
        let term = vote.leader_id.term;
        let applied_term = progress.borrow_and_update().term;
        let waits = current_leader == Some(own_id) && applied_term < term;
        inner.announce(LeaderAndEpoch {
            leader_id: current_leader
                .filter(|_| !waits)
                .and_then(|id| leader_node(id, own_id)),
            epoch: leader_epoch(term),
        });
        tokio::select! {
            () = inner.stop.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() { return },
            changed = progress.changed(), if waits => if changed.is_err() { return },
            changed = heard.changed() => if changed.is_err() { return },
        }
    }
}

impl Inner {
    /// Something came of the leader with this vote; raft decides whether it is the leader. A deposed one is no news.
    fn hears_of(&self, vote: Vote) {
        self.heard.send_if_modified(|heard| {
            let is_news = *heard < Some(vote);
            if is_news {
                *heard = Some(vote);
            }
            is_news
        });
    }

    fn announce(&self, now: LeaderAndEpoch) {
        if *self.leader.borrow() == now {
            return;
        }
        let mut proposals = lock(&self.proposals);
        *proposals = Proposals {
            leading: now.leader_id == Some(self.own_id),
            epoch: now.epoch,
            next_offset: self.store.state().end_offset(),
            failed: false,
        };
        drop(proposals);
        info!(leader_id = ?now.leader_id, leader_epoch = now.epoch, "metadata quorum leader");
        self.leader.send_replace(now);
    }

    /// Where a voter's controller listens.
    pub(super) fn endpoint(&self, node_id: BrokerId) -> Option<VoterEndpoint> {
        let newest = self.store.state().membership_at(u64::MAX);
        let node = voter_of(newest.membership(), node_id);
        address(&self.addresses, node_id, node).cloned()
    }

    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.store.state().failed.clone()
    }
}

impl MetaLog for OpenraftMetaLog {
    fn propose(
        &self,
        epoch: LeaderEpoch,
        records: Vec<MetadataRecord>,
    ) -> BoxFuture<'static, Result<Offset, ProposeError>> {
        let queued = self.inner.queue(epoch, records);
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.outcome(epoch, queued?).await })
    }

    fn end_offset(&self) -> Offset {
        let proposals = lock(&self.inner.proposals);
        if proposals.leading {
            return proposals.next_offset;
        }
        self.inner.store.state().end_offset()
    }

    fn hold_end(&self) -> EndHeld<'_> {
        Some(lock(&self.inner.end_held))
    }

    fn leader(&self) -> watch::Receiver<LeaderAndEpoch> {
        self.inner.leader.subscribe()
    }

    fn subscribe(&self) -> mpsc::Receiver<Committed> {
        let (out, subscription) = mpsc::channel(subscriber::QUEUE_MAX);
        let store = Arc::clone(&self.inner.store);
        let stop = self.inner.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = subscriber::run(store, out) => {}
                () = stop.cancelled() => {}
            }
        });
        subscription
    }

    fn endpoint(&self, node_id: BrokerId) -> Option<VoterEndpoint> {
        self.inner.endpoint(node_id)
    }

    fn change_voters(
        &self,
        change: VoterChange,
        wait: VoterWait,
    ) -> BoxFuture<'static, Result<(), VoterChangeError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.change_voters(change, wait).await })
    }

    fn kraft_version(&self) -> i16 {
        kraft_version(self.inner.members().0.membership())
    }

    fn describe(&self) -> QuorumInfo {
        let inner = &self.inner;
        let leader = *inner.leader.borrow();
        let metrics = inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let now_ms = inner.clock.wall_ms();
        let state = inner.store.state();
        let replica = |id: u64, node: &VoterNode| {
            let mut replica = ReplicaState::unheard(node_id(id), node.directory_id);
            if id == inner.store.own_id() {
                replica.log_end_offset = state.end_offset();
                replica.last_fetch_timestamp_ms = now_ms;
                replica.last_caught_up_timestamp_ms = now_ms;
                return replica;
            }
            let matched = metrics.replication.as_ref().and_then(|all| *all.get(&id)?);
            let acked = metrics.heartbeat.as_ref().and_then(|all| *all.get(&id)?);
            if let Some(end) = matched.and_then(|id| state.offset_after(id.index)) {
                replica.log_end_offset = end;
            }
            if let Some(acked) = acked {
                let ago: Duration = acked.elapsed();
                replica.last_fetch_timestamp_ms = now_ms - ago.as_millis() as i64;
            }
            if replica.log_end_offset == state.end_offset() {
                replica.last_caught_up_timestamp_ms = replica.last_fetch_timestamp_ms;
            }
            replica
        };
        let membership = metrics.membership_config.membership();
        let replicas = |ids: Vec<u64>| {
            let mut replicas: Vec<ReplicaState> = ids
                .into_iter()
                .filter_map(|id| Some(replica(id, membership.get_node(&id)?)))
                .collect();
            replicas.sort_by_key(|it| (it.replica_id, it.replica_directory_id));
            replicas
        };
        let mut observers: Vec<ReplicaState> = replicas(membership.learner_ids().collect());
        observers.extend(lock(&inner.observers).states(leader.epoch, now_ms));
        QuorumInfo {
            leader_id: leader.leader_id.unwrap_or(-1),
            leader_epoch: leader.epoch,
            high_watermark: inner.store.progress().borrow().high_watermark,
            voters: replicas(membership.voter_ids().collect()),
            observers,
        }
    }

    fn write_snapshot(
        &self,
        offset: Offset,
        epoch: LeaderEpoch,
        records: Vec<MetadataRecord>,
    ) -> BoxFuture<'static, Result<(), SnapshotError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.snapshot(offset, epoch, records).await })
    }
}
