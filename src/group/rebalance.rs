//! The moves of a classic group: joining, the rebalance it starts, assignments, sessions, leaving.
//! Pure: time comes in, records, timers and answers go out.

use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{HeartbeatRequest, JoinGroupResponse, SyncGroupResponse};
use tracing::{debug, info, warn};

use super::ClientInfo;
use super::classic_group::{
    ClassicGroup, ClassicGroupState as State, InitialDelay, join_error, sync_error,
};
use super::config::{GroupConfig, NEW_MEMBER_JOIN_TIMEOUT_MS};
use super::member::{Member, Protocol, Reply, wire};
use super::shard::{Completion, GroupShard, TimerKey};
use crate::coordinator::{Effects, Now, Timers};
use crate::protocol::error::ErrorCode;

/// What the moves of one group may use and change besides the group.
pub(super) struct Context<'a> {
    pub(super) config: &'a GroupConfig,
    pub(super) timers: &'a mut Timers<TimerKey>,
    pub(super) now: Now,
    pub(super) effects: &'a mut Effects<GroupShard>,
}

/// A JoinGroup, in the coordinator's types.
#[derive(Debug)]
pub struct JoinRequest {
    pub client: ClientInfo,
    pub version: i16,
    pub group_id: Arc<str>,
    /// Empty for members that have none yet.
    pub member_id: Arc<str>,
    /// The id that a member without one gets; made outside, where randomness is.
    pub new_member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub protocol_type: Arc<str>,
    pub protocols: Vec<Protocol>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
}

/// A SyncGroup, in the coordinator's types.
#[derive(Debug)]
pub struct SyncRequest {
    pub group_id: Arc<str>,
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub generation_id: i32,
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    pub assignments: IndexMap<Arc<str>, Bytes>,
}

impl Context<'_> {
    fn schedule(&mut self, key: TimerKey, in_ms: i64) {
        self.timers
            .schedule(key, self.now.monotonic_ms.saturating_add(in_ms));
    }
}

/// Joining.
impl ClassicGroup {
    pub(super) fn join(
        &mut self,
        cx: &mut Context<'_>,
        request: JoinRequest,
        reply: Reply<JoinGroupResponse>,
    ) {
        if !self.accepts(&request.member_id, cx.config.max_size) {
            self.remove(&request.member_id);
            return answer(reply, join_error("", ErrorCode::GroupMaxSizeReached));
        }
        if !self.supports_protocols(&request.protocol_type, &request.protocols) {
            let error = join_error(&request.member_id, ErrorCode::InconsistentGroupProtocol);
            return answer(reply, error);
        }
        if !request.member_id.is_empty() {
            return self.join_existing(cx, request, reply);
        }
        let known = request
            .group_instance_id
            .as_ref()
            .and_then(|id| self.static_member_id(id))
            .cloned();
        if let Some(old_id) = known {
            self.join_replacing_static(cx, request, &old_id, reply);
        } else if request.group_instance_id.is_none() && request.version >= 4 {
            // KIP-394: come again with this id, so that a retry does not leave a dead member behind.
            let new_id = request.new_member_id;
            debug!(group_id = %self.group_id, member_id = %new_id, "member joins without an id and gets one");
            self.pending_join.insert(new_id.clone());
            let key = TimerKey::Session(self.group_id.clone(), new_id.clone());
            cx.schedule(key, i64::from(request.session_timeout_ms));
            answer(reply, join_error(&new_id, ErrorCode::MemberIdRequired));
        } else {
            let member_id = request.new_member_id.clone();
            self.add_joining(cx, request, member_id, reply);
        }
    }

    fn accepts(&self, member_id: &str, max_size: i32) -> bool {
        let max_size = max_size.max(0) as usize;
        match self.state() {
            State::Empty => true,
            // Counting who joined lets a group that is too large lose its last ones.
            State::PreparingRebalance => {
                self.member(member_id)
                    .is_some_and(|m| m.awaiting_join.is_some())
                    || self.awaiting_join_count() < max_size
            }
            State::CompletingRebalance | State::Stable => {
                self.has_member(member_id) || self.members().len() < max_size
            }
        }
    }

