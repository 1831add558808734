//! The one table of APIs: what is served, what is advertised, who may call it, how it is throttled, who answers.
//! ApiVersions, dispatch, authorisation and the README's list are made from it.
//!
//! The target is the table of Apache Kafka 4.3.1. A row is here only when the whole behaviour of all its
//! versions is.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use bytes::Bytes;
use tracing::error;

use super::context::RequestContext;
use super::handlers;
use super::reply::{Framing, Malformed, Reply, RequestBody, ResponseBody, ResponseFrame};

/// Who may call an API at all, when an authorizer is set. Finer checks (per topic, per group) are the handler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Before authentication: ApiVersions and the SASL exchange.
    BeforeAuthentication,
    /// Everybody who is authenticated; items in the request are filtered by this operation on them.
    PerItem(Resource, Operation),
    /// The whole request needs the operation on the cluster.
    Cluster(Operation),
    /// The whole request needs one of the operations on the cluster.
    ClusterAny([Operation; 2]),
}

/// On which listeners an API is served (`listeners` in Kafka's schemas).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listeners {
    /// Those for clients and other brokers.
    Brokers,
    /// Those of `controller.listener.names`.
    Controllers,
    All,
}

/// Kind of resource that an operation is checked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Topic,
    Group,
    Config,
}

/// Kafka's ACL operations, as far as the table names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    ClusterAction,
    Describe,
    DescribeConfigs,
    AlterConfigs,
    IdempotentWrite,
}

/// Which quota a request counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// Bytes in.
    Produce,
    /// Bytes out.
    Fetch,
    /// Handler time.
    Request,
    /// Handler time and controller mutations (KIP-599).
    ControllerMutation,
    /// Never throttled.
    Exempt,
}

/// Function behind a row: decodes the body and answers.
pub type Run = fn(RequestContext, &mut Bytes) -> Result<Reply, Malformed>;

/// One row.
pub struct ApiSpec {
    pub key: i16,
    pub name: &'static str,
    /// Versions that are answered.
    pub served: RangeInclusive<i16>,
    /// Versions that ApiVersions lists; wider than `served` only where Kafka's is too.
    pub advertised: RangeInclusive<i16>,
    /// First version with tagged fields in the request header (header version 2).
    pub flexible_from: i16,
    pub listeners: Listeners,
    pub authorization: Authorization,
    pub throttle: Throttle,
    pub run: Run,
}

impl ApiSpec {
    pub fn is_served_on(&self, controller_listener: bool) -> bool {
        match self.listeners {
            Listeners::Brokers => !controller_listener,
            Listeners::Controllers => controller_listener,
            Listeners::All => true,
        }
    }

    /// Whether ApiVersions lists it: private APIs have no version that is advertised.
    pub fn is_advertised_on(&self, controller_listener: bool) -> bool {
        self.is_served_on(controller_listener) && !self.advertised.is_empty()
    }

    pub fn request_is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }
}

#[allow(clippy::enum_glob_use, reason = "the table reads as a table")]
use {Authorization::*, Operation::*, Resource::*, Throttle::*};

/// A handler that answers at once.
macro_rules! now {
    ($module:ident) => {
        |context, body| {
            run_now(
                context,
                body,
                stringify!($module),
                handlers::$module::handle,
            )
        }
    };
}

/// A handler that tells where brokers are: answers at once, but for a moment after one has died.
macro_rules! settled {
    ($module:ident) => {
        |context, body| {
            run_settled(
                context,
                body,
                stringify!($module),
                handlers::$module::handle,
            )
        }
    };
}

/// A handler that waits for something: a future.
macro_rules! later {
    ($module:ident) => {
        |context, body| {
            run_later(
                context,
                body,
                stringify!($module),
                handlers::$module::handle,
            )
        }
    };
}

/// A handler that decodes and answers by itself.
macro_rules! raw {
    ($module:ident) => {
        handlers::$module::handle
    };
}

macro_rules! api {
    ($key:literal, $name:ident, $served:expr, flexible $flexible:literal, $auth:expr, $throttle:expr, $run:expr $(, on $on:ident)?) => {
        api!($key, $name, $served, advertised $served, flexible $flexible, $auth, $throttle, $run $(, on $on)?)
    };
    ($key:literal, $name:ident, $served:expr, advertised $advertised:expr, flexible $flexible:literal,
     $auth:expr, $throttle:expr, $run:expr) => {
        api!($key, $name, $served, advertised $advertised, flexible $flexible, $auth, $throttle, $run, on Brokers)
    };
    ($key:literal, $name:ident, $served:expr, advertised $advertised:expr, flexible $flexible:literal,
     $auth:expr, $throttle:expr, $run:expr, on $on:ident) => {
        ApiSpec {
            key: $key,
            name: stringify!($name),
            served: $served,
            advertised: $advertised,
            flexible_from: $flexible,
            listeners: Listeners::$on,
            authorization: $auth,
            throttle: $throttle,
            run: $run,
        }
    };
}

/// No version: the API is private.
#[allow(clippy::reversed_empty_ranges, reason = "an empty range is meant")]
const NOBODY: RangeInclusive<i16> = 0..=-1;

