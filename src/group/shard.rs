//! The group coordinator of one partition as the runtime drives it: operations, timers and what follows a commit.

use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupResponse,
};

use super::admin::GroupFilter;
use super::classic_group::{ClassicGroup, ClassicGroupState, join_error};
use super::config::GroupConfig;
use super::hard_state::{GroupState, Undo};
use super::member::Reply;
use super::operation_error;
use super::rebalance::{Assignment, Context, JoinRequest, StaticMember, SyncRequest, answer};
use super::records::GroupRecord;
use crate::coordinator::{
    Effects, EncodedRecord, HardState, HardView, Now, RecordOrigin, Shard, Timers,
};
use crate::protocol::batch::TransactionMarker;
use crate::protocol::error::{Error, ErrorCode};
use crate::protocol::messages::offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
use crate::protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchResponseGroup};
use crate::types::{ProducerId, Uuid};

/// A request to one partition, with the place for its answer.
#[derive(Debug)]
pub enum Operation {
    Join(Box<JoinRequest>, Reply<JoinGroupResponse>),
    Sync(Box<SyncRequest>, Reply<SyncGroupResponse>),
    Heartbeat(Box<HeartbeatRequest>, Reply<()>),
    Leave(Box<LeaveGroupRequest>, Reply<LeaveGroupResponse>),
    /// With the request's version.
    OffsetCommit(i16, Box<OffsetCommitRequest>, Reply<OffsetCommitResponse>),
    /// With "require stable".
    OffsetFetch(
        bool,
        Box<OffsetFetchRequestGroup>,
        Reply<OffsetFetchResponseGroup>,
    ),
    OffsetDelete(Box<OffsetDeleteRequest>, Reply<OffsetDeleteResponse>),
    List(Arc<GroupFilter>, Reply<Vec<ListedGroup>>),
    /// With the request's version.
    Describe(i16, Vec<Arc<str>>, Reply<Vec<DescribedGroup>>),
    Delete(Vec<Arc<str>>, Reply<Vec<DeletableGroupResult>>),
    TopicsDeleted(Arc<[(Arc<str>, Uuid)]>),
    EndTransaction(TransactionMarker, Reply<()>),
}

