//! Follows the committed metadata log: builds the image, publishes it with what changed, and has snapshots written.
//!
//! One loader per process. Batches that arrive together, above all everything that was committed before the start,
//! become one delta. While nothing is committed the loader sleeps.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::delta::MetadataDelta;
use super::image::MetadataImage;
use super::images::{Images, Publisher};
use crate::protocol::metadata_records::MetadataRecord;
use crate::quorum::{Committed, LeaderAndEpoch, MetaLog};
use crate::types::{BrokerId, LeaderEpoch, Offset, TimestampMs, Uuid};

/// Changes of more partitions than these are published aside from the runtime's threads.
const PARTITIONS_INLINE_MAX: usize = 32;

/// When to look again whether a snapshot that is due can be written.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(1);

/// What a loader is made of.
pub struct LoaderParams {
    pub log: Arc<dyn MetaLog>,
    pub images: Images,
    /// Called in this order for every update.
    pub publishers: Vec<Arc<dyn Publisher>>,
    pub snapshots: SnapshotPolicy,
    /// Publishers hear nothing before this process is registered: until then the metadata speaks of the process that had
    /// the broker's id before, and what that one led, this one may have lost (KIP-966). `None` does not wait.
    pub registers_as: Option<(BrokerId, Uuid)>,
    /// Ends the loader.
    pub shutdown: CancellationToken,
}

/// When a snapshot is due: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotPolicy {
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub record_bytes_max: i64,
    /// `metadata.log.max.snapshot.interval.ms`; 0 means never because of time.
    pub interval_ms: i64,
}

/// Builds and publishes images; see the file's comment.
pub struct Loader {
    params: LoaderParams,
    image: MetadataImage,
    delta: MetadataDelta,
    /// Records of the metadata transaction that has begun and not ended (KIP-868).
    transaction: Option<Vec<MetadataRecord>>,
    /// Whether what was committed before the start has been published.
    caught_up: bool,
    /// Estimated, since the last snapshot.
    record_bytes: i64,
    snapshot_due: Option<Instant>,
    snapshot_writer: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts following on the current runtime.
    pub fn start(params: LoaderParams) -> JoinHandle<()> {
        let delta = MetadataDelta {
            initial: true,
            ..MetadataDelta::default()
        };
        let loader = Self {
            params,
            image: MetadataImage::default(),
            delta,
            transaction: None,
            caught_up: false,
            record_bytes: 0,
            snapshot_due: None,
            snapshot_writer: None,
        };
        tokio::spawn(loader.run())
    }

    async fn run(mut self) {
        let mut committed = self.params.log.subscribe();
        let mut leader = self.params.log.leader();
        let shutdown = self.params.shutdown.clone();
        let steps = async {
            while self.step(&mut committed, &mut leader).await {
                self.publish();
                self.snapshot_if_due();
            }
        };
        shutdown.run_until_cancelled(steps).await;
    }