/// Produce 0-2 and JoinGroup 0-1 are listed as Kafka lists them: without the former librdkafka turns
/// compression off (KAFKA-18659), without the latter old librdkafka cannot join (KAFKA-19444).
#[rustfmt::skip]
pub static API_TABLE: &[ApiSpec] = &[
    api!( 0, Produce, 3..=13, advertised 0..=13, flexible 9, PerItem(Topic, Write), Produce, raw!(produce)),
    api!( 1, Fetch, 4..=18, flexible 12, PerItem(Topic, Read), Fetch, raw!(fetch), on All),
    api!( 2, ListOffsets, 1..=11, flexible 6, PerItem(Topic, Describe), Request, now!(list_offsets)),
    api!( 3, Metadata, 0..=13, flexible 9, PerItem(Topic, Describe), Request, settled!(metadata)),
    api!( 8, OffsetCommit, 2..=10, flexible 8, PerItem(Group, Read), Request, later!(offset_commit)),
    api!( 9, OffsetFetch, 1..=10, flexible 6, PerItem(Group, Describe), Request, later!(offset_fetch)),
    api!(10, FindCoordinator, 0..=6, flexible 3, PerItem(Group, Describe), Request, settled!(find_coordinator)),
    api!(11, JoinGroup, 0..=9, flexible 6, PerItem(Group, Read), Request, later!(join_group)),
    api!(12, Heartbeat, 0..=4, flexible 4, PerItem(Group, Read), Request, later!(heartbeat)),
    api!(13, LeaveGroup, 0..=5, flexible 4, PerItem(Group, Read), Request, later!(leave_group)),
    api!(14, SyncGroup, 0..=5, flexible 4, PerItem(Group, Read), Request, later!(sync_group)),
    api!(15, DescribeGroups, 0..=6, flexible 5, PerItem(Group, Describe), Request, later!(describe_groups)),
    api!(16, ListGroups, 0..=5, flexible 3, PerItem(Group, Describe), Request, later!(list_groups)),
    api!(18, ApiVersions, 0..=4, flexible 3, BeforeAuthentication, Request, now!(api_versions), on All),
    api!(19, CreateTopics, 2..=7, flexible 5, PerItem(Topic, Create), ControllerMutation, later!(create_topics), on All),
    api!(20, DeleteTopics, 1..=6, flexible 4, PerItem(Topic, Delete), ControllerMutation, later!(delete_topics), on All),
    api!(21, DeleteRecords, 0..=2, flexible 2, PerItem(Topic, Delete), Request, later!(delete_records)),
    api!(22, InitProducerId, 0..=5, flexible 2, Cluster(IdempotentWrite), Request, later!(init_producer_id)),
    api!(23, OffsetForLeaderEpoch, 2..=4, flexible 4, PerItem(Topic, Describe), Request, now!(offset_for_leader_epoch)),
    api!(27, WriteTxnMarkers, 1..=2, flexible 1, ClusterAny([Alter, ClusterAction]), Exempt, later!(write_txn_markers)),
    api!(32, DescribeConfigs, 1..=4, flexible 4, PerItem(Config, DescribeConfigs), Request, now!(describe_configs), on All),
    api!(33, AlterConfigs, 0..=2, flexible 2, PerItem(Config, AlterConfigs), Request, later!(alter_configs), on All),
    api!(34, AlterReplicaLogDirs, 1..=2, flexible 2, Cluster(Alter), Request, later!(alter_replica_log_dirs)),
    api!(35, DescribeLogDirs, 1..=5, flexible 2, Cluster(Describe), Request, later!(describe_log_dirs)),
    api!(37, CreatePartitions, 0..=3, flexible 2, PerItem(Topic, Alter), ControllerMutation, later!(create_partitions), on All),
    api!(42, DeleteGroups, 0..=2, flexible 2, PerItem(Group, Delete), Request, later!(delete_groups)),
    api!(43, ElectLeaders, 0..=2, flexible 2, Cluster(Alter), Request, later!(elect_leaders), on All),
    api!(44, IncrementalAlterConfigs, 0..=1, flexible 1, PerItem(Config, AlterConfigs), Request, later!(incremental_alter_configs), on All),
    api!(45, AlterPartitionReassignments, 0..=1, flexible 0, Cluster(Alter), Request, later!(alter_partition_reassignments), on All),
    api!(46, ListPartitionReassignments, 0..=0, flexible 0, Cluster(Describe), Request, later!(list_partition_reassignments), on All),
    api!(47, OffsetDelete, 0..=0, flexible 32767, PerItem(Group, Delete), Request, later!(offset_delete)),
    api!(55, DescribeQuorum, 0..=2, flexible 0, Cluster(Describe), Request, later!(describe_quorum), on All),
    api!(56, AlterPartition, 2..=3, flexible 0, Cluster(ClusterAction), Request, later!(alter_partition), on Controllers),
    api!(57, UpdateFeatures, 0..=2, flexible 0, Cluster(Alter), Request, later!(update_features), on All),
    api!(58, Envelope, 0..=0, flexible 0, Cluster(ClusterAction), Exempt, raw!(envelope), on Controllers),
    api!(59, FetchSnapshot, 0..=1, flexible 0, Cluster(ClusterAction), Request, later!(fetch_snapshot), on Controllers),
    api!(60, DescribeCluster, 0..=2, flexible 0, Cluster(Describe), Request, now!(describe_cluster), on All),
    api!(61, DescribeProducers, 0..=0, flexible 0, PerItem(Topic, Read), Request, now!(describe_producers)),
    api!(62, BrokerRegistration, 0..=4, flexible 0, Cluster(ClusterAction), Request, later!(broker_registration), on Controllers),
    api!(63, BrokerHeartbeat, 0..=2, flexible 0, Cluster(ClusterAction), Request, later!(broker_heartbeat), on Controllers),
    api!(64, UnregisterBroker, 0..=0, flexible 0, Cluster(Alter), Request, later!(unregister_broker), on All),
    api!(67, AllocateProducerIds, 0..=0, flexible 0, Cluster(ClusterAction), Request, later!(allocate_producer_ids), on Controllers),
    api!(70, ControllerRegistration, 0..=0, flexible 0, Cluster(ClusterAction), Request, later!(controller_registration), on Controllers),
    api!(73, AssignReplicasToDirs, 0..=0, flexible 0, Cluster(ClusterAction), Request, later!(assign_replicas_to_dirs), on Controllers),
    api!(74, ListConfigResources, 0..=1, flexible 0, Cluster(DescribeConfigs), Request, now!(list_config_resources)),
    api!(75, DescribeTopicPartitions, 0..=0, flexible 0, PerItem(Topic, Describe), Request, settled!(describe_topic_partitions)),
    api!(80, AddRaftVoter, 0..=1, flexible 0, Cluster(Alter), Request, later!(add_raft_voter), on All),
    api!(81, RemoveRaftVoter, 0..=0, flexible 0, Cluster(Alter), Request, later!(remove_raft_voter), on All),
    api!(82, UpdateRaftVoter, 0..=0, flexible 0, Cluster(ClusterAction), Request, later!(update_raft_voter), on Controllers),
    api!(1000, Raft, 0..=0, advertised NOBODY, flexible 32767, Cluster(ClusterAction), Exempt, raw!(raft), on Controllers),
];

