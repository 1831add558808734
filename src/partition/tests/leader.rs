//! A leader's rules over its pure state: high watermark, ISR, epochs.

use crate::metadata::PartitionRegistration;
use crate::partition::state::{PartitionState, ReplicationRules, Transition};
use crate::partition::{CommittedIsr, Effects, FollowerFetch, IsrProposal};
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, LeaderEpoch, Offset};

const LAG_MAX_MS: i64 = 30_000;

/// Broker 1 with its log's end; brokers 2 and 3 follow.
struct Cluster {
    state: PartitionState,
    next_offset: Offset,
    now_ms: i64,
    /// Active brokers and their epochs.
    active: Vec<(BrokerId, i64)>,
    registration: PartitionRegistration,
}

impl Cluster {
    /// Broker 1 leads in epoch 5 with ISR `isr`; its log ends at `next_offset`.
    fn led(isr: &[BrokerId], next_offset: Offset, high_watermark: Offset, min_isr: usize) -> Self {
        let rules = ReplicationRules {
            min_insync_replicas: min_isr,
            replica_lag_time_max_ms: LAG_MAX_MS,
        };
        let mut cluster = Self {
            state: PartitionState::new(1, high_watermark, rules),
            next_offset,
            now_ms: 1_000_000,
            active: vec![(1, 10), (2, 20), (3, 30)],
            registration: registration(1, 5, 9, isr),
        };
        let transition = cluster.register();
        assert_eq!(transition, Transition::Leader { is_new_epoch: true });
        cluster
    }

    fn register(&mut self) -> Transition {
        let active = self.active.clone();
        let epoch = |id| {
            active
                .iter()
                .find(|(a, _)| *a == id)
                .map(|(_, epoch)| *epoch)
        };
        self.state
            .apply(&self.registration, self.next_offset, self.now_ms, &epoch)
    }

    fn set_active(&mut self, active: &[(BrokerId, i64)]) {
        let epoch = |id| {
            active
                .iter()
                .find(|(a, _)| *a == id)
                .map(|(_, epoch)| *epoch)
        };
        self.state.on_brokers_changed(self.next_offset, &epoch);
    }

    fn fetch(&mut self, id: BrokerId, fetch_offset: Offset) -> Effects {
        self.fetch_as(id, i64::from(id) * 10, fetch_offset)
            .expect("a follower")
    }

    fn fetch_as(
        &mut self,
        replica_id: BrokerId,
        broker_epoch: i64,
        fetch_offset: Offset,
    ) -> Result<Effects, ErrorCode> {
        let fetch = FollowerFetch {
            replica_id,
            broker_epoch,
            fetch_offset,
            log_start_offset: 0,
            now_ms: self.now_ms,
        };
        let refused = self.state.check_replica(replica_id, broker_epoch);
        let effects = self.state.on_follower_fetch(&fetch, self.next_offset);
        refused.map(|()| effects).map_err(|error| error.code)
    }

    fn append(&mut self, next_offset: Offset) -> Offset {
        self.next_offset = next_offset;
        self.state.on_append(next_offset);
        self.state.high_watermark()
    }

    fn tick_after(&mut self, ms: i64) -> Effects {
        self.now_ms += ms;
        self.state.on_tick(self.next_offset, self.now_ms)
    }

    fn answer(
        &mut self,
        proposal: &IsrProposal,
        answer: Result<&[BrokerId], ErrorCode>,
    ) -> Effects {
        let committed = answer.map(|isr| CommittedIsr {
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch + 1,
            isr: isr.to_vec(),
        });
        self.state.on_alter_partition(
            proposal,
            committed.as_ref().map_err(|c| *c),
            self.next_offset,
        )
    }
}

fn registration(
    leader: BrokerId,
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    isr: &[BrokerId],
) -> PartitionRegistration {
    PartitionRegistration {
        replicas: vec![1, 2, 3],
        isr: isr.to_vec(),
        leader,
        leader_epoch,
        partition_epoch,
        ..PartitionRegistration::default()
    }
}

fn members(proposal: &IsrProposal) -> Vec<(BrokerId, i64)> {
    proposal.isr.clone()
}

