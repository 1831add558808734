//! What administrators ask: listing, describing and deleting groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::messages::GroupId;
use kafka_protocol::messages::ListGroupsRequest;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;

use super::classic_group::{ClassicGroup, ClassicGroupState as State};
use super::member::{Reply, wire};
use super::offsets::tombstone;
use super::shard::{GroupShard, View, when_committed};
use crate::coordinator::Effects;
use crate::protocol::error::ErrorCode;

/// How DescribeGroups calls a group that does not exist.
pub(super) const DEAD: &str = "Dead";
const CLASSIC: &str = "classic";
/// "Not asked for" in `authorized_operations`.
pub(super) const NO_AUTHORIZED_OPERATIONS: i32 = i32::MIN;

/// The filters of a ListGroups; empty ones let everything through.
#[derive(Debug)]
pub struct GroupFilter {
    states: BTreeSet<String>,
    types: BTreeSet<String>,
}

impl GroupFilter {
    pub fn new(request: &ListGroupsRequest) -> Self {
        let states = request
            .states_filter
            .iter()
            .map(|s| s.trim().to_lowercase());
        let types = request.types_filter.iter().map(|s| s.trim().to_lowercase());
        Self {
            states: states.collect(),
            types: types.collect(),
        }
    }

    fn accepts(&self, group: &ClassicGroup) -> bool {
        (self.states.is_empty() || self.states.contains(&group.state().name().to_lowercase()))
            && (self.types.is_empty() || self.types.contains(CLASSIC))
    }
}

impl GroupShard {
    fn group_ids(&self, hard: &View<'_>) -> Vec<Arc<str>> {
        let logged = hard.state.groups().map(|(id, _)| id);
        let live = self
            .groups
            .keys()
            .filter(|id| hard.state.group(id).is_none());
        logged.chain(live).cloned().collect()
    }

    pub(super) fn list(&self, hard: &View<'_>, filter: &GroupFilter) -> Vec<ListedGroup> {
        let listed = |group: &ClassicGroup| {
            filter.accepts(group).then(|| {
                ListedGroup::default()
                    .with_group_id(GroupId(wire(&group.group_id)))
                    .with_protocol_type(wire(group.protocol_type.as_deref().unwrap_or_default()))
                    .with_group_state(wire(group.state().name()))
                    .with_group_type(wire(CLASSIC))
            })
        };
        let ids = self.group_ids(hard);
        ids.iter()
            .filter_map(|id| self.inspect(hard, id, listed).flatten())
            .collect()
    }

    pub(super) fn describe(
        &self,
        hard: &View<'_>,
        version: i16,
        groups: &[Arc<str>],
    ) -> Vec<DescribedGroup> {
        let describe = |group_id: &Arc<str>| {
            self.inspect(hard, group_id, described)
                .unwrap_or_else(|| unknown(group_id, version))
        };
        groups.iter().map(describe).collect()
    }

    pub(super) fn delete(
        &mut self,
        hard: &View<'_>,
        effects: &mut Effects<Self>,
        groups: &[Arc<str>],
        reply: Reply<Vec<DeletableGroupResult>>,
    ) {
        let mut results = Vec::with_capacity(groups.len());
        for group_id in groups {
            let is_empty = self.inspect(hard, group_id, |group| group.is(State::Empty));
            let code = match is_empty {
                None => ErrorCode::GroupIdNotFound.code(),
                Some(false) => ErrorCode::NonEmptyGroup.code(),
                Some(true) => {
                    let logged = hard.state.group(group_id);
                    for (topic, partitions) in logged.iter().flat_map(|group| group.topics()) {
                        for partition in partitions.keys() {
                            effects.append(tombstone(group_id, topic, *partition));
                        }
                    }
                    self.append_group_tombstone(effects, group_id);
                    0
                }
            };
            results.push(
                DeletableGroupResult::default()
                    .with_group_id(GroupId(wire(group_id)))
                    .with_error_code(code),
            );
        }
        when_committed(effects, reply, results);
    }
}

/// Subscriptions are shown of stable groups only: before that the members may not agree on a protocol.
fn described(group: &ClassicGroup) -> DescribedGroup {
    let protocol = group
        .protocol_name
        .as_deref()
        .filter(|_| group.is(State::Stable));
    let members = group.members().map(|member| {
        let metadata = protocol.and_then(|name| member.metadata(name));
        DescribedGroupMember::default()
            .with_member_id(wire(&member.member_id))
            .with_group_instance_id(member.group_instance_id.as_deref().map(wire))
            .with_client_id(wire(&member.client_id))
            .with_client_host(wire(&member.client_host))
            .with_member_assignment(member.assignment.clone())
            .with_member_metadata(metadata.cloned().unwrap_or_default())
    });
    DescribedGroup::default()
        .with_group_id(GroupId(wire(&group.group_id)))
        .with_group_state(wire(group.state().name()))
        .with_protocol_type(wire(group.protocol_type.as_deref().unwrap_or_default()))
        .with_protocol_data(wire(protocol.unwrap_or_default()))
        .with_members(members.collect())
        .with_authorized_operations(NO_AUTHORIZED_OPERATIONS)
}

fn unknown(group_id: &str, version: i16) -> DescribedGroup {
    let group = DescribedGroup::default()
        .with_group_id(GroupId(wire(group_id)))
        .with_group_state(wire(DEAD))
        .with_authorized_operations(NO_AUTHORIZED_OPERATIONS);
    if version < 6 {
        return group;
    }
    group
        .with_error_code(ErrorCode::GroupIdNotFound.code())
        .with_error_message(Some(wire(&format!("Group {group_id} not found."))))
}
