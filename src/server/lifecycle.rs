//! The broker's life in the cluster (Kafka's `BrokerLifecycleManager`): registers, waits until it has applied its own
//! registration, is unfenced, heartbeats, and leaves under control.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ParseResponseErrorCode;
use kafka_protocol::messages::assign_replicas_to_dirs_request::{
    DirectoryData, PartitionData, TopicData,
};
use kafka_protocol::messages::broker_registration_request::Listener;
use kafka_protocol::messages::{
    AssignReplicasToDirsRequest, BrokerId as WireBrokerId, BrokerRegistrationRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::storage::DirFailures;
use crate::api::Services;
use crate::config::Config;
use crate::log::LogDir;
use crate::metadata::features;
use crate::protocol::ErrorCode;
use crate::protocol::messages::broker_heartbeat::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse,
};
use crate::replica::is_cordoned;
use crate::types::{BrokerId, Uuid};

/// Rest between attempts while the controller is not there or does not know us.
const RETRY: Duration = Duration::from_millis(20);
/// The longest rest after the controller refused.
const REFUSED_RETRY_MAX: Duration = Duration::from_secs(1);
/// How long a controlled shutdown may take before the broker leaves anyway.
const CONTROLLED_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Rest between attempts to tell the controller of directories.
const ASSIGNMENT_RETRY: Duration = Duration::from_millis(100);
const ASSIGNMENT_RETRY_MAX: Duration = Duration::from_secs(10);
/// Replicas in one AssignReplicasToDirs request (Kafka's `MAX_ASSIGNMENTS_PER_REQUEST`).
const ASSIGNMENTS_MAX: usize = 2250;

/// Directories of replicas, by topic and partition.
type Assignments = BTreeMap<(Uuid, i32), Uuid>;

/// A registered, unfenced broker.
pub struct Lifecycle {
    session: Session,
    stop: CancellationToken,
    /// Cancelled when a failed directory could not be told to the controller in time.
    untold: CancellationToken,
    heartbeats: JoinHandle<()>,
}

/// How often heartbeats go, and how long a failed directory may stay unknown to the controller.
#[derive(Clone, Copy)]
struct Pace {
    interval: Duration,
    failure_timeout: Duration,
}

impl Pace {
    fn of(config: &Config) -> Self {
        let millis = |ms: i64| Duration::from_millis(ms.max(1) as u64);
        Self {
            interval: millis(config.broker_heartbeat_interval_ms.into()),
            failure_timeout: millis(config.log_dir_failure_timeout_ms),
        }
    }
}

/// What heartbeats carry.
#[derive(Clone)]
struct Session {
    services: Arc<Services>,
    broker_id: BrokerId,
    registration: Arc<BrokerRegistrationRequest>,
}

/// The broker was not let into the cluster in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "unable to register with the controller quorum within initial.broker.registration.timeout.ms ({timeout_ms}): {}",
    last_answer(*.last)
)]
pub struct RegistrationTimedOut {
    timeout_ms: i32,
    /// What the controller answered last.
    last: Option<ErrorCode>,
}

fn last_answer(code: Option<ErrorCode>) -> String {
    match code {
        Some(code) => format!("it answers {code:?}"),
        None => "no active controller answers; see controller.quorum.voters or \
                 controller.quorum.bootstrap.servers"
            .to_owned(),
    }
}

impl Lifecycle {
    /// Resolves when the broker is unfenced, and its own image says so.
    pub async fn start(
        config: &Config,
        services: &Arc<Services>,
        registration: BrokerRegistrationRequest,
        failures: DirFailures,
    ) -> Result<Self, RegistrationTimedOut> {
        let session = Session {
            services: Arc::clone(services),
            broker_id: config.node_id,
            registration: Arc::new(registration),
        };
        session.register_first(config).await?;
        session.wait_until_unfenced().await;
        let broker_epoch = session.broker_epoch();
        info!(broker_epoch, "broker registered and unfenced");
        let (stop, untold) = (CancellationToken::new(), CancellationToken::new());
        let keep = session
            .clone()
            .keep(Pace::of(config), failures, stop.clone(), untold.clone());
        let heartbeats = tokio::spawn(keep);
        tokio::spawn(session.clone().tell_directories(stop.clone()));
        Ok(Self {
            session,
            stop,
            untold,
            heartbeats,
        })
    }

    /// Resolves with the reason when the broker has to end: replicas in a failed directory may lead on in the metadata, and
    /// no controller has heard of it within `log.dir.failure.timeout.ms`.
    pub fn failed(&self) -> impl Future<Output = String> + use<> {
        let untold = self.untold.clone();
        async move {
            untold.cancelled().await;
            "no controller heard of a failed log directory within log.dir.failure.timeout.ms"
                .to_owned()
        }
    }

