//! The composition root: opens the storage, starts the metadata quorum, controller and coordinators, listens; and
//! stops all of it in the reverse order.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::OptionFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::broker_watch::VanishedWatch;
use super::connection_quota::ConnectionQuota;
use super::controller_registration;
use super::coordinator_log::{CoordinatorLog, GroupElections};
use super::dynamic_config::DynamicConfig;
use super::isr_channel::IsrChannel;
use super::lifecycle::{self, Lifecycle, RegistrationTimedOut};
use super::listener;
use super::sockets::Sockets;
use super::storage::{self, DirFailures};
use super::{gauges, maintenance};
use crate::admin;
use crate::api::{ProducerIds, Services, TopicCreation, Vanished};
use crate::clock::Clock;
use crate::config::{Config, Endpoint, SecurityProtocol};
use crate::controller::{self, Controller, ControllerParams, Remote, Settings};
use crate::group::{GroupConfig, GroupCoordinator};
use crate::log::{LogDirs, StorageError};
use crate::metadata::{Images, Loader, LoaderParams, Publisher, SnapshotPolicy};
use crate::metrics::Metrics;
use crate::quorum::{Member, QuorumError};
use crate::replica::{Fetchers, LogCleaner, LogScrubber, ReplicaManager, SessionCache};
use crate::types::{BrokerId, random_uuid};

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Storage(#[from] StorageError),
    #[error("log directory {dir} {reason}")]
    Format { dir: String, reason: String },
    #[error("listener {listener}: cannot listen on {address}: {source}")]
    Listen {
        listener: String,
        address: String,
        source: io::Error,
    },
    #[error("listener {listener} uses {protocol}, which this release does not have; use PLAINTEXT")]
    Protocol {
        listener: String,
        protocol: &'static str,
    },
    #[error("max.connections.per.ip.overrides: {0}; write its address, or have its name resolved")]
    UnknownHost(io::Error),
    #[error("{0}")]
    StorageFailed(String),
    #[error("metadata quorum: {0}")]
    Quorum(#[from] QuorumError),
    #[error(transparent)]
    Register(#[from] RegistrationTimedOut),
}

/// A running broker.
pub struct Broker {
    pub(super) services: Arc<Services>,
    quorum: Member,
    failures: DirFailures,
    /// Of the broker role.
    lifecycle: Option<Lifecycle>,
    cleaner: Arc<LogCleaner>,
    sockets: Sockets,
    /// Ends controller and metadata loader, once nobody needs them.
    metadata_shutdown: CancellationToken,
}

impl Broker {
    /// Resolves when clients are served. Needs a multi-threaded tokio runtime.
    pub async fn start(mut config: Config) -> Result<Self, StartError> {
        let listeners = bind_all(&mut config)?;
        let log_dirs = LogDirs::open(&config.log_dirs, &config.metadata_log_dir)?;
        let failures = DirFailures::of(&log_dirs);
        // A start that waits for a disk that failed would wait for ever.
        tokio::select! {
            started = Self::start_on(config, listeners, log_dirs.clone(), failures.clone()) => started,
            reason = failures.fatal(log_dirs) => Err(StartError::StorageFailed(reason)),
        }
    }

    async fn start_on(
        config: Config,
        listeners: Vec<(Endpoint, TcpListener)>,
        log_dirs: LogDirs,
        failures: DirFailures,
    ) -> Result<Self, StartError> {
        let clock = Clock::system();
        let quotas = [(); 2].map(|()| Arc::new(ConnectionQuota::new(&config)));
        for quota in &quotas {
            let looked_up = quota.look_up_hosts(&config).await;
            looked_up.map_err(StartError::UnknownHost)?;
        }
        let cluster_id = storage::identify(&config, &log_dirs, clock.wall_ms())?;
        let metadata_shutdown = CancellationToken::new();
        let quorum = Member::start(&config, &cluster_id, &log_dirs, &clock).await?;
        let shutdown = CancellationToken::new();
        let parts = Parts {
            config: &config,
            clock,
            images: Images::new(),
            log_dirs,
            quorum: quorum.clone(),
            metrics: Arc::new(Metrics::new()),
            shutdown: shutdown.clone(),
        };
        let controller = parts.controller(&cluster_id, &metadata_shutdown)?;
        let (services, cleaner, publishers) = parts.assemble(&cluster_id, controller);
        let incarnation_id = random_uuid();
        Loader::start(LoaderParams {
            log: Arc::clone(&services.quorum),
            images: services.images.clone(),
            publishers,
            snapshots: SnapshotPolicy {
                record_bytes_max: config.metadata_log_max_record_bytes_between_snapshots,
                interval_ms: config.metadata_log_max_snapshot_interval_ms,
            },
            registers_as: config
                .is_broker()
                .then_some((config.node_id, incarnation_id)),
            shutdown: metadata_shutdown.clone(),
        });
        tokio::spawn(failures.clone().follow(Arc::clone(&services.replicas)));
        if config.is_broker() {
            tokio::spawn(Arc::clone(&services.replicas).move_replicas());
        }
        // The quorum first: without it the broker cannot register.
        let mut sockets = Sockets::new(&config, &services, quotas, shutdown);
        let is_controller =
            |(endpoint, _): &(Endpoint, _)| config.is_controller_listener(&endpoint.listener_name);
        let (controllers, brokers) = listeners.into_iter().partition(is_controller);
        sockets.listen(controllers, true);
        if config.is_controller() {
            let registering = controller_registration::keep_registered(Arc::clone(&services));
            let stop = sockets.shutdown.clone();
            sockets
                .tasks
                .spawn(stop.run_until_cancelled_owned(registering));
        }
        let mut lifecycle = None;
        if config.is_broker() {
            let registration =
                lifecycle::registration(&config, &services, &cluster_id, incarnation_id);
            let started = Lifecycle::start(&config, &services, registration, failures.clone());
            lifecycle = Some(started.await?);
        }
        let node = Self {
            services,
            quorum,
            failures,
            lifecycle,
            cleaner,
            sockets,
            metadata_shutdown,
        };
        Ok(if config.is_broker() {
            node.serve(&config, brokers)
        } else {
            node.serve_controller(&config)
        })
    }

    /// What a node without the broker role does besides deciding and voting.
    fn serve_controller(self, config: &Config) -> Self {
        gauges::register_controller(&self.services);
        self.serve_admin(config);
        info!(node_id = config.node_id, "kafka controller started");
        self
    }

    fn serve_admin(&self, config: &Config) {
        let sockets = &self.sockets;
        admin::spawn(
            config,
            &self.services.metrics,
            &sockets.tasks,
            &sockets.shutdown,
        );
    }

    fn serve(mut self, config: &Config, listeners: Vec<(Endpoint, TcpListener)>) -> Self {
        let services = &self.services;
        let scrubber = Arc::new(LogScrubber::default());
        maintenance::spawn(
            &self.sockets.tasks,
            &self.sockets.shutdown,
            config,
            &services.replicas,
            &services.clock,
            &scrubber,
        );
        let channel = Arc::new(IsrChannel(services.controller.clone()));
        let replicas = Arc::clone(&services.replicas);
        let updates = replicas.send_isr_updates(channel, self.sockets.shutdown.clone());
        self.sockets.tasks.spawn(updates);
        self.cleaner.start();
        self.sockets.listen(listeners, false);
        let following = self.sockets.clone().follow_config();
        self.sockets.tasks.spawn(following);
        gauges::register(&self.services, &self.cleaner, scrubber);
        self.serve_admin(config);
        info!(node_id = config.node_id, "kafka server started");
        self
    }

    /// Bound addresses by listener name: what to connect to when a port was 0.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.sockets.addresses
    }

    /// Resolves with the reason when the broker cannot go on because log directories or the metadata quorum's raft failed.
    /// There is nothing left to shut down then: the process is to end, as Kafka halts.
    pub fn failed(&self) -> impl Future<Output = String> + use<> {
        let dirs = self.services.replicas.log_dirs().clone();
        let storage = self.failures.clone().fatal(dirs);
        let raft = self.quorum.failed();
        let untold = self.lifecycle.as_ref().map(Lifecycle::failed);
        async move {
            tokio::select! {
                reason = storage => reason,
                reason = raft => reason,
                Some(reason) = OptionFuture::from(untold) => reason,
            }
        }
    }

    /// Stops accepting, lets requests finish, flushes, writes checkpoints and the clean-shutdown file.
    pub async fn shutdown(self) {
        info!("shutting down");
        self.services.groups.shutdown();
        let broker_epoch = match self.lifecycle {
            Some(lifecycle) => lifecycle.shutdown().await,
            None => -1,
        };
        self.sockets.close().await;
        self.metadata_shutdown.cancel();
        if let Err(error) = self.quorum.shutdown().await {
            warn!(%error, "metadata log was not closed cleanly");
        }
        let replicas = Arc::clone(&self.services.replicas);
        let close = move || {
            self.cleaner.shutdown();
            replicas.close(broker_epoch);
        };
        if tokio::task::spawn_blocking(close).await.is_err() {
            warn!("logs were not closed cleanly");
        }
        info!("shut down");
    }
}

/// What the services are made of.
struct Parts<'a> {
    config: &'a Config,
    clock: Clock,
    images: Images,
    log_dirs: LogDirs,
    quorum: Member,
    metrics: Arc<Metrics>,
    /// Ends the fetchers.
    shutdown: CancellationToken,
}

