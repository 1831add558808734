//! What changed between two images, for those who follow the metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::image::{ConfigResource, MetadataImage};
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
    /// Unclean elections (`TopicDelta.updateElectionStats`).
    pub unclean_elections: u64,
    /// Elections of eligible leader replicas (KIP-966).
    pub elr_elections: u64,
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

impl MetadataDelta {
    /// What differs between two images. Needed only where the records in between are not known.
    pub fn between(before: &MetadataImage, after: &MetadataImage) -> Self {
        let mut delta = Self {
            features_changed: before.features != after.features,
            controllers_changed: before.cluster.controllers != after.cluster.controllers,
            producer_ids_changed: before.producer_ids != after.producer_ids,
            security_changed: before.security != after.security,
            ..Self::default()
        };
        let (old, new) = (&before.cluster.brokers, &after.cluster.brokers);
        let brokers = old.keys().chain(new.keys());
        let changed = brokers.filter(|id| old.get(*id) != new.get(*id));
        delta.brokers_changed = changed.copied().collect();
        let (old, new) = (&before.configs.resources, &after.configs.resources);
        let resources = old.keys().chain(new.keys());
        let changed = resources.filter(|r| old.get(*r) != new.get(*r));
        delta.configs_changed = changed.cloned().collect();
        for topic in before.topics.iter() {
            if after.topics.by_id(topic.id).is_none() {
                delta
                    .topics_deleted
                    .insert(topic.id, Arc::clone(&topic.name));
            }
        }
        for topic in after.topics.iter() {
            let old = before.topics.by_id(topic.id);
            let old_partition = |index: &i32| old.and_then(|old| old.partitions.get(index));
            let partitions = topic.partitions.iter();
            let changed = partitions.filter(|(index, new)| old_partition(index) != Some(new));
            let changed = TopicDelta {
                name: Arc::clone(&topic.name),
                created: old.is_none(),
                partitions: changed.map(|(index, _)| *index).collect(),
            };
            if changed.created || !changed.partitions.is_empty() {
                delta.topics_changed.insert(topic.id, changed);
            }
        }
        delta
    }

    /// Adds the changes of an `earlier` delta that was not handed out.
    pub(super) fn merge(&mut self, earlier: MetadataDelta) {
        self.initial |= earlier.initial;
        self.features_changed |= earlier.features_changed;
        self.controllers_changed |= earlier.controllers_changed;
        self.producer_ids_changed |= earlier.producer_ids_changed;
        self.security_changed |= earlier.security_changed;
        self.unclean_elections += earlier.unclean_elections;
        self.elr_elections += earlier.elr_elections;
        self.brokers_changed.extend(earlier.brokers_changed);
        self.configs_changed.extend(earlier.configs_changed);
        self.topics_deleted.extend(earlier.topics_deleted);
        for (id, topic) in earlier.topics_changed {
            if self.topics_deleted.contains_key(&id) {
                // Nobody was told that a topic of the earlier delta exists.
                if topic.created {
                    self.topics_deleted.remove(&id);
                }
                continue;
            }
            let merged = self.topics_changed.entry(id).or_insert_with(|| TopicDelta {
                partitions: BTreeSet::new(),
                ..topic.clone()
            });
            merged.created |= topic.created;
            merged.partitions.extend(topic.partitions);
        }
    }
}