    /// Leaves the cluster: leadership moves to other brokers where there are any. Returns the broker epoch, for the
    /// clean-shutdown file.
    pub async fn shutdown(self) -> i64 {
        self.stop.cancel();
        // It ends by itself; a panic in it is no reason not to stop.
        let _ = self.heartbeats.await;
        let image = self.session.services.images.current();
        let others = image
            .cluster
            .alive_brokers()
            .any(|broker| broker.id != self.session.broker_id);
        if others && self.session.services.config().controlled_shutdown_enable {
            let leaving = self.session.leave();
            if tokio::time::timeout(CONTROLLED_SHUTDOWN_TIMEOUT, leaving)
                .await
                .is_err()
            {
                warn!("controlled shutdown took too long, leaving anyway");
            }
        }
        self.session.broker_epoch()
    }
}

impl Session {
    fn broker_epoch(&self) -> i64 {
        self.services.replicas.broker_epoch()
    }

    /// Whatever stands against it may pass, except the time.
    async fn register_first(&self, config: &Config) -> Result<(), RegistrationTimedOut> {
        let timeout_ms = config.initial_broker_registration_timeout_ms;
        let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        let mut last = None;
        let registered = self.register(&self.registration, &mut last);
        let registered = tokio::time::timeout(timeout, registered).await;
        registered.map_err(|_| RegistrationTimedOut { timeout_ms, last })
    }

    /// Asks until the controller agrees; `last` is what it said against it last.
    async fn register(&self, request: &BrokerRegistrationRequest, last: &mut Option<ErrorCode>) {
        let mut leader = self.services.quorum.leader();
        let mut backoff = RETRY;
        loop {
            // The sender lives as long as the quorum, which outlives the broker.
            let _ = leader.wait_for(|leader| leader.leader_id.is_some()).await;
            let controller = &self.services.controller;
            let response = controller.broker_registration(request.clone()).await;
            match response.error_code.err() {
                None => {
                    self.services
                        .replicas
                        .set_broker_epoch(response.broker_epoch);
                    return;
                }
                // No answer of a controller's.
                Some(ErrorCode::NotController | ErrorCode::RequestTimedOut) => {
                    tokio::time::sleep(RETRY).await;
                }
                Some(code) => {
                    if *last != Some(code) {
                        warn!(
                            ?code,
                            "the controller refuses the registration, trying again"
                        );
                    }
                    *last = Some(code);
                    tokio::time::sleep(backoff).await;
                    backoff = (2 * backoff).min(REFUSED_RETRY_MAX);
                }
            }
        }
    }

    /// Whether another registration has taken the place of this process's. Who was unregistered stays so.
    fn is_replaced(&self) -> bool {
        let image = self.services.images.current();
        let known = image.cluster.broker(self.broker_id);
        known.is_some_and(|known| known.epoch != self.broker_epoch())
    }

    /// The controller knows another process under this broker's id: a registration that the former process sent came late.
    /// This one takes its place again, as one that may have lost something, so that nothing is led on a doubt.
    async fn register_again(&self) {
        let request = BrokerRegistrationRequest::clone(&self.registration);
        let request = request.with_previous_broker_epoch(-1);
        self.register(&request, &mut None).await;
        warn!(
            broker_epoch = self.broker_epoch(),
            "another process had been registered in this one's place, registered again"
        );
    }

    async fn heartbeat(&self, want_shut_down: bool) -> BrokerHeartbeatResponse {
        let offset = self.services.images.current().last_offset;
        let config = self.services.config();
        let offline = self.dir_ids(LogDir::is_offline);
        let cordoned = self.dir_ids(|dir| is_cordoned(&config, dir.name()));
        let request = BrokerHeartbeatRequest {
            broker_id: self.broker_id,
            broker_epoch: self.broker_epoch(),
            current_metadata_offset: offset,
            want_shut_down,
            offline_log_dirs: offline,
            // Before, the settings that the metadata holds are not known.
            cordoned_log_dirs: (offset >= self.broker_epoch()).then_some(cordoned),
            ..BrokerHeartbeatRequest::default()
        };
        self.services.controller.broker_heartbeat(request).await
    }

    /// Directories of this broker that are so: the controller moves leaderships away from failed ones (KIP-858), and gives
    /// cordoned ones nothing new (KIP-1066).
    fn dir_ids(&self, is_so: impl Fn(&LogDir) -> bool) -> Vec<Uuid> {
        let dirs = self.services.replicas.log_dirs().dirs().iter();
        let such = dirs.filter(|dir| is_so(dir));
        such.filter_map(|dir| dir.directory_id()).collect()
    }

    async fn wait_until_unfenced(&self) {
        let images = &self.services.images;
        // The controller unfences who has applied its own registration.
        images.wait_for(self.broker_epoch()).await;
        let mut changes = images.watch();
        loop {
            let response = self.heartbeat(false).await;
            let answered = response.error_code == 0 && !response.is_fenced;
            if answered && images.current().cluster.is_alive(self.broker_id) {
                return;
            }
            // Either the unfencing is on its way to our image, or the controller needs another heartbeat.
            let _ = tokio::time::timeout(RETRY, changes.changed()).await;
        }
    }

