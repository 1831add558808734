//! The loop that owns the newest state: takes requests one by one, proposes what they decide, answers when it is committed.
//!
//! ```text
//! standby --(this node leads, image has caught up)--> active --(leadership or a proposal is lost)--> standby
//! ```
//!
//! While active, decisions build on the speculative image: the committed one plus everything proposed. Proposals are
//! committed in order or not at all, so one that fails takes all later ones with it; then the image is thrown away.
//! While nobody is known to lead, requests wait; where somebody else leads they get NOT_CONTROLLER.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::batches;
use super::broker_watch::{BrokerWatch, Gone};
use super::cluster_control::{self, Heartbeats};
use super::feature_control;
use super::handle::{Handle, Operation};
use super::outcome::{Settings, Turn};
use super::periodic_control::Periodic;
use super::rng::Rng;
use crate::clock::Clock;
use crate::metadata::{Images, MetadataDelta, MetadataImage};
use crate::metrics::{ControllerMetrics, Metrics};
use crate::protocol::metadata_records::MetadataRecord;
use crate::protocol::{Error, ErrorCode};
use crate::quorum::{BoxFuture, LeaderAndEpoch, MetaLog, ProposeError};
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// Requests that wait for the loop; more have to wait with their senders.
const OPERATIONS_MAX: usize = 1024;
/// Proposals under way at the same time; the log commits them in groups.
const IN_FLIGHT_MAX: usize = 256;

/// What a controller is made of.
pub struct ControllerParams {
    pub settings: Settings,
    pub log: Arc<dyn MetaLog>,
    /// Fed by the metadata loader of this process.
    pub images: Images,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
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
        let (findings, gone) = BrokerWatch::channel();
        let event_loop = EventLoop {
            params,
            findings,
            gone,
            requests,
            rng: Rng::random(),
            active: None,
            in_flight: VecDeque::new(),
            elections: Elections::default(),
        };
        tokio::spawn(event_loop.run());
        handle
    }
}

/// The state of an active controller.
struct Active {
    epoch: LeaderEpoch,
    /// Includes what is proposed.
    image: MetadataImage,
    heartbeats: Heartbeats,
    periodic: Periodic,
    watch: BrokerWatch,
}

/// A proposal (or an answer that rests on those before it) that is not committed yet.
struct InFlight {
    committed: BoxFuture<'static, Result<Offset, ProposeError>>,
    /// When records were proposed.
    proposed_ms: Option<i64>,
    /// Whom to answer then.
    operation: Option<Box<dyn Operation>>,
}

struct EventLoop {
    params: ControllerParams,
    requests: mpsc::Receiver<Box<dyn Operation>>,
    rng: Rng,
    active: Option<Active>,
    in_flight: VecDeque<InFlight>,
    /// Given to the watchers of whichever epoch; what they find says in which broker epoch.
    findings: mpsc::Sender<Gone>,
    gone: mpsc::Receiver<Gone>,
    elections: Elections,
}

/// What of the leadership is known, to measure elections.
#[derive(Default)]
pub(super) struct Elections {
    leader: Option<BrokerId>,
    /// Since when nobody leads, after somebody did.
    leaderless_ms: Option<i64>,
}

impl Elections {
    pub(super) fn heard(
        &mut self,
        leader: Option<BrokerId>,
        now_ms: i64,
        metrics: &ControllerMetrics,
    ) {
        if leader.is_none() {
            self.leaderless_ms = self.leaderless_ms.or(self.leader.map(|_| now_ms));
            return;
        }
        if self.leader != leader {
            metrics.new_active.fetch_add(1, Relaxed);
        }
        self.leader = leader;
        if let Some(since_ms) = self.leaderless_ms.take() {
            metrics.election_ms.record(now_ms - since_ms);
        }
    }
}

fn not_controller() -> Error {
    Error::new(
        ErrorCode::NotController,
        "another node is the active controller",
    )
}

impl EventLoop {
    async fn run(mut self) {
        let shutdown = self.params.shutdown.clone();
        shutdown.run_until_cancelled(self.turn_forever()).await;
        self.resign("the node is stopping");
    }

