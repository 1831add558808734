//! How the rest of the process asks the controller: one async method per operation.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterConfigsRequest,
    AlterConfigsResponse, AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    AlterPartitionRequest, AlterPartitionResponse, AssignReplicasToDirsRequest,
    AssignReplicasToDirsResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    ControllerRegistrationRequest, ControllerRegistrationResponse, CreatePartitionsRequest,
    CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, ElectLeadersRequest, ElectLeadersResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, UnregisterBrokerRequest,
    UnregisterBrokerResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use tokio::sync::{mpsc, oneshot};

use super::batches::fits_one_batch;
use super::failure;
use super::outcome::{Outcome, Turn};
use super::remote::{Answer, Caller, Remote};
use super::{
    cluster_control, configuration_control, controllers_control, directory_control,
    feature_control, partition_control, producer_id_control, reassignment_control, topic_control,
};
use crate::clock::Clock;
use crate::metadata::Images;
use crate::protocol::messages::broker_heartbeat::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse,
};
use crate::protocol::metadata_records::MetadataRecord;
use crate::protocol::{Error, ErrorCode};
use crate::rpc::Request;
use crate::types::Offset;

/// How long requests between brokers and controller wait, which have no timeout of their own.
const INTERNAL_TIMEOUT_MS: i32 = 4_500;
/// Rest between two attempts to find the active controller.
const LEADER_RETRY: Duration = Duration::from_millis(50);

/// Up to v5 topics are named in one way, from v6 on in another.
fn delete_topics_version(request: &DeleteTopicsRequest) -> i16 {
    if request.topics.is_empty() { 5 } else { 6 }
}

/// v0 says otherwise what a downgrade is.
fn update_features_version(request: &UpdateFeaturesRequest) -> i16 {
    let mut updates = request.feature_updates.iter();
    i16::from(!updates.any(|update| update.allow_downgrade))
}

/// A unit of work of the event loop.
pub(super) trait Operation: Send {
    /// Monotonic time of the request.
    fn asked_ms(&self) -> i64;
    /// Monotonic time after which the operation is not started any more.
    fn deadline_ms(&self) -> i64;
    /// Decides; the records that are returned get appended.
    fn run(&mut self, turn: &mut Turn<'_>) -> Vec<MetadataRecord>;
    /// Called once: with the last offset that the decision rests on, all committed; or with the reason why not.
    fn complete(self: Box<Self>, result: Result<Offset, Error>);
}

struct Write<F, R> {
    asked_ms: i64,
    deadline_ms: i64,
    operate: Option<F>,
    response: Option<Result<R, Error>>,
    reply: oneshot::Sender<Result<(Offset, R), Error>>,
}

impl<F, R> Operation for Write<F, R>
where
    F: FnOnce(&mut Turn<'_>) -> Outcome<R> + Send,
    R: Send,
{
    fn asked_ms(&self) -> i64 {
        self.asked_ms
    }

    fn deadline_ms(&self) -> i64 {
        self.deadline_ms
    }

    fn run(&mut self, turn: &mut Turn<'_>) -> Vec<MetadataRecord> {
        let operate = self.operate.take().expect("an operation runs once");
        let outcome = operate(turn);
        if outcome.is_atomic && !fits_one_batch(&outcome.records) {
            let message = "the operation would change too much at once";
            self.response = Some(Err(Error::new(ErrorCode::PolicyViolation, message)));
            return Vec::new();
        }
        self.response = Some(Ok(outcome.response));
        outcome.records
    }

    fn complete(self: Box<Self>, result: Result<Offset, Error>) {
        let Write {
            response, reply, ..
        } = *self;
        let answer = result.and_then(|offset| {
            let response = response.ok_or(ErrorCode::UnknownServerError)?;
            Ok((offset, response?))
        });
        // The requester may have given up meanwhile.
        let _ = reply.send(answer);
    }
}

/// Sends requests to the active controller, in this process or on another node; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// Of the controller in this process, if it has one.
    operations: Option<mpsc::Sender<Box<dyn Operation>>>,
    images: Images,
    clock: Clock,
    /// Where to ask while another node leads; without it the answer is NOT_CONTROLLER then.
    remote: Option<Arc<Remote>>,
    /// The client that asks through this node, if one does: the other node is told.
    caller: Option<Arc<Caller>>,
}

impl Handle {
    pub(super) fn new(
        operations: mpsc::Sender<Box<dyn Operation>>,
        images: Images,
        clock: Clock,
    ) -> Self {
        Self {
            operations: Some(operations),
            images,
            clock,
            remote: None,
            caller: None,
        }
    }

