//! Topics and partitions of the image.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::types::{BrokerId, LeaderEpoch, TopicPartition, Uuid};

/// The leader of a partition without one.
pub const NO_LEADER: BrokerId = -1;

/// Whether the leader was elected from the in-sync replicas, or uncleanly and has not confirmed it yet (KIP-704).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaderRecoveryState {
    #[default]
    Recovered = 0,
    Recovering = 1,
}

impl LeaderRecoveryState {
    /// The state of a number in a record or request; `None` for "no change" and unknown numbers.
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Recovered),
            1 => Some(Self::Recovering),
            _ => None,
        }
    }
}

/// What the controller decided about one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// Assigned replicas in order of preference.
    pub replicas: Vec<BrokerId>,
    /// The log directory of each replica, parallel to `replicas`.
    pub directories: Vec<Uuid>,
    pub isr: Vec<BrokerId>,
    pub removing_replicas: Vec<BrokerId>,
    pub adding_replicas: Vec<BrokerId>,
    /// Eligible leader replicas: outside the ISR, but complete up to the high watermark (KIP-966).
    pub elr: Vec<BrokerId>,
    pub last_known_elr: Vec<BrokerId>,
    /// [`NO_LEADER`] while there is none.
    pub leader: BrokerId,
    pub leader_recovery_state: LeaderRecoveryState,
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of this registration.
    pub partition_epoch: i32,
}

impl PartitionRegistration {
    pub fn has_leader(&self) -> bool {
        self.leader != NO_LEADER
    }

    /// The first assigned replica (`preferredReplica`), or none.
    pub fn preferred_replica(&self) -> BrokerId {
        self.replicas.first().copied().unwrap_or(NO_LEADER)
    }

    /// The log directory that `broker` keeps its replica in; nil when not assigned there or not known.
    pub fn directory(&self, broker: BrokerId) -> Uuid {
        let at = self.replicas.iter().position(|replica| *replica == broker);
        at.and_then(|at| self.directories.get(at))
            .copied()
            .unwrap_or_default()
    }
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    pub name: Arc<str>,
    pub id: Uuid,
    pub partitions: OrdMap<i32, Arc<PartitionRegistration>>,
}

/// All topics, by name and by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicsImage {
    ids: OrdMap<Arc<str>, Uuid>,
    /// Names with `.` or `_` under the name that has only `_`: metrics cannot tell such names apart.
    collisions: OrdMap<String, OrdSet<Arc<str>>>,
    topics: OrdMap<Uuid, TopicImage>,
}

impl TopicsImage {
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub fn by_name(&self, name: &str) -> Option<&TopicImage> {
        self.topics.get(self.ids.get(name)?)
    }

    pub fn by_id(&self, id: Uuid) -> Option<&TopicImage> {
        self.topics.get(&id)
    }

    pub fn id_of(&self, name: &str) -> Option<Uuid> {
        self.ids.get(name).copied()
    }

    /// The topic's name as shared text.
    pub fn name_of(&self, id: Uuid) -> Option<&Arc<str>> {
        Some(&self.topics.get(&id)?.name)
    }

    /// All topics in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &TopicImage> {
        self.ids.values().filter_map(|id| self.topics.get(id))
    }

    /// Names from `first` on, in order (DescribeTopicPartitions' cursor).
    pub fn names_from<'a>(&'a self, first: &'a str) -> impl Iterator<Item = &'a Arc<str>> {
        let bounds = (Bound::Included(first), Bound::Unbounded);
        self.ids.range::<_, str>(bounds).map(|(name, _)| name)
    }

    pub fn partition(&self, tp: &TopicPartition) -> Option<&Arc<PartitionRegistration>> {
        self.by_name(&tp.topic)?.partitions.get(&tp.partition)
    }

    /// An existing topic that differs from `name` at most in `.` for `_` or the other way round.
    pub fn colliding_with(&self, name: &str) -> Option<&Arc<str>> {
        if !has_collision_chars(name) {
            return None;
        }
        self.collisions.get(&name.replace('.', "_"))?.get_min()
    }

    pub(super) fn insert(&mut self, name: Arc<str>, id: Uuid) {
        if has_collision_chars(&name) {
            let names = self.collisions.entry(name.replace('.', "_"));
            names.or_default().insert(Arc::clone(&name));
        }
        self.ids.insert(Arc::clone(&name), id);
        let partitions = OrdMap::new();
        self.topics.insert(
            id,
            TopicImage {
                name,
                id,
                partitions,
            },
        );
    }

    pub(super) fn remove(&mut self, id: Uuid) -> Option<TopicImage> {
        let topic = self.topics.remove(&id)?;
        self.ids.remove(&*topic.name);
        let unified = topic.name.replace('.', "_");
        if let Some(names) = self.collisions.get_mut(&unified) {
            names.remove(&*topic.name);
            if names.is_empty() {
                self.collisions.remove(&unified);
            }
        }
        Some(topic)
    }

    pub(super) fn get_mut(&mut self, id: Uuid) -> Option<&mut TopicImage> {
        self.topics.get_mut(&id)
    }
}

fn has_collision_chars(name: &str) -> bool {
    name.contains(['.', '_'])
}
