//! Three voters in one process, on a transport of function calls through serialised requests: what the cluster needs of
//! this module works before there is a network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

use super::super::network::{RaftRequest, RaftResponse, Transport, TransportError};
use super::super::types::VoterNode;
use super::super::{BoxFuture, MetaLog, OpenraftMetaLog};
use super::{PATIENCE, collect, params, topics};
use crate::types::{BrokerId, LeaderEpoch};

type Peers = Arc<Mutex<BTreeMap<BrokerId, Weak<OpenraftMetaLog>>>>;

struct InProcess(Peers);

impl Transport for InProcess {
    fn call(
        &self,
        target: BrokerId,
        _: VoterNode,
        request: RaftRequest,
    ) -> BoxFuture<'static, Result<RaftResponse, TransportError>> {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peers.get(&target).and_then(Weak::upgrade);
        Box::pin(async move {
            let failed = |reason: &str| TransportError {
                target,
                reason: reason.into(),
            };
            let peer = peer.ok_or_else(|| failed("down"))?;
            let checkpoint = match &request {
                RaftRequest::InstallSnapshot { checkpoint, .. } => checkpoint.clone(),
                _ => None,
            };
            let text = serde_json::to_vec(&request).unwrap();
            let mut request: RaftRequest = serde_json::from_slice(&text).unwrap();
            if let RaftRequest::InstallSnapshot {
                checkpoint: received,
                ..
            } = &mut request
            {
                *received = checkpoint;
            }
            let response = peer
                .handle(request)
                .await
                .map_err(|e| failed(&e.to_string()))?;
            let text = serde_json::to_vec(&response).unwrap();
            Ok(serde_json::from_slice(&text).unwrap())
        })
    }
}

async fn open(peers: &Peers, dir: &TempDir, id: BrokerId) -> Arc<OpenraftMetaLog> {
    let transport = Arc::new(InProcess(Arc::clone(peers)));
    let log = OpenraftMetaLog::open(params(dir.path(), id, &[1, 2, 3], transport)).await;
    let log = Arc::new(log.unwrap());
    let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
    peers.insert(id, Arc::downgrade(&log));
    log
}

/// Waits until one of `logs` leads.
async fn wait_for_any_leader(logs: &[Arc<OpenraftMetaLog>]) -> (usize, LeaderEpoch) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_elect_replicate_fail_over_and_catch_up() {
    let peers = Peers::default();
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let mut logs = Vec::new();
    for (id, dir) in (1..).zip(&dirs) {
        logs.push(open(&peers, dir, id).await);
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
    let back = open(&peers, &empty, old_id).await;
    let names = collect(&mut back.subscribe(), 5).await;
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}