    fn join_existing(
        &mut self,
        cx: &mut Context<'_>,
        request: JoinRequest,
        reply: Reply<JoinGroupResponse>,
    ) {
        let id = request.member_id.clone();
        if self.pending_join.contains(&id) {
            if request.group_instance_id.is_some() {
                // Pending ids are never given to static members.
                return answer(reply, join_error(&id, ErrorCode::UnknownServerError));
            }
            return self.add_joining(cx, request, id, reply);
        }
        if let Err(code) = self.validate_member(&id, request.group_instance_id.as_deref()) {
            return answer(reply, join_error(&id, code));
        }
        let unchanged = self
            .member(&id)
            .is_some_and(|m| m.protocols == request.protocols);
        match self.state() {
            State::PreparingRebalance => self.update_joining(cx, request, reply, "member joins"),
            // It did not get the answer, or wants to know the generation again.
            State::CompletingRebalance if unchanged => answer(reply, self.join_response(&id)),
            State::Stable if unchanged && !self.is_leader(&id) => {
                answer(reply, self.join_response(&id));
            }
            // The leader knows reasons that metadata does not show, such as new partitions.
            State::Stable if unchanged => {
                self.update_joining(cx, request, reply, "leader joins again");
            }
            State::CompletingRebalance | State::Stable => {
                self.update_joining(cx, request, reply, "member joins with other metadata");
            }
            State::Empty => answer(reply, join_error(&id, ErrorCode::UnknownMemberId)),
        }
    }

    fn update_joining(
        &mut self,
        cx: &mut Context<'_>,
        request: JoinRequest,
        reply: Reply<JoinGroupResponse>,
        reason: &str,
    ) {
        let id = request.member_id;
        // An older request of this member that is still parked is not answered any more.
        self.update_member(
            &id,
            request.protocols,
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
            Some(reply),
        );
        self.rebalance_or_complete_join(cx, reason);
    }

