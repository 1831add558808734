//! The event loops: one task per led partition with a mailbox, the high watermark and a deadline to wait for.
//! An idle one is a parked task: it never ticks.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::PartitionWriter;
use super::executor::{Executor, RuntimeConfig};
use super::loader::{Loaded, load};
use super::shard::{Now, Shard};
use crate::clock::Clock;
use crate::protocol::error::{Error, ErrorCode};
use crate::types::{LeaderEpoch, Offset, TopicPartition};

/// Operations waiting for one partition; senders wait beyond that.
const MAILBOX_OPERATIONS: usize = 1024;
/// Operations that may share one append.
const DRAIN_OPERATIONS: usize = 256;
/// Partitions loaded at the same time, each on a blocking thread.
const LOADS_AT_ONCE: usize = 4;

type NewShard<S> = Box<dyn Fn(&TopicPartition) -> S + Send + Sync>;

/// The partitions of one internal topic that this broker leads.
pub struct Runtime<S: Shard> {
    topic: Arc<str>,
    config: RuntimeConfig,
    writer: Arc<dyn PartitionWriter>,
    clock: Clock,
    new_shard: NewShard<S>,
    tokio: tokio::runtime::Handle,
    loads: Semaphore,
    partitions: RwLock<BTreeMap<i32, Arc<Entry<S>>>>,
}

struct Entry<S: Shard> {
    leader_epoch: LeaderEpoch,
    loaded: AtomicBool,
    mailbox: mpsc::Sender<S::Operation>,
    resigned: CancellationToken,
}

