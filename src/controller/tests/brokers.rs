//! Registration, heartbeats, fencing, shutdown, and what they do to partitions; AlterPartition and ElectLeaders.

use kafka_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, ControllerRegistrationRequest,
    ElectLeadersRequest, UnregisterBrokerRequest, UpdateFeaturesRequest,
};

use super::*;
use crate::controller::broker_watch::Gone;
use crate::controller::controllers_control::register_controller;
use crate::controller::{partition_control, producer_id_control};
use crate::metadata::{LeaderRecoveryState, NO_LEADER};
use crate::protocol::ErrorCode;
use crate::protocol::metadata_records::FeatureLevelRecord;
use crate::quorum::RECORDS_PER_BATCH_MAX;

const SESSION_MS: i64 = 9_000;

/// Rule: registration
#[test]
fn registration_is_checked() {
    let mut cluster = Cluster::new();
    let other_cluster = registration(1, 1).with_cluster_id(StrBytes::from_static_str("other"));
    let without_metadata_version = registration(1, 1).with_features(Vec::new());
    let mut old = registration(1, 1);
    old.features[0].max_supported_version = 29;
    let elsewhere = registration(1, 2).with_log_dirs(vec![Uuid::from_u128(1999)]);
    let taken = registration(2, 2).with_log_dirs(vec![Uuid::from_u128(1001)]);
    for (request, expected) in [
        (other_cluster, Err(104)),
        (registration(1, 1).with_log_dirs(Vec::new()), Err(119)),
        (
            registration(1, 1).with_log_dirs(vec![Uuid::from_u128(1)]),
            Err(119),
        ),
        (without_metadata_version, Err(119)),
        (old, Err(35)),
        (registration(1, 1), Ok(cluster.image.next_offset())),
        // The same process may come again and keeps its epoch; another one has to wait.
        (registration(1, 1), Ok(cluster.image.next_offset())),
        (elsewhere.clone(), Err(101)),
        (taken, Err(119)),
    ] {
        assert_eq!(cluster.register(request), expected);
    }
    assert!(cluster.image.cluster.broker(1).expect("registered").fenced);
    cluster.now_ms = SESSION_MS + 1;
    let epoch = cluster.register(elsewhere).expect("the session is over");
    assert_eq!(cluster.epoch(1), epoch);
}

/// Rule: registration
#[test]
fn a_process_on_the_directories_of_another_replaces_it_at_once() {
    let mut cluster = Cluster::with_brokers(1);
    let epoch = cluster.epoch(1);
    let again = cluster.register(registration(1, 99));
    assert!(again.expect("the locks of the directories are its own") > epoch);
}

/// Rule: fencing
#[test]
fn a_broker_whose_listener_is_gone_is_fenced_at_once() {
    // Connected before; heard of by this controller; the broker epoch that was watched, less the true one; fenced?
    for (was_connected, heard, older, fenced) in [
        (true, 2, 0, true),
        (true, 0, 0, true),
        (false, 0, 0, true),
        // Said before it died, and sent on to a new controller by the system.
        (false, 1, 0, true),
        // Heard of and never reached: something stands in between.
        (false, 2, 0, false),
        // The process before this one.
        (true, 2, 1, false),
    ] {
        let mut cluster = Cluster::with_brokers(2);
        cluster.heartbeats = Heartbeats::start(&cluster.image, cluster.now_ms);
        for _ in 0..heard {
            let epoch = cluster.epoch(2);
            assert!(!cluster.heartbeat(2, epoch, |r| r).is_fenced);
        }
        let gone = Gone {
            broker_id: 2,
            broker_epoch: cluster.epoch(2) - older,
            was_connected,
        };
        cluster.run(|turn| {
            cluster_control::end_session(turn, &gone);
            Outcome::unchanged(())
        });
        cluster.expire();
        let broker = cluster.image.cluster.broker(2).expect("registered");
        assert_eq!(broker.fenced, fenced, "{gone:?}, heard {heard}");
        assert!(!cluster.image.cluster.broker(1).expect("registered").fenced);
    }
}

