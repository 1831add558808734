//! Between a leader and a follower: fetches, what they tell the leader, appending and cutting on the follower. The shells of
//! `partition/replication.rs` and `replica`, over the simulated log.

use super::bug::Bug;
use super::messages::{FetchPartition, Fetched, Message, RequestId, Timer};
use super::oracle::Checked;
use super::replica_log::{Entry, ReplicaLog};
use super::world::World;
use super::{NodeId, PartitionIndex};
use crate::partition::{
    Effects, FollowerFetch, OutOfRange, PartitionState, diverging_epoch, out_of_range, truncation,
};
use crate::protocol::ErrorCode;
use crate::types::NO_LEADER_EPOCH;

/// Entries of one answer.
const FETCH_MAX: usize = 8;
const FETCH_TIMEOUT_MS: i64 = 150;
/// Rest between fetches that bring nothing.
const IDLE_MS: i64 = 12;

impl World {
    pub(super) fn on_fetch_timer(&mut self, node: NodeId, leader: NodeId) {
        self.schedule_timer(node, IDLE_MS, Timer::Fetch(leader));
        self.fetch(node, leader);
    }

    pub(super) fn fetch(&mut self, node: NodeId, leader: NodeId) {
        let now_ms = self.now_ms;
        let Some(broker) = self.broker(node) else {
            return;
        };
        let waits = broker.fetches.get(&leader);
        if waits.is_some_and(|(_, sent_ms)| sent_ms + FETCH_TIMEOUT_MS > now_ms) {
            return;
        }
        let Some(broker_epoch) = broker.epoch else {
            return;
        };
        let mut partitions = Vec::new();
        for index in 0..self.plan.partitions {
            partitions.extend(self.fetch_of(node, leader, index));
        }
        if partitions.is_empty() {
            return;
        }
        if let Some(broker) = self.broker_mut(node) {
            let request = broker.next_request();
            broker.fetches.insert(leader, (request, now_ms));
            let message = Message::Fetch {
                request,
                broker_epoch,
                partitions,
            };
            self.send(node, leader, message);
        }
    }

    fn fetch_of(
        &mut self,
        node: NodeId,
        leader: NodeId,
        partition: PartitionIndex,
    ) -> Option<FetchPartition> {
        let tells_epoch = self.plan.bug != Some(Bug::IgnoresDivergence);
        let (state, log) = self.state_and_log(node, partition)?;
        (state.leader() == leader).then(|| FetchPartition {
            partition,
            leader_epoch: state.leader_epoch(),
            fetch_offset: log.next_offset(),
            last_fetched_epoch: if tells_epoch {
                log.last_epoch()
            } else {
                NO_LEADER_EPOCH
            },
        })
    }

    pub(super) fn on_fetch(
        &mut self,
        node: NodeId,
        follower: NodeId,
        request: RequestId,
        broker_epoch: i64,
        partitions: Vec<FetchPartition>,
    ) -> Checked {
        let now_ms = self.local_ms(node);
        let bug = self.plan.bug;
        let mut answers = Vec::with_capacity(partitions.len());
        for asked in partitions {
            let mut fetch = FollowerFetch {
                replica_id: follower,
                broker_epoch,
                fetch_offset: asked.fetch_offset,
                log_start_offset: 0,
                now_ms,
            };
            let mut answer = Fetched::Refused;
            self.with_partition(node, asked.partition, |state, log| {
                if bug == Some(Bug::CountsFetchersAsCaughtUp) {
                    fetch.fetch_offset = log.next_offset();
                }
                let (read, effects) = read_as_leader(state, log, &asked, &fetch);
                answer = read;
                effects
            })?;
            answers.push((asked, answer));
        }
        let message = Message::Fetched {
            request,
            partitions: answers,
        };
        self.send(node, follower, message);
        Ok(())
    }

