//! What changed between two images, for those who follow the metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::image::ConfigResource;
use crate::types::{BrokerId, Uuid};

/// The changes of one or more committed batches. It names what changed; how it is now stands in the image that comes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataDelta {
    /// Whether this is the first delta: it covers all that was committed before the broker started.
    pub initial: bool,
    pub features_changed: bool,
    /// Brokers that registered, left, or changed.
    pub brokers_changed: BTreeSet<BrokerId>,
    pub controllers_changed: bool,
    /// Topics that are gone, with their names. A topic deleted and created again stands in both maps, under different ids.
    pub topics_deleted: BTreeMap<Uuid, Arc<str>>,
    /// Topics that were created or have changed partitions.
    pub topics_changed: BTreeMap<Uuid, TopicDelta>,
    /// Resources whose configs were set or removed.
    pub configs_changed: BTreeSet<ConfigResource>,
    pub producer_ids_changed: bool,
    /// Quotas, SCRAM credentials, ACLs or tokens.
    pub security_changed: bool,
}

/// The changes of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDelta {
    pub name: Arc<str>,
    pub created: bool,
    pub partitions: BTreeSet<i32>,
}

impl MetadataDelta {
    /// Whether nothing changed (control batches, NoOpRecords).
    pub fn is_empty(&self) -> bool {
        *self
            == Self {
                initial: self.initial,
                ..Self::default()
            }
    }

    /// Every partition that was created or changed.
    pub fn partitions_changed(&self) -> impl Iterator<Item = (Uuid, &Arc<str>, i32)> {
        self.topics_changed.iter().flat_map(|(id, topic)| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| (*id, &topic.name, *partition))
        })
    }
}
