//! How the rest of the process asks the controller: one async method per operation.

use std::time::Duration;

use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterConfigsRequest,
    AlterConfigsResponse, AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    AlterPartitionRequest, AlterPartitionResponse, AssignReplicasToDirsRequest,
    AssignReplicasToDirsResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    BrokerRegistrationRequest, BrokerRegistrationResponse, CreatePartitionsRequest,
    CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, ElectLeadersRequest, ElectLeadersResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, UnregisterBrokerRequest,
    UnregisterBrokerResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use tokio::sync::{mpsc, oneshot};

use super::failure;
use super::outcome::{Outcome, Turn};
use super::{
    cluster_control, configuration_control, directory_control, feature_control, partition_control,
    producer_id_control, reassignment_control, topic_control,
};
use crate::clock::Clock;
use crate::metadata::Images;
use crate::protocol::metadata_records::MetadataRecord;
use crate::protocol::{Error, ErrorCode};
use crate::types::Offset;

/// How long requests between brokers and controller wait, which have no timeout of their own.
const INTERNAL_TIMEOUT_MS: i32 = 4_500;

/// A unit of work of the event loop.
pub(super) trait Operation: Send {
    /// Monotonic time after which the operation is not started any more.
    fn deadline_ms(&self) -> i64;
    /// Decides; the records that are returned get appended.
    fn run(&mut self, turn: &mut Turn<'_>) -> Vec<MetadataRecord>;
    /// Called once: with the last offset that the decision rests on, all committed; or with the reason why not.
    fn complete(self: Box<Self>, result: Result<Offset, Error>);
}

struct Write<F, R> {
    deadline_ms: i64,
    operate: Option<F>,
    response: Option<R>,
    reply: oneshot::Sender<Result<(Offset, R), Error>>,
}

impl<F, R> Operation for Write<F, R>
where
    F: FnOnce(&mut Turn<'_>) -> Outcome<R> + Send,
    R: Send,
{
    fn deadline_ms(&self) -> i64 {
        self.deadline_ms
    }

    fn run(&mut self, turn: &mut Turn<'_>) -> Vec<MetadataRecord> {
        let operate = self.operate.take().expect("an operation runs once");
        let outcome = operate(turn);
        self.response = Some(outcome.response);
        outcome.records
    }

    fn complete(self: Box<Self>, result: Result<Offset, Error>) {
        let Write {
            response, reply, ..
        } = *self;
        let answer = result.and_then(|offset| {
            let response = response.ok_or(ErrorCode::UnknownServerError)?;
            Ok((offset, response))
        });
        // The requester may have given up meanwhile.
        let _ = reply.send(answer);
    }
}

/// Sends requests to the controller of this process; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    operations: mpsc::Sender<Box<dyn Operation>>,
    images: Images,
    clock: Clock,
}

impl Handle {
    pub(super) fn new(
        operations: mpsc::Sender<Box<dyn Operation>>,
        images: Images,
        clock: Clock,
    ) -> Self {
        Self {
            operations,
            images,
            clock,
        }
    }

    /// The answer arrives when the topics are committed and this broker has applied them.
    pub async fn create_topics(&self, request: CreateTopicsRequest) -> CreateTopicsResponse {
        let names = failure::create_topics(&request);
        let result = self.write(request.timeout_ms, move |turn| {
            topic_control::create_topics(turn, &request)
        });
        result.await.unwrap_or_else(names)
    }

    pub async fn delete_topics(&self, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
        let names = failure::delete_topics(&request);
        let result = self.write(request.timeout_ms, move |turn| {
            topic_control::delete_topics(turn, &request)
        });
        result.await.unwrap_or_else(names)
    }

    pub async fn create_partitions(
        &self,
        request: CreatePartitionsRequest,
    ) -> CreatePartitionsResponse {
        let names = failure::create_partitions(&request);
        let result = self.write(request.timeout_ms, move |turn| {
            topic_control::create_partitions(turn, &request)
        });
        result.await.unwrap_or_else(names)
    }

    pub async fn incremental_alter_configs(
        &self,
        request: IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        let names = failure::incremental_alter_configs(&request);
        let result = self.write(INTERNAL_TIMEOUT_MS, move |turn| {
            configuration_control::incremental_alter_configs(turn, &request)
        });
        result.await.unwrap_or_else(names)
    }

    pub async fn alter_configs(&self, request: AlterConfigsRequest) -> AlterConfigsResponse {
        let names = failure::alter_configs(&request);
        let result = self.write(INTERNAL_TIMEOUT_MS, move |turn| {
            configuration_control::alter_configs(turn, &request)
        });
        result.await.unwrap_or_else(names)
    }

