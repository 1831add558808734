//! Brokers whose processes have died, as this node sees it, until the metadata says so.
//!
//! A client that loses a broker asks another one at once who leads now, sooner than the controller can have decided. Told of the
//! dead one again, librdkafka tries that for a second or two. So a broker that vanished looks as if it were not registered: its
//! partitions have no leader for now (LEADER_NOT_AVAILABLE, as Kafka says of brokers that are not alive), and clients ask again soon.
//! Such a client may ask even before this node's own connection to the dead broker was looked at; who answers looks at it then.
//!
//! Neither of two other answers is better for librdkafka 2.16. To wait for the new leaders: together with a broker that is not listed
//! any more it forgets who took over, and asks again only when its next second begins. To wait, and list the broker all the same: it
//! remembers how often it could not connect to it, and waits for up to ten seconds when that one is back and leads again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::metadata::{BrokerRegistration, MetadataImage};
use crate::rpc::Lifeline;
use crate::types::BrokerId;

/// A process that is gone refuses connections at once; what takes longer is left in doubt.
const DOUBT_MAX: Duration = Duration::from_millis(100);
const DOUBT_STEP: Duration = Duration::from_millis(1);

/// The epochs of the registrations whose processes are gone, by broker. Bound: the brokers of the cluster.
pub type VanishedBrokers = Arc<BTreeMap<BrokerId, i64>>;

/// Shared by who finds out and who answers.
#[derive(Clone, Debug, Default)]
pub struct Vanished(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    brokers: ArcSwap<BTreeMap<BrokerId, i64>>,
    /// Of who is watched. Bound: as for the brokers.
    lifelines: Mutex<BTreeMap<BrokerId, Weak<Lifeline>>>,
}

impl Vanished {
    pub fn now(&self) -> VanishedBrokers {
        self.0.brokers.load_full()
    }

    /// Whether the connection to a broker has just ended, and nobody knows yet what became of it.
    pub fn is_in_doubt(&self) -> bool {
        let lifelines = self.0.lifelines.lock();
        let lifelines = lifelines.unwrap_or_else(PoisonError::into_inner);
        lifelines
            .values()
            .any(|line| line.upgrade().is_some_and(|line| line.is_torn()))
    }

    /// Waits until that is known, for a moment at most.
    pub async fn settled(&self) {
        let known = async {
            while self.is_in_doubt() {
                tokio::time::sleep(DOUBT_STEP).await;
            }
        };
        let _ = tokio::time::timeout(DOUBT_MAX, known).await;
    }

    /// The connection by which that broker is watched, as long as its holder keeps it.
    pub fn lifeline(&self, id: BrokerId) -> Arc<Lifeline> {
        let lifeline = Arc::<Lifeline>::default();
        let lifelines = self.0.lifelines.lock();
        let mut lifelines = lifelines.unwrap_or_else(PoisonError::into_inner);
        lifelines.retain(|_, line| line.strong_count() > 0);
        lifelines.insert(id, Arc::downgrade(&lifeline));
        lifeline
    }

    /// Nobody listens where the broker of this epoch did.
    pub fn note(&self, id: BrokerId, epoch: i64) {
        self.change(|known| {
            known.insert(id, epoch);
        });
    }

    /// Somebody listens there again.
    pub fn lift(&self, id: BrokerId) {
        self.change(|known| {
            known.remove(&id);
        });
    }

    /// Forgets registrations that `image` does not have any more.
    pub fn keep_registered(&self, image: &MetadataImage) {
        let is_known = |id: &BrokerId, epoch: &mut i64| {
            let broker = image.cluster.broker(*id);
            broker.is_some_and(|broker| broker.epoch == *epoch)
        };
        if !self.now().is_empty() {
            self.change(|known| known.retain(is_known));
        }
    }

    fn change(&self, change: impl Fn(&mut BTreeMap<BrokerId, i64>)) {
        self.0.brokers.rcu(|known| {
            let mut known = BTreeMap::clone(known);
            change(&mut known);
            known
        });
    }
}

/// Whether this registration's process is gone, and the metadata does not say so: one that is fenced is shown as fenced.
pub fn is_vanished(vanished: &VanishedBrokers, broker: &BrokerRegistration) -> bool {
    !broker.fenced && vanished.get(&broker.id) == Some(&broker.epoch)
}
