//! A classic group while it lives: members, generation and the state of its rebalance. Plain data; the moves between
//! states are in `rebalance.rs`.
//!
//! ```text
//! Empty ------join------> PreparingRebalance ---all joined, or time over---> CompletingRebalance
//!   ^                       |    ^      ^                                        |        |
//!   +----nobody joined------+    |      +---join, leave, member lost-------------+   leader's sync
//!                                +----------------join, leave, member lost---- Stable <---+
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupResponse, SyncGroupResponse};

use super::member::{Member, Protocol, subscribed_topics, wire};
use super::records::{GroupMetadata, GroupRecord};
use crate::protocol::error::ErrorCode;
use crate::types::TimestampMs;

/// The protocol type of consumers: only their subscriptions are understood here.
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassicGroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl ClassicGroupState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }

    fn may_follow(self, previous: Self) -> bool {
        match self {
            Self::Empty | Self::CompletingRebalance => previous == Self::PreparingRebalance,
            Self::PreparingRebalance => previous != Self::PreparingRebalance,
            Self::Stable => previous == Self::CompletingRebalance,
        }
    }
}

#[derive(Debug)]
pub struct ClassicGroup {
    pub group_id: Arc<str>,
    state: ClassicGroupState,
    pub previous_state: Option<ClassicGroupState>,
    pub state_timestamp_ms: Option<TimestampMs>,
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    pub generation_id: i32,
    pub leader_id: Option<Arc<str>>,
    members: IndexMap<Arc<str>, Member>,
    /// Member id by group instance id.
    static_members: IndexMap<Arc<str>, Arc<str>>,
    /// Member ids handed out (KIP-394) that have not joined with them yet.
    pub pending_join: IndexSet<Arc<str>>,
    /// Members of the generation that have not sent their SyncGroup yet.
    pub pending_sync: IndexSet<Arc<str>>,
    awaiting_join_count: usize,
    /// How many members support each protocol.
    supported_protocols: BTreeMap<Arc<str>, usize>,
    /// `None`: not a consumer group, or a subscription could not be read.
    pub subscribed_topics: Option<BTreeSet<String>>,
    /// Somebody joined during the initial delay, which may then be prolonged.
    pub new_member_added: bool,
    /// While the initial delay runs: its length, and how much it may still be prolonged.
    pub initial_delay: Option<InitialDelay>,
}

#[derive(Clone, Copy, Debug)]
pub struct InitialDelay {
    pub delay_ms: i64,
    pub remaining_ms: i64,
}

impl ClassicGroup {
    /// An empty group; `state_timestamp_ms` is `None` for one that is only named by offsets.
    pub fn new(group_id: Arc<str>, state_timestamp_ms: Option<TimestampMs>) -> Self {
        Self {
            group_id,
            state: ClassicGroupState::Empty,
            previous_state: None,
            state_timestamp_ms,
            protocol_type: None,
            protocol_name: None,
            generation_id: 0,
            leader_id: None,
            members: IndexMap::new(),
            static_members: IndexMap::new(),
            pending_join: IndexSet::new(),
            pending_sync: IndexSet::new(),
            awaiting_join_count: 0,
            supported_protocols: BTreeMap::new(),
            subscribed_topics: None,
            new_member_added: false,
            initial_delay: None,
        }
    }

    /// The group as its last record tells: Stable if it had members.
    pub fn from_metadata(group_id: Arc<str>, metadata: &GroupMetadata) -> Self {
        let mut group = Self::new(group_id, metadata.state_timestamp_ms);
        group.generation_id = metadata.generation_id;
        group.protocol_type.clone_from(&metadata.protocol_type);
        group.protocol_name.clone_from(&metadata.protocol_name);
        group.leader_id.clone_from(&metadata.leader_id);
        for member in &metadata.members {
            group.add(Member::from_logged(member, metadata.protocol_name.as_ref()));
        }
        if !group.members.is_empty() {
            group.state = ClassicGroupState::Stable;
        }
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    pub fn state(&self) -> ClassicGroupState {
        self.state
    }

    pub fn is(&self, state: ClassicGroupState) -> bool {
        self.state == state
    }

    pub fn transition_to(&mut self, state: ClassicGroupState, now_ms: TimestampMs) {
        assert!(
            state.may_follow(self.state),
            "group {} cannot move from {:?} to {state:?}",
            self.group_id,
            self.state
        );
        self.previous_state = Some(self.state);
        self.state = state;
        self.state_timestamp_ms = Some(now_ms);
    }

    pub fn member(&self, member_id: &str) -> Option<&Member> {
        self.members.get(member_id)
    }

    pub fn member_mut(&mut self, member_id: &str) -> Option<&mut Member> {
        self.members.get_mut(member_id)
    }

    pub fn has_member(&self, member_id: &str) -> bool {
        self.members.contains_key(member_id)
    }

    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    pub fn member_ids(&self) -> Vec<Arc<str>> {
        self.members.keys().cloned().collect()
    }

    pub fn static_member_id(&self, group_instance_id: &str) -> Option<&Arc<str>> {
        self.static_members.get(group_instance_id)
    }

    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader_id.as_deref() == Some(member_id)
    }