    /// Ends when all handles or the log are gone.
    async fn turn_forever(&mut self) {
        let mut leader = self.params.log.leader();
        self.follow_leader(&mut leader).await;
        loop {
            let leader_known = leader.borrow().leader_id.is_some();
            let room = self.in_flight.len() < IN_FLIGHT_MAX;
            let timer = self.until_next_timer();
            if let Some(active) = &mut self.active {
                active.watch.update(&active.image, &self.params.settings);
            }
            tokio::select! {
                biased;
                changed = leader.changed() => match changed {
                    Ok(()) => self.follow_leader(&mut leader).await,
                    Err(_) => return,
                },
                result = first_committed(&mut self.in_flight), if !self.in_flight.is_empty() => {
                    self.finish_first(result);
                }
                () = tokio::time::sleep(timer.unwrap_or_default()), if timer.is_some() => {
                    self.fence_stale_brokers();
                    self.run_periodic_tasks();
                }
                Some(gone) = self.gone.recv() => self.end_session(gone),
                operation = self.requests.recv(), if leader_known && room => match operation {
                    Some(operation) => self.take(operation),
                    None => return,
                },
            }
        }
    }

    /// Becomes active or standby as the quorum says.
    async fn follow_leader(&mut self, leader: &mut watch::Receiver<LeaderAndEpoch>) {
        loop {
            let current = *leader.borrow_and_update();
            let now_ms = self.params.clock.monotonic_ms();
            let metrics = &self.params.metrics.controller;
            self.elections.heard(current.leader_id, now_ms, metrics);
            if current.leader_id != Some(self.params.settings.node_id) {
                self.resign("another node leads, or none");
                return;
            }
            if self
                .active
                .as_ref()
                .is_some_and(|active| active.epoch == current.epoch)
            {
                return;
            }
            self.resign("a new epoch has begun");
            let end_offset = self.params.log.end_offset();
            tokio::select! {
                image = self.params.images.wait_for_loaded(end_offset - 1) => {
                    self.activate(current.epoch, MetadataImage::clone(&image));
                    return;
                }
                changed = leader.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    fn activate(&mut self, epoch: LeaderEpoch, image: MetadataImage) {
        info!(
            epoch,
            offset = image.last_offset,
            "this node is the active controller"
        );
        let (fresh, image_is_halfway) = (image.is_empty(), image.transaction_open);
        let now_ms = self.params.clock.monotonic_ms();
        let heartbeats = Heartbeats::start(&image, now_ms);
        let periodic = Periodic::start(&self.params.settings, now_ms);
        self.active = Some(Active {
            epoch,
            image,
            heartbeats,
            periodic,
            watch: BrokerWatch::new(self.findings.clone()),
        });
        if image_is_halfway {
            info!("ending the metadata transaction of another controller");
            self.decide(|_| batches::abort());
        }
        if fresh {
            info!("writing the first records of a new cluster");
            self.decide(|turn| {
                let min_insync_replicas = turn.settings.config.min_insync_replicas;
                feature_control::bootstrap_records(&turn.settings.formatted, min_insync_replicas)
            });
        }
    }

    fn resign(&mut self, why: &str) {
        if self.active.take().is_some() {
            info!(why, "this node is no longer the active controller");
        }
        for in_flight in self.in_flight.drain(..) {
            if let Some(operation) = in_flight.operation {
                operation.complete(Err(not_controller()));
            }
        }
    }

    fn take(&mut self, mut operation: Box<dyn Operation>) {
        let began_ms = self.params.clock.monotonic_ms();
        let metrics = Arc::clone(&self.params.metrics);
        let metrics = &metrics.controller;
        metrics.queue_ms.record(began_ms - operation.asked_ms());
        if operation.deadline_ms() <= began_ms {
            metrics.timed_out.fetch_add(1, Relaxed);
            operation.complete(Err(ErrorCode::RequestTimedOut.into()));
            return;
        }
        metrics.started.fetch_add(1, Relaxed);
        let log = Arc::clone(&self.params.log);
        let end_held = log.hold_end();
        match self.run_turn(|turn| operation.run(turn)) {
            Some(records) => self.propose(records, Some(operation)),
            None => operation.complete(Err(not_controller())),
        }
        drop(end_held);
        let took_ms = self.params.clock.monotonic_ms() - began_ms;
        metrics.processing_ms.record(took_ms);
    }

    /// Proposes what `decide` says to the newest state. Returns whether that is anything.
    fn decide(&mut self, decide: impl FnOnce(&mut Turn<'_>) -> Vec<MetadataRecord>) -> bool {
        let log = Arc::clone(&self.params.log);
        let _end_held = log.hold_end();
        let records = self.run_turn(decide).unwrap_or_default();
        let any = !records.is_empty();
        if any {
            self.propose(records, None);
        }
        any
    }

    /// Lets `decide` look at the newest state; none when this node is not active. Who proposes what it says holds the end
    /// of the log since before.
    fn run_turn<R>(&mut self, decide: impl FnOnce(&mut Turn<'_>) -> R) -> Option<R> {
        let active = self.active.as_mut()?;
        if self.in_flight.is_empty() {
            // Share memory with the committed image again.
            let loaded = self.params.images.loaded();
            if loaded.last_offset >= active.image.last_offset {
                active.image = MetadataImage::clone(&loaded);
            }
        }
        let mut turn = Turn {
            image: &active.image,
            settings: &self.params.settings,
            now_ms: self.params.clock.monotonic_ms(),
            next_offset: self.params.log.end_offset(),
            kraft_version: self.params.log.kraft_version(),
            rng: &mut self.rng,
            heartbeats: &mut active.heartbeats,
        };
        Some(decide(&mut turn))
    }

    /// Proposes `records` in as many batches as needed; `operation` is answered when all of them, and all before, are committed.
    fn propose(&mut self, records: Vec<MetadataRecord>, operation: Option<Box<dyn Operation>>) {
        let Some(active) = &mut self.active else {
            return;
        };
        if records.is_empty() {
            let offset = active.image.last_offset;
            let committed: BoxFuture<'static, _> = Box::pin(std::future::ready(Ok(offset)));
            self.in_flight.push_back(InFlight {
                committed,
                proposed_ms: None,
                operation,
            });
            return;
        }
        let mut changes = MetadataDelta::default();
        let mut operation = operation;
        let mut batches = batches::split(&active.image, records)
            .into_iter()
            .peekable();
        while let Some(batch) = batches.next() {
            for record in &batch {
                if let Err(reason) = active.image.apply(record, &mut changes) {
                    error!(?record, %reason, "a new metadata record does not fit the image");
                }
            }
            active.image.last_offset = self.params.log.end_offset() + batch.len() as Offset - 1;
            active.image.epoch = active.epoch;
            let proposed_ms = Some(self.params.clock.monotonic_ms());
            let committed = self.params.log.propose(active.epoch, batch);
            let operation = operation.take_if(|_| batches.peek().is_none());
            self.in_flight.push_back(InFlight {
                committed,
                proposed_ms,
                operation,
            });
        }
    }

    fn finish_first(&mut self, result: Result<Offset, ProposeError>) {
        let Some(first) = self.in_flight.pop_front() else {
            return;
        };
        match result {
            Ok(offset) => {
                if let Some(proposed_ms) = first.proposed_ms {
                    let took_ms = self.params.clock.monotonic_ms() - proposed_ms;
                    self.params.metrics.controller.commit_ms.record(took_ms);
                }
                if let Some(operation) = first.operation {
                    operation.complete(Ok(offset));
                }
            }
            Err(reason) => {
                warn!(%reason, "metadata records were not committed");
                if let Some(operation) = first.operation {
                    operation.complete(Err(not_controller()));
                }
                self.resign("its proposals are no longer accepted");
            }
        }
    }

    fn session_timeout_ms(&self) -> i64 {
        i64::from(self.params.settings.config.broker_session_timeout_ms)
    }

    /// Until a broker's session expires or a periodic task is due.
    fn until_next_timer(&self) -> Option<Duration> {
        let active = self.active.as_ref()?;
        let timeout_ms = self.session_timeout_ms();
        let expiry_ms = active.heartbeats.next_expiry_ms(&active.image, timeout_ms);
        let task_ms = active.periodic.next_ms();
        let next_ms = expiry_ms.map_or(task_ms, |expiry_ms| expiry_ms.min(task_ms));
        let wait_ms = next_ms - self.params.clock.monotonic_ms();
        Some(Duration::from_millis(wait_ms.max(0).unsigned_abs()))
    }

    fn run_periodic_tasks(&mut self) {
        let now_ms = self.params.clock.monotonic_ms();
        // A task that could not do all stays due; its next run must see what this one decided.
        while let Some(mut periodic) = self.active.as_ref().map(|active| active.periodic)
            && periodic.next_ms() <= now_ms
        {
            self.decide(|turn| periodic.run(turn));
            if let Some(active) = &mut self.active {
                active.periodic = periodic;
            }
        }
    }

    fn end_session(&mut self, gone: Gone) {
        self.run_turn(|turn| cluster_control::end_session(turn, &gone));
        self.fence_stale_brokers();
    }

    fn fence_stale_brokers(&mut self) {
        // One broker at a time: each decision must see the one before.
        while self.decide(cluster_control::fence_stale_broker) {}
    }
}

/// Waits for the oldest proposal, which stays in the queue.
async fn first_committed(in_flight: &mut VecDeque<InFlight>) -> Result<Offset, ProposeError> {
    match in_flight.front_mut() {
        Some(first) => first.committed.as_mut().await,
        None => std::future::pending().await,
    }
}
