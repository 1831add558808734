//! The listeners that are open, what their connections share, and the end of all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::broker::bind;
use super::connection::Limits;
use super::connection_quota::ConnectionQuota;
use super::listener::Acceptor;
use super::request_memory::RequestMemory;
use crate::api::Services;
use crate::config::{Config, Endpoint};

/// Memory for requests when `queued.max.request.bytes` sets no bound.
const REQUEST_MEMORY_BYTES: usize = 512 * 1024 * 1024;
/// How long a request that has begun to come may stand still. Kafka has no such limit.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connections may take to finish what they are doing at a stop.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// Open listeners and their connections.
#[derive(Clone)]
pub struct Sockets {
    services: Arc<Services>,
    limits: Limits,
    /// Of brokers' and of controllers' listeners.
    quotas: [Arc<ConnectionQuota>; 2],
    /// Brokers' listeners.
    open: BTreeMap<String, Open>,
    /// Bound addresses by listener name.
    pub addresses: Vec<(String, SocketAddr)>,
    /// Ends listeners, connections and timers.
    pub shutdown: CancellationToken,
    pub tasks: TaskTracker,
}

/// A listener that accepts connections, or failed to be opened.
#[derive(Clone, Default)]
struct Open {
    /// Closes it with its connections.
    stop: CancellationToken,
    /// Its acceptor: while that runs, the port is taken.
    acceptor: TaskTracker,
}

impl Sockets {
    /// `shutdown` ends what is opened here, and whatever else the broker runs for its clients.
    pub fn new(
        config: &Config,
        services: &Arc<Services>,
        quotas: [Arc<ConnectionQuota>; 2],
        shutdown: CancellationToken,
    ) -> Self {
        let memory =
            usize::try_from(config.queued_max_request_bytes).unwrap_or(REQUEST_MEMORY_BYTES);
        let idle_max = idle_max(config.connections_max_idle_ms);
        let request_bytes_max = config.socket_request_max_bytes.max(0) as usize;
        Self {
            services: Arc::clone(services),
            limits: Limits {
                request_bytes_max,
                idle_max,
                frame_timeout: idle_max.min(FRAME_TIMEOUT),
                memory: RequestMemory::new(memory.max(request_bytes_max)),
            },
            quotas,
            open: BTreeMap::new(),
            addresses: Vec::new(),
            shutdown,
            tasks: TaskTracker::new(),
        }
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
            let open = Open {
                stop: self.shutdown.child_token(),
                ..Open::default()
            };
            quota.add_listener(Arc::clone(&name));
            let acceptor = Acceptor {
                name,
                is_controller,
                services: Arc::clone(&self.services),
                limits: self.limits.clone(),
                quota: Arc::clone(quota),
                shutdown: open.stop.clone(),
                tasks: self.tasks.clone(),
            };
            let accepting = open.acceptor.track_future(acceptor.run(listener));
            self.tasks.spawn(accepting);
            if !is_controller {
                self.open.insert(endpoint.listener_name, open);
            }
        }
    }

    /// Opens and closes brokers' listeners as the dynamic config `listeners` says, until shutdown (Kafka's `DynamicListenerConfig`).
    pub async fn follow_config(mut self) {
        let mut changes = self.services.images.watch();
        loop {
            self.change_listeners(&self.services.config()).await;
            let changed = self.shutdown.run_until_cancelled(changes.changed());
            if !matches!(changed.await, Some(Ok(()))) {
                return;
            }
        }
    }

    async fn change_listeners(&mut self, config: &Config) {
        let is_wanted = |name: &str| config.broker_listeners().any(|it| it.listener_name == name);
        let removed = self.open.extract_if(.., |name, _| !is_wanted(name));
        for (name, open) in removed.collect::<Vec<_>>() {
            info!(listener = %name, "closing");
            open.stop.cancel();
            self.quotas[0].remove_listener(&name);
            // A listener of another name may take its port.
            open.acceptor.close();
            open.acceptor.wait().await;
        }
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
                    self.open.insert(name, Open::default());
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