/// Rule: fencing, registration
#[test]
fn the_last_word_of_a_dead_process_does_not_bring_it_back() {
    for lives in [false, true] {
        let mut cluster = Cluster::with_brokers(2);
        let epoch = cluster.epoch(2);
        let gone = Gone {
            broker_id: 2,
            broker_epoch: epoch,
            was_connected: true,
        };
        cluster.run(|turn| {
            cluster_control::end_session(turn, &gone);
            Outcome::unchanged(())
        });
        cluster.expire();
        let heard = cluster.heartbeat(2, epoch, |r| r);
        assert_eq!((heard.error_code, heard.is_fenced), (0, true));
        assert!(!cluster.image.cluster.is_active(2));
        if lives {
            assert!(!cluster.heartbeat(2, epoch, |r| r).is_fenced);
            assert!(cluster.image.cluster.is_active(2));
        } else {
            // On an empty disk: nobody could know by its directories that the other is gone.
            let mut elsewhere = registration(2, 99);
            elsewhere.log_dirs = vec![Uuid::from_u128(9_999)];
            assert!(cluster.register(elsewhere).is_ok());
        }
    }
}

/// Rule: registration, controller-failover
#[test]
fn a_new_controller_does_not_hold_sessions_it_has_not_seen() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.heartbeats = Heartbeats::start(&cluster.image, cluster.now_ms);
    assert!(
        cluster.register(registration(1, 99)).is_ok(),
        "restart after a crash of both"
    );
}

/// Rule: unfencing
#[test]
fn heartbeats_unfence_who_has_caught_up() {
    let mut cluster = Cluster::new();
    let epoch = cluster.register(registration(1, 1)).expect("registers");
    assert_eq!(cluster.heartbeat(1, epoch + 1, |r| r).error_code, 77);
    assert_eq!(cluster.heartbeat(2, epoch, |r| r).error_code, 77);
    let behind = cluster.heartbeat(1, epoch, |r| BrokerHeartbeatRequest {
        current_metadata_offset: epoch - 1,
        ..r
    });
    assert_eq!((behind.is_caught_up, behind.is_fenced), (false, true));
    let wants_fence = cluster.heartbeat(1, epoch, |r| BrokerHeartbeatRequest {
        want_fence: true,
        ..r
    });
    assert_eq!(
        (wants_fence.is_caught_up, wants_fence.is_fenced),
        (true, true)
    );
    let unfenced = cluster.heartbeat(1, epoch, |r| r);
    assert_eq!((unfenced.is_caught_up, unfenced.is_fenced), (true, false));
    assert!(cluster.image.cluster.is_active(1));
    let offset = cluster.last_offset();
    cluster.heartbeat(1, epoch, |r| r);
    assert_eq!(
        cluster.last_offset(),
        offset,
        "a heartbeat that changes nothing writes nothing"
    );
}

/// Rule: election, fencing
#[test]
fn silent_brokers_are_fenced_and_lose_their_partitions() {
    let mut cluster = Cluster::with_brokers(3);
    let manual = vec![assignment(0, &[1, 2, 3]), assignment(1, &[1, 2, 3])];
    assert_eq!(
        cluster.create(topic("t", -1, -1).with_assignments(manual)),
        0
    );
    assert_eq!(cluster.partition("t", 0).leader, 1);
    cluster.now_ms = SESSION_MS - 1;
    for id in [2, 3] {
        let epoch = cluster.epoch(id);
        cluster.heartbeat(id, epoch, |r| r);
    }
    cluster.expire();
    assert!(cluster.image.cluster.is_alive(1), "not yet");
    cluster.now_ms = SESSION_MS;
    assert_eq!(
        cluster
            .heartbeats
            .next_expiry_ms(&cluster.image, SESSION_MS),
        Some(SESSION_MS)
    );
    cluster.expire();
    assert!(!cluster.image.cluster.is_alive(1));
    let partition = cluster.partition("t", 1);
    assert_eq!((partition.leader, partition.leader_epoch), (2, 1));
    assert_eq!(
        (&partition.isr[..], partition.partition_epoch),
        (&[2, 3][..], 1)
    );
    assert_eq!(
        cluster
            .heartbeats
            .next_expiry_ms(&cluster.image, SESSION_MS),
        Some(2 * SESSION_MS - 1)
    );
}