    fn add_joining(
        &mut self,
        cx: &mut Context<'_>,
        request: JoinRequest,
        member_id: Arc<str>,
        reply: Reply<JoinGroupResponse>,
    ) {
        if self.is(State::PreparingRebalance) && self.previous_state == Some(State::Empty) {
            self.new_member_added = true;
        }
        if self.members().len() == 0 {
            self.protocol_type = Some(request.protocol_type);
        }
        self.add(Member {
            member_id: member_id.clone(),
            group_instance_id: request.group_instance_id,
            client_id: request.client.client_id,
            client_host: request.client.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(reply),
            awaiting_sync: None,
            is_new: true,
        });
        // A new member cannot send heartbeats while it waits. Should its client be gone, this ends it.
        let key = TimerKey::Session(self.group_id.clone(), member_id);
        cx.schedule(key, NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.rebalance_or_complete_join(cx, "new member joins");
    }

    /// KIP-345: a static member came back under a new member id.
    fn join_replacing_static(
        &mut self,
        cx: &mut Context<'_>,
        request: JoinRequest,
        old_id: &Arc<str>,
        reply: Reply<JoinGroupResponse>,
    ) {
        let new_id = request.new_member_id;
        let instance = request.group_instance_id.unwrap_or_default();
        let old_leader = self.leader_id.clone();
        self.replace_static_member(&instance, old_id, new_id.clone());
        cx.timers
            .cancel(&TimerKey::Session(self.group_id.clone(), old_id.clone()));
        self.reschedule_session(cx, &new_id);
        let Some(old) = self.member(&new_id) else {
            return;
        };
        let former = Former {
            member_id: old_id.clone(),
            protocols: old.protocols.clone(),
            rebalance_timeout_ms: old.rebalance_timeout_ms,
            session_timeout_ms: old.session_timeout_ms,
        };
        self.update_member(
            &new_id,
            request.protocols,
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
            Some(reply),
        );
        match self.state() {
            State::Stable if self.protocol_name == self.select_protocol() => {
                // Nothing changes for the others: only the new id must survive.
                cx.effects.append(self.record(|m| m.assignment.clone()));
                cx.effects
                    .when_committed(Completion::StaticMember(Box::new(StaticMember {
                        group_id: self.group_id.clone(),
                        instance,
                        new_id,
                        former,
                        old_leader,
                        may_skip_assignment: request.version >= 9,
                    })));
            }
            State::Stable => {
                self.rebalance_or_complete_join(cx, "static member joins and changes the protocol");
            }
            // The leader may already compute an assignment for the old id.
            State::CompletingRebalance => self.prepare_rebalance(cx, "static member joins again"),
            State::PreparingRebalance | State::Empty => self.complete_join_if_all_joined(cx),
        }
    }

    /// The record that replaced a static member is in the log, or could not be written.
    pub(super) fn on_static_member_logged(
        &mut self,
        cx: &mut Context<'_>,
        done: StaticMember,
        result: Result<(), ErrorCode>,
    ) {
        let new_id = &done.new_id;
        if let Err(code) = result {
            let response = self
                .join_response("")
                .with_leader(wire(done.old_leader.as_deref().unwrap_or_default()))
                .with_error_code(code.code());
            self.complete_join(new_id, response);
            let former = done.former;
            self.update_member(
                new_id,
                former.protocols,
                former.rebalance_timeout_ms,
                former.session_timeout_ms,
                None,
            );
            self.replace_static_member(&done.instance, new_id, former.member_id.clone());
            return self.reschedule_session(cx, &former.member_id);
        }
        let mut response = self.join_response(new_id);
        if done.may_skip_assignment {
            // KIP-814: the leader learns the members but must not assign.
            response.skip_assignment = self.is_leader(new_id);
        } else {
            // Older clients would assign if they saw themselves as leader: they are told the old id.
            response.leader = wire(done.old_leader.as_deref().unwrap_or_default());
            response.members.clear();
        }
        self.complete_join(new_id, response);
    }
}

/// What a static member was before it was replaced.
#[derive(Debug)]
pub(super) struct Former {
    member_id: Arc<str>,
    protocols: Vec<Protocol>,
    rebalance_timeout_ms: i32,
    session_timeout_ms: i32,
}

/// A static member whose new id is being logged.
#[derive(Debug)]
pub struct StaticMember {
    pub(super) group_id: Arc<str>,
    instance: Arc<str>,
    new_id: Arc<str>,
    former: Former,
    old_leader: Option<Arc<str>>,
    may_skip_assignment: bool,
}

/// Rebalancing.
impl ClassicGroup {
    pub(super) fn rebalance_or_complete_join(&mut self, cx: &mut Context<'_>, reason: &str) {
        if self.is(State::PreparingRebalance) {
            self.complete_join_if_all_joined(cx);
        } else {
            self.prepare_rebalance(cx, reason);
        }
    }

    pub(super) fn prepare_rebalance(&mut self, cx: &mut Context<'_>, reason: &str) {
        if self.is(State::CompletingRebalance) {
            self.reset_assignment(cx, ErrorCode::RebalanceInProgress);
        }
        self.pending_sync.clear();
        cx.timers.cancel(&TimerKey::Sync(self.group_id.clone()));
        let is_initial = self.is(State::Empty);
        self.transition_to(State::PreparingRebalance, cx.now.wall_ms);
        info!(group_id = %self.group_id, generation_id = self.generation_id, reason, "preparing to rebalance group");
        if is_initial {
            // Others may follow soon: fewer rebalances if they are waited for.
            let delay_ms = i64::from(cx.config.initial_rebalance_delay_ms);
            self.initial_delay = Some(InitialDelay {
                delay_ms,
                remaining_ms: (self.rebalance_timeout_ms() - delay_ms).max(0),
            });
            cx.schedule(TimerKey::Join(self.group_id.clone()), delay_ms);
        } else if self.has_all_members_joined() {
            self.complete_join_phase(cx);
        } else {
            cx.schedule(
                TimerKey::Join(self.group_id.clone()),
                self.rebalance_timeout_ms(),
            );
        }
    }

