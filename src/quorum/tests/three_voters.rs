//! Three voters in one process, over real sockets: election, replication, fail-over, a voter with an empty disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::SupportedFeatureKey;
use kafka_protocol::protocol::{Encodable, StrBytes};
use openraft::raft::VoteRequest;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::super::store::lock;
use super::super::timing::QuorumTiming;
use super::super::types::{Vote, VoterNode};
use super::super::{
    MetaLog, MetaLogParams, OpenraftMetaLog, ProposeError, RAFT_API_KEY, RaftRequest, RaftResponse,
    ReplicaState, RpcTransport, Transport, VoterChange, VoterChangeError, VoterWait,
};
use super::{PATIENCE, collect, node, params, topics, wait_for_leader};
use crate::clock::Clock;
use crate::protocol::header::RequestHeader;
use crate::types::{BrokerId, LeaderEpoch};

/// Who answers at a voter's address: nobody while it is down.
pub(super) type Seat = Arc<Mutex<Weak<OpenraftMetaLog>>>;

/// A connection that has sent nothing for so long only watches whether the process lives.
const SILENCE: Duration = Duration::from_millis(200);

/// How many there are.
pub(super) type Watchers = Arc<AtomicUsize>;

const API_VERSIONS: i16 = 18;

pub(super) const WAIT: VoterWait = VoterWait {
    timeout: PATIENCE,
    committed: true,
};

/// The addresses of the voters, which outlive them.
struct Quorum {
    voters: BTreeMap<BrokerId, VoterNode>,
    seats: BTreeMap<BrokerId, Seat>,
    listeners: BTreeMap<BrokerId, AbortOnDropHandle<()>>,
    watchers: Watchers,
}

impl Quorum {
    async fn new() -> Self {
        let mut quorum = Self {
            voters: BTreeMap::new(),
            seats: BTreeMap::new(),
            listeners: BTreeMap::new(),
            watchers: Watchers::default(),
        };
        for id in 1..=3 {
            let listener = TcpListener::bind("localhost:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            quorum.voters.insert(id, node(port));
            let seat = Arc::clone(quorum.seats.entry(id).or_default());
            let listening = tokio::spawn(listen(listener, seat, Arc::clone(&quorum.watchers)));
            let listening = AbortOnDropHandle::new(listening);
            quorum.listeners.insert(id, listening);
        }
        quorum
    }

    /// Voter 1 leads, the others watch it, and would stand for election by themselves only long after a test.
    async fn led_by_the_first(dirs: &[TempDir]) -> (Self, Vec<Arc<OpenraftMetaLog>>) {
        let quorum = Self::new().await;
        let patient = QuorumTiming {
            election_timeout_min_ms: 200_000,
            election_timeout_max_ms: 200_001,
            ..QuorumTiming::default()
        };
        let timings = [QuorumTiming::default(), patient, patient];
        let mut logs = Vec::new();
        for ((id, dir), timing) in (1..).zip(dirs).zip(timings) {
            logs.push(quorum.open_with(dir, id, timing).await);
        }
        for log in &logs {
            wait_for_leader(log, 1).await;
        }
        let watched = async {
            while quorum.watchers.load(Ordering::Relaxed) < 2 {
                tokio::time::sleep(SILENCE).await;
            }
        };
        tokio::time::timeout(PATIENCE, watched).await.unwrap();
        (quorum, logs)
    }

    async fn open(&self, dir: &TempDir, id: BrokerId) -> Arc<OpenraftMetaLog> {
        self.open_with(dir, id, QuorumTiming::default()).await
    }

    async fn open_with(
        &self,
        dir: &TempDir,
        id: BrokerId,
        timing: QuorumTiming,
    ) -> Arc<OpenraftMetaLog> {
        let params = MetaLogParams {
            timing,
            voters: self.voters.clone(),
            own: self.voters[&id].clone(),
            ..params(dir.path(), id, &[], Arc::new(RpcTransport::default()))
        };
        let log = Arc::new(OpenraftMetaLog::open(params).await.unwrap());
        *lock(&self.seats[&id]) = Arc::downgrade(&log);
        log
    }
}

/// When it is aborted, its connections end, too.
pub(super) async fn listen(listener: TcpListener, seat: Seat, watchers: Watchers) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&seat), Arc::clone(&watchers)));
    }
}