    /// Asks other nodes only: this one is no controller.
    pub fn elsewhere(images: Images, clock: Clock, remote: Remote) -> Self {
        Self {
            operations: None,
            images,
            clock,
            remote: Some(Arc::new(remote)),
            caller: None,
        }
    }

    /// Passes requests on in an Envelope that says who asks (KIP-590).
    #[must_use]
    pub fn on_behalf_of(&self, caller: Caller) -> Self {
        Self {
            caller: Some(Arc::new(caller)),
            ..self.clone()
        }
    }

    /// Asks other nodes too, as brokers do on behalf of their clients.
    #[must_use]
    pub fn with_remote(self, remote: Remote) -> Self {
        Self {
            remote: Some(Arc::new(remote)),
            ..self
        }
    }

    /// Asks the controller of this process only, as the controller listener does: a request goes over one hop at most.
    #[must_use]
    pub fn local(&self) -> Self {
        Self {
            remote: None,
            ..self.clone()
        }
    }

    /// The answer arrives when the topics are committed and this broker has applied them.
    pub async fn create_topics(&self, request: CreateTopicsRequest) -> CreateTopicsResponse {
        let names = failure::create_topics(&request);
        let (timeout_ms, version) = (request.timeout_ms, 7);
        let result = self.ask(timeout_ms, version, request, topic_control::create_topics);
        result.await.unwrap_or_else(names)
    }

    pub async fn delete_topics(&self, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
        let names = failure::delete_topics(&request);
        let (timeout_ms, version) = (request.timeout_ms, delete_topics_version(&request));
        let result = self.ask(timeout_ms, version, request, topic_control::delete_topics);
        result.await.unwrap_or_else(names)
    }

    pub async fn create_partitions(
        &self,
        request: CreatePartitionsRequest,
    ) -> CreatePartitionsResponse {
        let names = failure::create_partitions(&request);
        let (timeout_ms, version) = (request.timeout_ms, 3);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            topic_control::create_partitions,
        );
        result.await.unwrap_or_else(names)
    }