    /// The initial delay or the rebalance timeout is over.
    pub(super) fn on_join_timer(&mut self, cx: &mut Context<'_>) {
        if !self.is(State::PreparingRebalance) {
            return;
        }
        match self.initial_delay {
            Some(InitialDelay {
                delay_ms,
                remaining_ms,
            }) if self.new_member_added && remaining_ms != 0 => {
                self.new_member_added = false;
                let next_ms = i64::from(cx.config.initial_rebalance_delay_ms).min(remaining_ms);
                self.initial_delay = Some(InitialDelay {
                    delay_ms: next_ms,
                    remaining_ms: (remaining_ms - delay_ms).max(0),
                });
                cx.schedule(TimerKey::Join(self.group_id.clone()), next_ms);
            }
            _ => self.complete_join_phase(cx),
        }
    }

    fn complete_join_if_all_joined(&mut self, cx: &mut Context<'_>) {
        let is_initial = self.previous_state == Some(State::Empty);
        if self.is(State::PreparingRebalance) && !is_initial && self.has_all_members_joined() {
            self.complete_join_phase(cx);
        }
    }

    fn complete_join_phase(&mut self, cx: &mut Context<'_>) {
        cx.timers.cancel(&TimerKey::Join(self.group_id.clone()));
        self.initial_delay = None;
        self.new_member_added = false;
        let late = |m: &&Member| m.awaiting_join.is_none() && !m.is_static();
        let late: Vec<_> = self
            .members()
            .filter(late)
            .map(|m| m.member_id.clone())
            .collect();
        for member_id in late {
            info!(group_id = %self.group_id, %member_id, "removed member that did not join in time");
            self.remove(&member_id);
            cx.timers
                .cancel(&TimerKey::Session(self.group_id.clone(), member_id));
        }
        if !self.elect_joined_leader() && self.members().len() > 0 {
            // Only static members are left and none has joined: their sessions will end or they will.
            warn!(group_id = %self.group_id, "no member joined, the rebalance goes on");
            return cx.schedule(
                TimerKey::Join(self.group_id.clone()),
                self.rebalance_timeout_ms(),
            );
        }
        self.init_next_generation(cx.now.wall_ms);
        if self.is(State::Empty) {
            info!(group_id = %self.group_id, generation_id = self.generation_id, "group is empty");
            return cx.effects.append(self.record(|_| Bytes::new()));
        }
        info!(
            group_id = %self.group_id,
            generation_id = self.generation_id,
            members = self.members().len(),
            "group has a new generation"
        );
        for member_id in self.member_ids() {
            let response = self.join_response(&member_id);
            self.complete_join(&member_id, response);
            self.reschedule_session(cx, &member_id);
            if let Some(member) = self.member_mut(&member_id) {
                member.is_new = false;
            }
            self.pending_sync.insert(member_id);
        }
        cx.schedule(
            TimerKey::Sync(self.group_id.clone()),
            self.rebalance_timeout_ms(),
        );
    }

