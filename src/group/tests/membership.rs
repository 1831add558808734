//! Joining, rebalances, sessions, static members, leaving.

use super::*;

#[test]
fn member_gets_an_id_then_a_generation_then_its_assignment() {
    let mut sim = Sim::new();
    let (id, mut joined) = sim.join_new(&Join::default());
    assert_eq!(sim.state(), "PreparingRebalance");
    sim.advance(2_999);
    assert!(waits(&mut joined), "the initial delay lasts 3 s");
    sim.advance(1);
    let joined = done(joined);
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert_eq!(sim.state(), "CompletingRebalance");
    assert_eq!(
        done(sim.sync(&id, 1, &[(&id, "abc"), ("stranger", "x")])).assignment,
        "abc"
    );
    assert_eq!(sim.state(), "Stable");
    assert_eq!(sim.heartbeat(&id, 1), Ok(()));
    assert_eq!(sim.heartbeat(&id, 2), Err(ErrorCode::IllegalGeneration));
    assert_eq!(sim.heartbeat("who", 1), Err(ErrorCode::UnknownMemberId));
    let described = sim.describe(GROUP);
    assert_eq!(described.members[0].member_metadata, subscription(&["t"]));
    assert_eq!(described.members[0].member_assignment, "abc");
    // The group survives on another broker, its members' sessions start anew.
    sim.fail_over();
    assert_eq!(sim.describe(GROUP), described);
    assert_eq!(sim.heartbeat(&id, 1), Ok(()));
}

#[test]
fn initial_delay_is_prolonged_while_members_come() {
    let mut sim = Sim::new();
    let (_, mut first) = sim.join_new(&Join::default());
    sim.advance(2_000);
    let (_, second) = sim.join_new(&Join::default());
    sim.advance(3_999);
    assert!(waits(&mut first));
    sim.advance(1);
    assert_eq!(done(first).members.len(), 2);
    assert_eq!(
        done(second).members.len(),
        0,
        "only the leader learns the members"
    );
}

#[test]
fn second_member_makes_the_first_join_again() {
    let mut sim = Sim::new();
    let first = sim.stable();
    let (second, mut joined) = sim.join_new(&Join::default());
    assert!(waits(&mut joined));
    assert_eq!(
        sim.heartbeat(&first, 1),
        Err(ErrorCode::RebalanceInProgress)
    );
    let again = done(sim.join(Join::default().member(&first)));
    let joined = done(joined);
    assert_eq!((again.generation_id, joined.generation_id), (2, 2));
    assert_eq!(*again.leader, first);
    let mut follower = sim.sync(&second, 2, &[]);
    assert!(waits(&mut follower), "a follower waits for the leader");
    let leader = sim.sync(&first, 2, &[(&first, "1"), (&second, "2")]);
    assert_eq!(
        (done(leader).assignment, done(follower).assignment),
        ("1".into(), "2".into())
    );
    // A follower that joins again with the same metadata learns the generation, the leader rebalances.
    let follower = done(sim.join(Join::default().member(&second)));
    assert_eq!((follower.generation_id, follower.members.len()), (2, 0));
    let mut leader = sim.join(Join::default().member(&first));
    assert!(waits(&mut leader));
    assert_eq!(sim.state(), "PreparingRebalance");
}

#[test]
fn members_that_do_not_join_or_sync_in_time_are_removed() {
    let mut sim = Sim::new();
    let first = sim.stable();
    let (second, joined) = sim.join_new(&Join {
        session_timeout_ms: 100_000,
        ..Join::default()
    });
    for _ in 0..12 {
        sim.advance(5_000);
        let _ = sim.heartbeat(&first, 1);
    }
    let joined = done(joined);
    assert_eq!((joined.generation_id, joined.members.len()), (2, 1));
    assert_eq!(sim.heartbeat(&first, 1), Err(ErrorCode::UnknownMemberId));
    // Nobody syncs: after the rebalance timeout the member is gone and the group is empty.
    sim.advance(60_000);
    assert_eq!(sim.heartbeat(&second, 2), Err(ErrorCode::UnknownMemberId));
    assert_eq!(sim.state(), "Empty");
}

