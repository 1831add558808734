//! Notices that a broker's process has died: the active controller holds a connection to the inter-broker listener of each
//! unfenced broker. Kafka waits for the session to end, nine seconds by default.
//!
//! A broker whose listener refuses connections has no session any more, unless this controller has heard of it and could
//! never connect: then something stands in between. Each registration is judged so once at most.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::outcome::Settings;
use crate::metadata::MetadataImage;
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
#[derive(Debug)]
pub struct BrokerWatch {
    /// By broker: its epoch and the task. An entry stays when its task has found something.
    watched: BTreeMap<BrokerId, (i64, AbortOnDropHandle<()>)>,
    findings: mpsc::Sender<Gone>,
}

impl BrokerWatch {
    pub fn channel() -> (mpsc::Sender<Gone>, mpsc::Receiver<Gone>) {
        mpsc::channel(FINDINGS_MAX)
    }

    pub fn new(findings: mpsc::Sender<Gone>) -> Self {
        Self {
            watched: BTreeMap::new(),
            findings,
        }
    }

    /// Watches the brokers that `image` has alive, and no others.
    pub fn update(&mut self, image: &MetadataImage, settings: &Settings) {
        let brokers = &image.cluster.brokers;
        self.watched
            .retain(|id, (epoch, _)| brokers.get(id).is_some_and(|broker| broker.epoch == *epoch));
        for broker in brokers.values() {
            let is_other = broker.id != settings.node_id && !broker.fenced;
            if !is_other || self.watched.contains_key(&broker.id) {
                continue;
            }
            let listener = &settings.config.inter_broker_listener_name;
            let Some(endpoint) = broker.listener(listener) else {
                continue;
            };
            let (host, port) = (endpoint.host.clone(), endpoint.port);
            let (broker_id, broker_epoch) = (broker.id, broker.epoch);
            let findings = self.findings.clone();
            let task = tokio::spawn(async move {
                let was_connected = rpc::until_refused(&host, port).await;
                let gone = Gone {
                    broker_id,
                    broker_epoch,
                    was_connected,
                };
                // The loop is gone only when the node stops.
                let _ = findings.send(gone).await;
            });
            let task = AbortOnDropHandle::new(task);
            self.watched.insert(broker_id, (broker_epoch, task));
        }
    }
}