    /// Waits for something to do; false when the log has been closed.
    async fn step(
        &mut self,
        committed: &mut mpsc::Receiver<Committed>,
        leader: &mut watch::Receiver<LeaderAndEpoch>,
    ) -> bool {
        let due = self.snapshot_due;
        let item = tokio::select! {
            item = committed.recv() => match item {
                Some(item) => item,
                None => return false,
            },
            // The first publication may be waiting for a leader to be known.
            Ok(()) = leader.changed(), if !self.caught_up => return true,
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                return true;
            }
        };
        self.take(item);
        while let Ok(item) = committed.try_recv() {
            self.take(item);
        }
        true
    }

    fn take(&mut self, item: Committed) {
        match item {
            Committed::Snapshot {
                offset,
                epoch,
                records,
            } => self.take_snapshot(offset, epoch, &records),
            Committed::Batch {
                last_offset,
                epoch,
                append_time_ms,
                records,
                ..
            } => {
                for record in &*records {
                    self.record_bytes += estimated_bytes(record);
                    self.take_record(record);
                }
                self.at(last_offset, epoch, append_time_ms);
            }
        }
    }

    fn at(&mut self, last_offset: Offset, epoch: LeaderEpoch, append_time_ms: TimestampMs) {
        self.image.last_offset = last_offset;
        self.image.epoch = epoch;
        self.image.append_time_ms = append_time_ms;
    }

    fn take_record(&mut self, record: &MetadataRecord) {
        match (record, &mut self.transaction) {
            (MetadataRecord::BeginTransaction(_), transaction) => {
                *transaction = Some(Vec::new());
                self.apply(record);
            }
            (MetadataRecord::AbortTransaction(_), transaction) => {
                *transaction = None;
                self.apply(record);
            }
            (MetadataRecord::EndTransaction(_), transaction) => {
                for record in transaction.take().unwrap_or_default() {
                    self.apply(&record);
                }
                self.apply(record);
            }
            (record, Some(transaction)) => transaction.push(record.clone()),
            (record, None) => self.apply(record),
        }
    }

    fn apply(&mut self, record: &MetadataRecord) {
        if let Err(reason) = self.image.apply(record, &mut self.delta) {
            error!(?record, %reason, "a committed metadata record does not fit the image");
        }
    }

    fn take_snapshot(&mut self, offset: Offset, epoch: LeaderEpoch, records: &[MetadataRecord]) {
        let before = std::mem::take(&mut self.image);
        let first = before == self.image;
        let initial = self.delta.initial;
        let unpublished = std::mem::take(&mut self.delta);
        self.transaction = None;
        self.record_bytes = 0;
        for record in records {
            self.apply(record);
        }
        self.at(offset - 1, epoch, self.image.append_time_ms);
        if !first {
            // Names everything that differs from what subscribers saw, and what they have not been told of before.
            self.delta = MetadataDelta::between(&before, &self.image);
            self.delta.merge(unpublished);
        }
        self.delta.initial = initial;
        info!(
            offset,
            epoch,
            records = records.len(),
            "loaded a metadata snapshot"
        );
    }

    /// Hands the image and the gathered changes to everybody, except before the start's catching up is complete, and the
    /// first time not before the broker is registered.
    fn publish(&mut self) {
        if !self.caught_up {
            let leader_known = self.params.log.leader().borrow().leader_id.is_some();
            let high_watermark = self.params.log.describe().high_watermark;
            if !leader_known || self.image.next_offset() < high_watermark {
                return;
            }
            self.caught_up = true;
        }
        let image = Arc::new(self.image.clone());
        if image.last_offset == self.params.images.loaded().last_offset {
            return;
        }
        self.params.images.set_loaded(&image);
        if self.delta.initial && !self.is_registered() {
            return;
        }
        let delta = std::mem::take(&mut self.delta);
        if delta.initial || !delta.is_empty() {
            self.call_publishers(&delta, &image);
        }
        self.params.images.set_current(&image);
    }

    fn is_registered(&self) -> bool {
        self.params.registers_as.is_none_or(|(id, incarnation)| {
            let broker = self.image.cluster.broker(id);
            broker.is_some_and(|broker| broker.incarnation_id == incarnation)
        })
    }

    fn call_publishers(&self, delta: &MetadataDelta, image: &Arc<MetadataImage>) {
        let call = || {
            for publisher in &self.params.publishers {
                publisher.on_update(delta, image);
            }
        };
        let partitions = delta
            .topics_changed
            .values()
            .map(|topic| topic.partitions.len());
        let large = partitions.sum::<usize>() > PARTITIONS_INLINE_MAX;
        let threads = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        if large && threads {
            // Opening thousands of logs takes a while: the controller and others on this thread must not wait for it.
            tokio::task::block_in_place(call);
        } else {
            call();
        }
    }

    fn snapshot_if_due(&mut self) {
        let policy = self.params.snapshots;
        if self.record_bytes > 0 && self.snapshot_due.is_none() && policy.interval_ms > 0 {
            let interval = Duration::from_millis(policy.interval_ms.unsigned_abs());
            self.snapshot_due = Some(Instant::now() + interval);
        }
        let late = self.snapshot_due.is_some_and(|due| due <= Instant::now());
        let writing = self
            .snapshot_writer
            .as_ref()
            .is_some_and(|writer| !writer.is_finished());
        let due = late || self.record_bytes >= policy.record_bytes_max;
        if !due {
            return;
        }
        if writing || !self.caught_up || self.transaction.is_some() {
            self.snapshot_due = Some(Instant::now() + SNAPSHOT_RETRY);
            return;
        }
        self.record_bytes = 0;
        self.snapshot_due = None;
        let (offset, records) = (self.image.next_offset(), self.image.to_records());
        let written = self
            .params
            .log
            .write_snapshot(offset, self.image.epoch, records);
        self.snapshot_writer = Some(tokio::spawn(async move {
            match written.await {
                Ok(()) => info!(offset, "wrote a metadata snapshot"),
                Err(reason) => warn!(offset, %reason, "no metadata snapshot"),
            }
        }));
    }
}

/// Roughly what a record takes in the log; encoding it again to know exactly would double the cost of starting.
fn estimated_bytes(record: &MetadataRecord) -> i64 {
    match record {
        MetadataRecord::RegisterBroker(_) | MetadataRecord::RegisterController(_) => 300,
        MetadataRecord::Partition(_) => 90,
        MetadataRecord::NoOp(_) => 12,
        _ => 60,
    }
}