/// Ends, as a connection does, when the voter is down.
async fn serve(mut stream: TcpStream, seat: Seat, watchers: Watchers) {
    if tokio::time::timeout(SILENCE, stream.peek(&mut [0]))
        .await
        .is_err()
    {
        watchers.fetch_add(1, Ordering::Relaxed);
    }
    while let Ok(size) = stream.read_i32().await {
        let mut frame = BytesMut::zeroed(size as usize);
        stream.read_exact(&mut frame).await.unwrap();
        let mut frame = frame.freeze();
        let asks_for_versions = frame[..2] == API_VERSIONS.to_be_bytes();
        let header = RequestHeader::decode(&mut frame, asks_for_versions).unwrap();
        let Some(voter) = lock(&seat).upgrade() else {
            return;
        };
        let body = if asks_for_versions {
            versions()
        } else {
            assert_eq!(header.api_key, RAFT_API_KEY);
            voter.handle_raft(frame).await.unwrap()
        };
        let mut answer = BytesMut::new();
        answer.put_i32(4 + body.len() as i32);
        answer.put_i32(header.correlation_id);
        answer.extend_from_slice(&body);
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// What every controller answers to ApiVersions.
fn versions() -> Bytes {
    let kraft = SupportedFeatureKey::default()
        .with_name(StrBytes::from_static_str("kraft.version"))
        .with_max_version(1);
    let response = ApiVersionsResponse::default().with_supported_features(vec![kraft]);
    let mut body = BytesMut::new();
    response.encode(&mut body, 4).unwrap();
    body.freeze()
}

/// Waits until one of `logs` leads.
pub(super) async fn wait_for_any_leader(logs: &[Arc<OpenraftMetaLog>]) -> (usize, LeaderEpoch) {
    let wait = logs.iter().enumerate().map(|(at, log)| {
        let own_id = log.inner_id();
        let mut watch = log.leader();
        Box::pin(async move {
            let now = *watch
                .wait_for(|now| now.leader_id == Some(own_id))
                .await
                .unwrap();
            (at, now.epoch)
        })
    });
    let first = futures_util::future::select_all(wait);
    tokio::time::timeout(PATIENCE, first).await.unwrap().0
}

#[tokio::test]
async fn who_asks_the_wrong_controller_is_told_why() {
    let quorum = Quorum::new().await;
    let dir = TempDir::new().unwrap();
    let log = quorum.open(&dir, 1).await;
    let voter = &quorum.voters[&1];
    let ask = async |cluster_id: Option<&str>, target, request| {
        let cluster_id = cluster_id.map(str::to_owned);
        let timing = QuorumTiming::default();
        let transport = RpcTransport::new(cluster_id, BTreeMap::new(), timing);
        let answer = transport.call(target, voter.clone(), request).await;
        answer.map_err(|refused| refused.reason)
    };
    let vote = || RaftRequest::PreVote(VoteRequest::new(Vote::new(1, 2), None));
    let join = || RaftRequest::Join {
        node_id: 4,
        node: node(1),
        as_voter: false,
    };
    let (ours, own_id) = (log.cluster_id(), log.raft_id());
    let answer = ask(ours, own_id, vote()).await;
    assert!(matches!(answer, Ok(RaftResponse::PreVote(_))), "{answer:?}");
    let answer = ask(ours, u64::MAX, join()).await;
    assert!(
        matches!(answer, Ok(RaftResponse::Join(false))),
        "{answer:?}"
    );
    let refused = ask(ours, own_id + 1, vote()).await.unwrap_err();
    assert!(refused.contains("another replica"), "{refused}");
    for request in [vote(), join()] {
        let refused = ask(Some("another"), own_id, request).await.unwrap_err();
        assert!(refused.contains("this node of another"), "{refused}");
    }
}

/// The others need not wait for its silence to last.
/// Rule: controller-failover
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_is_gone_is_succeeded_at_once() {
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let (mut quorum, mut logs) = Quorum::led_by_the_first(&dirs).await;
    logs.remove(0).end_raft().await;
    quorum.listeners.remove(&1);
    let (next, epoch) = wait_for_any_leader(&logs).await;
    logs[next].propose(epoch, topics(&["a"])).await.unwrap();
}

/// It would be the first to stand, be refused, and have voted for itself.
/// Rule: controller-failover
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_lacks_records_leaves_the_succession_to_the_next() {
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let (mut quorum, mut logs) = Quorum::led_by_the_first(&dirs).await;
    let first = logs.remove(0);
    let epoch = first.leader().borrow().epoch;
    // Nobody answers for the second voter while the others commit.
    let second = std::mem::take(&mut *lock(&quorum.seats[&2]));
    first.propose(epoch, topics(&["a"])).await.unwrap();
    first.end_raft().await;
    drop(first);
    // What the first had sent by then, or was sending again, is to find nobody either.
    tokio::time::sleep(2 * SILENCE).await;
    *lock(&quorum.seats[&2]) = second;
    quorum.listeners.remove(&1);
    let (next, epoch) = wait_for_any_leader(&logs).await;
    assert_eq!(logs[next].inner_id(), 3);
    logs[next].propose(epoch, topics(&["b"])).await.unwrap();
}

/// Rule: controller-failover
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_elect_replicate_fail_over_and_catch_up() {
    let quorum = Quorum::new().await;
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let mut logs = Vec::new();
    for (id, dir) in (1..).zip(&dirs) {
        logs.push(quorum.open(dir, id).await);
    }
    let (leader, epoch) = wait_for_any_leader(&logs).await;
    logs[leader]
        .propose(epoch, topics(&["a", "b"]))
        .await
        .unwrap();
    for log in &logs {
        assert_eq!(collect(&mut log.subscribe(), 2).await, ["a", "b"]);
    }
    let old = logs.remove(leader);
    let old_id = old.inner_id();
    old.shutdown().await.unwrap();
    drop(old);

    let (leader, epoch) = wait_for_any_leader(&logs).await;
    let log = &logs[leader];
    log.propose(epoch, topics(&["c"])).await.unwrap();
    let first_end = log.end_offset();
    log.write_snapshot(first_end, epoch, topics(&["a", "b", "c"]))
        .await
        .unwrap();
    log.propose(epoch, topics(&["d"])).await.unwrap();
    // A second snapshot lets the log before the first one go.
    log.write_snapshot(log.end_offset(), epoch, topics(&["a", "b", "c", "d"]))
        .await
        .unwrap();
    log.propose(epoch, topics(&["e"])).await.unwrap();

    // The old leader lost its disk: it starts from a checkpoint.
    let empty = TempDir::new().unwrap();
    let back = quorum.open(&empty, old_id).await;
    let names = collect(&mut back.subscribe(), 5).await;
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_starts_alone_does_not_take_whom_it_once_knew_for_the_leader() {
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let (quorum, logs) = Quorum::led_by_the_first(&dirs).await;
    for log in logs {
        log.shutdown().await.unwrap();
    }
    let alone = quorum.open(&dirs[1], 2).await;
    let mut leader = alone.leader();
    let known = leader.wait_for(|now| now.leader_id.is_some());
    let elections = Duration::from_secs(2);
    assert!(tokio::time::timeout(elections, known).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_an_empty_disk_catches_up_under_the_same_leader() {
    let quorum = Quorum::new().await;
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let mut logs = Vec::new();
    for (id, dir) in (1..).zip(&dirs) {
        logs.push(quorum.open(dir, id).await);
    }
    let (leader, epoch) = wait_for_any_leader(&logs).await;
    let names = topics(&["a", "b"]);
    logs[leader].propose(epoch, names).await.unwrap();
    for log in &logs {
        assert_eq!(collect(&mut log.subscribe(), 2).await, ["a", "b"]);
    }
    let wiped = logs.remove((leader + 1) % 3);
    let wiped_id = wiped.inner_id();
    wiped.shutdown().await.unwrap();
    drop(wiped);
    let empty = TempDir::new().unwrap();
    let back = quorum.open(&empty, wiped_id).await;
    // What the leader knew of this follower is no longer so.
    assert_eq!(collect(&mut back.subscribe(), 2).await, ["a", "b"]);
    let (leader, epoch) = wait_for_any_leader(&logs).await;
    let log = &logs[leader];
    log.propose(epoch, topics(&["c"])).await.unwrap();
    assert_eq!(collect(&mut back.subscribe(), 3).await, ["a", "b", "c"]);
}

/// Found by `scripts/chaos`: a busy machine, a majority silent for half a second, and no active controller from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_proposal_was_refused_hands_over() {
    check_hand_over(async |log, epoch| {
        let refused = log.propose(epoch, topics(&["b"])).await;
        assert_eq!(refused, Err(ProposeError::NotLeader));
    })
    .await;
}

/// Its offset was taken by nothing: the next proposal would have found that out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_change_of_the_voters_was_refused_hands_over() {
    let removed = VoterChange::Remove {
        node_id: 3,
        directory_id: node(0).directory_id,
    };
    let moved = VoterChange::Update {
        node_id: 3,
        node: node(1),
    };
    for change in [removed, moved] {
        check_hand_over(async |log, _| {
            let refused = log.change_voters(change.clone(), WAIT).await;
            assert_eq!(refused, Err(VoterChangeError::NotLeader));
        })
        .await;
    }
}

/// Three voters, two of which are silent for longer than the leader's lease when `refused` asks it for something.
async fn check_hand_over(refused: impl AsyncFn(&OpenraftMetaLog, LeaderEpoch)) {
    let quorum = Quorum::new().await;
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let patient = QuorumTiming {
        election_timeout_min_ms: 600_000,
        election_timeout_max_ms: 1_200_000,
        ..QuorumTiming::default()
    };
    let mut logs = vec![quorum.open(&dirs[0], 1).await];
    for (id, dir) in (1..).zip(&dirs).skip(1) {
        logs.push(quorum.open_with(dir, id, patient).await);
    }
    let (leader, epoch) = wait_for_any_leader(&logs).await;
    assert_eq!(leader, 0, "the others do not stand by themselves");
    logs[0].propose(epoch, topics(&["a"])).await.unwrap();

    for log in &logs[1..] {
        *lock(&quorum.seats[&log.inner_id()]) = Weak::new();
    }
    let lease_ms = QuorumTiming::default()
        .election_timeout_max_ms
        .cast_signed();
    let is_silent = |it: &ReplicaState| {
        it.replica_id == 1 || Clock::system().wall_ms() - it.last_fetch_timestamp_ms > 2 * lease_ms
    };
    while !logs[0].describe().voters.iter().all(is_silent) {
        tokio::task::yield_now().await;
    }
    refused(&logs[0], epoch).await;
    for log in &logs[1..] {
        *lock(&quorum.seats[&log.inner_id()]) = Arc::downgrade(log);
    }

    let (leader, next_epoch) = wait_for_any_leader(&logs[1..]).await;
    assert!(next_epoch > epoch);
    let log = &logs[1 + leader];
    log.propose(next_epoch, topics(&["c"])).await.unwrap();
    for log in &logs {
        assert_eq!(collect(&mut log.subscribe(), 2).await, ["a", "c"]);
    }
}

/// Rule: failed-metadata-log
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raft_that_ends_by_itself_is_a_failure_and_a_shutdown_is_none() {
    let quorum = Quorum::new().await;
    let dirs: Vec<TempDir> = (0..2).map(|_| TempDir::new().unwrap()).collect();
    let (ended, stopped) = (
        quorum.open(&dirs[0], 1).await,
        quorum.open(&dirs[1], 2).await,
    );
    let mut stopped_failed = tokio::spawn(stopped.failed());
    let failed = ended.failed();
    ended.end_raft().await;
    let reason = tokio::time::timeout(PATIENCE, failed).await.unwrap();
    assert_eq!(reason, "raft has ended");
    stopped.shutdown().await.unwrap();
    tokio::select! {
        biased;
        reason = &mut stopped_failed => panic!("{reason:?}"),
        () = tokio::task::yield_now() => stopped_failed.abort(),
    }
}
