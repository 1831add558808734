//! How the metadata image looks to a client of one listener: nodes, leaders and replicas (`KRaftMetadataCache`).
//! Shared by Metadata, DescribeCluster and DescribeTopicPartitions.

use std::sync::Arc;

use kafka_protocol::messages::BrokerId as WireBrokerId;
use kafka_protocol::protocol::StrBytes;

use super::context::RequestContext;
use super::vanished::{VanishedBrokers, is_vanished};
use crate::metadata::{BrokerRegistration, Endpoint, MetadataImage, PartitionRegistration};
use crate::types::BrokerId;

/// Operations on a topic as bits of their ACL codes, when nothing is denied: READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE,
/// DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub const TOPIC_OPERATIONS: i32 = operations(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// The same on the cluster: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE.
pub const CLUSTER_OPERATIONS: i32 = operations(&[5, 7, 8, 9, 10, 11, 12]);

const fn operations(codes: &[i32]) -> i32 {
    let mut bits = 0;
    let mut at = 0;
    while at < codes.len() {
        bits |= 1 << codes[at];
        at += 1;
    }
    bits
}

/// Shared text as wire text.
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn broker_ids(ids: &[BrokerId]) -> Vec<WireBrokerId> {
    ids.iter().copied().map(WireBrokerId).collect()
}

/// The image as seen through one listener.
pub struct ClusterView {
    pub image: Arc<MetadataImage>,
    pub listener: Arc<str>,
    pub vanished: VanishedBrokers,
}

impl ClusterView {
    pub fn new(context: &RequestContext) -> Self {
        Self {
            image: context.services.image(),
            listener: Arc::clone(&context.connection.listener),
            vanished: context.services.vanished.now(),
        }
    }

    /// Brokers with this listener, fenced ones included, and where it is.
    pub fn brokers(&self) -> impl Iterator<Item = (&BrokerRegistration, &Endpoint)> {
        let brokers = self.image.cluster.brokers.values();
        let brokers = brokers.filter(|broker| !is_vanished(&self.vanished, broker));
        brokers.filter_map(|broker| Some((&**broker, broker.listener(&self.listener)?)))
    }

    /// The broker, if it is registered and has not vanished.
    pub fn broker(&self, id: BrokerId) -> Option<&BrokerRegistration> {
        let broker = self.image.cluster.broker(id)?;
        (!is_vanished(&self.vanished, broker)).then_some(broker)
    }

    /// Stands in for the controller, which clients cannot reach: any broker forwards. -1 while none is alive.
    pub fn controller_id(&self) -> WireBrokerId {
        let mut alive = self.image.cluster.alive_brokers();
        WireBrokerId(alive.next().map_or(-1, |broker| broker.id))
    }

    pub fn is_reachable(&self, id: BrokerId) -> bool {
        let broker = self.broker(id);
        broker.is_some_and(|broker| !broker.fenced && broker.listener(&self.listener).is_some())
    }

    /// The leader, if it has this listener.
    pub fn leader(&self, partition: &PartitionRegistration) -> Option<BrokerId> {
        let leader = self.broker(partition.leader)?;
        leader.listener(&self.listener).map(|_| leader.id)
    }

    /// Replicas on brokers that cannot be reached, or in log directories that are offline.
    pub fn offline_replicas(&self, partition: &PartitionRegistration) -> Vec<WireBrokerId> {
        let is_online = |id: &BrokerId| {
            let broker = self.broker(*id);
            self.is_reachable(*id)
                && broker.is_some_and(|broker| broker.has_online_dir(partition.directory(*id)))
        };
        let offline = partition.replicas.iter().filter(|id| !is_online(id));
        offline.copied().map(WireBrokerId).collect()
    }
}