/// Rule: high-watermark
#[test]
fn high_watermark_is_the_least_log_end_of_the_isr() {
    let mut cluster = Cluster::led(&[1, 2, 3], 100, 40, 1);
    assert_eq!(cluster.append(110), 40, "followers have not shown up");
    assert!(!cluster.fetch(2, 90).high_watermark_moved);
    assert!(cluster.fetch(3, 70).high_watermark_moved);
    assert_eq!(cluster.state.high_watermark(), 70);
    cluster.fetch(3, 110);
    assert_eq!(cluster.state.high_watermark(), 90);
}

/// Rule: high-watermark
#[test]
fn high_watermark_never_goes_back() {
    let mut cluster = Cluster::led(&[1, 2], 100, 80, 1);
    cluster.fetch(2, 60);
    assert_eq!(cluster.state.high_watermark(), 80);
}

/// Rule: high-watermark, acks-all
#[test]
fn high_watermark_stands_while_the_isr_is_below_min_insync_replicas() {
    // KIP-966: what is acknowledged is on min.insync.replicas brokers.
    let mut cluster = Cluster::led(&[1], 100, 40, 2);
    assert_eq!(cluster.append(120), 40);
    assert_eq!(
        cluster.state.check_in_sync().unwrap_err().code,
        ErrorCode::NotEnoughReplicas
    );
    let proposal = cluster.fetch(2, 120).proposal.expect("caught up");
    assert_eq!(cluster.state.high_watermark(), 40, "not yet confirmed");
    let effects = cluster.answer(&proposal, Ok(&[1, 2]));
    assert!(effects.high_watermark_moved);
    assert_eq!(cluster.state.high_watermark(), 120);
    assert!(cluster.state.check_in_sync().is_ok());
}

/// Rule: high-watermark
#[test]
fn min_insync_replicas_is_never_more_than_the_replication_factor() {
    let mut cluster = Cluster::led(&[1, 2, 3], 100, 100, 7);
    assert_eq!(cluster.state.effective_min_isr(), 3);
    assert!(cluster.state.check_in_sync().is_ok());
    cluster.fetch(2, 100);
}

/// Rule: high-watermark, isr-shrink
#[test]
fn high_watermark_waits_for_a_joining_replica_and_keeps_a_leaving_one() {
    let mut cluster = Cluster::led(&[1, 2], 100, 100, 1);
    cluster.fetch(2, 100);
    cluster.fetch(3, 100).proposal.expect("3 joins");
    cluster.append(120);
    cluster.fetch(2, 120);
    assert_eq!(
        cluster.state.high_watermark(),
        100,
        "3 counts before the answer"
    );
    cluster.fetch(3, 115);
    assert_eq!(cluster.state.high_watermark(), 115);

    let mut cluster = Cluster::led(&[1, 2], 100, 100, 1);
    cluster.append(120);
    let proposal = cluster
        .tick_after(LAG_MAX_MS + 1)
        .proposal
        .expect("2 leaves");
    assert_eq!(members(&proposal), [(1, -1)]);
    assert_eq!(
        cluster.state.high_watermark(),
        100,
        "2 counts until it is out"
    );
    assert!(cluster.answer(&proposal, Ok(&[1])).high_watermark_moved);
    assert_eq!(cluster.state.high_watermark(), 120);
}

/// Rule: high-watermark
#[test]
fn high_watermark_waits_for_a_caught_up_replica_that_may_join() {
    let mut cluster = Cluster::led(&[1], 100, 100, 1);
    // Below the epoch's start, so not yet in sync, but within the lag time by its last fetch at the end.
    cluster.fetch(3, 100);
    cluster.append(110);
    assert_eq!(cluster.state.high_watermark(), 100);
    // A broker on its way out is not waited for (KIP-841).
    cluster.set_active(&[(1, 10), (2, 20)]);
    let proposal = cluster
        .state
        .isr()
        .proposal()
        .cloned()
        .expect("3 was to join");
    cluster.answer(&proposal, Err(ErrorCode::IneligibleReplica));
    assert_eq!(cluster.append(111), 111);
}

