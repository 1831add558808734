//! Tests of the periodic elections.

use super::*;
use crate::controller::periodic_control::Periodic;
use crate::metadata::{LeaderRecoveryState, NO_LEADER};

const MINUTES_5_MS: i64 = 300_000;

/// Lets five minutes pass, in which everybody in `alive` sends heartbeats, and runs what is due.
fn after_five_minutes(cluster: &mut Cluster, periodic: &mut Periodic, alive: &[BrokerId]) {
    cluster.now_ms += MINUTES_5_MS;
    for id in alive {
        let epoch = cluster.epoch(*id);
        cluster.heartbeat(*id, epoch, |request| request);
    }
    while periodic.next_ms() <= cluster.now_ms {
        let records = cluster.run(|turn| Outcome::unchanged(periodic.run(turn)));
        cluster.commit(records);
    }
}

/// A partition on brokers 1 and 2 that leads nobody but `leader`: the other one is gone and back.
fn led_by_second(configs: Vec<CreatableTopicConfig>) -> Cluster {
    let mut cluster = Cluster::with_brokers(2);
    let placed = topic("t", -1, -1)
        .with_assignments(vec![assignment(0, &[1, 2])])
        .with_configs(configs);
    assert_eq!(cluster.create(placed), 0);
    cluster.fence(1);
    assert_eq!(cluster.partition("t", 0).leader, 2);
    cluster
}

/// Puts broker `id` back into the ISR, as the leader would ask for it.
fn rejoin(cluster: &mut Cluster, id: BrokerId) {
    let epoch = cluster.epoch(id);
    cluster.heartbeat(id, epoch, |request| request);
    let partition = cluster.partition("t", 0).clone();
    let topic_id = cluster.image.topics.by_name("t").expect("exists").id;
    let mut record = crate::metadata::unchanged_partition(topic_id, 0);
    record.isr = Some([partition.isr, vec![id]].concat());
    cluster.commit(vec![record.into()]);
}

/// Rule: preferred-leader
#[test]
fn leadership_returns_to_the_preferred_replica_once_it_is_in_sync() {
    let mut cluster = led_by_second(Vec::new());
    let mut periodic = Periodic::start(&cluster.settings, cluster.now_ms);
    after_five_minutes(&mut cluster, &mut periodic, &[2]);
    assert_eq!(cluster.partition("t", 0).leader, 2, "1 is not in sync");
    rejoin(&mut cluster, 1);
    let epoch = cluster.partition("t", 0).leader_epoch;
    after_five_minutes(&mut cluster, &mut periodic, &[1, 2]);
    assert_eq!(cluster.partition("t", 0).leader, 1);
    assert_eq!(cluster.partition("t", 0).leader_epoch, epoch + 1);
    let end = cluster.last_offset();
    after_five_minutes(&mut cluster, &mut periodic, &[1, 2]);
    assert_eq!(cluster.last_offset(), end, "nothing is left to do");
}

/// Rule: preferred-leader
#[test]
fn preferred_elections_need_auto_leader_rebalance() {
    let mut cluster = led_by_second(Vec::new());
    let off = [(
        "auto.leader.rebalance.enable".to_owned(),
        "false".to_owned(),
    )];
    cluster.settings.config = Arc::new(Config::load(None, &off).expect("valid"));
    let mut periodic = Periodic::start(&cluster.settings, cluster.now_ms);
    rejoin(&mut cluster, 1);
    after_five_minutes(&mut cluster, &mut periodic, &[1, 2]);
    assert_eq!(cluster.partition("t", 0).leader, 2);
}

#[test]
fn nothing_is_due_before_the_interval() {
    let cluster = led_by_second(Vec::new());
    let periodic = Periodic::start(&cluster.settings, 7);
    assert_eq!(periodic.next_ms(), 7 + MINUTES_5_MS);
}

/// Rule: unclean-election
#[test]
fn leaderless_partitions_get_an_unclean_leader_where_the_topic_allows_it() {
    let mut cluster = led_by_second(Vec::new());
    let mut periodic = Periodic::start(&cluster.settings, cluster.now_ms);
    cluster.fence(2);
    let epoch = cluster.epoch(1);
    cluster.heartbeat(1, epoch, |request| request);
    after_five_minutes(&mut cluster, &mut periodic, &[1]);
    assert_eq!(cluster.partition("t", 0).leader, NO_LEADER, "not allowed");
    let allow = crate::protocol::metadata_records::ConfigRecord {
        resource_type: 2,
        resource_name: "t".into(),
        name: "unclean.leader.election.enable".into(),
        value: Some("true".into()),
    };
    cluster.commit(vec![allow.into()]);
    after_five_minutes(&mut cluster, &mut periodic, &[1]);
    let partition = cluster.partition("t", 0);
    assert_eq!((partition.leader, &partition.isr[..]), (1, &[1][..]));
    assert_eq!(
        partition.leader_recovery_state,
        LeaderRecoveryState::Recovering
    );
}