    /// Members that never fetched their assignment are lost.
    pub(super) fn on_sync_timer(&mut self, cx: &mut Context<'_>) {
        let synced = self.pending_sync.is_empty();
        if synced || !matches!(self.state(), State::CompletingRebalance | State::Stable) {
            return;
        }
        for member_id in std::mem::take(&mut self.pending_sync) {
            info!(group_id = %self.group_id, %member_id, "removed member that did not sync in time");
            self.remove(&member_id);
            cx.timers
                .cancel(&TimerKey::Session(self.group_id.clone(), member_id));
        }
        self.prepare_rebalance(cx, "members did not sync in time");
    }
}

/// Assignments.
impl ClassicGroup {
    pub(super) fn sync(
        &mut self,
        cx: &mut Context<'_>,
        request: SyncRequest,
        reply: Reply<SyncGroupResponse>,
    ) {
        if let Err(code) = self.validate_sync(&request) {
            return answer(reply, sync_error(code));
        }
        let id = request.member_id;
        match self.state() {
            State::Empty => answer(reply, sync_error(ErrorCode::UnknownMemberId)),
            State::PreparingRebalance => answer(reply, sync_error(ErrorCode::RebalanceInProgress)),
            State::CompletingRebalance => {
                if let Some(member) = self.member_mut(&id) {
                    member.awaiting_sync = Some(reply);
                }
                self.on_synced(cx, &id);
                if self.is_leader(&id) {
                    let mut assignment = request.assignments;
                    assignment.retain(|member_id, _| self.has_member(member_id));
                    let of = |m: &Member| assignment.get(&m.member_id).cloned().unwrap_or_default();
                    cx.effects.append(self.record(of));
                    cx.effects
                        .when_committed(Completion::Assignment(Assignment {
                            group_id: self.group_id.clone(),
                            generation_id: self.generation_id,
                            by_member: assignment,
                        }));
                }
            }
            State::Stable => {
                self.on_synced(cx, &id);
                let assignment = self
                    .member(&id)
                    .map(|m| m.assignment.clone())
                    .unwrap_or_default();
                answer(reply, self.sync_response(assignment));
            }
        }
    }

    fn validate_sync(&self, request: &SyncRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs =
            |a: &Option<Arc<str>>, b: &Option<Arc<str>>| a.is_some() && b.is_some() && a != b;
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol_name)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn on_synced(&mut self, cx: &mut Context<'_>, member_id: &str) {
        self.pending_sync.swap_remove(member_id);
        if self.pending_sync.is_empty() {
            cx.timers.cancel(&TimerKey::Sync(self.group_id.clone()));
        }
    }

    /// The leader's assignment is in the log, or could not be written.
    pub(super) fn on_assignment_logged(
        &mut self,
        cx: &mut Context<'_>,
        done: &Assignment,
        result: Result<(), ErrorCode>,
    ) {
        if !self.is(State::CompletingRebalance) || done.generation_id != self.generation_id {
            return;
        }
        if let Err(code) = result {
            self.reset_assignment(cx, code);
            return self.rebalance_or_complete_join(cx, "the assignment could not be stored");
        }
        for member_id in self.member_ids() {
            if let Some(member) = self.member_mut(&member_id) {
                member.assignment = done.by_member.get(&member_id).cloned().unwrap_or_default();
            }
        }
        self.propagate_assignment(cx, None);
        self.transition_to(State::Stable, cx.now.wall_ms);
    }

    fn reset_assignment(&mut self, cx: &mut Context<'_>, error: ErrorCode) {
        for member_id in self.member_ids() {
            if let Some(member) = self.member_mut(&member_id) {
                member.assignment = Bytes::new();
            }
        }
        self.propagate_assignment(cx, Some(error));
    }

    fn propagate_assignment(&mut self, cx: &mut Context<'_>, error: Option<ErrorCode>) {
        for member_id in self.member_ids() {
            let assignment = self
                .member(&member_id)
                .map(|m| m.assignment.clone())
                .unwrap_or_default();
            let response = match error {
                Some(code) => sync_error(code),
                None => self.sync_response(assignment),
            };
            if self.complete_sync(&member_id, response) {
                // Sessions that ended while the member was parked were not acted upon.
                self.reschedule_session(cx, &member_id);
            }
        }
    }

