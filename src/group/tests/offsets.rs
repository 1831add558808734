//! Committing, fetching, deleting and expiring offsets; deleting groups.

use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, TopicName};

use super::*;
use crate::coordinator::{HardState, RecordOrigin};
use crate::group::admin::GroupFilter;
use crate::group::records::{GroupRecord, OffsetAndMetadata};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

fn codes(answer: Answer<OffsetCommitResponse>) -> Result<i16, ErrorCode> {
    outcome(answer).map(|response| response.topics[0].partitions[0].error_code)
}

#[test]
fn commit_checks_membership() {
    let mut sim = Sim::new();
    let unknown = Commit {
        generation_id: 1,
        member: "m".into(),
        ..Commit::default()
    };
    for (version, code) in [
        (8, ErrorCode::IllegalGeneration),
        (9, ErrorCode::GroupIdNotFound),
    ] {
        assert_eq!(
            codes(sim.commit(Commit {
                version,
                ..unknown.clone()
            })),
            Err(code)
        );
    }
    assert_eq!(
        codes(sim.commit(Commit::default())),
        Ok(0),
        "consumers without membership may commit"
    );
    assert_eq!(sim.describe(GROUP).group_state.as_str(), "Empty");
    let id = sim.stable();
    for (member, generation_id, expected) in [
        ("", -1, Err(ErrorCode::UnknownMemberId)),
        ("who", 1, Err(ErrorCode::UnknownMemberId)),
        (id.as_str(), 2, Err(ErrorCode::IllegalGeneration)),
        (id.as_str(), 1, Ok(0)),
    ] {
        let commit = Commit {
            member: member.into(),
            generation_id,
            ..Commit::default()
        };
        assert_eq!(
            codes(sim.commit(commit)),
            expected,
            "{member} {generation_id}"
        );
    }
    sim.join(Join::default().member(&id));
    sim.advance(1);
    let commit = Commit {
        member: id,
        generation_id: 2,
        ..Commit::default()
    };
    assert_eq!(
        codes(sim.commit(commit)),
        Err(ErrorCode::RebalanceInProgress)
    );
}

#[test]
fn commit_keeps_a_session_alive() {
    let mut sim = Sim::new();
    let member = sim.stable();
    for _ in 0..5 {
        sim.advance(9_000);
        let commit = Commit {
            member: member.clone(),
            generation_id: 1,
            ..Commit::default()
        };
        assert_eq!(codes(sim.commit(commit)), Ok(0));
    }
}

#[test]
fn metadata_has_a_limit() {
    let mut sim = Sim::new();
    for (len, expected) in [
        (4_096, 0),
        (4_097, ErrorCode::OffsetMetadataTooLarge.code()),
    ] {
        let commit = Commit {
            metadata: "x".repeat(len),
            topic: "m",
            ..Commit::default()
        };
        assert_eq!(codes(sim.commit(commit)), Ok(expected));
    }
    assert_eq!(sim.fetch(GROUP, "m", false), Ok(1));
}

#[test]
fn fetch_sees_what_is_committed_or_waits_for_it() {
    let mut sim = Sim::new();
    assert_eq!(sim.fetch(GROUP, "t", false), Ok(-1), "unknown group");
    assert_eq!(codes(sim.commit(Commit::default())), Ok(0));
    sim.log.hold(true);
    let mut commit = sim.commit(Commit {
        offset: 2,
        ..Commit::default()
    });
    assert!(waits(&mut commit));
    assert_eq!(sim.fetch(GROUP, "t", false), Ok(1));
    let request = OffsetFetchRequestGroup {
        topics: None,
        ..fetch_request(GROUP, "t", TOPIC_ID)
    };
    let mut stable = sim.send(|r| Operation::OffsetFetch(true, Box::new(request), r));
    assert!(waits(&mut stable));
    sim.log.hold(false);
    sim.flush();
    assert_eq!(codes(commit), Ok(0));
    let all = done(stable);
    assert_eq!(all.topics[0].partitions[0].committed_offset, 2);
    assert_eq!(sim.fetch(GROUP, "t", false), Ok(2));
}

#[test]
fn commit_that_is_not_replicated_in_time_fails_but_stays() {
    let mut sim = Sim::new();
    sim.log.hold(true);
    let mut commit = sim.commit(Commit::default());
    sim.advance(4_999);
    assert!(waits(&mut commit));
    sim.advance(1);
    assert_eq!(codes(commit), Err(ErrorCode::CoordinatorNotAvailable));
    sim.log.hold(false);
    sim.flush();
    assert_eq!(sim.fetch(GROUP, "t", false), Ok(1));
}