impl Parts<'_> {
    /// The way to the active controller, which is in this process if the node has the role.
    fn controller(
        &self,
        cluster_id: &str,
        shutdown: &CancellationToken,
    ) -> Result<controller::Handle, StartError> {
        let log = self.quorum.log();
        let remote = Remote::new(self.config, Arc::clone(&log));
        let (images, clock) = (self.images.clone(), self.clock.clone());
        if !self.config.is_controller() {
            return Ok(controller::Handle::elsewhere(images, clock, remote));
        }
        let params = ControllerParams {
            settings: Settings {
                node_id: self.config.node_id,
                cluster_id: cluster_id.into(),
                config: Arc::new(self.config.clone()),
                formatted: storage::formatted_records(&self.log_dirs)?.into(),
            },
            log,
            images,
            clock,
            metrics: Arc::clone(&self.metrics),
            shutdown: shutdown.clone(),
        };
        Ok(Controller::start(params).with_remote(remote))
    }

    fn assemble(
        self,
        cluster_id: &str,
        controller: controller::Handle,
    ) -> (Arc<Services>, Arc<LogCleaner>, Vec<Arc<dyn Publisher>>) {
        let broker_id: BrokerId = self.config.node_id;
        let metrics = self.metrics;
        let shared = Arc::new(ArcSwap::from_pointee(self.config.clone()));
        let replicas = Arc::new(ReplicaManager::new(
            broker_id,
            Arc::clone(&shared),
            self.log_dirs,
            self.clock.clone(),
            Arc::clone(&metrics),
            self.images.clone(),
        ));
        let log = CoordinatorLog {
            replicas: Arc::clone(&replicas),
            clock: self.clock.clone(),
        };
        let group_config = GroupConfig::from(self.config);
        let groups = GroupCoordinator::new(group_config, Arc::new(log), self.clock.clone());
        let elections = GroupElections {
            broker_id,
            groups: groups.clone(),
        };
        let cleaner = LogCleaner::new(
            Arc::clone(&replicas),
            Arc::clone(&shared),
            self.clock.clone(),
        );
        let fetchers = Fetchers::new(
            Arc::clone(&replicas),
            Arc::clone(&shared),
            self.images.clone(),
            self.clock.clone(),
            self.shutdown,
        );
        // Settings first: logs open with them. Coordinators last: their logs must be open.
        let dynamic = DynamicConfig {
            broker_id,
            config: Arc::clone(&shared),
        };
        let mut publishers: Vec<Arc<dyn Publisher>> = vec![Arc::new(dynamic)];
        if self.config.is_broker() {
            let replicas = Arc::<ReplicaManager>::clone(&replicas);
            publishers.push(Arc::new(Arc::clone(&cleaner)));
            publishers.push(replicas);
            publishers.push(Arc::new(fetchers));
            publishers.push(Arc::new(elections));
        }
        let vanished = Vanished::default();
        if self.config.is_broker() {
            let watch = VanishedWatch::new(self.config, vanished.clone());
            publishers.push(Arc::new(watch));
        }
        publishers.push(Arc::new(gauges::Elections(Arc::clone(&metrics))));
        let slots = self.config.max_incremental_fetch_session_cache_slots.max(0) as usize;
        let services = Arc::new(Services {
            config: shared,
            cluster_id: cluster_id.into(),
            images: self.images,
            replicas,
            fetch_sessions: SessionCache::new(slots),
            topic_creation: TopicCreation::new(controller.clone()),
            producer_ids: ProducerIds::new(controller.clone(), broker_id),
            vanished,
            controller,
            quorum: self.quorum.log(),
            voter: self.quorum.voter(),
            groups,
            metrics,
            clock: self.clock,
        });
        (services, cleaner, publishers)
    }
}

