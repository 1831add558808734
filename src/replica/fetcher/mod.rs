//! Keeps followers up to date: one task for each leader broker and fetcher index (`num.replica.fetchers`), each with one
//! connection and one fetch session. Partitions are given to them when the metadata says who leads; a task drops those
//! that moved on by itself, since it asks every partition where it stands before each fetch.

mod session;
mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ReplicaManager;
use crate::clock::Clock;
use crate::config::Config;
use crate::metadata::{Images, MetadataDelta, MetadataImage, Publisher};
use crate::partition::Partition;
use crate::types::{BrokerId, Uuid};

use session::SessionKey;

/// All fetchers of a broker.
pub struct Fetchers {
    context: Arc<Context>,
    /// By leader and fetcher index. Bounded by brokers times `num.replica.fetchers`.
    assigned: Mutex<BTreeMap<(BrokerId, u64), Arc<Assigned>>>,
}

/// What every fetcher needs.
struct Context {
    replicas: Arc<ReplicaManager>,
    config: Arc<ArcSwap<Config>>,
    images: Images,
    clock: Clock,
    shutdown: CancellationToken,
}

/// The partitions of one fetcher.
#[derive(Default)]
struct Assigned {
    partitions: Mutex<BTreeMap<SessionKey, Followed>>,
    added: Notify,
}

/// A partition that is fetched.
struct Followed {
    partition: Arc<Partition>,
    /// Records up to the leader's high watermark that are missing here; `None` until the leader has told.
    lag: Option<i64>,
}

impl Followed {
    fn new(partition: Arc<Partition>) -> Self {
        Self {
            partition,
            lag: None,
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
        Self {
            context,
            assigned: Mutex::default(),
        }
    }

    /// Has `partition` fetched from `leader`.
    fn assign(&self, partition: Arc<Partition>, leader: BrokerId) {
        let key = (partition.topic_id, partition.topic_partition.partition);
        let fetchers = self.context.config.load().num_replica_fetchers.max(1) as u64;
        let place = (leader, fetcher_index(key, fetchers));
        let assigned = {
            let mut all = self
                .assigned
                .lock()
                .expect("the map is changed without panics");
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
        for (topic_id, _, index) in delta.partitions_changed() {
            // Not hosted here, or its directory is offline: nobody fetches.
            let Ok(partition) = self.context.replicas.find_by_id(topic_id, index) else {
                continue;
            };
            if let Some(position) = partition.follower_position() {
                self.assign(partition, position.leader);
            }
        }
    }
}
