//! Finds brokers whose processes have died ([`crate::api::Vanished`]): a connection to each of the others, as the controller holds.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use crate::api::Vanished;
use crate::config::Config;
use crate::controller::BrokerTasks;
use crate::metadata::{Endpoint, MetadataDelta, MetadataImage, Publisher};
use crate::rpc;
use crate::types::BrokerId;

/// Follows who is registered.
pub struct VanishedWatch {
    own_id: BrokerId,
    /// `inter.broker.listener.name`
    listener: String,
    vanished: Vanished,
    tasks: Mutex<BrokerTasks>,
}

impl VanishedWatch {
    pub fn new(config: &Config, vanished: Vanished) -> Self {
        Self {
            own_id: config.node_id,
            listener: config.inter_broker_listener_name.clone(),
            vanished,
            tasks: Mutex::default(),
        }
    }
}

impl Publisher for VanishedWatch {
    fn on_update(&self, delta: &MetadataDelta, image: &Arc<MetadataImage>) {
        if delta.brokers_changed.is_empty() {
            return;
        }
        self.vanished.keep_registered(image);
        let watch = |id, epoch, at| watch(id, epoch, at, self.vanished.clone());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.update(image, self.own_id, &self.listener, watch);
    }
}

/// One that was never connected may only be out of reach from here.
async fn watch(id: BrokerId, epoch: i64, at: Endpoint, vanished: Vanished) {
    while rpc::until_refused(&at.host, at.port).await {
        warn!(
            broker_id = id,
            broker_epoch = epoch,
            "nobody listens where the broker did, clients are not sent there"
        );
        vanished.note(id, epoch);
        rpc::until_accepted(&at.host, at.port).await;
        vanished.lift(id);
    }
}
