//! What a handler may use: the broker's services, and who asks.

use std::net::SocketAddr;
use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;

use super::reply::Framing;

/// The connection that a request came in on.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Name of the listener, as in `listeners`: answers name the endpoints of the same listener.
    pub listener: Arc<str>,
    pub peer: SocketAddr,
}

/// One request's surroundings. Cheap to clone into a future.
#[derive(Clone)]
pub struct RequestContext {
    pub services: Arc<super::Services>,
    pub connection: Arc<ConnectionInfo>,
    pub version: i16,
    /// What the response's frame depends on.
    pub framing: Framing,
    /// Invalid UTF-8 was replaced; null is `None`.
    pub client_id: Option<StrBytes>,
}

impl RequestContext {
    pub fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or("")
    }
}
