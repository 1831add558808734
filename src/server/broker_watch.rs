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
    let lifeline = vanished.lifeline(id);
    while lifeline.until_refused(&at.host, at.port).await {
        warn!(
            broker_id = id,
            broker_epoch = epoch,
            "nobody listens where the broker did, clients are not sent there"
        );
        vanished.note(id, epoch);
        lifeline.let_go();
        rpc::until_accepted(&at.host, at.port).await;
        vanished.lift(id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A broker that listens, the connection by which it is watched, and what is known of it.
    async fn watched() -> (TcpListener, TcpStream, Vanished) {
        let vanished = Vanished::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = Endpoint {
            name: "PLAINTEXT".into(),
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
            security_protocol: 0,
        };
        tokio::spawn(watch(2, 7, at, vanished.clone()));
        let (connection, _) = listener.accept().await.unwrap();
        // Whoever else is ready has its turn before the time is over.
        tokio::time::sleep(Duration::from_millis(1)).await;
        (listener, connection, vanished)
    }

    /// The task that watches has had no time to look.
    #[tokio::test]
    async fn who_answers_sees_the_end_of_a_broker_at_once() {
        let (listener, connection, vanished) = watched().await;
        assert!(!vanished.is_in_doubt());
        drop((listener, connection));
        assert!(vanished.is_in_doubt() && vanished.now().is_empty());
        vanished.settled().await;
        assert!(!vanished.is_in_doubt());
        assert_eq!(vanished.now().get(&2), Some(&7));
    }

    #[tokio::test]
    async fn a_broker_that_closes_the_connection_has_not_vanished() {
        let (listener, connection, vanished) = watched().await;
        drop(connection);
        assert!(vanished.is_in_doubt());
        vanished.settled().await;
        let _another = listener.accept().await.unwrap();
        assert!(!vanished.is_in_doubt() && vanished.now().is_empty());
    }
}
