//! What becomes of partitions: elections, eligible leader replicas, epochs, unclean restarts.

use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};

use super::*;
use crate::controller::configuration_control::incremental_alter_configs;
use crate::controller::partition_change::{Election, PartitionChange};
use crate::metadata::{LeaderRecoveryState, NO_LEADER};
use Election::{Online, Preferred, Unclean};

/// A partition on brokers 1, 2 and 3.
fn on_three(leader: BrokerId, isr: &[BrokerId], elr: &[BrokerId]) -> PartitionRegistration {
    PartitionRegistration {
        replicas: vec![1, 2, 3],
        directories: vec![Uuid::from_u128(1001); 3],
        isr: isr.to_vec(),
        elr: elr.to_vec(),
        leader,
        leader_epoch: 10,
        partition_epoch: 100,
        ..PartitionRegistration::default()
    }
}

/// The partition after a change with a minimum of two in-sync replicas; `None` if nothing changes.
fn changed(
    partition: &PartitionRegistration,
    acceptable: &[BrokerId],
    set: impl FnOnce(&mut PartitionChange<'_>),
) -> Option<PartitionRegistration> {
    let mut change = PartitionChange::of(partition, Uuid::from_u128(7), 0);
    change.elr_enabled = true;
    change.min_isr = 2;
    set(&mut change);
    let directory = |id: BrokerId| Uuid::from_u128(1000 + id as u128);
    let record = change.build(&|id| acceptable.contains(&id), &directory)?;
    let mut after = partition.clone();
    after.merge(&record);
    Some(after)
}

/// Rule: election, unclean-election
#[test]
fn elections_take_the_first_that_may_lead() {
    let all: &[BrokerId] = &[1, 2, 3];
    // Leader, ISR and ELR before; what remains of the ISR; who may lead; election; who leads then.
    for (leader, isr, elr, left, acceptable, election, elected) in [
        (2, all, &[][..], all, all, Online, 2),
        (2, all, &[], all, all, Preferred, 1),
        (2, all, &[], all, &[2, 3], Preferred, 2),
        (2, all, &[], all, &[3], Preferred, 3),
        (2, all, &[], &[1, 3], all, Online, 1),
        (1, &[3, 2, 1], &[], &[3, 2], all, Online, 2),
        (1, all, &[], &[2, 3], &[3], Online, 3),
        // While anybody is in sync, those who are eligible are not.
        (1, &[1], &[2], &[1], &[2, 3], Online, NO_LEADER),
        (1, &[1], &[2, 3], &[], &[3], Online, 3),
        (1, &[1], &[2], &[], &[3], Online, NO_LEADER),
        (1, &[1], &[2], &[], &[3], Unclean, 3),
        (1, all, &[], all, &[2], Unclean, 2),
        (NO_LEADER, &[], &[2], &[], &[2], Preferred, 2),
    ] {
        let partition = on_three(leader, isr, elr);
        let after = changed(&partition, acceptable, |change| {
            change.isr = left.to_vec();
            change.election = election;
        });
        let after = after.unwrap_or_else(|| partition.clone());
        let case = format!("{partition:?}, {left:?} left, {acceptable:?}, {election:?}");
        assert_eq!(after.leader, elected, "{case}");
        let unclean = elected != NO_LEADER && ![isr, elr].concat().contains(&elected);
        assert_eq!(
            after.leader_recovery_state,
            if unclean {
                LeaderRecoveryState::Recovering
            } else {
                LeaderRecoveryState::Recovered
            },
            "{case}"
        );
        if elected != leader && elected != NO_LEADER && !left.contains(&elected) {
            assert_eq!(after.isr, [elected], "{case}");
        }
        assert!(
            after.isr.iter().all(|id| !after.elr.contains(id)),
            "{after:?}"
        );
    }
}

/// Rule: election
#[test]
fn the_last_known_leader_leads_again_where_nobody_is_left() {
    // The last known leader, ELR, whether the feature is on, who leads then.
    for (last_known, elr, enabled, elected) in [
        (&[2][..], &[][..], true, 2),
        (&[2], &[3], true, NO_LEADER),
        (&[2, 1], &[], true, NO_LEADER),
        (&[1], &[], true, NO_LEADER),
        (&[2], &[], false, NO_LEADER),
    ] {
        let mut partition = on_three(NO_LEADER, &[], elr);
        partition.last_known_elr = last_known.to_vec();
        let after = changed(&partition, &[2], |change| change.elr_enabled = enabled);
        let after = after.unwrap_or_else(|| partition.clone());
        assert_eq!(after.leader, elected, "{last_known:?} {elr:?} {enabled}");
        if elected == 2 {
            assert_eq!((&after.isr[..], after.last_known_elr.len()), (&[2][..], 0));
            assert_eq!(after.leader_recovery_state, LeaderRecoveryState::Recovering);
        }
    }
}

/// Rule: elr
#[test]
fn who_leaves_a_small_isr_stays_eligible_unless_it_lost_records() {
    let mut partition = on_three(1, &[1, 2, 3], &[]);
    // The new ISR, who may lead, who lost records; ISR, ELR and leader then.
    for (target, acceptable, lost, isr, elr, leader) in [
        (&[1, 2][..], &[1, 2][..], None, &[1, 2][..], &[][..], 1),
        (&[1], &[1], None, &[1], &[2], 1),
        (&[], &[], None, &[], &[1, 2], NO_LEADER),
        (&[], &[], Some(2), &[], &[1], NO_LEADER),
        (&[], &[2], None, &[], &[1], NO_LEADER),
        (&[], &[1, 2], None, &[1], &[], 1),
        (&[1, 2], &[1, 2], None, &[1, 2], &[], 1),
        // As a leader that crashed: neither in sync nor eligible.
        (&[2], &[2], Some(1), &[2], &[], 2),
    ] {
        let after = changed(&partition, acceptable, |change| {
            change.isr = target.to_vec();
            change.unclean_shutdown = lost;
        });
        partition = after.unwrap_or(partition);
        let now = (&partition.isr[..], &partition.elr[..], partition.leader);
        assert_eq!(
            now,
            (isr, elr, leader),
            "to {target:?}, {lost:?} lost records"
        );
    }
}

/// Rule: epochs
#[test]
fn leader_epochs_grow_with_elections_and_lost_replicas_only() {
    let partition = on_three(1, &[1, 2, 3], &[]);
    let all: &[BrokerId] = &[1, 2, 3, 4];
    let grown = |acceptable: &[BrokerId], set: &dyn Fn(&mut PartitionChange<'_>)| {
        let after = changed(&partition, acceptable, set).unwrap_or_else(|| partition.clone());
        (after.leader_epoch - 10, after.partition_epoch - 100)
    };
    assert_eq!(grown(all, &|_| ()), (0, 0));
    // KAFKA-15021: not when the ISR shrinks, since metadata.version 3.6.
    assert_eq!(grown(all, &|change| change.isr = vec![1, 2]), (0, 1));
    assert_eq!(grown(&[2, 3], &|change| change.isr = vec![2, 3]), (1, 1));
    assert_eq!(grown(&[], &|change| change.isr.clear()), (1, 1));
    assert_eq!(
        grown(all, &|change| change.replicas = vec![3, 1, 2]),
        (0, 1)
    );
    let moved = Some((2, Uuid::from_u128(9)));
    assert_eq!(grown(all, &|change| change.moved_to = moved), (0, 1));
    let begun = |change: &mut PartitionChange<'_>| {
        change.replicas = vec![1, 2, 4, 3];
        change.adding_replicas = vec![4];
        change.removing_replicas = vec![3];
    };
    assert_eq!(grown(all, &begun), (0, 1));
    let completed = |change: &mut PartitionChange<'_>| {
        begun(change);
        change.isr.push(4);
    };
    assert_eq!(grown(all, &completed), (1, 1), "3 must not fetch on");
}

