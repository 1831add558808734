//! A member of a classic group, with the requests it waits in.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;

use super::records::MemberMetadata;
use crate::protocol::error::ErrorCode;

/// Where the answer to a request goes.
pub type Reply<T> = oneshot::Sender<Result<T, ErrorCode>>;

/// An assignor the member offers, with its subscription in that assignor's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: Arc<str>,
    pub metadata: Bytes,
}

#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "Kafka's names")]
pub struct Member {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// In the order of the member's preference.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    pub awaiting_join: Option<Reply<JoinGroupResponse>>,
    pub awaiting_sync: Option<Reply<SyncGroupResponse>>,
    /// Has never been answered a JoinGroup: it cannot send heartbeats yet.
    pub is_new: bool,
}

impl Member {
    pub fn is_static(&self) -> bool {
        self.group_instance_id.is_some()
    }

    pub fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols
            .iter()
            .find(|p| &*p.name == protocol)
            .map(|p| &p.metadata)
    }

    /// Parked members are alive; new ones are given up even while parked, or their retries would pile up.
    pub fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    pub fn logged(&self, protocol: &str, assignment: Bytes) -> MemberMetadata {
        MemberMetadata {
            member_id: self.member_id.clone(),
            group_instance_id: self.group_instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: self.metadata(protocol).cloned().unwrap_or_default(),
            assignment,
        }
    }

    pub fn from_logged(member: &MemberMetadata, protocol: Option<&Arc<str>>) -> Self {
        let rebalance_timeout_ms = match member.rebalance_timeout_ms {
            -1 => member.session_timeout_ms,
            timeout_ms => timeout_ms,
        };
        Self {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            protocols: protocol
                .map(|name| Protocol {
                    name: name.clone(),
                    metadata: member.subscription.clone(),
                })
                .into_iter()
                .collect(),
            assignment: member.assignment.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        }
    }
}

/// A string for a response.
pub(super) fn wire(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The topics of a consumer's subscription: version i16, then a string array. `None` when it is not one.
pub(super) fn subscribed_topics(subscription: &[u8]) -> Option<Vec<String>> {
    let mut rest = subscription.get(2..)?;
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(head)
    };
    let count = i32::from_be_bytes(take(4)?.try_into().ok()?);
    let mut topics = Vec::new();
    for _ in 0..count {
        let len = i16::from_be_bytes(take(2)?.try_into().ok()?);
        let name = take(usize::try_from(len).ok()?)?;
        topics.push(String::from_utf8_lossy(name).into_owned());
    }
    Some(topics)
}
