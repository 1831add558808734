//! Brokers whose processes have died, as this node sees it, until the metadata says so.
//!
//! A client that loses a broker asks another one at once who leads now, sooner than the controller can have decided. Told of the
//! dead one again, librdkafka tries that for a second or two. So a broker that vanished looks as if it were not registered: its
//! partitions have no leader for now (LEADER_NOT_AVAILABLE, as Kafka says of brokers that are not alive), and clients ask again soon.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::metadata::{BrokerRegistration, MetadataImage};
use crate::types::BrokerId;

/// The epochs of the registrations whose processes are gone, by broker. Bound: the brokers of the cluster.
pub type VanishedBrokers = Arc<BTreeMap<BrokerId, i64>>;

/// Shared by who finds out and who answers.
#[derive(Clone, Debug, Default)]
pub struct Vanished(Arc<ArcSwap<BTreeMap<BrokerId, i64>>>);

impl Vanished {
    pub fn now(&self) -> VanishedBrokers {
        self.0.load_full()
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
        self.0.rcu(|known| {
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
