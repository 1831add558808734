//! Hands out producer ids from blocks that the controller allocates (KIP-730), so that ids are unique in the
//! cluster and an InitProducerId seldom leaves the broker.

use kafka_protocol::messages::AllocateProducerIdsRequest;
use kafka_protocol::messages::BrokerId as WireBrokerId;
use tokio::sync::Mutex;

use crate::controller;
use crate::protocol::{Error, ErrorCode};
use crate::types::{BrokerId, ProducerId};

/// The broker's current block.
pub struct ProducerIds {
    controller: controller::Handle,
    broker_id: BrokerId,
    /// Held across the allocation: everybody else would ask for a block too.
    block: Mutex<Block>,
}

#[derive(Default)]
struct Block {
    next: ProducerId,
    /// Exclusive.
    end: ProducerId,
}

impl ProducerIds {
    pub fn new(controller: controller::Handle, broker_id: BrokerId) -> Self {
        Self {
            controller,
            broker_id,
            block: Mutex::default(),
        }
    }

    /// A producer id nobody else has. Fails with a retriable error while there is no controller.
    pub async fn next(&self, broker_epoch: i64) -> Result<ProducerId, Error> {
        let mut block = self.block.lock().await;
        if block.next == block.end {
            let request = AllocateProducerIdsRequest::default()
                .with_broker_id(WireBrokerId(self.broker_id))
                .with_broker_epoch(broker_epoch);
            let response = self.controller.allocate_producer_ids(request).await;
            if response.error_code != 0 {
                // Clients retry while the coordinator loads; Kafka hides the controller's troubles like this.
                return Err(ErrorCode::CoordinatorLoadInProgress.into());
            }
            block.next = response.producer_id_start.0;
            block.end = block.next + i64::from(response.producer_id_len);
        }
        let id = block.next;
        block.next += 1;
        Ok(id)
    }
}