impl<S: Shard> Runtime<S> {
    /// Panics outside of a tokio runtime: the event loops run in it.
    pub fn new(
        topic: &str,
        config: RuntimeConfig,
        writer: Arc<dyn PartitionWriter>,
        clock: Clock,
        new_shard: impl Fn(&TopicPartition) -> S + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            topic: topic.into(),
            config,
            writer,
            clock,
            new_shard: Box::new(new_shard),
            tokio: tokio::runtime::Handle::current(),
            loads: Semaphore::new(LOADS_AT_ONCE),
            partitions: RwLock::default(),
        })
    }

    /// Starts the event loop of a partition; ignored when it already runs in this epoch or a newer one.
    pub fn on_elected(self: &Arc<Self>, partition: i32, leader_epoch: LeaderEpoch) {
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if partitions
            .get(&partition)
            .is_some_and(|e| e.leader_epoch >= leader_epoch)
        {
            return;
        }
        let (mailbox, operations) = mpsc::channel(MAILBOX_OPERATIONS);
        let entry = Arc::new(Entry {
            leader_epoch,
            loaded: AtomicBool::new(false),
            mailbox,
            resigned: CancellationToken::new(),
        });
        if let Some(old) = partitions.insert(partition, entry.clone()) {
            old.resigned.cancel();
        }
        drop(partitions);
        let tp = TopicPartition::new(self.topic.clone(), partition);
        self.tokio
            .spawn(Arc::clone(self).run(tp, entry, operations));
    }

    /// Stops the event loop of a partition unless it runs in a newer epoch.
    pub fn on_resigned(&self, partition: i32, leader_epoch: Option<LeaderEpoch>) {
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let newer = |e: &Arc<Entry<S>>| leader_epoch.is_some_and(|epoch| e.leader_epoch > epoch);
        if partitions.get(&partition).is_some_and(newer) {
            return;
        }
        if let Some(entry) = partitions.remove(&partition) {
            entry.resigned.cancel();
        }
    }

    pub fn shutdown(&self) {
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for (_, entry) in std::mem::take(&mut *partitions) {
            entry.resigned.cancel();
        }
    }

    /// The partitions that run or load here.
    pub fn partitions(&self) -> Vec<i32> {
        let partitions = self
            .partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.keys().copied().collect()
    }

    /// Hands an operation to its partition's event loop, or answers it with the reason why not.
    pub async fn submit(&self, partition: i32, op: S::Operation) {
        let entry = {
            let partitions = self
                .partitions
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            partitions.get(&partition).cloned()
        };
        let Some(entry) = entry else {
            return S::reject(op, ErrorCode::NotCoordinator.into());
        };
        if !entry.loaded.load(Ordering::Acquire) {
            return S::reject(op, ErrorCode::CoordinatorLoadInProgress.into());
        }
        if let Err(mpsc::error::SendError(op)) = entry.mailbox.send(op).await {
            S::reject(op, ErrorCode::NotCoordinator.into());
        }
    }

    /// Sends an operation to every loaded partition; full mailboxes are waited for in the background.
    pub fn broadcast(self: &Arc<Self>, op: impl Fn() -> S::Operation + Send + 'static) {
        let partitions = self.partitions();
        if partitions.is_empty() {
            return;
        }
        let runtime = self.clone();
        self.tokio.spawn(async move {
            for partition in partitions {
                let op = op();
                runtime.submit(partition, op).await;
            }
        });
    }

    async fn run(
        self: Arc<Self>,
        tp: TopicPartition,
        entry: Arc<Entry<S>>,
        mut operations: mpsc::Receiver<S::Operation>,
    ) {
        loop {
            entry.loaded.store(false, Ordering::Release);
            let (loaded, high_watermark) = match self.load(&tp).await {
                Ok(loaded) => loaded,
                Err(error) => {
                    let leader_epoch = entry.leader_epoch;
                    if error.code == ErrorCode::NotLeaderOrFollower {
                        info!(%tp, leader_epoch, "lost the partition before its coordinator was loaded");
                    } else {
                        error!(%tp, leader_epoch, %error, "coordinator could not be loaded");
                    }
                    self.on_resigned(tp.partition, Some(entry.leader_epoch));
                    break;
                }
            };
            if entry.resigned.is_cancelled() {
                break;
            }
            let shard = (self.new_shard)(&tp);
            let mut executor = Executor::new(
                tp.clone(),
                entry.leader_epoch,
                self.config,
                self.writer.clone(),
                high_watermark.clone(),
                loaded,
                shard,
            );
            let now = self.now();
            if catch_unwind(AssertUnwindSafe(|| executor.on_loaded(now))).is_err() {
                error!(%tp, "coordinator panicked over what it loaded");
                self.on_resigned(tp.partition, Some(entry.leader_epoch));
                break;
            }
            entry.loaded.store(true, Ordering::Release);
            let end = self
                .serve(&mut executor, &entry, &mut operations, high_watermark)
                .await;
            let now = self.now();
            let unload = || executor.unload(now, &ErrorCode::NotCoordinator.into());
            if catch_unwind(AssertUnwindSafe(unload)).is_err() {
                error!(%tp, "coordinator panicked while it was unloaded");
            }
            match end {
                End::Resigned => break,
                End::Broken => warn!(%tp, "coordinator is loaded again"),
            }
        }
        operations.close();
        while let Ok(op) = operations.try_recv() {
            S::reject(op, ErrorCode::NotCoordinator.into());
        }
    }

    async fn serve(
        &self,
        executor: &mut Executor<S>,
        entry: &Entry<S>,
        operations: &mut mpsc::Receiver<S::Operation>,
        mut high_watermark: watch::Receiver<Offset>,
    ) -> End {
        let mut drained = Vec::new();
        high_watermark.mark_unchanged();
        loop {
            let wait = executor
                .next_deadline_ms()
                .map(|at| Duration::from_millis((at - self.clock.monotonic_ms()).max(0) as u64));
            tokio::select! {
                biased;
                () = entry.resigned.cancelled() => return End::Resigned,
                received = operations.recv_many(&mut drained, DRAIN_OPERATIONS) => {
                    if received == 0 {
                        return End::Resigned;
                    }
                }
                changed = high_watermark.changed(), if executor.has_pending() => {
                    // The partition is gone: its resignation follows.
                    if changed.is_err() {
                        entry.resigned.cancelled().await;
                        return End::Resigned;
                    }
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            let now = self.now();
            let step = catch_unwind(AssertUnwindSafe(|| {
                for op in drained.drain(..) {
                    executor.handle(now, op);
                }
                executor.advance(now);
                executor.flush(now);
            }));
            if step.is_err() || executor.is_out_of_sync() {
                return End::Broken;
            }
        }
    }

    async fn load(
        &self,
        tp: &TopicPartition,
    ) -> Result<(Loaded<S::Hard>, watch::Receiver<Offset>), Error> {
        let high_watermark = self.writer.high_watermark(tp)?;
        let committed = *high_watermark.borrow();
        let (log_start_offset, next_offset) = self.writer.offsets(tp)?;
        let read_bytes = self.config.load_bytes;
        if log_start_offset == next_offset {
            return Ok((
                load(&*self.writer, tp, committed, read_bytes)?,
                high_watermark,
            ));
        }
        let _permit = self.loads.acquire().await;
        let (writer, partition) = (self.writer.clone(), tp.clone());
        let start_ms = self.clock.monotonic_ms();
        let loaded: Loaded<S::Hard> =
            tokio::task::spawn_blocking(move || load(&*writer, &partition, committed, read_bytes))
                .await
                .map_err(|e| Error::new(ErrorCode::UnknownServerError, e.to_string()))??;
        let took_ms = self.clock.monotonic_ms() - start_ms;
        info!(%tp, records = loaded.records, took_ms, "loaded coordinator");
        Ok((loaded, high_watermark))
    }

    fn now(&self) -> Now {
        Now {
            monotonic_ms: self.clock.monotonic_ms(),
            wall_ms: self.clock.wall_ms(),
        }
    }
}

enum End {
    Resigned,
    /// A handler panicked or the log was written by somebody else.
    Broken,
}