/// Rule: elr, controlled-shutdown
#[test]
fn the_last_in_sync_replica_stays_eligible() {
    let mut cluster = Cluster::with_brokers(2);
    assert_eq!(
        cluster.create(topic("t", -1, -1).with_assignments(vec![assignment(0, &[1])])),
        0
    );
    let epoch = cluster.epoch(1);
    let first = cluster.heartbeat(1, epoch, |r| BrokerHeartbeatRequest {
        want_shut_down: true,
        ..r
    });
    assert!(!first.should_shut_down, "leads a partition");
    let left = cluster.partition("t", 0).clone();
    assert_eq!(
        (left.leader, &left.isr[..], &left.elr[..]),
        (NO_LEADER, &[][..], &[1][..])
    );
    assert_eq!(left.last_known_elr, [1]);
    let second = cluster.heartbeat(1, epoch, |r| BrokerHeartbeatRequest {
        want_shut_down: true,
        ..r
    });
    assert!(!second.should_shut_down, "broker 2 has not seen it");
    let other = cluster.epoch(2);
    cluster.heartbeat(2, other, |r| r);
    let third = cluster.heartbeat(1, epoch, |r| BrokerHeartbeatRequest {
        want_shut_down: true,
        ..r
    });
    assert!(third.should_shut_down && third.is_fenced);
    // Back after a clean stop: elected from the eligible replicas, nothing is lost.
    let back = registration(1, 50).with_previous_broker_epoch(epoch);
    cluster.now_ms = SESSION_MS + 1;
    cluster.heartbeat(2, other, |r| r);
    let epoch = cluster.register(back).expect("registers");
    assert!(!cluster.heartbeat(1, epoch, |r| r).is_fenced);
    let back = cluster.partition("t", 0);
    assert_eq!(
        (back.leader, &back.isr[..], back.elr.len()),
        (1, &[1][..], 0)
    );
    assert_eq!(back.leader_recovery_state, LeaderRecoveryState::Recovered);
    assert!(back.last_known_elr.is_empty());
}

/// Its last words overtake each other (seed 19717 of the simulator): in Kafka it would be elected, and not be active.
///
/// Rule: controlled-shutdown
#[test]
fn who_is_stopping_does_not_come_back_by_a_late_heartbeat() {
    let mut cluster = Cluster::with_brokers(2);
    assert_eq!(
        cluster.create(topic("t", -1, -1).with_assignments(vec![assignment(0, &[1])])),
        0
    );
    let epoch = cluster.epoch(1);
    cluster.heartbeat(1, epoch, |r| BrokerHeartbeatRequest {
        want_shut_down: true,
        ..r
    });
    cluster.now_ms = SESSION_MS;
    cluster.expire();
    assert!(!cluster.image.cluster.is_alive(1));
    let late = cluster.heartbeat(1, epoch, |r| r);
    assert!(late.is_fenced && !late.should_shut_down);
    assert_eq!(cluster.partition("t", 0).leader, NO_LEADER);
}

/// Rule: unclean-restart
#[test]
fn a_crashed_single_broker_leads_again_as_the_last_known_leader() {
    let mut cluster = Cluster::with_brokers(1);
    assert_eq!(cluster.create(topic("t", 1, 1)), 0);
    cluster.heartbeats = Heartbeats::start(&cluster.image, 0);
    let epoch = cluster.register(registration(1, 2)).expect("registers");
    let crashed = cluster.partition("t", 0).clone();
    assert_eq!(
        (crashed.leader, crashed.isr.len(), crashed.elr.len()),
        (NO_LEADER, 0, 0)
    );
    assert_eq!(crashed.last_known_elr, [1]);
    assert!(!cluster.heartbeat(1, epoch, |r| r).is_fenced);
    let back = cluster.partition("t", 0);
    assert_eq!((back.leader, &back.isr[..]), (1, &[1][..]));
    assert_eq!(back.leader_recovery_state, LeaderRecoveryState::Recovering);
    assert!(back.leader_epoch > crashed.leader_epoch);
}

/// Rule: controlled-shutdown
#[test]
fn a_cleanly_stopped_single_broker_keeps_its_leader_epochs() {
    let mut cluster = Cluster::with_brokers(1);
    assert_eq!(cluster.create(topic("t", 5, 1)), 0);
    cluster.heartbeats = Heartbeats::start(&cluster.image, 0);
    let before = cluster.partition("t", 3).clone();
    let back = registration(1, 2).with_previous_broker_epoch(cluster.epoch(1));
    let offset = cluster.last_offset();
    let epoch = cluster.register(back).expect("registers");
    assert!(!cluster.heartbeat(1, epoch, |r| r).is_fenced);
    assert_eq!(cluster.partition("t", 3), &before);
    assert_eq!(
        cluster.last_offset(),
        offset + 2,
        "registration and unfencing"
    );
}