#[test]
fn session_timeout_ends_membership() {
    let mut sim = Sim::new();
    let id = sim.stable();
    sim.advance(9_999);
    assert_eq!(
        sim.heartbeat(&id, 1),
        Ok(()),
        "a heartbeat renews the session"
    );
    sim.advance(9_999);
    assert_eq!(sim.state(), "Stable");
    sim.advance(1);
    assert_eq!(sim.state(), "Empty");
    assert_eq!(sim.describe(GROUP).protocol_type.as_str(), "consumer");
    // The generation goes on where it was, also on another broker.
    sim.fail_over();
    let (_, joined) = sim.join_new(&Join::default());
    sim.advance(3_000);
    assert_eq!(done(joined).generation_id, 3);
}

#[test]
fn pending_member_is_forgotten_after_its_session() {
    let mut sim = Sim::new();
    let pending = done(sim.join(Join::default())).member_id.to_string();
    sim.advance(10_000);
    let late = done(sim.join(Join::default().member(&pending)));
    assert_eq!(late.error_code, ErrorCode::UnknownMemberId.code());
    assert_eq!(sim.state(), "Empty", "the group was created nevertheless");
    sim.fail_over();
    assert_eq!(sim.state(), "Empty");
}

#[test]
fn join_errors() {
    let mut sim = Sim::with(GroupConfig {
        max_size: 1,
        ..GroupConfig::default()
    });
    let join = |sim: &mut Sim, join: Join| done(sim.join(join)).error_code;
    let unknown = Join::default().member("m");
    assert_eq!(join(&mut sim, unknown), ErrorCode::UnknownMemberId.code());
    assert_eq!(sim.describe(GROUP).group_state.as_str(), "Dead");
    let none = Join {
        protocols: Vec::new(),
        ..Join::default()
    };
    assert_eq!(
        join(&mut sim, none),
        ErrorCode::InconsistentGroupProtocol.code()
    );
    let id = sim.stable();
    assert_eq!(
        join(&mut sim, Join::default()),
        ErrorCode::GroupMaxSizeReached.code()
    );
    let other = Join::default().member(&id).protocols(&["sticky"]);
    assert_eq!(
        join(&mut sim, other),
        ErrorCode::InconsistentGroupProtocol.code()
    );
    let fenced = Join::default().member(&id).instance("i");
    assert_eq!(join(&mut sim, fenced), ErrorCode::UnknownMemberId.code());
}

#[test]
fn protocol_that_all_support_and_most_prefer_wins() {
    let mut sim = Sim::new();
    let (_, a) = sim.join_new(&Join::default().protocols(&["x", "sticky", "range"]));
    let (_, b) = sim.join_new(&Join::default().protocols(&["range", "sticky"]));
    let (_, c) = sim.join_new(&Join::default().protocols(&["sticky", "range", "y"]));
    sim.advance(20_000);
    for joined in [a, b, c] {
        assert_eq!(done(joined).protocol_name.as_deref(), Some("sticky"));
    }
}

#[test]
fn static_member_is_replaced_without_a_rebalance() {
    for version in [5, 9] {
        let mut sim = Sim::new();
        let join = Join::default().instance("i").version(version);
        let joined = sim.join(join.clone());
        sim.advance(3_000);
        let old = done(joined).member_id.to_string();
        done(sim.sync(&old, 1, &[(&old, "a")]));
        let again = done(sim.join(join.clone()));
        let new = again.member_id.to_string();
        assert_eq!((again.generation_id, again.error_code), (1, 0));
        assert_ne!(new, old);
        // Old clients must not take themselves for the leader, or they would assign again.
        let leader = if version < 9 { &old } else { &new };
        assert_eq!(again.leader.as_str(), leader);
        assert_eq!(again.skip_assignment, version == 9);
        assert_eq!(again.members.len(), usize::from(version == 9));
        assert_eq!(done(sim.sync(&new, 1, &[])).assignment, "a");
        let fenced = done(sim.join(join.clone().member(&old)));
        assert_eq!(fenced.error_code, ErrorCode::FencedInstanceId.code());
        sim.fail_over();
        assert_eq!(sim.heartbeat(&new, 1), Ok(()));
        assert_eq!(sim.heartbeat(&old, 1), Err(ErrorCode::UnknownMemberId));
    }
}

#[test]
fn static_member_keeps_its_old_id_when_the_new_one_cannot_be_stored() {
    let mut sim = Sim::new();
    let joined = sim.join(Join::default().instance("i"));
    sim.advance(3_000);
    let old = done(joined).member_id.to_string();
    done(sim.sync(&old, 1, &[(&old, "a")]));
    sim.log.fail_with(Some(ErrorCode::NotEnoughReplicas));
    let failed = done(sim.join(Join::default().instance("i")));
    assert_eq!(failed.error_code, ErrorCode::CoordinatorNotAvailable.code());
    assert_eq!(sim.heartbeat(&old, 1), Ok(()));
}

