//! The immutable picture of the cluster at one offset of the metadata log. Cloning is cheap: the maps are persistent.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::apply::DIRECTORY_UNASSIGNED;
use super::topics::TopicsImage;
use crate::protocol::metadata_records::{
    AccessControlEntryRecord, DelegationTokenRecord, UserScramCredentialRecord,
};
use crate::types::{BrokerId, LeaderEpoch, Offset, ProducerId, TimestampMs, Uuid};

/// Everything that the metadata log says up to one offset.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataImage {
    /// Offset of the last record (or control batch) in the image; -1 when empty.
    pub last_offset: Offset,
    /// Epoch of the batch at `last_offset`.
    pub epoch: LeaderEpoch,
    /// When that batch was appended.
    pub append_time_ms: TimestampMs,
    pub features: FeaturesImage,
    pub cluster: ClusterImage,
    pub topics: TopicsImage,
    pub configs: ConfigsImage,
    pub producer_ids: ProducerIdsImage,
    pub security: SecurityImage,
    /// A metadata transaction has begun and not ended; nothing of it is in the image (KIP-868).
    pub transaction_open: bool,
}

impl Default for MetadataImage {
    fn default() -> Self {
        Self {
            last_offset: -1,
            epoch: -1,
            append_time_ms: -1,
            features: FeaturesImage::default(),
            cluster: ClusterImage::default(),
            topics: TopicsImage::default(),
            configs: ConfigsImage::default(),
            producer_ids: ProducerIdsImage::default(),
            security: SecurityImage::default(),
            transaction_open: false,
        }
    }
}

impl MetadataImage {
    /// The last offset in the image.
    pub fn offset(&self) -> Offset {
        self.last_offset
    }

    /// The offset behind the image.
    pub fn next_offset(&self) -> Offset {
        self.last_offset + 1
    }

    /// Whether no record that means anything was ever applied.
    pub fn is_empty(&self) -> bool {
        self.features.finalized.is_empty()
            && self.cluster.brokers.is_empty()
            && self.topics.is_empty()
    }
}

/// Finalized feature levels; level 0 is the same as not being there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeaturesImage {
    pub finalized: OrdMap<Arc<str>, i16>,
}

impl FeaturesImage {
    pub fn level(&self, feature: &str) -> i16 {
        self.finalized.get(feature).copied().unwrap_or(0)
    }
}

/// Brokers and controllers that registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterImage {
    pub brokers: OrdMap<BrokerId, Arc<BrokerRegistration>>,
    pub controllers: OrdMap<BrokerId, Arc<ControllerRegistration>>,
}

impl ClusterImage {
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<BrokerRegistration>> {
        self.brokers.get(&id)
    }

    /// Registered and not fenced: what clients are told of.
    pub fn is_alive(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(|broker| !broker.fenced)
    }

    /// Registered, not fenced and not on its way out: may lead and be in sync (`ClusterControlManager.isActive`).
    pub fn is_active(&self, id: BrokerId) -> bool {
        let broker = self.brokers.get(&id);
        broker.is_some_and(|broker| !broker.fenced && !broker.in_controlled_shutdown)
    }

    /// The directory of a new replica on broker `id`: the only usable one, or "unassigned" when the broker has to choose.
    pub fn default_directory(&self, id: BrokerId) -> Uuid {
        let Some(broker) = self.brokers.get(&id) else {
            return DIRECTORY_UNASSIGNED;
        };
        let mut dirs = broker.uncordoned_dirs();
        match (broker.log_dirs.is_empty(), dirs.next(), dirs.next()) {
            (true, ..) => Uuid::nil(),
            (false, Some(only), None) => only,
            _ => DIRECTORY_UNASSIGNED,
        }
    }

    /// Unfenced brokers in the order of their ids.
    pub fn alive_brokers(&self) -> impl Iterator<Item = &Arc<BrokerRegistration>> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }
}

/// Smallest and largest supported level of a feature, both inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionRange {
    pub min: i16,
    pub max: i16,
}

impl VersionRange {
    pub fn contains(&self, level: i16) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Listener name, such as `PLAINTEXT`.
    pub name: Arc<str>,
    pub host: Arc<str>,
    pub port: u16,
    /// Kafka's number: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// A broker as it registered, and what the controller decided about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerRegistration {
    pub id: BrokerId,
    /// Offset of the registration record.
    pub epoch: i64,
    /// Chosen by the process at its start.
    pub incarnation_id: Uuid,
    pub listeners: Vec<Endpoint>,
    pub supported_features: BTreeMap<Arc<str>, VersionRange>,
    pub rack: Option<Arc<str>>,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    /// Ids of the online log directories, sorted.
    pub log_dirs: Vec<Uuid>,
    pub cordoned_log_dirs: Vec<Uuid>,
}

