//! Who leads instead: answers with NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH name the leader and where it listens, so that
//! clients need not ask for metadata first (KIP-951). Used by Produce and Fetch; costs nothing without such an error.

use kafka_protocol::protocol::StrBytes;

use super::cluster_view::{ClusterView, text};
use super::context::RequestContext;
use crate::partition::Partition;
use crate::types::{BrokerId, LeaderEpoch, Uuid};

/// A broker's address on the listener of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderEndpoint {
    pub node_id: BrokerId,
    pub host: StrBytes,
    pub port: i32,
    pub rack: Option<StrBytes>,
}

/// Leader and leader epoch; -1 where unknown.
pub type LeaderIdAndEpoch = (BrokerId, LeaderEpoch);

/// Collects the endpoints of all leaders that one response names.
pub struct LeaderHints<'a> {
    context: &'a RequestContext,
    view: Option<ClusterView>,
    endpoints: Vec<LeaderEndpoint>,
}

impl<'a> LeaderHints<'a> {
    pub fn new(context: &'a RequestContext) -> Self {
        Self {
            context,
            view: None,
            endpoints: Vec::new(),
        }
    }

    /// The leader of a partition that the request named by its topic's name.
    pub fn by_name(&mut self, topic: &str, partition: i32) -> LeaderIdAndEpoch {
        let topic_id = self.context.services.images.load().topics.id_of(topic);
        topic_id.map_or((-1, -1), |id| self.by_id(id, partition))
    }

    /// The leader of a partition that the request named by its topic's id. What the replica here knows comes before the image.
    pub fn by_id(&mut self, topic_id: Uuid, index: i32) -> LeaderIdAndEpoch {
        let replicas = &self.context.services.replicas;
        let hosted = replicas.find_by_id(topic_id, index).ok();
        let known = hosted.as_deref().map(Partition::leader_and_epoch);
        let view = self
            .view
            .get_or_insert_with(|| ClusterView::new(self.context));
        let registered = || {
            let topic = view.image.topics.by_id(topic_id)?;
            let partition = topic.partitions.get(&index)?;
            Some((partition.leader, partition.leader_epoch))
        };
        let found = known.or_else(registered).unwrap_or((-1, -1));
        if let Some(endpoint) = endpoint(view, found.0)
            && !self.endpoints.contains(&endpoint)
        {
            self.endpoints.push(endpoint);
        }
        found
    }

    pub fn into_endpoints(self) -> Vec<LeaderEndpoint> {
        self.endpoints
    }
}

/// Where the broker listens, if it is alive, as far as this node knows.
fn endpoint(view: &ClusterView, id: BrokerId) -> Option<LeaderEndpoint> {
    let broker = view.broker(id).filter(|b| !b.fenced)?;
    let endpoint = broker.listener(&view.listener)?;
    Some(LeaderEndpoint {
        node_id: id,
        host: text(&endpoint.host),
        port: i32::from(endpoint.port),
        rack: broker.rack.as_deref().map(text),
    })
}