/// Binds every listener; a port 0 becomes the port that the system chose, in the advertised listeners too.
fn bind_all(config: &mut Config) -> Result<Vec<(Endpoint, TcpListener)>, StartError> {
    let mut bound = Vec::new();
    for at in 0..config.listeners.len() {
        let endpoint = config.listeners[at].clone();
        let listener = bind(&endpoint, config)?;
        let port = listener
            .local_addr()
            .map_or(endpoint.port, |address| address.port());
        let advertised = config.advertised_listeners.iter_mut();
        for advertised in
            advertised.filter(|a| a.listener_name == endpoint.listener_name && a.port == 0)
        {
            advertised.port = port;
        }
        config.listeners[at].port = port;
        bound.push((config.listeners[at].clone(), listener));
    }
    Ok(bound)
}

pub(super) fn bind(endpoint: &Endpoint, config: &Config) -> Result<TcpListener, StartError> {
    let listener = endpoint.listener_name.clone();
    if endpoint.security_protocol != SecurityProtocol::Plaintext {
        let protocol = endpoint.security_protocol.name();
        return Err(StartError::Protocol { listener, protocol });
    }
    // No host means every interface, as in Kafka.
    let host = if endpoint.host.is_empty() {
        "0.0.0.0"
    } else {
        &endpoint.host
    };
    let address = format!("{host}:{}", endpoint.port);
    let failed = |source| StartError::Listen {
        listener: listener.clone(),
        address: address.clone(),
        source,
    };
    let resolved = (host, endpoint.port)
        .to_socket_addrs()
        .map_err(failed)?
        .next();
    let socket_address = resolved.ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
    listener::bind(socket_address, config).map_err(failed)
}
