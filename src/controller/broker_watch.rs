//! Notices that a broker's process has died: the active controller holds a connection to the inter-broker listener of each
//! unfenced broker. Kafka waits for the session to end, nine seconds by default.
//!
//! A broker whose listener refuses connections has no session any more, unless this controller has heard of it more than
//! once and could never connect: then something stands in between. Each registration is judged so once at most.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::outcome::Settings;
use crate::metadata::{Endpoint, MetadataImage};
use crate::rpc;
use crate::types::BrokerId;

/// Findings that wait for the event loop; watchers wait when there are more.
const FINDINGS_MAX: usize = 64;

/// Nobody listens at the broker's address.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    pub broker_id: BrokerId,
    pub broker_epoch: i64,
    /// Whether somebody listened before, as seen from here.
    pub was_connected: bool,
}

/// One task for each unfenced broker but this node's own; they end with this.
#[derive(Debug, Default)]
pub struct BrokerTasks {
    /// By broker: its epoch and the task. An entry stays when its task has come to its end.
    tasks: BTreeMap<BrokerId, (i64, AbortOnDropHandle<()>)>,
}

impl BrokerTasks {
    /// Starts `task` with id, epoch and `listener` of each broker that `image` has alive, and ends those of others.
    pub fn update<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        image: &MetadataImage,
        own_id: BrokerId,
        listener: &str,
        task: impl Fn(BrokerId, i64, Endpoint) -> F,
    ) {
        let brokers = &image.cluster.brokers;
        self.tasks
            .retain(|id, (epoch, _)| brokers.get(id).is_some_and(|broker| broker.epoch == *epoch));
        for broker in brokers.values() {
            let is_other = broker.id != own_id && !broker.fenced;
            if !is_other || self.tasks.contains_key(&broker.id) {
                continue;
            }
            let Some(endpoint) = broker.listener(listener) else {
                continue;
            };
            let task = tokio::spawn(task(broker.id, broker.epoch, endpoint.clone()));
            let task = AbortOnDropHandle::new(task);
            self.tasks.insert(broker.id, (broker.epoch, task));
        }
    }
}

/// Tells of brokers whose processes have died.
#[derive(Debug)]
pub struct BrokerWatch {
    watched: BrokerTasks,
    findings: mpsc::Sender<Gone>,
}

impl BrokerWatch {
    pub fn channel() -> (mpsc::Sender<Gone>, mpsc::Receiver<Gone>) {
        mpsc::channel(FINDINGS_MAX)
    }

    pub fn new(findings: mpsc::Sender<Gone>) -> Self {
        Self {
            watched: BrokerTasks::default(),
            findings,
        }
    }

    /// Watches the brokers that `image` has alive, and no others.
    pub fn update(&mut self, image: &MetadataImage, settings: &Settings) {
        let listener = &settings.config.inter_broker_listener_name;
        let watch = |broker_id, broker_epoch, at: Endpoint| {
            let findings = self.findings.clone();
            async move {
                let was_connected = rpc::until_refused(&at.host, at.port).await;
                let gone = Gone {
                    broker_id,
                    broker_epoch,
                    was_connected,
                };
                // The loop is gone only when the node stops.
                let _ = findings.send(gone).await;
            }
        };
        self.watched
            .update(image, settings.node_id, listener, watch);
    }
}