    pub fn awaiting_join_count(&self) -> usize {
        self.awaiting_join_count
    }

    pub fn has_all_members_joined(&self) -> bool {
        self.members.len() == self.awaiting_join_count && self.pending_join.is_empty()
    }

    pub fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Where the subscriptions are not known every topic counts as subscribed, if members can subscribe at all.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed_topics
            .as_ref()
            .map_or(self.uses_consumer_protocol(), |topics| {
                topics.contains(topic)
            })
    }

    /// The longest of the members'.
    pub fn rebalance_timeout_ms(&self) -> i64 {
        let timeouts = self.members.values().map(|m| m.rebalance_timeout_ms);
        i64::from(timeouts.max().unwrap_or(0).max(0))
    }

    /// The caller has checked that the member fits the group's protocols and that its instance id is free.
    pub fn add(&mut self, member: Member) {
        let id = member.member_id.clone();
        if let Some(instance) = &member.group_instance_id {
            let old = self.static_members.insert(instance.clone(), id.clone());
            assert!(old.is_none(), "a static member joins once");
        }
        self.leader_id.get_or_insert_with(|| id.clone());
        self.count_protocols(&member.protocols, true);
        self.awaiting_join_count += usize::from(member.awaiting_join.is_some());
        self.pending_join.swap_remove(&id);
        self.members.insert(id, member);
    }

    /// Its JoinGroup must have been answered; a SyncGroup that it waits in is answered here.
    pub fn remove(&mut self, member_id: &str) -> Option<Member> {
        self.complete_sync(member_id, sync_error(ErrorCode::UnknownMemberId));
        let removed = self.members.shift_remove(member_id);
        if let Some(member) = &removed {
            self.count_protocols(&member.protocols, false);
            self.awaiting_join_count -= usize::from(member.awaiting_join.is_some());
            if let Some(instance) = &member.group_instance_id {
                self.static_members.swap_remove(instance);
            }
        }
        if self.is_leader(member_id) {
            self.leader_id = self.members.keys().next().cloned();
        }
        self.pending_join.swap_remove(member_id);
        self.pending_sync.swap_remove(member_id);
        removed
    }

    /// Puts the member that sends `group_instance_id` in the place of its former incarnation, which is fenced.
    pub fn replace_static_member(
        &mut self,
        group_instance_id: &str,
        old_id: &str,
        new_id: Arc<str>,
    ) {
        self.complete_join(old_id, join_error(old_id, ErrorCode::FencedInstanceId));
        self.complete_sync(old_id, sync_error(ErrorCode::FencedInstanceId));
        let Some((index, _, mut member)) = self.members.shift_remove_full(old_id) else {
            return;
        };
        member.member_id = new_id.clone();
        member.is_new = false;
        self.members.shift_insert(index, new_id.clone(), member);
        if self.is_leader(old_id) {
            self.leader_id = Some(new_id.clone());
        }
        if let Some(id) = self.static_members.get_mut(group_instance_id) {
            *id = new_id;
        }
    }

    pub fn update_member(
        &mut self,
        member_id: &str,
        protocols: Vec<Protocol>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
        awaiting_join: Option<super::member::Reply<JoinGroupResponse>>,
    ) {
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        let old = std::mem::replace(&mut member.protocols, protocols.clone());
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        let waits = awaiting_join.is_some();
        let waited = std::mem::replace(&mut member.awaiting_join, awaiting_join).is_some();
        self.awaiting_join_count += usize::from(waits);
        self.awaiting_join_count -= usize::from(waited);
        self.count_protocols(&old, false);
        self.count_protocols(&protocols, true);
    }

    /// The group instance id, then the member id must be the ones the group knows.
    pub fn validate_member(
        &self,
        member_id: &str,
        group_instance_id: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance) = group_instance_id {
            match self.static_member_id(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(known) if &**known != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.has_member(member_id) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownMemberId)
        }
    }

    /// Whether a member with these protocols may join: one of them must be everybody's.
    pub fn supports_protocols(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.is(ClassicGroupState::Empty) {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|p| {
                self.supported_protocols.get(&p.name).copied().unwrap_or(0) == self.members.len()
            })
    }

    /// The protocol with most votes among those that all members support; each votes for its first such one.
    pub fn select_protocol(&self) -> Option<Arc<str>> {
        let mut votes: IndexMap<&Arc<str>, usize> = IndexMap::new();
        for member in self.members.values() {
            let vote = member
                .protocols
                .iter()
                .find(|p| self.supported_protocols.get(&p.name) == Some(&self.members.len()))?;
            *votes.entry(&vote.name).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        votes
            .into_iter()
            .find(|(_, count)| *count == most)
            .map(|(name, _)| name.clone())
    }

    /// Makes sure that the leader is among those who joined. False when nobody has.
    pub fn elect_joined_leader(&mut self) -> bool {
        let joined = |m: &Member| m.awaiting_join.is_some();
        let Some(leader) = &self.leader_id else {
            return false;
        };
        if self.members.get(leader).is_some_and(joined) {
            return true;
        }
        let Some(new) = self.members.values().find(|m| joined(m)) else {
            return false;
        };
        self.leader_id = Some(new.member_id.clone());
        true
    }

    pub fn init_next_generation(&mut self, now_ms: TimestampMs) {
        self.generation_id = self.generation_id.wrapping_add(1);
        if self.members.is_empty() {
            self.protocol_name = None;
            self.transition_to(ClassicGroupState::Empty, now_ms);
        } else {
            self.protocol_name = self.select_protocol();
            self.transition_to(ClassicGroupState::CompletingRebalance, now_ms);
        }
        self.subscribed_topics = self.compute_subscribed_topics();
        self.pending_sync.clear();
    }

    fn compute_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol_name.as_ref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(member.metadata(protocol)?)?);
        }
        Some(topics)
    }

    pub fn complete_join(&mut self, member_id: &str, response: JoinGroupResponse) -> bool {
        let member = self.members.get_mut(member_id);
        let Some(reply) = member.and_then(|m| m.awaiting_join.take()) else {
            return false;
        };
        self.awaiting_join_count -= 1;
        // The client may have gone away.
        let _ = reply.send(Ok(response));
        true
    }

    pub fn complete_sync(&mut self, member_id: &str, response: SyncGroupResponse) -> bool {
        let member = self.members.get_mut(member_id);
        let Some(reply) = member.and_then(|m| m.awaiting_sync.take()) else {
            return false;
        };
        let _ = reply.send(Ok(response));
        true
    }

    /// What a member learns about the present generation; the leader also learns who else is in it.
    pub fn join_response(&self, member_id: &str) -> JoinGroupResponse {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let members = self.members.values().map(|m| {
            JoinGroupResponseMember::default()
                .with_member_id(wire(&m.member_id))
                .with_group_instance_id(m.group_instance_id.as_deref().map(wire))
                .with_metadata(m.metadata(protocol).cloned().unwrap_or_default())
        });
        let members = if self.is_leader(member_id) {
            members.collect()
        } else {
            Vec::new()
        };
        JoinGroupResponse::default()
            .with_members(members)
            .with_member_id(wire(member_id))
            .with_generation_id(self.generation_id)
            .with_protocol_name(self.protocol_name.as_deref().map(wire))
            .with_protocol_type(self.protocol_type.as_deref().map(wire))
            .with_leader(wire(self.leader_id.as_deref().unwrap_or_default()))
    }

    /// The group with these assignments, to be logged.
    pub fn record(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupRecord {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let members = self
            .members
            .values()
            .map(|m| m.logged(protocol, assignment(m)));
        GroupRecord::Group {
            group_id: self.group_id.clone(),
            value: Some(Arc::new(GroupMetadata {
                protocol_type: self.protocol_type.clone(),
                generation_id: self.generation_id,
                protocol_name: self.protocol_name.clone(),
                leader_id: self.leader_id.clone(),
                state_timestamp_ms: self.state_timestamp_ms,
                members: members.collect(),
            })),
        }
    }

    fn count_protocols(&mut self, protocols: &[Protocol], add: bool) {
        for protocol in protocols {
            let count = self
                .supported_protocols
                .entry(protocol.name.clone())
                .or_default();
            *count = if add {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
            if *count == 0 {
                self.supported_protocols.remove(&protocol.name);
            }
        }
    }
}

pub(super) fn join_error(member_id: &str, code: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_member_id(wire(member_id))
        .with_error_code(code.code())
        .with_protocol_name(None)
}

pub(super) fn sync_error(code: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(code.code())
}
