//! The broker's parts that handlers may call. Wired by `server::Broker`.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::producer_ids::ProducerIds;
use super::topic_creation::TopicCreation;
use crate::clock::Clock;
use crate::config::Config;
use crate::controller;
use crate::group::GroupCoordinator;
use crate::metadata::{Images, MetadataImage};
use crate::metrics::Metrics;
use crate::quorum::{MetaLog, OpenraftMetaLog};
use crate::replica::{ReplicaManager, SessionCache};

/// Shared by every request of the broker.
pub struct Services {
    /// Static configuration with the dynamic broker configuration on top.
    pub config: Arc<ArcSwap<Config>>,
    pub cluster_id: Arc<str>,
    pub images: Images,
    pub replicas: Arc<ReplicaManager>,
    pub fetch_sessions: SessionCache,
    pub controller: controller::Handle,
    pub quorum: Arc<dyn MetaLog>,
    /// The same log where this node is a voter, for requests of other voters.
    pub voter: Option<Arc<OpenraftMetaLog>>,
    pub groups: GroupCoordinator,
    pub producer_ids: ProducerIds,
    pub topic_creation: TopicCreation,
    pub vanished: super::Vanished,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

impl Services {
    /// The newest metadata that this broker has applied.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.images.current()
    }

    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }
}