/// Rows by key.
static BY_KEY: LazyLock<Vec<Option<&'static ApiSpec>>> = LazyLock::new(|| {
    let keys = API_TABLE
        .iter()
        .map(|spec| spec.key as usize + 1)
        .max()
        .unwrap_or(0);
    let mut by_key = vec![None; keys];
    for spec in API_TABLE {
        by_key[spec.key as usize] = Some(spec);
    }
    by_key
});

/// The row of a key.
pub fn lookup(key: i16) -> Option<&'static ApiSpec> {
    *BY_KEY.get(usize::try_from(key).ok()?)?
}

fn decode<R: RequestBody>(
    body: &mut Bytes,
    version: i16,
    api: &'static str,
) -> Result<R, Malformed> {
    R::decode_body(body, version).map_err(|reason| Malformed { api, reason })
}

/// Frames a response; a response that cannot be encoded is our bug: it is logged and the connection closed.
fn frame(
    framing: Framing,
    api: &'static str,
    response: &impl ResponseBody,
) -> Option<ResponseFrame> {
    match ResponseFrame::encode(framing, response) {
        Ok(frame) => Some(frame),
        Err(reason) => {
            error!(
                api,
                version = framing.version,
                reason,
                "response cannot be encoded"
            );
            None
        }
    }
}

fn run_now<R: RequestBody>(
    context: RequestContext,
    body: &mut Bytes,
    api: &'static str,
    handle: fn(&RequestContext, R) -> R::Response,
) -> Result<Reply, Malformed> {
    let request = decode::<R>(body, context.version, api)?;
    let response = handle(&context, request);
    Ok(frame(context.framing, api, &response).map_or(Reply::Close, Reply::Now))
}

fn run_settled<R: RequestBody + Send + 'static>(
    context: RequestContext,
    body: &mut Bytes,
    api: &'static str,
    handle: fn(&RequestContext, R) -> R::Response,
) -> Result<Reply, Malformed> {
    if !context.services.vanished.is_in_doubt() {
        return run_now(context, body, api, handle);
    }
    let request = decode::<R>(body, context.version, api)?;
    Ok(Reply::Later(Box::pin(async move {
        context.services.vanished.settled().await;
        frame(context.framing, api, &handle(&context, request))
    })))
}

fn run_later<R, F>(
    context: RequestContext,
    body: &mut Bytes,
    api: &'static str,
    handle: fn(RequestContext, R) -> F,
) -> Result<Reply, Malformed>
where
    R: RequestBody,
    F: Future<Output = R::Response> + Send + 'static,
{
    let framing = context.framing;
    let request = decode::<R>(body, framing.version, api)?;
    let answer = handle(context, request);
    Ok(Reply::Later(Box::pin(async move {
        let response = answer.await;
        frame(framing, api, &response)
    })))
}
