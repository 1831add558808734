//! Between a leader and a follower: fetches in sessions (KIP-227), what they tell the leader, appending and cutting on the follower.
//! The shells of `partition/replication.rs`, `replica` and the Fetch handler, over the simulated log.

use super::bug::Bug;
use super::messages::{FetchRequest, FetchResponse, Fetched, Message, RequestId, Timer};
use super::oracle::{Checked, Violation};
use super::replica_log::{Entry, ReplicaLog};
use super::world::World;
use super::{NodeId, PartitionIndex};
use crate::partition::{
    Effects, FollowerFetch, FollowerPosition, OutOfRange, PartitionState, diverging_epoch,
    out_of_range, truncation,
};
use crate::protocol::ErrorCode;
use crate::replica::{
    FetchContext, PartitionKey, Positions, SessionKey, SessionRequest, TopicRef, Wanted,
};
use crate::types::{NO_LEADER_EPOCH, Uuid};

/// Of the one topic, in sessions.
const TOPIC_ID: Uuid = Uuid::from_u128(7);

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
        let waits = broker.fetches.get(&leader).map(|(_, sent_ms)| *sent_ms);
        if waits.is_some_and(|sent_ms| sent_ms + FETCH_TIMEOUT_MS > now_ms) {
            return;
        }
        let Some(broker_epoch) = broker.epoch else {
            return;
        };
        let mut positions = Positions::new();
        for index in 0..self.plan.partitions {
            let position = self.position(node, leader, index);
            positions.extend(position.map(|position| ((TOPIC_ID, index), position)));
        }
        let Some(broker) = self.broker_mut(node) else {
            return;
        };
        let session = broker.sessions.entry(leader).or_default();
        if waits.is_some() || positions.is_empty() {
            // The connection is given up, and with it the session.
            session.forget();
        }
        if positions.is_empty() {
            return;
        }
        let session = session.next(positions);
        let request = broker.next_request();
        broker.fetches.insert(leader, (request, now_ms));
        let message = FetchRequest {
            broker_epoch,
            session,
        };
        self.send(node, leader, Message::Fetch(request, message));
    }

    fn position(
        &mut self,
        node: NodeId,
        leader: NodeId,
        partition: PartitionIndex,
    ) -> Option<FollowerPosition> {
        let tells_epoch = self.plan.bug != Some(Bug::IgnoresDivergence);
        let (state, log) = self.state_and_log(node, partition)?;
        (state.leader() == leader).then(|| FollowerPosition {
            leader,
            leader_epoch: state.leader_epoch(),
            fetch_offset: log.next_offset(),
            last_fetched_epoch: if tells_epoch {
                log.last_epoch()
            } else {
                NO_LEADER_EPOCH
            },
            log_start_offset: 0,
        })
    }

    pub(super) fn on_fetch(
        &mut self,
        node: NodeId,
        follower: NodeId,
        request: RequestId,
        fetch: FetchRequest,
    ) -> Checked {
        let context = match self.fetch_context(node, fetch.session) {
            Ok(context) => context,
            Err(code) => {
                self.send(node, follower, Message::Fetched(request, Err(code)));
                return Ok(());
            }
        };
        let mut partitions = Vec::with_capacity(context.wanted().len());
        for (key, wanted) in context.wanted() {
            let answer = self.read_for(node, follower, fetch.broker_epoch, key.1, wanted)?;
            let (is_plain, size_bytes, high_watermark) = match &answer {
                Fetched::Records {
                    entries,
                    high_watermark,
                } => (true, entries.len(), *high_watermark),
                _ => (false, 0, -1),
            };
            if context.must_answer(key, !is_plain, size_bytes, high_watermark, 0) {
                partitions.push((key.1, answer));
            }
        }
        let response = FetchResponse {
            session_id: context.session_id(),
            partitions,
        };
        self.send(node, follower, Message::Fetched(request, Ok(response)));
        Ok(())
    }

    fn fetch_context(
        &mut self,
        node: NodeId,
        session: SessionRequest,
    ) -> Result<FetchContext, ErrorCode> {
        let now_ms = self.local_ms(node);
        let mut random = self.rng.next_u64() as i32;
        let key = |(_, index): SessionKey| -> PartitionKey { (TopicRef::Id(TOPIC_ID), index) };
        let changed = session.changed.into_iter();
        let changed = changed.map(|(of, position)| (key(of), wanted(&position)));
        let forgotten: Vec<_> = session.forgotten.into_iter().map(key).collect();
        let broker = self.broker(node).ok_or(ErrorCode::BrokerNotAvailable)?;
        let next_id = || {
            random = random.wrapping_add(1);
            random
        };
        let (id, epoch) = (session.id, session.epoch);
        let cache = &broker.session_cache;
        cache.context(
            id,
            epoch,
            true,
            changed.collect(),
            &forgotten,
            now_ms,
            next_id,
        )
    }

    fn read_for(
        &mut self,
        node: NodeId,
        follower: NodeId,
        broker_epoch: i64,
        index: PartitionIndex,
        wanted: &Wanted,
    ) -> Result<Fetched, Violation> {
        let counts_as_caught_up = self.plan.bug == Some(Bug::CountsFetchersAsCaughtUp);
        let mut fetch = FollowerFetch {
            replica_id: follower,
            broker_epoch,
            fetch_offset: wanted.fetch_offset,
            log_start_offset: wanted.log_start_offset,
            now_ms: self.local_ms(node),
        };
        let mut answer = Fetched::Refused;
        self.with_partition(node, index, |state, log| {
            if counts_as_caught_up {
                fetch.fetch_offset = log.next_offset();
            }
            let (read, effects) = read_as_leader(state, log, wanted, &fetch);
            answer = read;
            effects
        })?;
        Ok(answer)
    }

    pub(super) fn on_fetched(
        &mut self,
        node: NodeId,
        leader: NodeId,
        request: RequestId,
        response: Result<FetchResponse, ErrorCode>,
    ) -> Checked {
        let mispairs = self.plan.bug == Some(Bug::PairsFetchedByOrder);
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
        let session = broker.sessions.entry(leader).or_default();
        let response = match response {
            Ok(response) => response,
            Err(code) => {
                match code {
                    ErrorCode::FetchSessionIdNotFound => session.forget(),
                    _ => session.reset(),
                }
                self.schedule_timer(node, 1, Timer::FetchMore(leader));
                return Ok(());
            }
        };
        session.answered(response.session_id);
        let mut taken = Vec::with_capacity(response.partitions.len());
        for (nth, (index, fetched)) in response.partitions.into_iter().enumerate() {
            let index = if mispairs { nth as i32 } else { index };
            if let Some(asked) = session.asked((TOPIC_ID, index)) {
                taken.push((index, *asked, fetched));
            }
        }
        let mut moves_on = false;
        for (index, asked, fetched) in taken {
            moves_on |= !matches!(&fetched, Fetched::Records { entries, .. } if entries.is_empty());
            self.take_fetched(node, index, asked, fetched)?;
        }
        if moves_on {
            self.schedule_timer(node, 1, Timer::FetchMore(leader));
        }
        Ok(())
    }

    fn take_fetched(
        &mut self,
        node: NodeId,
        index: PartitionIndex,
        asked: FollowerPosition,
        fetched: Fetched,
    ) -> Checked {
        let bug = self.plan.bug;
        let keeps_producers = bug != Some(Bug::FollowersForgetProducers);
        let mut cut = None;
        self.with_partition(node, index, |state, log| {
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
            self.note(format_args!("{node} cuts {index} at {offset}"));
        }
        Ok(())
    }
}

fn wanted(position: &FollowerPosition) -> Wanted {
    Wanted {
        fetch_offset: position.fetch_offset,
        current_leader_epoch: position.leader_epoch,
        last_fetched_epoch: position.last_fetched_epoch,
        log_start_offset: position.log_start_offset,
        size_bytes_max: i32::MAX,
        was_served: false,
    }
}

/// As `Partition::read_as_leader`.
fn read_as_leader(
    state: &mut PartitionState,
    log: &ReplicaLog,
    asked: &Wanted,
    fetch: &FollowerFetch,
) -> (Fetched, Effects) {
    let refused = (Fetched::Refused, Effects::default());
    let checked = state
        .check_leader(asked.current_leader_epoch)
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
    asked: &FollowerPosition,
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
