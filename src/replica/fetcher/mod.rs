//! Keeps followers up to date: one task for each leader broker and fetcher index (`num.replica.fetchers`), each with one
//! connection and one fetch session. Partitions are given to them when the metadata says who leads; a task drops those
//! that moved on by itself, since it asks every partition where it stands before each fetch.

mod session;
mod stats;
mod task;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ReplicaManager;
use crate::clock::Clock;
use crate::config::Config;
use crate::metadata::{Images, MetadataDelta, MetadataImage, Publisher};
use crate::metrics::Scrape;
use crate::partition::Partition;
use crate::types::{BrokerId, Uuid};

pub use session::{FetchSession, Positions, SessionKey, SessionRequest};
use stats::FetcherStats;

/// All fetchers of a broker.
pub struct Fetchers {
    context: Arc<Context>,
    /// By leader and fetcher index. Bounded by brokers times `num.replica.fetchers`.
    assigned: Arc<Mutex<ByLeader>>,
    /// `num.replica.fetchers`
    count: AtomicU64,
}

type ByLeader = BTreeMap<(BrokerId, u64), Arc<Assigned>>;

/// What every fetcher needs.
struct Context {
    replicas: Arc<ReplicaManager>,
    config: Arc<ArcSwap<Config>>,
    images: Images,
    clock: Clock,
    shutdown: CancellationToken,
}

impl Context {
    fn fetchers(&self) -> u64 {
        self.config.load().num_replica_fetchers.max(1) as u64
    }
}

/// The partitions of one fetcher.
#[derive(Default)]
struct Assigned {
    partitions: Mutex<BTreeMap<SessionKey, Followed>>,
    added: Notify,
    stats: FetcherStats,
}

/// A partition that is fetched.
struct Followed {
    partition: Arc<Partition>,
    /// Records up to the leader's high watermark that are missing here; `None` until the leader has told.
    lag: Option<i64>,
    /// What the leader sent last could not be taken.
    is_failed: bool,
}

impl Followed {
    fn new(partition: Arc<Partition>) -> Self {
        Self {
            partition,
            lag: None,
            is_failed: false,
        }
    }

    /// In sync as far as a follower can tell: such a replica is not throttled (`PartitionFetchState.isReplicaInSync`).
    fn is_in_sync(&self) -> bool {
        self.lag.is_some_and(|lag| lag <= 0)
    }
}

impl Assigned {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionKey, Followed>> {
        self.partitions
            .lock()
            .expect("the map is changed without panics")
    }

    fn partition(&self, key: SessionKey) -> Option<Arc<Partition>> {
        let followed = self.lock();
        followed.get(&key).map(|f| Arc::clone(&f.partition))
    }
}

impl Fetchers {
    /// Fetchers end with `shutdown`.
    pub fn new(
        replicas: Arc<ReplicaManager>,
        config: Arc<ArcSwap<Config>>,
        images: Images,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Self {
        let context = Arc::new(Context {
            replicas,
            config,
            images,
            clock,
            shutdown,
        });
        let fetchers = Self {
            count: AtomicU64::new(context.fetchers()),
            context,
            assigned: Arc::default(),
        };
        fetchers.add_metrics();
        fetchers
    }

    fn add_metrics(&self) {
        let context = Arc::downgrade(&self.context);
        let assigned = Arc::downgrade(&self.assigned);
        self.context.replicas.metrics().add_source(move || {
            let mut scrape = Scrape::default();
            if let (Some(context), Some(assigned)) = (context.upgrade(), assigned.upgrade()) {
                let fetchers = assigned.lock();
                let fetchers = fetchers.expect("the map is changed without panics").clone();
                stats::collect(&mut scrape, &context, &fetchers);
            }
            std::future::ready(scrape)
        });
    }

    fn assigned(&self) -> MutexGuard<'_, ByLeader> {
        self.assigned
            .lock()
            .expect("the map is changed without panics")
    }

    /// Spreads all partitions anew if `num.replica.fetchers` changed (`AbstractFetcherManager.resizeThreadPool`). Fetchers
    /// that are left without any wait and cost nothing.
    fn resize(&self) {
        let count = self.context.fetchers();
        if self.count.swap(count, Relaxed) == count {
            return;
        }
        let all: Vec<_> = self.assigned().values().cloned().collect();
        for assigned in all {
            // What is under way for them is dropped: the next fetcher asks again.
            let taken = std::mem::take(&mut *assigned.lock());
            for followed in taken.into_values() {
                self.follow(followed.partition);
            }
        }
    }

    /// Has `partition` fetched from its leader, if it follows one.
    fn follow(&self, partition: Arc<Partition>) {
        if let Some(position) = partition.follower_position() {
            self.assign(partition, position.leader);
        }
    }

    /// Has `partition` fetched from `leader`.
    fn assign(&self, partition: Arc<Partition>, leader: BrokerId) {
        let key = (partition.topic_id, partition.topic_partition.partition);
        let place = (leader, fetcher_index(key, self.count.load(Relaxed)));
        let assigned = {
            let mut all = self.assigned();
            let assigned = all.entry(place).or_insert_with(|| {
                let assigned = Arc::<Assigned>::default();
                let context = Arc::clone(&self.context);
                let fetcher = task::Fetcher::new(context, leader, Arc::clone(&assigned));
                tokio::spawn(fetcher.run());
                assigned
            });
            Arc::clone(assigned)
        };
        let mut followed = assigned.lock();
        let is_known = |known: &Followed| Arc::ptr_eq(&known.partition, &partition);
        if !followed.get(&key).is_some_and(is_known) {
            followed.insert(key, Followed::new(partition));
        }
        drop(followed);
        assigned.added.notify_one();
    }
}

/// Spreads the partitions of a topic over the fetchers.
fn fetcher_index((topic_id, partition): (Uuid, i32), fetchers: u64) -> u64 {
    let (high, low) = topic_id.as_u64_pair();
    (high ^ low).wrapping_add(partition as u64) % fetchers
}

impl Publisher for Fetchers {
    fn on_update(&self, delta: &MetadataDelta, _: &Arc<MetadataImage>) {
        self.resize();
        for (topic_id, _, index) in delta.partitions_changed() {
            // Not hosted here, or its directory is offline: nobody fetches.
            let Ok(partition) = self.context.replicas.find_by_id(topic_id, index) else {
                continue;
            };
            self.follow(partition);
        }
    }
}