/// Rule: directories
#[test]
fn failed_directories_take_their_partitions_along() {
    let mut cluster = Cluster::with_brokers(2);
    let manual = topic("t", -1, -1).with_assignments(vec![assignment(0, &[1, 2])]);
    assert_eq!(cluster.create(manual), 0);
    assert_eq!(
        cluster.partition("t", 0).directory(1),
        Uuid::from_u128(1001)
    );
    let epoch = cluster.epoch(1);
    let failed = vec![Uuid::from_u128(1001)];
    cluster.heartbeat(1, epoch, |r| BrokerHeartbeatRequest {
        offline_log_dirs: failed,
        ..r
    });
    let partition = cluster.partition("t", 0);
    assert_eq!((partition.leader, &partition.isr[..]), (2, &[2][..]));
}

#[test]
fn cordoned_directories_are_noted_when_they_change_and_get_no_new_partitions() {
    let mut cluster = Cluster::with_brokers(2);
    let epoch = cluster.epoch(1);
    let all = [Uuid::from_u128(1001)];
    let tell = |cluster: &mut Cluster, cordoned: Option<&[Uuid]>| {
        let offset = cluster.last_offset();
        cluster.heartbeat(1, epoch, |r| BrokerHeartbeatRequest {
            cordoned_log_dirs: cordoned.map(<[Uuid]>::to_vec),
            ..r
        });
        cluster.last_offset() - offset
    };
    assert_eq!(
        tell(&mut cluster, Some(&[])),
        0,
        "none are cordoned as it is"
    );
    assert_eq!(tell(&mut cluster, Some(&all)), 1);
    assert_eq!(tell(&mut cluster, Some(&all)), 0, "known already");
    assert_eq!(tell(&mut cluster, None), 0, "not said");
    assert_eq!(cluster.create(topic("on-2", 3, 1)), 0);
    assert!((0..3).all(|index| cluster.partition("on-2", index).replicas == [2]));
    assert_eq!(tell(&mut cluster, Some(&[])), 1);
    let broker = cluster.image.cluster.broker(1).unwrap();
    assert!(broker.has_uncordoned_dirs());
}

#[test]
fn controllers_register_where_the_metadata_version_has_a_record_for_them() {
    let mut cluster = Cluster::new();
    let request = ControllerRegistrationRequest::default()
        .with_controller_id(3000)
        .with_incarnation_id(Uuid::from_u128(7));
    let register = |cluster: &mut Cluster| {
        cluster
            .run(|turn| register_controller(turn, &request))
            .error_code
    };
    assert_eq!(register(&mut cluster), 0);
    let known = &cluster.image.cluster.controllers[&3000];
    assert_eq!(known.incarnation_id, Uuid::from_u128(7));
    let level = FeatureLevelRecord {
        name: "metadata.version".into(),
        feature_level: 14,
    };
    cluster.commit(vec![level.into()]);
    assert_eq!(register(&mut cluster), ErrorCode::UnsupportedVersion.code());
}

fn alter(
    cluster: &mut Cluster,
    broker: BrokerId,
    isr: &[(BrokerId, i64)],
    adapt: impl FnOnce(PartitionData) -> PartitionData,
) -> i16 {
    let partition = cluster.partition("t", 0);
    let isr = isr.iter().map(|(id, epoch)| {
        let state = BrokerState::default().with_broker_id(WireBrokerId(*id));
        state.with_broker_epoch(*epoch)
    });
    let data = PartitionData::default()
        .with_partition_index(0)
        .with_leader_epoch(partition.leader_epoch)
        .with_partition_epoch(partition.partition_epoch)
        .with_new_isr_with_epochs(isr.collect());
    let topic_id = cluster.image.topics.id_of("t").expect("exists");
    let data = TopicData::default()
        .with_topic_id(topic_id)
        .with_partitions(vec![adapt(data)]);
    let request = AlterPartitionRequest::default()
        .with_broker_id(WireBrokerId(broker))
        .with_broker_epoch(cluster.epoch(broker))
        .with_topics(vec![data]);
    let response = cluster.run(|turn| partition_control::alter_partition(turn, &request));
    response.topics[0].partitions[0].error_code
}