impl BrokerRegistration {
    pub fn listener(&self, name: &str) -> Option<&Endpoint> {
        self.listeners
            .iter()
            .find(|endpoint| &*endpoint.name == name)
    }

    /// Log directories that take new replicas (KIP-1066).
    pub fn uncordoned_dirs(&self) -> impl Iterator<Item = Uuid> {
        let dirs = self.log_dirs.iter().copied();
        dirs.filter(|dir| !self.cordoned_log_dirs.contains(dir))
    }

    /// Whether new replicas can be placed here, as far as the broker told.
    pub fn has_uncordoned_dirs(&self) -> bool {
        self.log_dirs.is_empty() || self.uncordoned_dirs().next().is_some()
    }

    /// Whether `dir` is online, as far as the broker told.
    pub fn has_online_dir(&self, dir: Uuid) -> bool {
        // Ids 0 and 1 mean that the broker has not told where the replica is.
        dir.as_u128() < 2 || self.log_dirs.is_empty() || self.log_dirs.contains(&dir)
    }
}

/// A controller as it registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerRegistration {
    pub id: BrokerId,
    pub incarnation_id: Uuid,
    pub zk_migration_ready: bool,
    pub listeners: Vec<Endpoint>,
    pub supported_features: BTreeMap<Arc<str>, VersionRange>,
}

/// Kinds of resources that have dynamic configs, with Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResourceType {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

impl ConfigResourceType {
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            2 => Some(Self::Topic),
            4 => Some(Self::Broker),
            8 => Some(Self::BrokerLogger),
            16 => Some(Self::ClientMetrics),
            32 => Some(Self::Group),
            _ => None,
        }
    }

    pub fn code(self) -> i8 {
        self as i8
    }
}

/// Something that has configs. The broker named `""` stands for the cluster-wide default of all brokers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigResource {
    pub kind: ConfigResourceType,
    pub name: Arc<str>,
}

impl ConfigResource {
    pub fn new(kind: ConfigResourceType, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self { kind, name }
    }

    pub fn topic(name: impl Into<Arc<str>>) -> Self {
        Self::new(ConfigResourceType::Topic, name)
    }

    /// A broker's own dynamic configs.
    pub fn broker(id: BrokerId) -> Self {
        Self::new(ConfigResourceType::Broker, id.to_string())
    }

    /// The dynamic default of all brokers.
    pub fn default_broker() -> Self {
        Self::new(ConfigResourceType::Broker, "")
    }
}

/// Dynamic configs of every resource that has some; empty maps are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigsImage {
    pub resources: OrdMap<ConfigResource, Arc<BTreeMap<String, String>>>,
}

impl ConfigsImage {
    /// The resource's dynamic configs, if it has any.
    pub fn get(&self, resource: &ConfigResource) -> Option<&Arc<BTreeMap<String, String>>> {
        self.resources.get(resource)
    }

    pub fn value(&self, resource: &ConfigResource, name: &str) -> Option<&str> {
        self.resources.get(resource)?.get(name).map(String::as_str)
    }

    /// The resource's dynamic configs, empty when it has none.
    pub fn of(&self, resource: &ConfigResource) -> Arc<BTreeMap<String, String>> {
        self.resources.get(resource).cloned().unwrap_or_default()
    }

    /// A topic's own configs.
    pub fn topic(&self, name: &str) -> Arc<BTreeMap<String, String>> {
        self.of(&ConfigResource::topic(name))
    }
}

/// The producer ids that are still free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerIdsImage {
    /// First id of the next block.
    pub next_producer_id: ProducerId,
    /// The record that said so: broker and its epoch, -1 before the first.
    pub broker_id: BrokerId,
    pub broker_epoch: i64,
}

/// Client quotas, SCRAM credentials, ACLs and delegation tokens: kept as they came, for the modules that will use them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecurityImage {
    /// By entity (type to name, `None` is the type's default), then by quota key.
    pub quotas: OrdMap<BTreeMap<String, Option<String>>, BTreeMap<String, f64>>,
    /// By user and mechanism.
    pub scram: OrdMap<(String, i8), Arc<UserScramCredentialRecord>>,
    pub acls: OrdMap<Uuid, Arc<AccessControlEntryRecord>>,
    /// By token id.
    pub tokens: OrdMap<String, Arc<DelegationTokenRecord>>,
}