/// Rule: isr-expand
#[test]
fn isr_expands_by_a_follower_at_high_watermark_and_epoch_start_only() {
    // (high watermark, log end = epoch start, fetch offset, joins)
    for (high_watermark, epoch_start, fetch_offset, joins) in [
        (40, 100, 39, false),
        (40, 100, 40, false), // S11: at a stale high watermark, below the start of this leader's epoch
        (40, 100, 99, false),
        (40, 100, 100, true),
        (100, 100, 100, true),
    ] {
        let mut cluster = Cluster::led(&[1, 2], epoch_start, high_watermark, 1);
        let proposal = cluster.fetch(3, fetch_offset).proposal;
        assert_eq!(proposal.is_some(), joins, "{high_watermark} {fetch_offset}");
        if let Some(proposal) = proposal {
            assert_eq!(members(&proposal), [(1, -1), (2, -1), (3, 30)]);
        }
    }
}

/// Rule: isr-expand
#[test]
fn isr_takes_no_fenced_or_leaving_broker_and_no_other_incarnation() {
    let mut cluster = Cluster::led(&[1], 100, 100, 1);
    cluster.set_active(&[(1, 10), (2, 21)]);
    assert_eq!(
        cluster.fetch(3, 100).proposal,
        None,
        "fenced or shutting down"
    );
    assert_eq!(
        cluster.fetch(2, 100).proposal,
        None,
        "registered as 21, fetches as 20"
    );
    let joined = cluster.fetch_as(2, 21, 100).unwrap().proposal;
    assert!(joined.is_some());
}

/// Rule: isr-expand
#[test]
fn fetch_of_an_older_incarnation_or_a_stranger_is_refused() {
    // KIP-903: a fetch that was under way while its broker restarted says nothing of the new incarnation.
    let mut cluster = Cluster::led(&[1, 2, 3], 100, 100, 1);
    cluster.fetch_as(2, 20, 50).unwrap();
    let refused = cluster.fetch_as(2, 19, 100).unwrap_err();
    assert_eq!(refused, ErrorCode::NotLeaderOrFollower);
    assert_eq!(cluster.state.remotes()[0].log_end_offset, 50);
    let refused = cluster.fetch_as(4, 40, 100).unwrap_err();
    assert_eq!(refused, ErrorCode::UnknownLeaderEpoch);
    assert!(
        cluster.fetch_as(2, -1, 60).is_ok(),
        "below v15 there is no epoch"
    );
}

/// Rule: isr-shrink
#[test]
fn isr_shrinks_by_lag_time_and_not_by_messages() {
    let mut cluster = Cluster::led(&[1, 2, 3], 100, 100, 1);
    cluster.append(1_000_000);
    assert_eq!(cluster.tick_after(LAG_MAX_MS).proposal, None);
    // 2 is never at the end, but at each fetch where the log ended at its last one.
    for round in 1..=3 {
        cluster.fetch(2, 1_000_000 * round);
        cluster.append(1_000_000 * (round + 1));
        cluster.now_ms += LAG_MAX_MS / 2;
    }
    let proposal = cluster.tick_after(0).proposal.expect("3 never fetched");
    assert_eq!(members(&proposal), [(1, -1), (2, 20)]);
}

/// Rule: isr-shrink
#[test]
fn follower_at_the_log_end_never_lags() {
    let mut cluster = Cluster::led(&[1, 2, 3], 100, 100, 1);
    cluster.fetch(2, 100);
    cluster.fetch(3, 100);
    assert_eq!(cluster.tick_after(100 * LAG_MAX_MS).proposal, None);
}

/// Rule: one-alter-partition
#[test]
fn one_alter_partition_is_in_flight() {
    let mut cluster = Cluster::led(&[1], 100, 100, 1);
    let proposal = cluster.fetch(2, 100).proposal.expect("2 joins");
    assert_eq!(cluster.fetch(3, 100).proposal, None);
    assert_eq!(cluster.fetch(2, 100).proposal, None);
    assert_eq!(cluster.tick_after(2 * LAG_MAX_MS).proposal, None);
    cluster.answer(&proposal, Ok(&[1, 2]));
    let next = cluster.fetch(3, 100).proposal.expect("3 joins after it");
    assert_eq!(next.partition_epoch, proposal.partition_epoch + 1);
    assert_eq!(members(&next), [(1, -1), (2, 20), (3, 30)]);
}