/// What follows once records are committed.
pub enum Completion {
    Answer(Box<dyn FnOnce(Result<(), ErrorCode>) + Send>),
    Assignment(Assignment),
    StaticMember(Box<StaticMember>),
    /// The first record of a group was written.
    NewGroup(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKey {
    /// A member's session: group and member id.
    Session(Arc<str>, Arc<str>),
    /// The end of the join phase.
    Join(Arc<str>),
    /// The end of the wait for SyncGroups.
    Sync(Arc<str>),
    /// The next look for expired offsets.
    Expiry,
}

/// The groups of one partition that have members, or had them lately.
pub struct GroupShard {
    pub(super) config: Arc<GroupConfig>,
    pub(super) groups: IndexMap<Arc<str>, ClassicGroup>,
    pub(super) timers: Timers<TimerKey>,
}

pub(super) type View<'a> = HardView<'a, GroupShard>;

impl GroupShard {
    pub fn new(config: Arc<GroupConfig>) -> Self {
        Self {
            config,
            groups: IndexMap::new(),
            timers: Timers::default(),
        }
    }

    pub(super) fn exists(&self, hard: &View<'_>, group_id: &str) -> bool {
        self.groups.contains_key(group_id) || hard.state.group(group_id).is_some()
    }

    /// Makes a group that only the log knows live.
    pub(super) fn revive(&mut self, hard: &View<'_>, group_id: &Arc<str>) {
        if !self.groups.contains_key(group_id)
            && let Some(group) = logged_group(hard, group_id)
        {
            self.groups.insert(group_id.clone(), group);
        }
    }

    /// Runs `f` on a live group.
    pub(super) fn with_group<T>(
        &mut self,
        now: Now,
        effects: &mut Effects<Self>,
        group_id: &str,
        f: impl FnOnce(&mut ClassicGroup, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let mut cx = Context {
            config: &self.config,
            timers: &mut self.timers,
            now,
            effects,
        };
        Some(f(self.groups.get_mut(group_id)?, &mut cx))
    }

    fn join(
        &mut self,
        hard: &View<'_>,
        now: Now,
        effects: &mut Effects<Self>,
        request: JoinRequest,
        reply: Reply<JoinGroupResponse>,
    ) {
        let group_id = request.group_id.clone();
        let is_new_group = !self.exists(hard, &group_id);
        if is_new_group {
            if !request.member_id.is_empty() {
                let error = join_error(&request.member_id, ErrorCode::UnknownMemberId);
                return answer(reply, error);
            }
            let group = ClassicGroup::new(group_id.clone(), Some(now.wall_ms));
            self.groups.insert(group_id.clone(), group);
        }
        self.revive(hard, &group_id);
        self.with_group(now, effects, &group_id, |group, cx| {
            group.join(cx, request, reply);
        });
        if is_new_group && effects.records().is_empty() {
            // The group must outlive this broker: members come back to it with the ids they got.
            effects.append(empty_group_record(&group_id, now));
            effects.when_committed(Completion::NewGroup(group_id));
        }
    }

    /// The group could not be created: whoever joined has to try again.
    fn forget(&mut self, group_id: &Arc<str>, code: ErrorCode) {
        let Some(mut group) = self.groups.swap_remove(group_id) else {
            return;
        };
        for member_id in group.member_ids() {
            group.complete_join(&member_id, join_error("", code));
        }
        self.cancel_timers(&group);
    }

    pub(super) fn cancel_timers(&mut self, group: &ClassicGroup) {
        let id = &group.group_id;
        for member_id in group.member_ids().iter().chain(&group.pending_join) {
            self.timers
                .cancel(&TimerKey::Session(id.clone(), member_id.clone()));
        }
        self.timers.cancel(&TimerKey::Join(id.clone()));
        self.timers.cancel(&TimerKey::Sync(id.clone()));
    }

    fn schedule_expiry(&mut self, hard: &View<'_>, now: Now) {
        let idle = self.groups.is_empty() && hard.state.is_empty();
        if !idle && !self.timers.contains(&TimerKey::Expiry) {
            let at = now.monotonic_ms + self.config.offsets_retention_check_interval_ms;
            self.timers.schedule(TimerKey::Expiry, at);
        }
    }
}

/// A group that is not live, as its records tell.
pub(super) fn logged_group(hard: &View<'_>, group_id: &str) -> Option<ClassicGroup> {
    let logged = hard.state.group(group_id)?;
    Some(match &logged.metadata {
        Some(metadata) => ClassicGroup::from_metadata(group_id.into(), metadata),
        None => ClassicGroup::new(group_id.into(), None),
    })
}

/// What is logged of a group whose first member has not joined yet.
fn empty_group_record(group_id: &Arc<str>, now: Now) -> GroupRecord {
    ClassicGroup::new(group_id.clone(), Some(now.wall_ms)).record(|_| Bytes::new())
}

/// Sends a handler's answer once its records are committed.
pub(super) fn when_committed<T: Send + 'static>(
    effects: &mut Effects<GroupShard>,
    reply: Reply<T>,
    response: T,
) {
    effects.when_committed(Completion::Answer(Box::new(move |result| {
        let _ = reply.send(result.map(|()| response));
    })));
}

impl Shard for GroupShard {
    type Hard = GroupState;
    type Operation = Operation;
    type Completion = Completion;

    fn handle(&mut self, hard: &View<'_>, now: Now, op: Operation, effects: &mut Effects<Self>) {
        match op {
            Operation::Join(request, reply) => self.join(hard, now, effects, *request, reply),
            Operation::Sync(request, reply) => {
                let group_id = request.group_id.clone();
                if self.groups.contains_key(&group_id) {
                    self.with_group(now, effects, &group_id, |g, cx| g.sync(cx, *request, reply));
                } else {
                    // Groups with members always live: this one is empty or unknown.
                    let _ = reply.send(Err(ErrorCode::UnknownMemberId));
                }
            }
            Operation::Heartbeat(request, reply) => {
                let result = self
                    .with_group(now, effects, &request.group_id, |g, cx| {
                        g.heartbeat(cx, &request)
                    })
                    .unwrap_or(Err(ErrorCode::UnknownMemberId));
                match result {
                    Ok(()) => when_committed(effects, reply, ()),
                    Err(code) => {
                        let _ = reply.send(Err(code));
                    }
                }
            }
            Operation::Leave(request, reply) => self.leave(hard, now, effects, *request, reply),
            Operation::OffsetCommit(version, request, reply) => {
                self.offset_commit(hard, now, effects, version, *request, reply);
            }
            Operation::OffsetFetch(require_stable, request, reply) => {
                let response = Self::offset_fetch(hard, require_stable, &request);
                if require_stable {
                    when_committed(effects, reply, response);
                } else {
                    answer(reply, response);
                }
            }
            Operation::OffsetDelete(request, reply) => {
                self.offset_delete(hard, effects, &request, reply);
            }
            Operation::List(filter, reply) => answer(reply, self.list(hard, &filter)),
            Operation::Describe(version, groups, reply) => {
                answer(reply, self.describe(hard, version, &groups));
            }
            Operation::Delete(groups, reply) => self.delete(hard, effects, &groups, reply),
            Operation::TopicsDeleted(topics) => Self::topics_deleted(hard, effects, &topics),
            Operation::EndTransaction(marker, reply) => {
                effects.end_transaction(marker);
                when_committed(effects, reply, ());
            }
        }
        self.schedule_expiry(hard, now);
    }

    fn on_timer(&mut self, hard: &View<'_>, now: Now, effects: &mut Effects<Self>) {
        match self.timers.pop_due(now.monotonic_ms) {
            Some(TimerKey::Session(group_id, member_id)) => {
                self.with_group(now, effects, &group_id, |g, cx| {
                    g.on_session_timer(cx, &member_id);
                });
            }
            Some(TimerKey::Join(group_id)) => {
                self.with_group(now, effects, &group_id, ClassicGroup::on_join_timer);
            }
            Some(TimerKey::Sync(group_id)) => {
                self.with_group(now, effects, &group_id, ClassicGroup::on_sync_timer);
            }
            Some(TimerKey::Expiry) => {
                self.expire_offsets(hard, now, effects);
                self.schedule_expiry(hard, now);
            }
            None => {}
        }
    }

    fn on_completed(
        &mut self,
        _hard: &View<'_>,
        now: Now,
        completion: Completion,
        result: Result<(), Error>,
        effects: &mut Effects<Self>,
    ) {
        let result = result.map_err(|error| operation_error(error.code));
        match completion {
            Completion::Answer(answer) => answer(result),
            Completion::Assignment(done) => {
                self.with_group(now, effects, &done.group_id, |group, cx| {
                    group.on_assignment_logged(cx, &done, result);
                });
            }
            Completion::StaticMember(done) => {
                let group_id = done.group_id.clone();
                self.with_group(now, effects, &group_id, |group, cx| {
                    group.on_static_member_logged(cx, *done, result);
                });
            }
            Completion::NewGroup(group_id) => {
                if let Err(code) = result {
                    self.forget(&group_id, code);
                }
            }
        }
    }

    fn on_loaded(&mut self, hard: &View<'_>, now: Now, effects: &mut Effects<Self>) {
        let has_members = |(_, logged): &(&Arc<str>, &super::hard_state::LoggedGroup)| {
            logged
                .metadata
                .as_ref()
                .is_some_and(|metadata| !metadata.members.is_empty())
        };
        let ids: Vec<_> = hard
            .state
            .groups()
            .filter(has_members)
            .map(|(id, _)| id.clone())
            .collect();
        for group_id in ids {
            self.revive(hard, &group_id);
            self.with_group(now, effects, &group_id, |group, cx| {
                for member_id in group.member_ids() {
                    group.reschedule_session(cx, &member_id);
                }
                if group.members().len() > cx.config.max_size.max(0) as usize {
                    group.prepare_rebalance(cx, "loaded group is over group.max.size");
                }
            });
        }
        self.schedule_expiry(hard, now);
    }

    fn on_unloaded(&mut self, error: Error) {
        for group in self.groups.values_mut() {
            for member_id in group.member_ids() {
                group.complete_join(&member_id, join_error(&member_id, error.code));
                let sync_error = super::classic_group::sync_error(error.code);
                group.complete_sync(&member_id, sync_error);
            }
            debug_assert!(group.awaiting_join_count() == 0 || group.is(ClassicGroupState::Empty));
        }
        self.groups.clear();
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        self.timers.next_deadline_ms()
    }

    fn reject(op: Operation, error: Error) {
        fn send<T>(reply: Reply<T>, error: &Error) {
            let _ = reply.send(Err(error.code));
        }
        match op {
            Operation::Join(_, reply) => send(reply, &error),
            Operation::Sync(_, reply) => send(reply, &error),
            Operation::Heartbeat(_, reply) | Operation::EndTransaction(_, reply) => {
                send(reply, &error);
            }
            Operation::Leave(_, reply) => send(reply, &error),
            Operation::OffsetCommit(_, _, reply) => send(reply, &error),
            Operation::OffsetFetch(_, _, reply) => send(reply, &error),
            Operation::OffsetDelete(_, reply) => send(reply, &error),
            Operation::List(_, reply) => send(reply, &error),
            Operation::Describe(_, _, reply) => send(reply, &error),
            Operation::Delete(_, reply) => send(reply, &error),
            // A partition that is loaded later finds the topics gone when the offsets expire.
            Operation::TopicsDeleted(_) => {}
        }
    }
}

impl HardState for GroupState {
    type Record = GroupRecord;
    type Undo = Undo;

    fn encode(record: &GroupRecord) -> EncodedRecord {
        super::codec::encode(record)
    }

    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<GroupRecord>, Error> {
        super::codec::decode(key, value)
    }

    fn replay(&mut self, origin: RecordOrigin, record: GroupRecord, undo: &mut Vec<Undo>) {
        undo.push(self.replay_record(origin, record));
    }

    fn end_transaction(&mut self, producer_id: ProducerId, commit: bool, undo: &mut Vec<Undo>) {
        self.replay_end_transaction(producer_id, commit, undo);
    }

    fn revert(&mut self, undo: Undo) {
        self.revert_change(undo);
    }
}
