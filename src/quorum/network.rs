//! Raft's requests between controllers, over any transport.
//!
//! One voter needs none ([`NoTransport`]). The cluster's transport sends [`RaftRequest`]s as private API keys on the
//! controller listener, and hands what it receives to [`super::OpenraftMetaLog::handle`].

use std::future::Future;
use std::sync::Arc;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::search::Asked;
use super::state_machine::CheckpointFile;
use super::store::Store;
use super::types::{SnapshotMeta, Vote, VoterEndpoint, VoterNode, node_id};
use super::{BoxFuture, TypeConfig};
use crate::types::BrokerId;

/// A request from one voter to another.
#[derive(Debug, Serialize, Deserialize)]
pub enum RaftRequest {
    AppendEntries(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// The checkpoint's bytes travel beside the request; the receiver puts them into a file of its own first.
    InstallSnapshot {
        vote: Vote,
        meta: SnapshotMeta,
        #[serde(skip)]
        checkpoint: Option<CheckpointFile>,
    },
    /// A controller that hears from no leader asks to be one of its observers; or a voter in its own place
    /// (`controller.quorum.auto.join.enable`).
    Join {
        node_id: BrokerId,
        node: VoterNode,
        as_voter: bool,
    },
}

impl RaftRequest {
    /// The replica that leads, or wants to, as the request says.
    pub(super) fn speaker(&self) -> Option<u64> {
        let vote = match self {
            Self::AppendEntries(rpc) => &rpc.vote,
            Self::Vote(rpc) | Self::PreVote(rpc) => &rpc.vote,
            Self::TransferLeader(rpc) => rpc.from_leader(),
            Self::InstallSnapshot { vote, .. } => vote,
            Self::Join { .. } => return None,
        };
        Some(vote.leader_id.voted_for)
    }
}

/// Its answer, of the same kind, or that the request is for somebody else.
#[derive(Debug, Serialize, Deserialize)]
pub enum RaftResponse {
    AppendEntries(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    PreVote(VoteResponse<TypeConfig>),
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    InstallSnapshot(SnapshotResponse<TypeConfig>),
    /// Whether it is one now.
    Join(bool),
    /// Who answers is of this cluster; if that is right, it is another replica.
    NotMeant {
        cluster_id: Option<String>,
    },
}

/// A request did not get its answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("controller {target} cannot be reached: {reason}")]
pub struct TransportError {
    pub target: BrokerId,
    pub reason: String,
}

/// Carries requests to other controllers.
pub trait Transport: Send + Sync + 'static {
    /// `target` is the id that raft knows the replica by: one that lost its disk does not answer to it any more.
    fn call(
        &self,
        target: u64,
        node: VoterNode,
        request: RaftRequest,
    ) -> BoxFuture<'static, Result<RaftResponse, TransportError>>;

    /// The least and greatest kraft.version that a controller supports (ApiVersions), if it knows the feature.
    fn kraft_versions(
        &self,
        target: BrokerId,
        endpoint: VoterEndpoint,
    ) -> BoxFuture<'static, Result<Option<(i16, i16)>, TransportError>>;
}

/// Reaches nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTransport;

impl Transport for NoTransport {
    fn call(
        &self,
        target: u64,
        _: VoterNode,
        _: RaftRequest,
    ) -> BoxFuture<'static, Result<RaftResponse, TransportError>> {
        let reason = "this node has no transport to other controllers".into();
        let target = node_id(target);
        Box::pin(async move { Err(TransportError { target, reason }) })
    }

    fn kraft_versions(
        &self,
        target: BrokerId,
        _: VoterEndpoint,
    ) -> BoxFuture<'static, Result<Option<(i16, i16)>, TransportError>> {
        let reason = "this node has no transport to other controllers".into();
        Box::pin(async move { Err(TransportError { target, reason }) })
    }
}

/// Makes openraft's clients.
pub(super) struct NetworkFactory {
    pub(super) transport: Arc<dyn Transport>,
    /// Knows where the members are: a voter may move while its stream goes on (UpdateRaftVoter).
    pub(super) store: Arc<Store>,
    pub(super) asked: Arc<Asked>,
    pub(super) heard: Arc<Heard>,
}

/// The vote of the leader that was heard of since this voter last looked for another one. Raft itself takes the last leader that it
/// knew for the leader until there is another, though it be dead, or was heard of before a restart.
pub(super) type Heard = watch::Sender<Option<Vote>>;

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &VoterNode) -> Peer {
        Peer {
            transport: Arc::clone(&self.transport),
            store: Arc::clone(&self.store),
            asked: Arc::clone(&self.asked),
            heard: Arc::clone(&self.heard),
            target,
            node: node.clone(),
        }
    }
}

/// One other member.
pub(super) struct Peer {
    transport: Arc<dyn Transport>,
    store: Arc<Store>,
    asked: Arc<Asked>,
    heard: Arc<Heard>,
    target: u64,
    /// As it was when the stream began.
    node: VoterNode,
}

impl Peer {
    async fn call(&self, request: RaftRequest) -> Result<RaftResponse, Unreachable<TypeConfig>> {
        let seeks_votes = matches!(request, RaftRequest::Vote(_) | RaftRequest::PreVote(_));
        let newest = self.store.state().membership_at(u64::MAX);
        let node = newest.membership().get_node(&self.target);
        let node = node.unwrap_or(&self.node).clone();
        let at = node.endpoints.first().filter(|_| seeks_votes).cloned();
        let answer = self.transport.call(self.target, node, request).await;
        if let Some(at) = at {
            let outcome = answer.as_ref().err().map(|error| error.reason.as_str());
            self.asked.note(&at, outcome.unwrap_or("it answers"));
        }
        answer.map_err(|error| Unreachable::new(&error))
    }

    fn confused<T, E: From<Unreachable<TypeConfig>>>(&self) -> Result<T, E> {
        let error = AnyError::error(format!(
            "controller {} answered something else",
            node_id(self.target)
        ));
        Err(Unreachable::new(&error).into())
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = CheckpointFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RaftRequest::AppendEntries(rpc)).await? {
            RaftResponse::AppendEntries(response) => Ok(response),
            _ => self.confused(),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RaftRequest::Vote(rpc)).await? {
            RaftResponse::Vote(response) => Ok(response),
            _ => self.confused(),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.heard.send_if_modified(|heard| heard.take().is_some());
        match self.call(RaftRequest::PreVote(rpc)).await? {
            RaftResponse::PreVote(response) => Ok(response),
            _ => self.confused(),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RaftRequest::TransferLeader(rpc)).await? {
            RaftResponse::TransferLeader(response) => Ok(response),
            _ => self.confused(),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, CheckpointFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let request = RaftRequest::InstallSnapshot {
            vote,
            meta: snapshot.meta,
            checkpoint: Some(snapshot.snapshot),
        };
        tokio::select! {
            closed = cancel => Err(closed.into()),
            response = self.call(request) => match response? {
                RaftResponse::InstallSnapshot(response) => Ok(response),
                _ => self.confused(),
            },
        }
    }
}