    pub(super) fn on_fetched(
        &mut self,
        node: NodeId,
        leader: NodeId,
        request: RequestId,
        partitions: Vec<(FetchPartition, Fetched)>,
    ) -> Checked {
        let Some(broker) = self.broker_mut(node) else {
            return Ok(());
        };
        if broker
            .fetches
            .get(&leader)
            .is_none_or(|(id, _)| *id != request)
        {
            return Ok(());
        }
        broker.fetches.remove(&leader);
        let mut moves_on = false;
        for (asked, fetched) in partitions {
            moves_on |= !matches!(&fetched, Fetched::Records { entries, .. } if entries.is_empty());
            self.take_fetched(node, asked, fetched)?;
        }
        if moves_on {
            self.schedule_timer(node, 1, Timer::FetchMore(leader));
        }
        Ok(())
    }

    fn take_fetched(&mut self, node: NodeId, asked: FetchPartition, fetched: Fetched) -> Checked {
        let bug = self.plan.bug;
        let keeps_producers = bug != Some(Bug::FollowersForgetProducers);
        let mut cut = None;
        self.with_partition(node, asked.partition, |state, log| {
            let stale = state.is_leader()
                || state.leader_epoch() != asked.leader_epoch
                || log.next_offset() != asked.fetch_offset;
            if stale && bug != Some(Bug::AppendsStaleFetches) {
                return Effects::default();
            }
            match fetched {
                Fetched::Records {
                    entries,
                    high_watermark,
                } => {
                    append(state, log, &asked, &entries, keeps_producers);
                    let moved = state.on_replicated(high_watermark, log.next_offset());
                    return Effects {
                        high_watermark_moved: moved,
                        ..Effects::default()
                    };
                }
                Fetched::Diverging(end) => {
                    let next_offset = log.next_offset();
                    let own_end = |epoch| log.epochs.end_offset_for(epoch, next_offset);
                    cut =
                        Some(truncation(end, own_end, next_offset, state.high_watermark()).offset);
                }
                Fetched::OutOfRange(leader_end) => {
                    if let OutOfRange::TruncateTo(offset) =
                        out_of_range(log.next_offset(), 0, leader_end)
                    {
                        cut = Some(offset);
                    }
                }
                Fetched::Refused => {}
            }
            if let Some(offset) = cut {
                log.truncate_to(offset);
                state.clamp_high_watermark(0, log.next_offset());
            }
            Effects::default()
        })?;
        if let Some(offset) = cut {
            self.note(format_args!("{node} cuts {} at {offset}", asked.partition));
        }
        Ok(())
    }
}

/// As `Partition::read_as_leader`.
fn read_as_leader(
    state: &mut PartitionState,
    log: &ReplicaLog,
    asked: &FetchPartition,
    fetch: &FollowerFetch,
) -> (Fetched, Effects) {
    let refused = (Fetched::Refused, Effects::default());
    let checked = state
        .check_leader(asked.leader_epoch)
        .and_then(|()| state.check_replica(fetch.replica_id, fetch.broker_epoch));
    if checked.is_err() {
        return refused;
    }
    let next_offset = log.next_offset();
    if asked.fetch_offset > next_offset {
        return (Fetched::OutOfRange(next_offset), Effects::default());
    }
    if asked.last_fetched_epoch >= 0 {
        let found = diverging_epoch(
            &log.epochs,
            (0, next_offset),
            asked.fetch_offset,
            asked.last_fetched_epoch,
        );
        match found {
            Ok(Some(end)) => return (Fetched::Diverging(end), Effects::default()),
            Ok(None) => {}
            Err(error) if error.code == ErrorCode::OffsetOutOfRange => {
                return (Fetched::OutOfRange(next_offset), Effects::default());
            }
            Err(_) => return refused,
        }
    }
    let entries = &log.entries()[asked.fetch_offset as usize..];
    let entries = entries[..entries.len().min(FETCH_MAX)].to_vec();
    let effects = state.on_follower_fetch(fetch, next_offset);
    let high_watermark = state.high_watermark();
    let records = Fetched::Records {
        entries,
        high_watermark,
    };
    (records, effects)
}

fn append(
    state: &PartitionState,
    log: &mut ReplicaLog,
    asked: &FetchPartition,
    entries: &[Entry],
    keeps_producers: bool,
) {
    if state.is_leader() || log.next_offset() != asked.fetch_offset {
        return;
    }
    // Batches of later epochs are not for a follower of this one (KAFKA-18723).
    for entry in entries {
        if entry.leader_epoch > asked.leader_epoch {
            return;
        }
        log.append(*entry, keeps_producers);
    }
}