/// Rule: one-alter-partition
#[test]
fn errors_of_alter_partition() {
    // (error, in flight afterwards, sent again)
    for (code, in_flight, again) in [
        (ErrorCode::IneligibleReplica, false, false),
        (ErrorCode::OperationNotAttempted, false, false),
        (ErrorCode::UnknownTopicOrPartition, true, false),
        (ErrorCode::UnknownTopicId, true, false),
        (ErrorCode::FencedLeaderEpoch, true, false),
        (ErrorCode::InvalidUpdateVersion, true, false),
        (ErrorCode::InvalidRequest, true, false),
        (ErrorCode::NewLeaderElected, true, false),
        (ErrorCode::UnknownServerError, true, true),
        (ErrorCode::RequestTimedOut, true, true),
    ] {
        let mut cluster = Cluster::led(&[1], 100, 100, 1);
        let proposal = cluster.fetch(2, 100).proposal.expect("2 joins");
        let effects = cluster.answer(&proposal, Err(code));
        assert_eq!(cluster.state.isr().is_in_flight(), in_flight, "{code:?}");
        assert_eq!(
            effects.proposal.as_ref(),
            again.then_some(&proposal),
            "{code:?}"
        );
        // The metadata ends every request.
        cluster.registration = registration(1, 5, 10, &[1, 2]);
        cluster.register();
        assert!(!cluster.state.isr().is_in_flight());
        assert_eq!(cluster.state.isr().committed(), [1, 2]);
    }
}

/// Rule: one-alter-partition
#[test]
fn answers_to_other_proposals_are_ignored() {
    let mut cluster = Cluster::led(&[1], 100, 100, 1);
    let proposal = cluster.fetch(2, 100).proposal.expect("2 joins");
    // A new leader epoch of the same leader voids what was in flight.
    cluster.registration = registration(1, 6, 10, &[1]);
    cluster.register();
    cluster.answer(&proposal, Ok(&[1, 2]));
    assert_eq!(cluster.state.isr().committed(), [1]);
    assert_eq!(cluster.state.partition_epoch(), 10);
    // Nor does the registration that our own answer told undo the next proposal.
    let proposal = cluster.fetch(2, 100).proposal.expect("2 joins");
    cluster.answer(&proposal, Ok(&[1, 2]));
    let next = cluster.fetch(3, 100).proposal.expect("3 joins");
    cluster.registration = registration(1, 6, 11, &[1, 2]);
    cluster.register();
    assert_eq!(cluster.state.isr().proposal(), Some(&next));
}

/// Rule: older-registration
#[test]
fn older_partition_epoch_is_ignored() {
    let mut cluster = Cluster::led(&[1, 2], 100, 100, 1);
    for (leader, leader_epoch, partition_epoch) in [(2, 5, 8), (1, 4, 7), (2, 4, 20)] {
        cluster.registration = registration(leader, leader_epoch, partition_epoch, &[leader]);
        assert_eq!(cluster.register(), Transition::Stale);
        assert!(cluster.state.is_leader());
        assert_eq!(cluster.state.partition_epoch(), 9);
    }
}

/// Rule: new-epoch
#[test]
fn new_leader_forgets_its_followers_and_keeps_the_high_watermark() {
    let mut cluster = Cluster::led(&[1, 2], 100, 80, 1);
    cluster.fetch(2, 100);
    cluster.registration = registration(2, 6, 10, &[1, 2]);
    assert_eq!(
        cluster.register(),
        Transition::Follower { is_new_epoch: true }
    );
    assert_eq!(
        cluster.fetch_as(2, 20, 100),
        Err(ErrorCode::NotLeaderOrFollower)
    );
    cluster.registration = registration(1, 7, 11, &[1, 2]);
    assert_eq!(
        cluster.register(),
        Transition::Leader { is_new_epoch: true }
    );
    assert_eq!(cluster.state.high_watermark(), 100);
    cluster.append(120);
    assert_eq!(
        cluster.state.high_watermark(),
        100,
        "2 has not fetched in this epoch"
    );
    assert_eq!(
        cluster.tick_after(LAG_MAX_MS).proposal,
        None,
        "2 has the whole lag time"
    );
    assert!(cluster.tick_after(1).proposal.is_some());
}

#[test]
fn leader_that_stays_keeps_what_followers_told() {
    let mut cluster = Cluster::led(&[1, 2], 100, 80, 1);
    cluster.fetch(2, 90);
    cluster.registration = registration(1, 6, 10, &[1, 2]);
    cluster.register();
    assert_eq!(cluster.state.remotes()[0].log_end_offset, 90);
}