    pub async fn incremental_alter_configs(
        &self,
        request: IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        let names = failure::incremental_alter_configs(&request);
        let (timeout_ms, version) = (INTERNAL_TIMEOUT_MS, 1);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            configuration_control::incremental_alter_configs,
        );
        result.await.unwrap_or_else(names)
    }

    pub async fn alter_configs(&self, request: AlterConfigsRequest) -> AlterConfigsResponse {
        let names = failure::alter_configs(&request);
        let (timeout_ms, version) = (INTERNAL_TIMEOUT_MS, 2);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            configuration_control::alter_configs,
        );
        result.await.unwrap_or_else(names)
    }

    pub async fn update_features(&self, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
        let (timeout_ms, version) = (request.timeout_ms, update_features_version(&request));
        let result = self.ask(
            timeout_ms,
            version,
            request,
            feature_control::update_features,
        );
        result.await.unwrap_or_else(failure::update_features)
    }

    pub async fn allocate_producer_ids(
        &self,
        request: AllocateProducerIdsRequest,
    ) -> AllocateProducerIdsResponse {
        let (timeout_ms, version) = (INTERNAL_TIMEOUT_MS, 0);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            producer_id_control::allocate_producer_ids,
        );
        let failed =
            |error: Error| AllocateProducerIdsResponse::default().with_error_code(error.code());
        result.await.unwrap_or_else(failed)
    }

    pub async fn broker_registration(
        &self,
        request: BrokerRegistrationRequest,
    ) -> BrokerRegistrationResponse {
        let (timeout_ms, version) = (INTERNAL_TIMEOUT_MS, 4);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            cluster_control::register_broker,
        );
        let failed = |error: Error| {
            let response = BrokerRegistrationResponse::default().with_broker_epoch(-1);
            response.with_error_code(error.code())
        };
        result.await.unwrap_or_else(failed)
    }

    pub async fn controller_registration(
        &self,
        request: ControllerRegistrationRequest,
    ) -> ControllerRegistrationResponse {
        let (timeout_ms, version) = (INTERNAL_TIMEOUT_MS, 0);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            controllers_control::register_controller,
        );
        let failed = |error: Error| {
            ControllerRegistrationResponse::default()
                .with_error_code(error.code())
                .with_error_message(error.text())
        };
        result.await.unwrap_or_else(failed)
    }

    pub async fn broker_heartbeat(
        &self,
        request: BrokerHeartbeatRequest,
    ) -> BrokerHeartbeatResponse {
        let (timeout_ms, version) = (INTERNAL_TIMEOUT_MS, 2);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            cluster_control::broker_heartbeat,
        );
        let failed = |error: Error| failure::broker_heartbeat(&error);
        result.await.unwrap_or_else(failed)
    }

    pub async fn unregister_broker(
        &self,
        request: UnregisterBrokerRequest,
    ) -> UnregisterBrokerResponse {
        let (timeout_ms, version) = (INTERNAL_TIMEOUT_MS, 0);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            cluster_control::unregister_broker,
        );
        let failed = |error: Error| {
            UnregisterBrokerResponse::default()
                .with_error_code(error.code())
                .with_error_message(error.text())
        };
        result.await.unwrap_or_else(failed)
    }

    pub async fn alter_partition(&self, request: AlterPartitionRequest) -> AlterPartitionResponse {
        let (timeout_ms, version) = (INTERNAL_TIMEOUT_MS, 3);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            partition_control::alter_partition,
        );
        let failed = |error: Error| AlterPartitionResponse::default().with_error_code(error.code());
        result.await.unwrap_or_else(failed)
    }

    pub async fn assign_replicas_to_dirs(
        &self,
        request: AssignReplicasToDirsRequest,
    ) -> AssignReplicasToDirsResponse {
        let (timeout_ms, version) = (INTERNAL_TIMEOUT_MS, 0);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            directory_control::assign_replicas_to_dirs,
        );
        let failed =
            |error: Error| AssignReplicasToDirsResponse::default().with_error_code(error.code());
        result.await.unwrap_or_else(failed)
    }

    pub async fn alter_partition_reassignments(
        &self,
        request: AlterPartitionReassignmentsRequest,
    ) -> AlterPartitionReassignmentsResponse {
        let failed = failure::alter_partition_reassignments(&request);
        let (timeout_ms, version) = (request.timeout_ms, 1);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            reassignment_control::alter_partition_reassignments,
        );
        result.await.unwrap_or_else(failed)
    }

    pub async fn list_partition_reassignments(
        &self,
        request: ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        use reassignment_control::list_partition_reassignments as list;
        if self.remote.is_none() {
            // Asked of a controller, whether it is the active one or not: it answers from what it has heard.
            return list(&self.images.current(), &request);
        }
        let (timeout_ms, version) = (request.timeout_ms, 0);
        let result = self.ask(timeout_ms, version, request, |turn, request| {
            Outcome::unchanged(list(turn.image, request))
        });
        let failed = |error: Error| {
            ListPartitionReassignmentsResponse::default()
                .with_error_code(error.code())
                .with_error_message(error.text())
        };
        result.await.unwrap_or_else(failed)
    }

    pub async fn elect_leaders(&self, request: ElectLeadersRequest) -> ElectLeadersResponse {
        let failed = failure::elect_leaders(&request);
        let (timeout_ms, version) = (request.timeout_ms, 2);
        let result = self.ask(
            timeout_ms,
            version,
            request,
            partition_control::elect_leaders,
        );
        result.await.unwrap_or_else(failed)
    }

    /// The leader's answer to what concerns the quorum itself, if another node leads; `None` where this node answers, because
    /// it leads or because nobody can be asked.
    pub async fn ask_quorum<R: Request>(
        &self,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Option<R::Response> {
        let remote = self.remote.as_ref()?;
        let leader = remote.leader()?;
        let caller = self.caller.as_deref();
        let answer = remote.call(leader, caller, version, request, timeout);
        answer.await.ok()
    }

    /// Has `request` decided by whoever is the active controller. An answer that nobody is does not count while there is
    /// time: it means that leadership moves.
    async fn ask<R>(
        &self,
        timeout_ms: i32,
        version: i16,
        request: R,
        decide: fn(&mut Turn<'_>, &R) -> Outcome<R::Response>,
    ) -> Result<R::Response, Error>
    where
        R: Request + Send + Sync + 'static,
        R::Response: Answer + Send + 'static,
    {
        let deadline_ms = self.clock.monotonic_ms() + i64::from(timeout_ms);
        let request = Arc::new(request);
        loop {
            let left_ms = deadline_ms - self.clock.monotonic_ms();
            let left_ms = i32::try_from(left_ms.max(0)).unwrap_or(i32::MAX);
            let elsewhere = self.remote.as_ref().and_then(|remote| remote.leader());
            let answer = match (&self.remote, elsewhere) {
                (Some(remote), Some(leader)) if left_ms > 0 => {
                    let timeout = Duration::from_millis(u64::from(left_ms.unsigned_abs()));
                    let timeout = remote.patience(timeout);
                    let caller = self.caller.as_deref();
                    let answer = remote.call(leader, caller, version, &*request, timeout);
                    answer.await
                }
                _ => {
                    let request = Arc::clone(&request);
                    let operate = move |turn: &mut Turn<'_>| decide(turn, &request);
                    self.write(left_ms, operate).await
                }
            };
            let moves = match &answer {
                Ok(response) => response.is_not_controller(),
                Err(error) => error.code == ErrorCode::NotController,
            };
            match &self.remote {
                Some(remote) if moves && left_ms > 0 => remote.rest(LEADER_RETRY).await,
                _ => return answer,
            }
        }
    }

    /// Runs `operate` on the event loop and waits until what it decided is committed and applied here.
    async fn write<F, R>(&self, timeout_ms: i32, operate: F) -> Result<R, Error>
    where
        F: FnOnce(&mut Turn<'_>) -> Outcome<R> + Send + 'static,
        R: Send + 'static,
    {
        let timed_out = || Error::from(ErrorCode::RequestTimedOut);
        if timeout_ms <= 0 {
            return Err(timed_out());
        }
        let (reply, answer) = oneshot::channel();
        let asked_ms = self.clock.monotonic_ms();
        let operation = Box::new(Write {
            asked_ms,
            deadline_ms: asked_ms + i64::from(timeout_ms),
            operate: Some(operate),
            response: None,
            reply,
        });
        let round_trip = async {
            let stopped = || Error::from(ErrorCode::NotController);
            let operations = self.operations.as_ref().ok_or_else(stopped)?;
            let sent = operations.send(operation).await;
            sent.map_err(|_| stopped())?;
            let (offset, response) = answer.await.map_err(|_| stopped())??;
            self.images.wait_for(offset).await;
            Ok(response)
        };
        let timeout = Duration::from_millis(timeout_ms as u64);
        let result = tokio::time::timeout(timeout, round_trip).await;
        result.unwrap_or_else(|_| Err(timed_out()))
    }
}