#[test]
fn operations_of_one_drain_share_an_append_and_its_failure() {
    let mut sim = Sim::new();
    let commit = |sim: &mut Sim, group, offset| {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let request = Commit {
            group,
            offset,
            ..Commit::default()
        }
        .request();
        sim.executor.handle(
            sim.now(),
            Operation::OffsetCommit(9, Box::new(request), reply),
        );
        answer
    };
    let answers = [commit(&mut sim, "a", 1), commit(&mut sim, "b", 2)];
    sim.flush();
    assert_eq!(sim.log.appends(), 1);
    assert_eq!(answers.map(codes), [Ok(0), Ok(0)]);
    sim.log.fail_with(Some(ErrorCode::NotLeaderOrFollower));
    let answers = [commit(&mut sim, "a", 3), commit(&mut sim, "c", 4)];
    sim.flush();
    assert_eq!(answers.map(codes), [Err(ErrorCode::NotCoordinator); 2]);
    assert_eq!(sim.fetch("a", "t", true), Ok(1));
    assert_eq!(sim.describe("c").group_state.as_str(), "Dead");
}

#[test]
fn another_topic_under_the_same_name_has_no_offsets() {
    let mut sim = Sim::new();
    assert_eq!(codes(sim.commit(Commit::default())), Ok(0));
    for (topic_id, expected) in [(TOPIC_ID, 1), (Uuid::from_u128(8), -1), (Uuid::nil(), 1)] {
        let request = fetch_request(GROUP, "t", topic_id);
        let fetched = done(sim.send(|r| Operation::OffsetFetch(false, Box::new(request), r)));
        assert_eq!(fetched.topics[0].partitions[0].committed_offset, expected);
    }
}

#[test]
fn offsets_of_consumers_without_membership_expire_one_by_one() {
    let mut sim = Sim::new();
    assert_eq!(codes(sim.commit(Commit::default())), Ok(0));
    sim.advance(4 * DAY_MS);
    assert_eq!(
        codes(sim.commit(Commit {
            topic: "u",
            ..Commit::default()
        })),
        Ok(0)
    );
    let short = Commit {
        version: 4,
        topic: "v",
        retention_time_ms: DAY_MS,
        ..Commit::default()
    };
    assert_eq!(codes(sim.commit(short)), Ok(0));
    sim.advance(DAY_MS + 600_000);
    let fetch = |sim: &mut Sim| ["t", "u", "v"].map(|topic| sim.fetch(GROUP, topic, false));
    assert_eq!(
        fetch(&mut sim),
        [Ok(1), Ok(1), Ok(-1)],
        "a retention time of its own"
    );
    sim.advance(2 * DAY_MS);
    assert_eq!(fetch(&mut sim), [Ok(-1), Ok(1), Ok(-1)]);
    sim.advance(4 * DAY_MS);
    assert_eq!(fetch(&mut sim), [Ok(-1), Ok(-1), Ok(-1)]);
    assert_eq!(sim.state(), "Dead", "the group goes with its last offset");
    assert_eq!(sim.executor.state(), &sim.loaded_state());
    assert_eq!(
        sim.executor.next_deadline_ms(),
        None,
        "no groups, no timers"
    );
}

#[test]
fn offsets_of_a_group_live_while_it_has_members_and_then_from_when_it_was_left() {
    let mut sim = Sim::new();
    let join = Join {
        session_timeout_ms: 1_800_000,
        ..Join::default()
    };
    let (id, joined) = sim.join_new(&join);
    sim.advance(3_000);
    done(joined);
    done(sim.sync(&id, 1, &[]));
    for topic in ["t", "unsubscribed"] {
        let commit = Commit {
            member: id.clone(),
            generation_id: 1,
            topic,
            ..Commit::default()
        };
        assert_eq!(codes(sim.commit(commit)), Ok(0));
    }
    for _ in 0..(8 * 48) {
        sim.advance(1_800_000 - 1);
        assert_eq!(sim.heartbeat(&id, 1), Ok(()));
    }
    assert_eq!(sim.fetch(GROUP, "t", false), Ok(1));
    assert_eq!(sim.fetch(GROUP, "unsubscribed", false), Ok(-1));
    sim.leave(&[(&id, None)]).expect("an answer");
    sim.advance(6 * DAY_MS);
    sim.fail_over();
    assert_eq!(sim.fetch(GROUP, "t", false), Ok(1));
    sim.advance(DAY_MS + 600_000);
    assert_eq!(sim.fetch(GROUP, "t", false), Ok(-1));
    assert_eq!(sim.state(), "Dead");
}

