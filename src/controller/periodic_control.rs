//! What the active controller does on timers: leadership goes back to preferred replicas, and leaderless partitions of topics
//! that allow it get an unclean leader (`maybeBalancePartitionLeaders`, `maybeElectUncleanLeaders` of Kafka's
//! `ReplicationControlManager`). The event loop calls [`Periodic::run`] when something is due.

use super::outcome::{Settings, Turn};
use super::partition_change::Election;
use super::partition_control::{build, elect_leader, topic_rules, without_leader};
use crate::metadata::{PartitionRegistration, TopicImage};
use crate::protocol::metadata_records::MetadataRecord;

/// Elections of one run; what is left follows at once (`MAX_ELECTIONS_PER_IMBALANCE`).
const ELECTIONS_MAX: usize = 1000;

/// When the next runs are due, in monotonic time.
#[derive(Clone, Copy, Debug)]
pub struct Periodic {
    /// `None` without `auto.leader.rebalance.enable`.
    balance_at_ms: Option<i64>,
    unclean_at_ms: i64,
}

impl Periodic {
    /// Everything is due one interval after this node became active.
    pub fn start(settings: &Settings, now_ms: i64) -> Self {
        let balances = settings.config.auto_leader_rebalance_enable;
        Self {
            balance_at_ms: balances.then(|| now_ms + balance_interval_ms(settings)),
            unclean_at_ms: now_ms + unclean_interval_ms(settings),
        }
    }

    /// When [`Periodic::run`] is due next.
    pub fn next_ms(&self) -> i64 {
        self.balance_at_ms
            .map_or(self.unclean_at_ms, |at| at.min(self.unclean_at_ms))
    }

    /// Does one of the tasks that are due.
    pub fn run(&mut self, turn: &Turn<'_>) -> Vec<MetadataRecord> {
        let next_ms = |records: &[MetadataRecord], interval_ms: i64| {
            let complete = records.len() < ELECTIONS_MAX;
            turn.now_ms + if complete { interval_ms } else { 0 }
        };
        if self.balance_at_ms.is_some_and(|at| at <= turn.now_ms) {
            let records = elect_preferred(turn);
            self.balance_at_ms = Some(next_ms(&records, balance_interval_ms(turn.settings)));
            return records;
        }
        if self.unclean_at_ms <= turn.now_ms {
            let records = elect_unclean(turn);
            self.unclean_at_ms = next_ms(&records, unclean_interval_ms(turn.settings));
            return records;
        }
        Vec::new()
    }
}

/// `leader.imbalance.check.interval.seconds`
fn balance_interval_ms(settings: &Settings) -> i64 {
    let seconds = settings.config.leader_imbalance_check_interval_seconds;
    seconds.max(1).saturating_mul(1000)
}

/// `unclean.leader.election.interval.ms`
fn unclean_interval_ms(settings: &Settings) -> i64 {
    settings.config.unclean_leader_election_interval_ms.max(1)
}

/// Partitions that another than their first replica leads.
fn elect_preferred(turn: &Turn<'_>) -> Vec<MetadataRecord> {
    let imbalanced = |p: &PartitionRegistration| p.leader != p.preferred_replica();
    let records = partitions(turn, imbalanced).filter_map(|(topic, index, partition)| {
        let mut change = topic_rules(turn, topic).change(turn, topic, index, partition);
        change.election = Election::Preferred;
        build(turn, partition, change).map(MetadataRecord::from)
    });
    records.take(ELECTIONS_MAX).collect()
}

/// Partitions without a leader whose topic has `unclean.leader.election.enable`.
fn elect_unclean(turn: &Turn<'_>) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for (topic, index, _) in partitions(turn, without_leader) {
        if topic_rules(turn, topic).election != Election::Unclean {
            continue;
        }
        match elect_leader(turn, &topic.name, index, Election::Unclean, &mut records) {
            Ok(()) => tracing::info!(
                topic = %topic.name,
                partition = index,
                "triggering unclean leader election for offline partition"
            ),
            Err(error) => tracing::warn!(
                topic = %topic.name,
                partition = index,
                %error,
                "cannot trigger unclean leader election for offline partition"
            ),
        }
        if records.len() >= ELECTIONS_MAX {
            break;
        }
    }
    records
}

fn partitions<'a>(
    turn: &Turn<'a>,
    wanted: impl Fn(&PartitionRegistration) -> bool + Copy + 'a,
) -> impl Iterator<Item = (&'a TopicImage, i32, &'a PartitionRegistration)> {
    turn.image.topics.iter().flat_map(move |topic| {
        let found = topic.partitions.iter().filter(move |(_, p)| wanted(p));
        found.map(move |(index, partition)| (topic, *index, &**partition))
    })
}
