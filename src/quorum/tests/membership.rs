//! Voters come and go while records are proposed, over real sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;

use super::super::membership::OBSERVERS_MAX;
use super::super::network::{RaftRequest, RaftResponse};
use super::super::store::lock;
use super::super::timing::QuorumTiming;
use super::super::types::{VoterEndpoint, VoterNode, leader_node, raft_id};
use super::super::{
    Joining, MetaLog, MetaLogParams, OpenraftMetaLog, ProposeError, RpcTransport, VoterChange,
    VoterChangeError, VoterWait,
};
use super::three_voters::{Seat, WAIT, listen, wait_for_any_leader};
use super::{PATIENCE, collect, params, topics};
use crate::log::LogDir;
use crate::types::{BrokerId, Uuid};

/// A node's address, which outlives its process and its disk.
struct Place {
    id: BrokerId,
    port: u16,
    seat: Seat,
    auto_join: Option<Duration>,
    timing: QuorumTiming,
}

impl Place {
    async fn new(id: BrokerId) -> Self {
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seat = Seat::default();
        tokio::spawn(listen(listener, Arc::clone(&seat), Arc::default()));
        Self {
            id,
            port,
            seat,
            auto_join: None,
            timing: QuorumTiming::default(),
        }
    }

    fn endpoint(&self) -> VoterEndpoint {
        VoterEndpoint {
            name: "CONTROLLER".into(),
            host: "localhost".into(),
            port: self.port,
        }
    }

    /// The node with a metadata directory of this id.
    fn voter(&self, directory: u128) -> VoterNode {
        VoterNode {
            directory_id: Uuid::from_u128(directory),
            endpoints: vec![self.endpoint()],
        }
    }

    /// Starts it; the first voter of a quorum is alone, all others ask at `bootstrap`.
    async fn open(
        &self,
        dir: &TempDir,
        directory: u128,
        bootstrap: Option<&Place>,
    ) -> Arc<OpenraftMetaLog> {
        // Tasks of a log that was shut down let go of the directory's lock a moment later.
        eventually("the directory is free", || LogDir::open(dir.path()).is_ok()).await;
        let own = self.voter(directory);
        let first = bootstrap.is_none().then(|| (self.id, own.clone()));
        let params = MetaLogParams {
            own,
            voters: first.into_iter().collect(),
            joining: Joining {
                bootstrap_servers: bootstrap.map(Place::endpoint).into_iter().collect(),
                auto_join: self.auto_join,
            },
            timing: self.timing,
            ..params(dir.path(), self.id, &[], Arc::new(RpcTransport::default()))
        };
        let log = Arc::new(OpenraftMetaLog::open(params).await.unwrap());
        *lock(&self.seat) = Arc::downgrade(&log);
        log
    }

    fn add(&self, directory: u128) -> VoterChange {
        VoterChange::Add {
            node_id: self.id,
            node: self.voter(directory),
        }
    }

    fn remove(&self, directory: u128) -> VoterChange {
        VoterChange::Remove {
            node_id: self.id,
            directory_id: Uuid::from_u128(directory),
        }
    }
}

/// Ids of voters and observers.
fn members(log: &OpenraftMetaLog) -> (Vec<BrokerId>, Vec<BrokerId>) {
    let info = log.describe();
    let ids = |replicas: &[super::super::ReplicaState]| {
        let mut ids: Vec<_> = replicas.iter().map(|it| it.replica_id).collect();
        ids.sort_unstable();
        ids
    };
    (ids(&info.voters), ids(&info.observers))
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let reached = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "{what}");
}

async fn eventually_async(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let reached = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "{what}");
}