#[test]
fn static_member_that_changes_the_protocol_rebalances() {
    let mut sim = Sim::new();
    let joined = sim.join(
        Join::default()
            .instance("i")
            .protocols(&["range", "sticky"]),
    );
    sim.advance(3_000);
    let old = done(joined).member_id.to_string();
    done(sim.sync(&old, 1, &[]));
    let again = done(sim.join(Join::default().instance("i").protocols(&["sticky"])));
    assert_eq!(
        (again.generation_id, again.protocol_name.as_deref()),
        (2, Some("sticky"))
    );
}

#[test]
fn leaving() {
    let mut sim = Sim::new();
    assert_eq!(
        sim.leave(&[("m", None)]),
        Err(ErrorCode::UnknownMemberId),
        "no such group"
    );
    let id = sim.stable();
    let pending = done(sim.join(Join::default())).member_id.to_string();
    let left = sim
        .leave(&[("who", None), ("", Some("i")), (&pending, None)])
        .expect("an answer");
    let codes: Vec<_> = left.members.iter().map(|m| m.error_code).collect();
    assert_eq!(codes, [25, 25, 0]);
    let left = sim.leave(&[(&id, None)]).expect("an answer");
    assert_eq!(left.members[0].error_code, 0);
    assert_eq!(sim.state(), "Empty");
    assert_eq!(sim.describe(GROUP).members.len(), 0);
    // Administrators name static members by their instance.
    let joined = sim.join(Join::default().instance("i"));
    sim.advance(3_000);
    assert_eq!(done(joined).generation_id, 3);
    assert_eq!(
        sim.leave(&[("", Some("i"))]).expect("an answer").members[0].error_code,
        0
    );
    assert_eq!(sim.state(), "Empty");
}

#[test]
fn sync_errors_and_failed_appends() {
    let mut sim = Sim::new();
    assert_eq!(
        outcome(sim.sync("m", 1, &[])),
        Err(ErrorCode::UnknownMemberId)
    );
    let (id, joined) = sim.join_new(&Join::default());
    sim.advance(3_000);
    done(joined);
    assert_eq!(
        done(sim.sync(&id, 2, &[])).error_code,
        ErrorCode::IllegalGeneration.code()
    );
    sim.log.fail_with(Some(ErrorCode::NotLeaderOrFollower));
    let failed = done(sim.sync(&id, 1, &[(&id, "a")]));
    assert_eq!(failed.error_code, ErrorCode::NotCoordinator.code());
    assert_eq!(sim.state(), "PreparingRebalance");
    assert_eq!(sim.executor.state(), &sim.loaded_state());
}

#[test]
fn failed_creation_of_a_group_leaves_nothing() {
    let mut sim = Sim::new();
    sim.log.fail_with(Some(ErrorCode::NotLeaderOrFollower));
    let joined = done(sim.join(Join::default().version(3)));
    assert_eq!(joined.error_code, ErrorCode::NotCoordinator.code());
    assert_eq!(sim.state(), "Dead");
    assert!(sim.executor.shard().groups.is_empty());
}

#[test]
fn parked_requests_are_answered_when_the_partition_moves() {
    let mut sim = Sim::new();
    let (_, joined) = sim.join_new(&Join::default());
    sim.log.hold(true);
    let commit = sim.commit(Commit {
        group: "other",
        ..Commit::default()
    });
    sim.fail_over();
    assert_eq!(done(joined).error_code, ErrorCode::NotCoordinator.code());
    assert_eq!(outcome(commit), Err(ErrorCode::NotCoordinator));
}

#[test]
fn over_full_group_rebalances_when_it_is_loaded() {
    let mut sim = Sim::new();
    let first = sim.stable();
    let (second, joined) = sim.join_new(&Join::default());
    done(sim.join(Join::default().member(&first)));
    done(joined);
    done(sim.sync(&first, 2, &[(&first, "1"), (&second, "2")]));
    sim.config = Arc::new(GroupConfig {
        max_size: 1,
        ..GroupConfig::default()
    });
    sim.fail_over();
    assert_eq!(sim.state(), "PreparingRebalance");
}
