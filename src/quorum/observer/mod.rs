//! [`MetaLog`] of a node without a vote: follows the leader over the network with Fetch and FetchSnapshot, as Kafka's observers
//! do, and keeps a copy of the committed log. Brokers use it, and controllers before they are voters.
//!
//! ```text
//! searching --(a controller names the leader)--> following --(a fetch succeeds)--> following, leader announced
//!     ^ asks one controller after the other          |(no connection, another epoch)
//!     +----------------------------------------------+  the leader is announced as unknown after the fetch timeout
//! ```

mod feed;
mod follower;
mod log;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::search::{self, Asked};
use super::store::lock;
use super::types::{VoterEndpoint, node_id};
use super::vote_file;
use super::{
    BoxFuture, Committed, EndHeld, LeaderAndEpoch, MetaLog, ProposeError, QuorumError, QuorumInfo,
    ReplicaState, SnapshotError,
};
use crate::clock::Clock;
use crate::config::TopicConfig;
use crate::log::{LogDir, StorageError};
use crate::protocol::metadata_records::MetadataRecord;
use crate::types::{BrokerId, LeaderEpoch, Offset};
use follower::Follower;
use log::ObserverLog;

/// What [`Observer::open`] needs.
pub struct ObserverParams {
    pub node_id: BrokerId,
    pub cluster_id: Arc<str>,
    /// `metadata.log.dir`
    pub log_dir: Arc<LogDir>,
    /// Segment sizes and the like of the metadata log.
    pub config: Arc<TopicConfig>,
    /// Controllers to ask who leads.
    pub bootstrap: Vec<VoterEndpoint>,
    pub timing: ObserverTiming,
    pub clock: Clock,
}

/// How long an observer waits for what, and how much it takes at once.
#[derive(Clone, Copy, Debug)]
pub struct ObserverTiming {
    /// `controller.quorum.fetch.timeout.ms`: without an answer for so long the leader counts as gone.
    pub fetch_timeout: Duration,
    /// `controller.quorum.request.timeout.ms`
    pub request_timeout: Duration,
    /// No longer than `socket.connection.setup.timeout.ms`, nor than an answer may take.
    pub connect_timeout: Duration,
    /// `controller.quorum.retry.backoff.ms`
    pub retry_backoff: Duration,
    /// `controller.quorum.fetch.max.bytes`
    pub fetch_bytes_max: i32,
    /// `controller.quorum.fetch.snapshot.max.bytes`
    pub snapshot_bytes_max: i32,
}

/// The metadata log of a node without a vote. [`Observer::shutdown`] leaves it durable.
pub struct Observer {
    inner: Arc<Inner>,
}

struct Inner {
    params: ObserverParams,
    log: Mutex<ObserverLog>,
    /// What is committed and here.
    high_watermark: watch::Sender<Offset>,
    /// As the leader told, which this node may still have to reach.
    leader_high_watermark: Mutex<Offset>,
    leader: watch::Sender<LeaderAndEpoch>,
    asked: Arc<Asked>,
    /// Where controllers listen, as leaders and the voters' records told.
    endpoints: Mutex<BTreeMap<BrokerId, VoterEndpoint>>,
    /// Held while a checkpoint is written or installed.
    checkpointing: tokio::sync::Mutex<()>,
    stop: CancellationToken,
}

impl Observer {
    /// Opens or creates the copy of the log, and begins to follow.
    pub async fn open(params: ObserverParams) -> Result<Self, QuorumError> {
        let (log_dir, config) = (Arc::clone(&params.log_dir), Arc::clone(&params.config));
        let now_ms = params.clock.wall_ms();
        let (log, epoch) = tokio::task::spawn_blocking(move || {
            let (log, dir) = super::meta_log::open_log(log_dir, config, now_ms)?;
            let epoch = vote_file::read_epoch(&dir);
            io::Result::Ok((ObserverLog::open(log, &dir)?, epoch))
        })
        .await
        .map_err(io::Error::other)??;
        let epoch = epoch.max(log.last_epoch());
        let committed = log.newest_checkpoint().map_or(0, |id| id.0);
        let inner = Arc::new(Inner {
            params,
            log: Mutex::new(log),
            high_watermark: watch::Sender::new(committed),
            leader_high_watermark: Mutex::new(committed),
            leader: watch::Sender::new(LeaderAndEpoch {
                leader_id: None,
                epoch,
            }),
            asked: Arc::default(),
            endpoints: Mutex::default(),
            checkpointing: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
        });
        inner.learn_voters();
        tokio::spawn(Follower::new(Arc::clone(&inner)).run());
        let (asked, stop) = (Arc::clone(&inner.asked), inner.stop.clone());
        tokio::spawn(search::run(inner.leader.subscribe(), asked, stop));
        Ok(Self { inner })
    }

