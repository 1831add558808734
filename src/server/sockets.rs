//! The listeners that are open, what their connections share, and the end of all of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::connection::{self, Limits};
use super::connection_quota::ConnectionQuota;
use super::listener::Acceptor;
use crate::api::Services;
use crate::config::{Config, Endpoint};

/// Memory for large request frames when `queued.max.request.bytes` sets no bound.
const REQUEST_MEMORY_BYTES: usize = 512 * 1024 * 1024;
/// How long connections may take to finish what they are doing at a stop.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// Open listeners and their connections.
pub struct Sockets {
    services: Arc<Services>,
    limits: Limits,
    /// Of brokers' and of controllers' listeners.
    quotas: [Arc<ConnectionQuota>; 2],
    /// Bound addresses by listener name.
    pub addresses: Vec<(String, SocketAddr)>,
    /// Ends listeners, connections and timers.
    pub shutdown: CancellationToken,
    pub tasks: TaskTracker,
}

impl Sockets {
    /// `shutdown` ends what is opened here, and whatever else the broker runs for its clients.
    pub fn new(config: &Config, services: &Arc<Services>, shutdown: CancellationToken) -> Self {
        let memory =
            usize::try_from(config.queued_max_request_bytes).unwrap_or(REQUEST_MEMORY_BYTES);
        let request_bytes_max = config.socket_request_max_bytes.max(0) as usize;
        Self {
            services: Arc::clone(services),
            limits: Limits {
                request_bytes_max,
                idle_max: idle_max(config.connections_max_idle_ms),
                memory: connection::memory_pool(memory.max(request_bytes_max)),
            },
            quotas: [(); 2].map(|()| Arc::new(ConnectionQuota::new(config))),
            addresses: Vec::new(),
            shutdown,
            tasks: TaskTracker::new(),
        }
    }

    /// Looks up the hosts that have limits of their own.
    pub async fn look_up_hosts(&self, config: &Config) -> io::Result<()> {
        for quota in &self.quotas {
            quota.look_up_hosts(config).await?;
        }
        Ok(())
    }

    /// Accepts connections of `listeners` from now on.
    pub fn listen(&mut self, listeners: Vec<(Endpoint, TcpListener)>, is_controller: bool) {
        let quota = &self.quotas[usize::from(is_controller)];
        for (endpoint, listener) in listeners {
            self.addresses.extend(
                listener
                    .local_addr()
                    .ok()
                    .map(|address| (endpoint.listener_name.clone(), address)),
            );
            let name: Arc<str> = endpoint.listener_name.into();
            quota.add_listener(Arc::clone(&name));
            let acceptor = Acceptor {
                name,
                is_controller,
                services: Arc::clone(&self.services),
                limits: self.limits.clone(),
                quota: Arc::clone(quota),
                shutdown: self.shutdown.clone(),
                tasks: self.tasks.clone(),
            };
            self.tasks.spawn(acceptor.run(listener));
        }
    }

    /// Stops accepting and lets connections finish for a moment.
    pub async fn close(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            warn!("connections did not finish in time");
        }
    }
}

fn idle_max(connections_max_idle_ms: i64) -> Duration {
    match u64::try_from(connections_max_idle_ms) {
        Ok(idle_ms) => Duration::from_millis(idle_ms),
        // Negative means never; tokio's timers reach about two years.
        Err(_) => Duration::from_hours(365 * 24),
    }
}
