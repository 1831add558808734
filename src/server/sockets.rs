//! The listeners that are open, what their connections share, and the end of all of them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::broker::bind;
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
#[derive(Clone)]
pub struct Sockets {
    services: Arc<Services>,
    limits: Limits,
    /// Of brokers' and of controllers' listeners.
    quotas: [Arc<ConnectionQuota>; 2],
    /// What closes each of brokers' listeners with its connections.
    open: BTreeMap<String, CancellationToken>,
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
            open: BTreeMap::new(),
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
            let name: Arc<str> = endpoint.listener_name.as_str().into();
            let shutdown = self.shutdown.child_token();
            if !is_controller {
                self.open.insert(endpoint.listener_name, shutdown.clone());
            }
            quota.add_listener(Arc::clone(&name));
            let acceptor = Acceptor {
                name,
                is_controller,
                services: Arc::clone(&self.services),
                limits: self.limits.clone(),
                quota: Arc::clone(quota),
                shutdown,
                tasks: self.tasks.clone(),
            };
            self.tasks.spawn(acceptor.run(listener));
        }
    }

    /// Opens and closes brokers' listeners as the dynamic config `listeners` says, until shutdown (Kafka's `DynamicListenerConfig`).
    pub async fn follow_config(mut self) {
        let mut changes = self.services.images.watch();
        loop {
            self.change_listeners(&self.services.config());
            let changed = self.shutdown.run_until_cancelled(changes.changed());
            if !matches!(changed.await, Some(Ok(()))) {
                return;
            }
        }
    }

    fn change_listeners(&mut self, config: &Config) {
        let quota = &self.quotas[0];
        self.open.retain(|name, stop| {
            let kept = config
                .broker_listeners()
                .any(|it| it.listener_name == *name);
            if !kept {
                info!(listener = %name, "closing");
                stop.cancel();
                quota.remove_listener(name);
            }
            kept
        });
        for endpoint in config.broker_listeners() {
            if self.open.contains_key(&endpoint.listener_name) {
                continue;
            }
            match bind(endpoint, config) {
                Ok(listener) => self.listen(vec![(endpoint.clone(), listener)], false),
                Err(error) => {
                    error!(%error, "the listener that was added cannot be opened");
                    // Not tried again before it is removed.
                    let name = endpoint.listener_name.clone();
                    self.open.insert(name, CancellationToken::new());
                }
            }
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