    /// Stops following and leaves the log durable.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.inner.stop.cancel();
        let _held = self.inner.checkpointing.lock().await;
        self.inner.on_disk(ObserverLog::flush).await
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

impl Inner {
    /// Does something to the log, off the runtime's threads.
    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        action: impl FnOnce(&mut ObserverLog) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let inner = Arc::clone(self);
        tokio::task::spawn_blocking(move || action(&mut lock(&inner.log)))
            .await
            .map_err(io::Error::other)?
    }

    /// The directory goes offline with its metadata log: a node cannot go on without it.
    fn fail(&self, cause: io::Error) {
        error!(error = %cause, "the metadata log failed");
        let dir = &self.params.log_dir;
        dir.fail(StorageError::io("write metadata log in", dir.path(), cause));
    }

    /// Remembers where the voters of the log listen.
    fn learn_voters(&self) {
        let Some(voters) = lock(&self.log).voters().cloned() else {
            return;
        };
        let mut endpoints = lock(&self.endpoints);
        for (id, node) in voters.nodes() {
            if let Some(endpoint) = node.endpoints.first() {
                endpoints.insert(node_id(*id), endpoint.clone());
            }
        }
    }

    /// Tells subscribers that more is committed.
    fn advance(&self, high_watermark: Offset) {
        self.high_watermark.send_if_modified(|known| {
            let advances = high_watermark > *known;
            *known = high_watermark.max(*known);
            advances
        });
    }

    async fn announce(self: &Arc<Self>, now: LeaderAndEpoch) {
        let before = self.leader.send_replace(now);
        if before == now {
            return;
        }
        info!(leader_id = ?now.leader_id, leader_epoch = now.epoch, "metadata quorum leader");
        let written = self.on_disk(move |log| {
            vote_file::write_quorum_state(log.dir(), now.leader_id.unwrap_or(-1), now.epoch, -1)
        });
        if let Err(error) = written.await {
            warn!(%error, "quorum-state could not be rewritten");
        }
    }

    async fn snapshot(
        self: &Arc<Self>,
        offset: Offset,
        epoch: LeaderEpoch,
        records: Vec<MetadataRecord>,
    ) -> Result<(), SnapshotError> {
        let storage = |error: io::Error| SnapshotError::Storage(error.to_string().into());
        let _held = self.checkpointing.lock().await;
        let is_committed = offset <= *self.high_watermark.borrow();
        let newest = lock(&self.log).newest_checkpoint();
        let described = self.on_disk(move |log| log.batch_before(offset));
        let described = described.await.map_err(storage)?;
        let is_newer = newest.is_none_or(|id| id.0 < offset);
        let Some(info) = described.filter(|it| is_committed && is_newer && it.epoch == epoch)
        else {
            return Err(SnapshotError::BadOffset(offset));
        };
        let dir = lock(&self.log).path_of((offset, epoch));
        let written = tokio::task::spawn_blocking(move || {
            let dir = dir.parent().unwrap_or(&dir);
            info.write_part(dir, offset, &records)
        });
        let part = written.await.map_err(io::Error::other).flatten();
        let part = part.map_err(storage)?;
        self.on_disk(move |log| log.publish((offset, epoch), &part))
            .await
            .map_err(storage)
    }
}

impl MetaLog for Observer {
    /// Nobody without a vote leads.
    fn propose(
        &self,
        _: LeaderEpoch,
        _: Vec<MetadataRecord>,
    ) -> BoxFuture<'static, Result<Offset, ProposeError>> {
        Box::pin(std::future::ready(Err(ProposeError::NotLeader)))
    }

    fn end_offset(&self) -> Offset {
        lock(&self.inner.log).end_offset()
    }

    fn hold_end(&self) -> EndHeld<'_> {
        None
    }

    /// Announced once a fetch from it has succeeded.
    fn leader(&self) -> watch::Receiver<LeaderAndEpoch> {
        self.inner.leader.subscribe()
    }

    fn subscribe(&self) -> mpsc::Receiver<Committed> {
        feed::start(&self.inner)
    }

    fn endpoint(&self, id: BrokerId) -> Option<VoterEndpoint> {
        lock(&self.inner.endpoints).get(&id).cloned()
    }

    /// What is known here: the voters, not how far they are.
    fn describe(&self) -> QuorumInfo {
        let leader = *self.inner.leader.borrow();
        let high_watermark = *lock(&self.inner.leader_high_watermark);
        let log = lock(&self.inner.log);
        let nodes = log.voters().into_iter().flat_map(|voters| {
            let ids = voters.voter_ids();
            ids.filter_map(|id| Some((id, voters.get_node(&id)?)))
        });
        let voters = nodes.map(|(id, node)| ReplicaState::unheard(node_id(id), node.directory_id));
        QuorumInfo {
            leader_id: leader.leader_id.unwrap_or(-1),
            leader_epoch: leader.epoch,
            high_watermark,
            voters: voters.collect(),
            observers: Vec::new(),
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