/// Proposes without a break at whoever leads, and counts what was committed. A proposal fails only with its leader.
async fn propose_all_the_time(log: Arc<OpenraftMetaLog>, stop: Arc<AtomicBool>) -> usize {
    let (mut committed, mut moving) = (0, false);
    let leader = log.leader();
    while !stop.load(Ordering::Relaxed) {
        let now = *leader.borrow();
        if now.leader_id != Some(log.inner_id()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        // Several are on their way at once, so that changes of the members get in between.
        let results = futures_util::future::join_all((0..8).map(|_| {
            let _held = log.hold_end();
            let expected = log.end_offset();
            let proposed = log.propose(now.epoch, topics(&["t", "t"]));
            async move { (expected, proposed.await) }
        }));
        for (expected, result) in results.await {
            match result {
                Ok(last_offset) => {
                    assert_eq!(last_offset, expected + 1, "where it was to be");
                    committed += 1;
                }
                // Leadership is moving; what was behind fails too. Nothing else makes a proposal fail.
                Err(ProposeError::NotLeader) => moving = true,
                Err(ProposeError::Superseded) if moving => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
    committed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_grows_loses_its_leader_and_a_disk_and_starts_again() {
    let places = [
        Place::new(1).await,
        Place::new(2).await,
        Place::new(3).await,
    ];
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let one = places[0].open(&dirs[0], 11, None).await;
    wait_for_any_leader(&[Arc::clone(&one)]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(propose_all_the_time(Arc::clone(&one), Arc::clone(&stop)));

    // The second asks to observe, the third knows nobody whom it could ask.
    let two = places[1].open(&dirs[1], 12, Some(&places[0])).await;
    eventually("the second observes", || {
        members(&one) == (vec![1], vec![2])
    })
    .await;
    one.change_voters(places[1].add(12), WAIT).await.unwrap();
    let three = places[2].open(&dirs[2], 13, Some(&places[2])).await;
    one.change_voters(places[2].add(13), WAIT).await.unwrap();
    assert_eq!(members(&one), (vec![1, 2, 3], vec![]));
    for (change, expected) in [
        (places[1].add(99), VoterChangeError::Duplicate(2)),
        (
            places[1].remove(99),
            VoterChangeError::NotFound(2, Uuid::from_u128(99)),
        ),
    ] {
        assert_eq!(one.change_voters(change, WAIT).await, Err(expected));
    }
    assert_eq!(
        two.change_voters(places[0].remove(11), WAIT).await,
        Err(VoterChangeError::NotLeader)
    );

    // The leader removes itself, hands over and observes.
    one.change_voters(places[0].remove(11), WAIT).await.unwrap();
    let others = [Arc::clone(&two), Arc::clone(&three)];
    let (leader, epoch) = wait_for_any_leader(&others).await;
    stop.store(true, Ordering::Relaxed);
    let committed = load.await.unwrap();
    assert!(committed > 0);
    let leader = &others[leader];
    leader.propose(epoch, topics(&["last"])).await.unwrap();
    assert_eq!(members(leader), (vec![2, 3], vec![1]));
    let names = collect(&mut one.subscribe(), 2 * committed + 1).await;
    assert_eq!(names.last().unwrap(), "last");
    leader.change_voters(places[0].add(11), WAIT).await.unwrap();
    assert_eq!(members(leader), (vec![1, 2, 3], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_members_waits_while_the_end_is_held() {
    let (place, observer) = (Place::new(1).await, Place::new(2).await);
    let dir = TempDir::new().unwrap();
    let one = place.open(&dir, 11, None).await;
    wait_for_any_leader(&[Arc::clone(&one)]).await;
    let epoch = one.leader().borrow().epoch;
    let held = one.hold_end();
    let end = one.end_offset();
    // On a thread of its own: a worker of the runtime that waited there for long would hold up the timers, too.
    let (inner, node) = (Arc::clone(&one.inner), observer.voter(12));
    let runtime = tokio::runtime::Handle::current();
    let admitted =
        tokio::task::spawn_blocking(move || runtime.block_on(inner.admit(2, node, false)));
    eventually("its turn has come", || {
        one.inner.members_turn.try_lock().is_err()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(one.end_offset(), end);
    let proposed = one.propose(epoch, topics(&["a", "b"]));
    drop(held);
    assert_eq!(proposed.await, Ok(end + 1));
    assert!(admitted.await.unwrap(), "it observes");
    assert_eq!(members(&one), (vec![1], vec![2]));
    assert!(one.end_offset() > end + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_makes_another_replica() {
    let places = [
        Place::new(1).await,
        Place::new(2).await,
        Place::new(3).await,
    ];
    let dirs: Vec<TempDir> = (0..4).map(|_| TempDir::new().unwrap()).collect();
    let one = places[0].open(&dirs[0], 11, None).await;
    wait_for_any_leader(&[Arc::clone(&one)]).await;
    let two = places[1].open(&dirs[1], 12, Some(&places[0])).await;
    let three = places[2].open(&dirs[2], 13, Some(&places[0])).await;
    one.change_voters(places[1].add(12), WAIT).await.unwrap();
    one.change_voters(places[2].add(13), WAIT).await.unwrap();
    let epoch = one.leader().borrow().epoch;
    one.propose(epoch, topics(&["a", "b"])).await.unwrap();

    // The second comes back without what it promised: it observes, and does not count.
    two.shutdown().await.unwrap();
    drop(two);
    let two = places[1].open(&dirs[3], 22, Some(&places[0])).await;
    eventually("it observes", || members(&one) == (vec![1, 2, 3], vec![2])).await;
    assert_eq!(collect(&mut two.subscribe(), 2).await, ["a", "b"]);
    one.change_voters(places[1].remove(12), WAIT).await.unwrap();
    one.change_voters(places[1].add(22), WAIT).await.unwrap();
    assert_eq!(members(&one).0, [1, 2, 3]);

    // All stop and start; what they are told of first voters does not matter any more.
    for log in [&one, &two, &three] {
        log.shutdown().await.unwrap();
    }
    drop((one, two, three));
    let mut logs = Vec::new();
    for (place, (dir, directory)) in places.iter().zip([(0, 11), (3, 22), (2, 13)]) {
        logs.push(place.open(&dirs[dir], directory, None).await);
    }
    let (leader, epoch) = wait_for_any_leader(&logs).await;
    logs[leader].propose(epoch, topics(&["c"])).await.unwrap();
    for log in &logs {
        assert_eq!(collect(&mut log.subscribe(), 3).await, ["a", "b", "c"]);
    }
    let directories: BTreeMap<BrokerId, Uuid> = logs[leader]
        .describe()
        .voters
        .iter()
        .map(|it| (it.replica_id, it.replica_directory_id))
        .collect();
    let expected = [(1, 11), (2, 22), (3, 13)].map(|(id, at)| (id, Uuid::from_u128(at)));
    assert_eq!(directories, BTreeMap::from(expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_reached_is_not_added() {
    let (place, nobody) = (Place::new(1).await, Place::new(2).await);
    let dir = TempDir::new().unwrap();
    let one = place.open(&dir, 11, None).await;
    wait_for_any_leader(&[Arc::clone(&one)]).await;
    let result = one.change_voters(nobody.add(12), WAIT).await;
    assert!(matches!(result, Err(VoterChangeError::TimedOut(_))));
    // Somebody is there, but another replica.
    let elsewhere = TempDir::new().unwrap();
    let _stranger = nobody.open(&elsewhere, 77, Some(&nobody)).await;
    let wait = VoterWait {
        timeout: Duration::from_millis(300),
        committed: true,
    };
    let result = one.change_voters(nobody.add(12), wait).await;
    assert!(matches!(result, Err(VoterChangeError::TimedOut(_))));
    eventually("it is forgotten", || members(&one) == (vec![1], vec![])).await;
    let epoch = one.leader().borrow().epoch;
    one.propose(epoch, topics(&["a"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_joins_by_itself_also_after_it_lost_its_disk() {
    let mut places = [
        Place::new(1).await,
        Place::new(2).await,
        Place::new(3).await,
    ];
    for place in &mut places[1..] {
        place.auto_join = Some(Duration::from_millis(20));
    }
    let dirs: Vec<TempDir> = (0..4).map(|_| TempDir::new().unwrap()).collect();
    let one = places[0].open(&dirs[0], 11, None).await;
    wait_for_any_leader(&[Arc::clone(&one)]).await;
    let two = places[1].open(&dirs[1], 12, Some(&places[0])).await;
    let _three = places[2].open(&dirs[2], 13, Some(&places[0])).await;
    eventually("both join", || members(&one) == (vec![1, 2, 3], vec![])).await;
    two.shutdown().await.unwrap();
    drop(two);
    let _two = places[1].open(&dirs[3], 22, Some(&places[0])).await;
    let directory = || {
        let voters = one.describe().voters;
        let mut voters = voters.into_iter();
        voters
            .find(|it| it.replica_id == 2)
            .map(|it| it.replica_directory_id)
    };
    eventually("the new one takes its place", || {
        directory() == Some(Uuid::from_u128(22))
    })
    .await;
    // The old replica is an observer that never answers.
    assert_eq!(members(&one).1, [2]);
    eventually_async("it is forgotten", async || {
        one.forget_observers_silent_for(Duration::from_millis(200))
            .await;
        members(&one).1.is_empty()
    })
    .await;
    assert_eq!(members(&one).0, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_for_ever_does_not_keep_others_from_changing_the_voters() {
    let (mut place, nobody) = (Place::new(1).await, Place::new(2).await);
    place.timing.catch_up_max = Duration::from_millis(200);
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let one = place.open(&dirs[0], 11, None).await;
    wait_for_any_leader(&[Arc::clone(&one)]).await;
    // Somebody is there, but another replica: it never has the log.
    let _stranger = nobody.open(&dirs[1], 77, Some(&nobody)).await;
    let for_ever = VoterWait {
        timeout: Duration::from_millis(i32::MAX.unsigned_abs().into()),
        committed: true,
    };
    let lagging = one.change_voters(nobody.add(12), for_ever);
    let lagging = tokio::time::timeout(PATIENCE, lagging).await.unwrap();
    assert!(matches!(lagging, Err(VoterChangeError::TimedOut(_))));
    let three = Place::new(3).await;
    let _three = three.open(&dirs[2], 13, Some(&place)).await;
    // A busy machine takes longer than that to catch up.
    eventually_async("another voter is added", async || {
        one.change_voters(three.add(13), WAIT).await.is_ok()
    })
    .await;
    assert_eq!(members(&one).0, [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_observers_build_on_each_other() {
    let place = Place::new(1).await;
    let dirs: Vec<TempDir> = (0..4).map(|_| TempDir::new().unwrap()).collect();
    let one = place.open(&dirs[0], 11, None).await;
    wait_for_any_leader(&[Arc::clone(&one)]).await;
    for (id, dir) in (2..).zip(&dirs[1..]) {
        let observer = Place::new(id).await;
        let directory = 10 + id.unsigned_abs();
        let log = observer.open(dir, directory.into(), Some(&place)).await;
        let expected: Vec<BrokerId> = (2..=id).collect();
        eventually("it observes", || members(&one).1 == expected).await;
        log.shutdown().await.unwrap();
    }
    // All are forgotten in one go, one right after the other.
    one.forget_observers_silent_for(Duration::ZERO).await;
    eventually("nobody is left", || members(&one) == (vec![1], vec![])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_forgotten_while_it_was_away_observes_again() {
    let places = [Place::new(1).await, Place::new(2).await];
    let dirs: Vec<TempDir> = (0..2).map(|_| TempDir::new().unwrap()).collect();
    let one = places[0].open(&dirs[0], 11, None).await;
    let (_, epoch) = wait_for_any_leader(&[Arc::clone(&one)]).await;
    let two = places[1].open(&dirs[1], 12, Some(&places[0])).await;
    eventually("it observes", || members(&one) == (vec![1], vec![2])).await;
    one.propose(epoch, topics(&["a"])).await.unwrap();
    assert_eq!(collect(&mut two.subscribe(), 1).await, ["a"]);
    two.shutdown().await.unwrap();
    drop(two);
    one.forget_observers_silent_for(Duration::ZERO).await;
    eventually("it is forgotten", || members(&one) == (vec![1], vec![])).await;
    one.propose(epoch, topics(&["b"])).await.unwrap();
    let two = places[1].open(&dirs[1], 12, Some(&places[0])).await;
    assert_eq!(collect(&mut two.subscribe(), 2).await, ["a", "b"]);
    assert_eq!(members(&one), (vec![1], vec![2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_a_place_for_so_many_observers() {
    let (place, dir) = (Place::new(1).await, TempDir::new().unwrap());
    let log = place.open(&dir, 101, None).await;
    wait_for_any_leader(&[Arc::clone(&log)]).await;
    let nowhere = |directory| VoterNode {
        directory_id: Uuid::from_u128(directory),
        endpoints: Vec::new(),
    };
    for id in 0..=OBSERVERS_MAX {
        let request = RaftRequest::Join {
            node_id: 2,
            node: nowhere(id as u128 + 1_000),
            as_voter: false,
        };
        let answer = log.handle(request).await.unwrap();
        let is_in = matches!(answer, RaftResponse::Join(true));
        assert_eq!(is_in, id < OBSERVERS_MAX, "observer {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_claims_the_leaders_node_id_does_not_take_its_place() {
    let places = [Place::new(1).await, Place::new(2).await];
    let dirs: Vec<TempDir> = (0..2).map(|_| TempDir::new().unwrap()).collect();
    let one = places[0].open(&dirs[0], 11, None).await;
    wait_for_any_leader(&[Arc::clone(&one)]).await;
    let _two = places[1].open(&dirs[1], 12, Some(&places[0])).await;
    one.change_voters(places[1].add(12), WAIT).await.unwrap();
    let claim = RaftRequest::Join {
        node_id: 1,
        node: places[0].voter(99),
        as_voter: true,
    };
    let answer = one.handle(claim).await.unwrap();
    assert!(matches!(answer, RaftResponse::Join(false)), "{answer:?}");
    assert_eq!(members(&one), (vec![1, 2], vec![]));
}

#[test]
fn a_replica_that_had_this_nodes_id_is_not_taken_for_it() {
    let id = |node_id, directory| raft_id(node_id, Uuid::from_u128(directory));
    let own = id(1, 12);
    assert_eq!(leader_node(own, own), Some(1));
    assert_eq!(leader_node(id(2, 12), own), Some(2));
    assert_eq!(leader_node(id(1, 11), own), None);
    // Static voters have no directory.
    assert_eq!(leader_node(1, 1), Some(1));
}