    async fn keep(
        self,
        pace: Pace,
        mut failures: DirFailures,
        stop: CancellationToken,
        untold: CancellationToken,
    ) {
        let mut deadline = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = failures.changed() => {
                    deadline.get_or_insert(Instant::now() + pace.failure_timeout);
                }
                () = tokio::time::sleep(pace.interval) => {}
            }
            let response = match deadline {
                None => self.heartbeat(false).await,
                Some(deadline) => {
                    let Ok(response) = timeout_at(deadline, self.heartbeat(false)).await else {
                        untold.cancel();
                        return;
                    };
                    response
                }
            };
            match response.error_code.err() {
                None => deadline = None,
                Some(ErrorCode::StaleBrokerEpoch) if self.is_replaced() => {
                    stop.run_until_cancelled(self.register_again()).await;
                }
                Some(code) => warn!(?code, "heartbeat refused"),
            }
        }
    }

    /// Tells the controller which directories replicas are in, wherever the metadata does not say so yet (Kafka's
    /// `AssignmentsManager`).
    async fn tell_directories(self, stop: CancellationToken) {
        let replicas = &self.services.replicas;
        let mut backoff = ASSIGNMENT_RETRY;
        while let Some(assignments) = stop.run_until_cancelled(replicas.take_assignments()).await {
            let untold = self.assign(assignments).await;
            if untold.is_empty() {
                backoff = ASSIGNMENT_RETRY;
                continue;
            }
            warn!(
                replicas = untold.len(),
                "the controller did not take the directories of replicas, trying again"
            );
            tokio::time::sleep(backoff).await;
            backoff = (2 * backoff).min(ASSIGNMENT_RETRY_MAX);
            replicas.return_assignments(untold);
        }
    }

    /// What has to be told again.
    async fn assign(&self, mut assignments: Assignments) -> Assignments {
        let later = assignments.len() > ASSIGNMENTS_MAX;
        let rest = if later {
            let split = *assignments
                .keys()
                .nth(ASSIGNMENTS_MAX)
                .expect("there are more");
            assignments.split_off(&split)
        } else {
            Assignments::new()
        };
        self.services.replicas.return_assignments(rest);
        let request = assign_request(self.broker_id, self.broker_epoch(), &assignments);
        let response = self
            .services
            .controller
            .assign_replicas_to_dirs(request)
            .await;
        if response.error_code != 0 {
            return assignments;
        }
        for topic in response.directories.iter().flat_map(|dir| &dir.topics) {
            for partition in &topic.partitions {
                // A topic or replica that is gone needs no directory.
                let told = matches!(
                    partition.error_code.err(),
                    None | Some(
                        ErrorCode::UnknownTopicId
                            | ErrorCode::UnknownTopicOrPartition
                            | ErrorCode::NotLeaderOrFollower
                    )
                );
                if told {
                    assignments.remove(&(topic.topic_id, partition.partition_index));
                }
            }
        }
        assignments
    }

    async fn leave(&self) {
        while !self.heartbeat(true).await.should_shut_down {
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn assign_request(
    broker_id: BrokerId,
    broker_epoch: i64,
    assignments: &Assignments,
) -> AssignReplicasToDirsRequest {
    let mut by_dir: BTreeMap<Uuid, BTreeMap<Uuid, Vec<PartitionData>>> = BTreeMap::new();
    for ((topic_id, index), dir) in assignments {
        let topics = by_dir.entry(*dir).or_default();
        let partition = PartitionData::default().with_partition_index(*index);
        topics.entry(*topic_id).or_default().push(partition);
    }
    let directories = by_dir.into_iter().map(|(id, topics)| {
        let topics = topics.into_iter().map(|(topic_id, partitions)| {
            TopicData::default()
                .with_topic_id(topic_id)
                .with_partitions(partitions)
        });
        let topics = topics.collect();
        DirectoryData::default().with_id(id).with_topics(topics)
    });
    AssignReplicasToDirsRequest::default()
        .with_broker_id(WireBrokerId(broker_id))
        .with_broker_epoch(broker_epoch)
        .with_directories(directories.collect())
}

/// How this process introduces itself.
pub fn registration(
    config: &Config,
    services: &Services,
    cluster_id: &str,
    incarnation_id: Uuid,
) -> BrokerRegistrationRequest {
    let listeners = config.advertised_broker_listeners().map(|endpoint| {
        Listener::default()
            .with_name(StrBytes::from_string(endpoint.listener_name.clone()))
            .with_host(StrBytes::from_string(endpoint.host.clone()))
            .with_port(endpoint.port)
            .with_security_protocol(endpoint.security_protocol.id())
    });
    let log_dirs = services.replicas.log_dirs();
    let dirs: Vec<_> = log_dirs.online().collect();
    let previous = dirs
        .iter()
        .map(|dir| dir.previous_broker_epoch())
        .min()
        .unwrap_or(-1);
    BrokerRegistrationRequest::default()
        .with_broker_id(WireBrokerId(config.node_id))
        .with_cluster_id(StrBytes::from_string(cluster_id.to_owned()))
        .with_incarnation_id(incarnation_id)
        .with_listeners(listeners.collect())
        .with_features(features::of_registration())
        .with_rack(config.broker_rack.clone().map(StrBytes::from_string))
        .with_log_dirs(dirs.iter().filter_map(|dir| dir.directory_id()).collect())
        .with_previous_broker_epoch(previous)
}
