//! Adapter: leaders' proposals of in-sync replicas go to the controller.

use std::pin::Pin;

use kafka_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};

use crate::controller;
use crate::replica::AlterPartitionChannel;

/// The controller, as the replica manager sees it.
pub struct IsrChannel(pub controller::Handle);

impl AlterPartitionChannel for IsrChannel {
    fn alter_partition(
        &self,
        request: AlterPartitionRequest,
    ) -> Pin<Box<dyn Future<Output = AlterPartitionResponse> + Send + '_>> {
        Box::pin(self.0.alter_partition(request))
    }
}