/// Found by the simulator: between two epochs of one leader, of which it saw no other in between, a follower had followed
/// another leader and cut its log.
/// Rule: new-epoch
#[test]
fn leader_that_missed_epochs_forgets_its_followers() {
    let mut cluster = Cluster::led(&[1, 2, 3], 28, 27, 2);
    cluster.fetch(2, 28);
    cluster.registration = registration(1, 7, 11, &[1, 2]);
    assert_eq!(
        cluster.register(),
        Transition::Leader { is_new_epoch: true }
    );
    assert_eq!(cluster.state.high_watermark(), 27, "2 may have cut");
    cluster.fetch(2, 28);
    assert_eq!(cluster.state.high_watermark(), 28);
}

/// Rule: follower-high-watermark
#[test]
fn offsets_are_not_available_until_the_epoch_start_is_committed() {
    // KIP-207
    let mut cluster = Cluster::led(&[1, 2], 100, 80, 1);
    let refused = cluster.state.check_offsets_known().unwrap_err();
    assert_eq!(refused.code, ErrorCode::OffsetNotAvailable);
    cluster.fetch(2, 99);
    assert!(cluster.state.check_offsets_known().is_err());
    cluster.fetch(2, 100);
    assert!(cluster.state.check_offsets_known().is_ok());
}

#[test]
fn single_replica_commits_by_itself() {
    let mut cluster = Cluster::led(&[1], 100, 40, 1);
    cluster.registration = PartitionRegistration {
        replicas: vec![1],
        ..registration(1, 6, 10, &[1])
    };
    cluster.register();
    assert_eq!(cluster.state.high_watermark(), 100);
    assert_eq!(cluster.append(130), 130);
}

#[test]
fn clients_epochs_are_checked() {
    let cluster = Cluster::led(&[1], 0, 0, 1);
    for (epoch, expected) in [
        (-1, None),
        (5, None),
        (4, Some(ErrorCode::FencedLeaderEpoch)),
        (6, Some(ErrorCode::UnknownLeaderEpoch)),
    ] {
        let refused = cluster
            .state
            .check_leader(epoch)
            .err()
            .map(|error| error.code);
        assert_eq!(refused, expected, "{epoch}");
    }
}

/// Rule: follower-high-watermark
#[test]
fn follower_takes_the_leaders_high_watermark_inside_its_own_log() {
    let mut cluster = Cluster::led(&[1, 2], 100, 80, 1);
    cluster.registration = registration(2, 6, 10, &[1, 2]);
    cluster.register();
    assert!(
        !cluster.state.on_append(200),
        "a follower does not move it by itself"
    );
    assert!(cluster.state.on_replicated(90, 100));
    assert!(cluster.state.on_replicated(500, 100));
    assert_eq!(cluster.state.high_watermark(), 100);
    // S13: a new leader that has yet to learn it does not take committed records from readers here.
    assert!(!cluster.state.on_replicated(50, 100));
    assert_eq!(cluster.state.high_watermark(), 100);
    // An unclean election does: the records are gone.
    cluster.state.clamp_high_watermark(0, 60);
    assert_eq!(cluster.state.high_watermark(), 60);
}

/// Rule: follower-reads
#[test]
fn consumers_are_sent_to_the_least_lagging_replica_of_their_rack() {
    // KIP-392
    let mut cluster = Cluster::led(&[1, 2, 3], 100, 100, 1);
    cluster.fetch(2, 90);
    cluster.fetch(3, 95);
    let near = |ids: &'static [BrokerId]| move |id: BrokerId| ids.contains(&id);
    for (offset, ids, expected) in [
        (50, &[2, 3][..], Some(3)),
        (50, &[2], Some(2)),
        (92, &[2], None),    // it does not have that yet
        (50, &[1, 2], None), // the leader is as near
        (50, &[], None),
    ] {
        let preferred = cluster.state.preferred_read_replica(offset, &near(ids));
        assert_eq!(preferred, expected, "{offset} {ids:?}");
    }
}

/// DeleteRecords waited for a broker that had just been fenced until its timeout.
#[test]
fn low_watermark_is_that_of_active_brokers_only() {
    let mut cluster = Cluster::led(&[1, 2, 3], 100, 100, 1);
    cluster.fetch(2, 100);
    cluster.fetch(3, 100);
    assert_eq!(cluster.state.low_watermark(50), 0);
    cluster.set_active(&[(1, 10)]);
    assert_eq!(cluster.state.low_watermark(50), 50);
}