    pub async fn update_features(&self, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
        let result = self.write(request.timeout_ms, move |turn| {
            feature_control::update_features(turn, &request)
        });
        result.await.unwrap_or_else(failure::update_features)
    }

    pub async fn allocate_producer_ids(
        &self,
        request: AllocateProducerIdsRequest,
    ) -> AllocateProducerIdsResponse {
        let result = self.write(INTERNAL_TIMEOUT_MS, move |turn| {
            producer_id_control::allocate_producer_ids(turn, &request)
        });
        let failed =
            |error: Error| AllocateProducerIdsResponse::default().with_error_code(error.code());
        result.await.unwrap_or_else(failed)
    }

    pub async fn broker_registration(
        &self,
        request: BrokerRegistrationRequest,
    ) -> BrokerRegistrationResponse {
        let result = self.write(INTERNAL_TIMEOUT_MS, move |turn| {
            cluster_control::register_broker(turn, &request)
        });
        let failed = |error: Error| {
            let response = BrokerRegistrationResponse::default().with_broker_epoch(-1);
            response.with_error_code(error.code())
        };
        result.await.unwrap_or_else(failed)
    }

    pub async fn broker_heartbeat(
        &self,
        request: BrokerHeartbeatRequest,
    ) -> BrokerHeartbeatResponse {
        let result = self.write(INTERNAL_TIMEOUT_MS, move |turn| {
            cluster_control::broker_heartbeat(turn, &request)
        });
        let failed =
            |error: Error| BrokerHeartbeatResponse::default().with_error_code(error.code());
        result.await.unwrap_or_else(failed)
    }

    pub async fn unregister_broker(
        &self,
        request: UnregisterBrokerRequest,
    ) -> UnregisterBrokerResponse {
        let result = self.write(INTERNAL_TIMEOUT_MS, move |turn| {
            cluster_control::unregister_broker(turn, &request)
        });
        let failed = |error: Error| {
            UnregisterBrokerResponse::default()
                .with_error_code(error.code())
                .with_error_message(failure::message(&error))
        };
        result.await.unwrap_or_else(failed)
    }

    pub async fn alter_partition(&self, request: AlterPartitionRequest) -> AlterPartitionResponse {
        let result = self.write(INTERNAL_TIMEOUT_MS, move |turn| {
            partition_control::alter_partition(turn, &request)
        });
        let failed = |error: Error| AlterPartitionResponse::default().with_error_code(error.code());
        result.await.unwrap_or_else(failed)
    }

    pub async fn assign_replicas_to_dirs(
        &self,
        request: AssignReplicasToDirsRequest,
    ) -> AssignReplicasToDirsResponse {
        let result = self.write(INTERNAL_TIMEOUT_MS, move |turn| {
            directory_control::assign_replicas_to_dirs(turn, &request)
        });
        let failed =
            |error: Error| AssignReplicasToDirsResponse::default().with_error_code(error.code());
        result.await.unwrap_or_else(failed)
    }

    pub async fn alter_partition_reassignments(
        &self,
        request: AlterPartitionReassignmentsRequest,
    ) -> AlterPartitionReassignmentsResponse {
        let result = self.write(request.timeout_ms, move |turn| {
            reassignment_control::alter_partition_reassignments(turn, &request)
        });
        let failed = |error: Error| {
            AlterPartitionReassignmentsResponse::default()
                .with_error_code(error.code())
                .with_error_message(failure::message(&error))
        };
        result.await.unwrap_or_else(failed)
    }

    pub async fn list_partition_reassignments(
        &self,
        request: ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        let result = self.write(request.timeout_ms, move |turn| {
            reassignment_control::list_partition_reassignments(turn, &request)
        });
        let failed = |error: Error| {
            ListPartitionReassignmentsResponse::default()
                .with_error_code(error.code())
                .with_error_message(failure::message(&error))
        };
        result.await.unwrap_or_else(failed)
    }

    pub async fn elect_leaders(&self, request: ElectLeadersRequest) -> ElectLeadersResponse {
        let failed = failure::elect_leaders(&request);
        let result = self.write(request.timeout_ms, move |turn| {
            partition_control::elect_leaders(turn, &request)
        });
        result.await.unwrap_or_else(failed)
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
        let operation = Box::new(Write {
            deadline_ms: self.clock.monotonic_ms() + i64::from(timeout_ms),
            operate: Some(operate),
            response: None,
            reply,
        });
        let round_trip = async {
            let stopped = || Error::from(ErrorCode::NotController);
            let sent = self.operations.send(operation).await;
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