fn offset_delete(sim: &mut Sim, topic: &str) -> Result<i16, ErrorCode> {
    let partition = OffsetDeleteRequestPartition::default();
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(TopicName(wire(topic)))
        .with_partitions(vec![partition]);
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId(wire(GROUP)))
        .with_topics(vec![topic]);
    outcome(sim.send(|reply| Operation::OffsetDelete(Box::new(request), reply)))
        .map(|response| response.topics[0].partitions[0].error_code)
}

#[test]
fn deleting_offsets_and_groups() {
    let mut sim = Sim::new();
    assert_eq!(
        offset_delete(&mut sim, "t"),
        Err(ErrorCode::GroupIdNotFound)
    );
    let id = sim.stable();
    for topic in ["t", "u"] {
        let commit = Commit {
            member: id.clone(),
            generation_id: 1,
            topic,
            ..Commit::default()
        };
        assert_eq!(codes(sim.commit(commit)), Ok(0));
    }
    assert_eq!(
        offset_delete(&mut sim, "t"),
        Ok(ErrorCode::GroupSubscribedToTopic.code())
    );
    assert_eq!(offset_delete(&mut sim, "u"), Ok(0));
    assert_eq!(
        [sim.fetch(GROUP, "t", false), sim.fetch(GROUP, "u", false)],
        [Ok(1), Ok(-1)]
    );
    let delete = |sim: &mut Sim| {
        let groups = vec![GROUP.into(), "unknown".into()];
        let results = done(sim.send(|reply| Operation::Delete(groups, reply)));
        results
            .iter()
            .map(|result| result.error_code)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        delete(&mut sim),
        [
            ErrorCode::NonEmptyGroup.code(),
            ErrorCode::GroupIdNotFound.code()
        ]
    );
    sim.leave(&[(&id, None)]).expect("an answer");
    assert_eq!(delete(&mut sim)[0], 0);
    assert_eq!(sim.state(), "Dead");
    assert_eq!(sim.fetch(GROUP, "t", false), Ok(-1));
    assert_eq!(sim.executor.state(), &sim.loaded_state());
}

#[test]
fn offsets_go_with_their_topic_unless_it_was_created_again() {
    let mut sim = Sim::new();
    assert_eq!(codes(sim.commit(Commit::default())), Ok(0));
    for (topic_id, expected) in [(Uuid::from_u128(8), 1), (TOPIC_ID, -1)] {
        let topics: Arc<[_]> = [("t".into(), topic_id)].into();
        sim.executor
            .handle(sim.now(), Operation::TopicsDeleted(topics));
        sim.flush();
        assert_eq!(sim.fetch(GROUP, "t", false), Ok(expected));
    }
}

#[test]
fn list_filters_by_state_and_type() {
    let mut sim = Sim::new();
    sim.stable();
    done(sim.commit(Commit {
        group: "other",
        ..Commit::default()
    }));
    let mut list = |states: &[&str], types: &[&str]| {
        let request = kafka_protocol::messages::ListGroupsRequest::default()
            .with_states_filter(states.iter().map(|s| wire(s)).collect())
            .with_types_filter(types.iter().map(|s| wire(s)).collect());
        let filter = Arc::new(GroupFilter::new(&request));
        let listed = done(sim.send(|reply| Operation::List(filter, reply)));
        let mut ids: Vec<_> = listed.iter().map(|g| g.group_id.to_string()).collect();
        ids.sort();
        ids.join(",")
    };
    assert_eq!(list(&[], &[]), "group,other");
    assert_eq!(list(&["stable"], &[]), "group");
    assert_eq!(list(&[" EMPTY ", "dead"], &["Classic"]), "other");
    assert_eq!(list(&[], &["consumer"]), "");
}

fn offset_record(offset: i64) -> GroupRecord {
    GroupRecord::Offset {
        group_id: GROUP.into(),
        topic: "t".into(),
        partition: 0,
        value: Some(OffsetAndMetadata {
            offset,
            leader_epoch: -1,
            metadata: "".into(),
            commit_timestamp_ms: 1,
            expire_timestamp_ms: None,
            topic_id: TOPIC_ID,
            record_offset: -1,
        }),
    }
}