/// Rule: alter-partition-checks
#[test]
fn alter_partition_is_checked() {
    let mut cluster = Cluster::with_brokers(3);
    let manual = topic("t", -1, -1).with_assignments(vec![assignment(0, &[1, 2, 3])]);
    assert_eq!(cluster.create(manual), 0);
    let epochs: Vec<i64> = (1..=3).map(|id| cluster.epoch(id)).collect();
    let (one, two, three) = ((1, epochs[0]), (2, epochs[1]), (3, epochs[2]));
    assert_eq!(
        alter(&mut cluster, 1, &[one], |p| p.with_partition_index(9)),
        3
    );
    assert_eq!(
        alter(&mut cluster, 1, &[one], |p| p.with_leader_epoch(1)),
        41
    );
    assert_eq!(
        alter(&mut cluster, 1, &[one], |p| p.with_partition_epoch(1)),
        41
    );
    assert_eq!(
        alter(&mut cluster, 1, &[one], |p| p.with_leader_epoch(-1)),
        74
    );
    assert_eq!(alter(&mut cluster, 2, &[two], |p| p), 42, "not the leader");
    assert_eq!(
        alter(&mut cluster, 1, &[one], |p| p.with_partition_epoch(-1)),
        95
    );
    assert_eq!(alter(&mut cluster, 1, &[one, one], |p| p), 42);
    assert_eq!(
        alter(&mut cluster, 1, &[one, (9, -1)], |p| p),
        42,
        "not assigned"
    );
    assert_eq!(
        alter(&mut cluster, 1, &[two], |p| p),
        42,
        "without the leader"
    );
    assert_eq!(
        alter(&mut cluster, 1, &[one], |p| p.with_leader_recovery_state(1)),
        42
    );
    assert_eq!(
        alter(&mut cluster, 1, &[one, (2, 0)], |p| p),
        107,
        "another incarnation"
    );
    assert_eq!(alter(&mut cluster, 1, &[one, two], |p| p), 0);
    let shrunk = cluster.partition("t", 0);
    assert_eq!(
        (&shrunk.isr[..], shrunk.partition_epoch, shrunk.leader_epoch),
        (&[1, 2][..], 1, 0)
    );
    cluster.heartbeat(3, epochs[2], |r| BrokerHeartbeatRequest {
        want_fence: true,
        ..r
    });
    assert_eq!(
        alter(&mut cluster, 1, &[one, two, three], |p| p),
        107,
        "3 is fenced"
    );
    cluster.heartbeat(3, epochs[2], |r| r);
    assert_eq!(alter(&mut cluster, 1, &[one, two, (3, -1)], |p| p), 0);
    assert_eq!(cluster.partition("t", 0).isr, [1, 2, 3]);
}

/// Rule: preferred-leader
#[test]
fn preferred_leaders_are_elected_on_request() {
    let mut cluster = Cluster::with_brokers(2);
    let manual = topic("t", -1, -1).with_assignments(vec![assignment(0, &[1, 2])]);
    assert_eq!(cluster.create(manual), 0);
    let elect = |cluster: &mut Cluster, kind, partition| {
        let topics = TopicPartitions::default()
            .with_topic(name("t"))
            .with_partitions(vec![partition]);
        let request = ElectLeadersRequest::default()
            .with_election_type(kind)
            .with_topic_partitions(Some(vec![topics]));
        let response = cluster.run(|turn| partition_control::elect_leaders(turn, &request));
        response.replica_election_results[0].partition_result[0].error_code
    };
    assert_eq!(elect(&mut cluster, 0, 0), 84, "leads already");
    assert_eq!(elect(&mut cluster, 0, 5), 3);
    let epoch = cluster.epoch(1);
    cluster.heartbeat(1, epoch, |r| BrokerHeartbeatRequest {
        want_fence: true,
        ..r
    });
    assert_eq!(cluster.partition("t", 0).leader, 2);
    assert_eq!(elect(&mut cluster, 0, 0), 80, "fenced");
    assert_eq!(elect(&mut cluster, 1, 0), 84);
    cluster.heartbeat(1, epoch, |r| r);
    let (two, one) = ((2, cluster.epoch(2)), (1, epoch));
    assert_eq!(alter(&mut cluster, 2, &[two, one], |p| p), 0);
    assert_eq!(elect(&mut cluster, 0, 0), 0);
    assert_eq!(cluster.partition("t", 0).leader, 1);
}