/// Sets `min.insync.replicas` of a topic.
fn set_minimum(cluster: &mut Cluster, topic: &str, minimum: &'static str) {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str("min.insync.replicas"))
        .with_value(Some(StrBytes::from_static_str(minimum)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_string(topic.to_owned()))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = cluster.run(|turn| incremental_alter_configs(turn, &request));
    assert_eq!(response.responses[0].error_code, 0);
}

/// Brokers 1 to 3 and a topic on all of them that needs two in sync.
fn three_with_minimum() -> Cluster {
    let mut cluster = Cluster::with_brokers(3);
    let t = topic("t", -1, -1)
        .with_assignments(vec![assignment(0, &[1, 2, 3])])
        .with_configs(vec![config("min.insync.replicas", Some("2"))]);
    assert_eq!(cluster.create(t), 0);
    cluster
}

/// Broker `id` comes back as another process that says nothing of a clean stop, and is unfenced.
fn restart_unclean(cluster: &mut Cluster, id: BrokerId) {
    let incarnation = cluster.last_offset() as u128 + 100;
    let epoch = cluster
        .register(registration(id, incarnation))
        .expect("registers");
    assert!(!cluster.heartbeat(id, epoch, |request| request).is_fenced);
}

fn state(cluster: &Cluster) -> (BrokerId, Vec<BrokerId>, Vec<BrokerId>) {
    let partition = cluster.partition("t", 0);
    (
        partition.leader,
        partition.isr.clone(),
        partition.elr.clone(),
    )
}

/// Rule: elr
#[test]
fn a_changed_minimum_clears_the_eligible_replicas() {
    let mut cluster = three_with_minimum();
    cluster.fence(3);
    cluster.fence(2);
    assert_eq!(state(&cluster), (1, vec![1], vec![2]));
    set_minimum(&mut cluster, "t", "1");
    assert_eq!(state(&cluster), (1, vec![1], vec![]));
    // With a minimum of one nobody but the last is needed.
    cluster.fence(1);
    assert_eq!(state(&cluster), (NO_LEADER, vec![], vec![1]));
}

/// Rule: fencing
#[test]
fn a_fenced_broker_leaves_its_partitions_before_it_is_fenced() {
    let mut cluster = three_with_minimum();
    let before = cluster.log.len();
    cluster.fence(1);
    let written = &cluster.log[before..];
    assert!(
        matches!(
            written,
            [
                MetadataRecord::PartitionChange(_),
                MetadataRecord::BrokerRegistrationChange(_)
            ]
        ),
        "{written:?}"
    );
}

/// Rule: unclean-restart
#[test]
fn unclean_restarts_leave_isr_and_elr() {
    // KIP-966, one after the other: a follower, the leader, an eligible replica, the last one.
    let mut cluster = three_with_minimum();
    restart_unclean(&mut cluster, 3);
    assert_eq!(state(&cluster), (1, vec![1, 2], vec![]));
    restart_unclean(&mut cluster, 1);
    assert_eq!(
        state(&cluster),
        (2, vec![2], vec![]),
        "the minimum is not kept by who lost records"
    );
    let mut cluster = three_with_minimum();
    cluster.fence(3);
    cluster.fence(2);
    restart_unclean(&mut cluster, 2);
    assert_eq!(state(&cluster), (1, vec![1], vec![]));
    restart_unclean(&mut cluster, 1);
    // Nobody but the last leader may have everything that was acknowledged.
    assert_eq!(state(&cluster), (1, vec![1], vec![]));
    assert_eq!(
        cluster.partition("t", 0).leader_recovery_state,
        LeaderRecoveryState::Recovering
    );
}

/// Rule: unclean-restart
#[test]
fn after_a_crash_of_all_the_last_leader_leads_whoever_comes_first() {
    let mut cluster = three_with_minimum();
    cluster.heartbeats = Heartbeats::start(&cluster.image, cluster.now_ms);
    for id in [2, 3] {
        restart_unclean(&mut cluster, id);
        assert_eq!(
            cluster.partition("t", 0).leader,
            1,
            "still registered as it was"
        );
    }
    let epoch = cluster.register(registration(1, 50)).expect("registers");
    assert_eq!(state(&cluster), (NO_LEADER, vec![], vec![]));
    assert_eq!(cluster.partition("t", 0).last_known_elr, [1]);
    for id in [2, 3] {
        let epoch = cluster.epoch(id);
        cluster.heartbeat(id, epoch, |request| request);
    }
    assert_eq!(cluster.partition("t", 0).leader, NO_LEADER);
    cluster.heartbeat(1, epoch, |request| request);
    assert_eq!(state(&cluster), (1, vec![1], vec![]));
}

/// Rule: unclean-restart
#[test]
fn a_wiped_last_leader_is_not_believed_while_others_have_its_records() {
    for replicas in [&[1, 2][..], &[1]] {
        let mut cluster = Cluster::with_brokers(2);
        let t = topic("t", -1, -1).with_assignments(vec![assignment(0, replicas)]);
        assert_eq!(cluster.create(t), 0);
        cluster.fence(2);
        cluster.fence(1);
        restart_unclean(&mut cluster, 2);
        cluster.now_ms += 10_000;
        let wiped = registration(1, 77).with_log_dirs(vec![Uuid::from_u128(2001)]);
        let epoch = cluster.register(wiped).expect("registers");
        cluster.heartbeat(1, epoch, |request| request);
        assert_eq!(state(&cluster), (NO_LEADER, vec![], vec![]));
        assert_eq!(cluster.assign(1, 2001, "t"), 0);
        // What used to elect the last known leader.
        cluster.fence(2);
        let epoch = cluster.epoch(2);
        cluster.heartbeat(2, epoch, |request| request);
        let leader = if replicas.len() > 1 { NO_LEADER } else { 1 };
        assert_eq!(cluster.partition("t", 0).leader, leader, "{replicas:?}");
    }
}
