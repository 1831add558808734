//! What a handler may use: the broker's services, and who asks.

use std::net::SocketAddr;
use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;

use super::reply::Framing;
use crate::controller;
use crate::protocol::principal::Principal;

/// The connection that a request came in on.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Name of the listener, as in `listeners`: answers name the endpoints of the same listener.
    pub listener: Arc<str>,
    /// Whether the listener is one of `controller.listener.names`.
    pub is_controller: bool,
    pub peer: SocketAddr,
    /// Who is at the other end.
    pub principal: Principal,
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
    /// Who decides on changes of the metadata. A controller that is asked on its own listener passes nothing on.
    pub fn controller(&self) -> controller::Handle {
        if self.connection.is_controller {
            self.services.controller.local()
        } else {
            let caller = controller::Caller {
                principal: self.connection.principal.clone(),
                address: self.connection.peer.ip(),
                client_id: self.client_id.clone(),
            };
            self.services.controller.on_behalf_of(caller)
        }
    }

    pub fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or("")
    }
}