#[test]
fn unregistered_brokers_are_forgotten() {
    let mut cluster = Cluster::with_brokers(2);
    let manual = topic("t", -1, -1).with_assignments(vec![assignment(0, &[1, 2])]);
    assert_eq!(cluster.create(manual), 0);
    let request = UnregisterBrokerRequest::default().with_broker_id(WireBrokerId(1));
    let code = |cluster: &mut Cluster| {
        cluster
            .run(|turn| cluster_control::unregister_broker(turn, &request))
            .error_code
    };
    assert_eq!(code(&mut cluster), 0);
    assert_eq!(code(&mut cluster), 102);
    assert_eq!(cluster.partition("t", 0).leader, 2);
    assert!(cluster.image.cluster.broker(1).is_none());
}

/// A broker that nobody watches would never be fenced.
#[test]
fn a_broker_is_still_watched_when_its_unregistration_is_refused() {
    let mut cluster = Cluster::with_brokers(2);
    for text in ["t", "u"] {
        assert_eq!(cluster.create(topic(text, 6_000, 2)), 0);
    }
    let request = UnregisterBrokerRequest::default().with_broker_id(WireBrokerId(1));
    cluster.run(|turn| {
        let outcome = cluster_control::unregister_broker(turn, &request);
        assert!(outcome.is_atomic && outcome.records.len() > RECORDS_PER_BATCH_MAX);
        Outcome::unchanged(())
    });
    cluster.now_ms += SESSION_MS;
    cluster.expire();
    assert!(!cluster.image.cluster.is_alive(1));
}

/// Rule: producer-ids
#[test]
fn producer_ids_come_in_blocks_and_never_twice() {
    let mut cluster = Cluster::with_brokers(2);
    let allocate = |cluster: &mut Cluster, id: BrokerId, epoch: i64| {
        let request = AllocateProducerIdsRequest::default()
            .with_broker_id(WireBrokerId(id))
            .with_broker_epoch(epoch);
        let block = cluster.run(|turn| producer_id_control::allocate_producer_ids(turn, &request));
        (
            block.error_code,
            block.producer_id_start.0,
            block.producer_id_len,
        )
    };
    let epochs = [cluster.epoch(1), cluster.epoch(2)];
    assert_eq!(allocate(&mut cluster, 1, epochs[0]), (0, 0, 1000));
    assert_eq!(allocate(&mut cluster, 2, epochs[1]), (0, 1000, 1000));
    assert_eq!(allocate(&mut cluster, 2, epochs[0]).0, 77);
    assert_eq!(allocate(&mut cluster, 3, 0).0, 77);
    assert_eq!(allocate(&mut cluster, 1, epochs[0]), (0, 2000, 1000));
}

#[test]
fn features_change_within_what_everybody_supports() {
    let mut cluster = Cluster::with_brokers(1);
    let levels: Vec<_> = cluster.image.features.finalized_levels().collect();
    assert_eq!(
        levels,
        [
            ("eligible.leader.replicas.version", 1),
            ("group.version", 1),
            ("metadata.version", 30),
            ("share.version", 1),
            ("streams.version", 1),
            ("transaction.version", 2),
        ]
    );
    for (feature, level, kind, code) in [
        ("group.version", 2, 1, 95),
        ("group.version", -1, 1, 95),
        ("group.version", 0, 1, 95),
        ("group.version", 0, 2, 0),
        ("group.version", 1, 2, 95),
        ("group.version", 1, 9, 95),
        ("group.version", 1, 1, 0),
        ("no.such.feature", 1, 1, 95),
        ("metadata.version", 31, 1, 95),
        ("metadata.version", 7, 3, 95),
        ("metadata.version", 30, 1, 0),
        ("kraft.version", 2, 1, 95),
        ("kraft.version", 0, 2, 95),
        ("kraft.version", 1, 1, 0),
    ] {
        let update = FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str(feature))
            .with_max_version_level(level)
            .with_upgrade_type(kind);
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
        let response = cluster.run(|turn| feature_control::update_features(turn, &request));
        assert_eq!(response.error_code, code, "{feature} {level} {kind}");
    }
    assert_eq!(cluster.image.features.level("group.version"), 1);
}

#[test]
fn a_static_quorum_does_not_claim_to_have_become_dynamic() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.kraft_version = 0;
    for (level, kind, code) in [(1, 1, 95), (1, 2, 95), (0, 1, 0), (0, 2, 0)] {
        let update = FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str("kraft.version"))
            .with_max_version_level(level)
            .with_upgrade_type(kind);
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
        let response = cluster.run(|turn| feature_control::update_features(turn, &request));
        assert_eq!(response.error_code, code, "{level} {kind}");
    }
}