    fn sync_response(&self, assignment: Bytes) -> SyncGroupResponse {
        SyncGroupResponse::default()
            .with_assignment(assignment)
            .with_protocol_type(self.protocol_type.as_deref().map(wire))
            .with_protocol_name(self.protocol_name.as_deref().map(wire))
    }
}

/// An assignment that is being logged.
#[derive(Debug)]
pub struct Assignment {
    pub(super) group_id: Arc<str>,
    generation_id: i32,
    by_member: IndexMap<Arc<str>, Bytes>,
}

/// Sessions and leaving.
impl ClassicGroup {
    pub(super) fn heartbeat(
        &mut self,
        cx: &mut Context<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
        self.reschedule_session(cx, &request.member_id);
        match self.state() {
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    pub(super) fn reschedule_session(&self, cx: &mut Context<'_>, member_id: &str) {
        if let Some(member) = self.member(member_id) {
            let key = TimerKey::Session(self.group_id.clone(), member.member_id.clone());
            cx.schedule(key, i64::from(member.session_timeout_ms));
        }
    }

    pub(super) fn on_session_timer(&mut self, cx: &mut Context<'_>, member_id: &str) {
        if self.pending_join.contains(member_id) {
            info!(group_id = %self.group_id, member_id, "member that never joined is forgotten");
            self.remove(member_id);
            if self.is(State::PreparingRebalance) && self.has_all_members_joined() {
                self.complete_join_phase(cx);
            }
            return;
        }
        if self
            .member(member_id)
            .is_none_or(Member::has_satisfied_heartbeat)
        {
            return;
        }
        info!(group_id = %self.group_id, member_id, "session of member timed out");
        // It may be parked as a new member: it shall join again if it still lives.
        self.complete_join(member_id, join_error("", ErrorCode::UnknownMemberId));
        self.remove(member_id);
        match self.state() {
            State::Stable | State::CompletingRebalance => {
                self.rebalance_or_complete_join(cx, "session of member timed out");
            }
            State::PreparingRebalance if self.has_all_members_joined() => {
                self.complete_join_phase(cx);
            }
            State::PreparingRebalance | State::Empty => {}
        }
    }

    pub(super) fn leave(
        &mut self,
        cx: &mut Context<'_>,
        members: Vec<MemberIdentity>,
    ) -> Vec<MemberResponse> {
        let mut left = false;
        let mut responses = Vec::with_capacity(members.len());
        for member in members {
            let result = self.leave_one(cx, &member.member_id, member.group_instance_id.as_deref());
            left |= result.is_ok();
            responses.push(
                MemberResponse::default()
                    .with_member_id(member.member_id)
                    .with_group_instance_id(member.group_instance_id)
                    .with_error_code(result.err().map_or(0, |code| code.code())),
            );
        }
        if left {
            match self.state() {
                State::Stable | State::CompletingRebalance => {
                    self.rebalance_or_complete_join(cx, "members left");
                }
                State::PreparingRebalance => self.complete_join_if_all_joined(cx),
                State::Empty => {}
            }
        }
        responses
    }

    fn leave_one(
        &mut self,
        cx: &mut Context<'_>,
        member_id: &str,
        instance: Option<&str>,
    ) -> Result<(), ErrorCode> {
        let member_id: Arc<str> = if member_id.is_empty() {
            // Administrators name static members by their instance id only.
            let known = instance.and_then(|id| self.static_member_id(id));
            known.ok_or(ErrorCode::UnknownMemberId)?.clone()
        } else {
            if !self.pending_join.contains(member_id) {
                self.validate_member(member_id, instance)?;
            }
            member_id.into()
        };
        info!(group_id = %self.group_id, %member_id, "member leaves the group");
        self.complete_join(&member_id, join_error("", ErrorCode::UnknownMemberId));
        self.remove(&member_id);
        cx.timers
            .cancel(&TimerKey::Session(self.group_id.clone(), member_id));
        Ok(())
    }
}

/// The client may be gone: then nobody misses the answer.
pub(super) fn answer<T>(reply: Reply<T>, response: T) {
    let _ = reply.send(Ok(response));
}