/// Loading meets transactional commits before any transaction coordinator writes them here.
#[test]
fn transactional_offsets_count_when_their_marker_commits() {
    let committed = |state: &GroupState| {
        let cell = state
            .group(GROUP)
            .and_then(|g| g.cell("t", 0))
            .cloned()
            .unwrap_or_default();
        (cell.committed.map(|o| o.offset), cell.pending.len())
    };
    let mut undo = Vec::new();
    let mut state = GroupState::default();
    let origin = |offset, producer_id| RecordOrigin {
        offset,
        producer_id,
    };
    state.replay(origin(0, 9), offset_record(10), &mut undo);
    assert_eq!(committed(&state), (None, 1));
    state.end_transaction(9, false, &mut undo);
    assert_eq!(committed(&state), (None, 0));
    state.replay(origin(2, 9), offset_record(20), &mut undo);
    state.replay(origin(3, -1), offset_record(5), &mut undo);
    state.replay(origin(4, 8), offset_record(30), &mut undo);
    state.end_transaction(9, true, &mut undo);
    assert_eq!(committed(&state), (Some(5), 1), "the later record wins");
    state.end_transaction(8, true, &mut undo);
    assert_eq!(committed(&state), (Some(30), 0));
    while let Some(change) = undo.pop() {
        state.revert(change);
    }
    assert_eq!(state, GroupState::default());
}

#[test]
fn open_transactions_make_offsets_unstable() {
    use crate::protocol::batch::BatchBuilder;
    let mut sim = Sim::new();
    assert_eq!(codes(sim.commit(Commit::default())), Ok(0));
    let encoded = GroupState::encode(&offset_record(10));
    let mut batch = BatchBuilder::new().producer(9, 0, 0).transactional(true);
    batch.append(1, Some(&encoded.key), encoded.value.as_deref());
    let tp = TopicPartition::new("__consumer_offsets", 0);
    sim.log.append(&tp, 0, batch.build()).expect("appended");
    sim.fail_over();
    assert_eq!(sim.fetch(GROUP, "t", false), Ok(1));
    assert_eq!(
        sim.fetch(GROUP, "t", true),
        Err(ErrorCode::UnstableOffsetCommit.code())
    );
    let marker = BatchBuilder::new()
        .producer(9, 0, -1)
        .transactional(true)
        .control(true);
    let marker = crate::protocol::batch::control_batch(marker, 1, 1, &[0; 6]);
    sim.log.append(&tp, 0, marker).expect("appended");
    sim.fail_over();
    assert_eq!(sim.fetch(GROUP, "t", true), Ok(10));
}

#[test]
fn a_marker_commits_or_drops_what_a_transaction_has_pending() {
    use crate::protocol::batch::{BatchBuilder, TransactionMarker};
    for (commit, expected) in [(true, 10), (false, 1)] {
        let mut sim = Sim::new();
        assert_eq!(codes(sim.commit(Commit::default())), Ok(0));
        let encoded = GroupState::encode(&offset_record(10));
        let mut batch = BatchBuilder::new().producer(9, 0, 0).transactional(true);
        batch.append(1, Some(&encoded.key), encoded.value.as_deref());
        let tp = TopicPartition::new("__consumer_offsets", 0);
        sim.log.append(&tp, 0, batch.build()).expect("appended");
        sim.fail_over();
        let marker = TransactionMarker {
            producer_id: 9,
            producer_epoch: 0,
            coordinator_epoch: 0,
            commit,
            transaction_version: 0,
        };
        sim.log.fail_with(Some(ErrorCode::NotLeaderOrFollower));
        let refused = sim.send(|reply| Operation::EndTransaction(marker, reply));
        assert_eq!(outcome(refused), Err(ErrorCode::NotCoordinator));
        sim.log.fail_with(None);
        sim.log.hold(true);
        let mut ended = sim.send(|reply| Operation::EndTransaction(marker, reply));
        assert!(waits(&mut ended), "answered before it is replicated");
        sim.log.hold(false);
        sim.flush();
        assert_eq!(outcome(ended), Ok(()));
        assert_eq!(sim.fetch(GROUP, "t", true), Ok(expected));
        // The log says the same, and the coordinator is in step with it.
        assert_eq!(*sim.executor.state(), sim.loaded_state());
        assert_eq!(codes(sim.commit(Commit::default())), Ok(0));
        assert_eq!(sim.fetch(GROUP, "t", true), Ok(1));
    }
}
