//! Consumers: each reads one partition from its beginning, from the leader or from any other replica (KIP-392), and must see what is
//! committed, in order and without a gap.

use super::bug::Bug;
use super::client::{KnownLeader, client_id};
use super::messages::{Consume, Event, Message, RequestId};
use super::oracle::{Checked, Violation};
use super::replica_log::Entry;
use super::world::World;
use super::{NodeId, PartitionIndex};
use crate::protocol::ErrorCode;
use crate::types::Offset;

/// Entries of one answer.
const FETCH_MAX: usize = 16;
const REQUEST_TIMEOUT_MS: i64 = 250;

/// One consumer; its node id on the network is negative.
#[derive(Debug)]
pub struct Consumer {
    partition: PartitionIndex,
    position: Offset,
    leader: KnownLeader,
    request: RequestId,
    /// When it was sent, and whether to the leader.
    in_flight: Option<(i64, bool)>,
}

impl Consumer {
    pub fn new(partition: PartitionIndex) -> Self {
        Self {
            partition,
            position: 0,
            leader: (-1, 1),
            request: 0,
            in_flight: None,
        }
    }
}

impl World {
    pub(super) fn has_read_all(&self, consumer: &Consumer) -> bool {
        consumer.position as usize == self.oracle.committed_count(consumer.partition)
    }

    pub(super) fn on_consumer_timer(&mut self, index: usize) {
        let pause_ms = 5 + self.rng.below(40) as i64;
        self.schedule(pause_ms, Event::Consumer(index));
        let now_ms = self.now_ms;
        let consumer = &self.consumers[index];
        let waits = consumer.in_flight;
        if waits.is_some_and(|(sent_ms, _)| sent_ms + REQUEST_TIMEOUT_MS > now_ms) {
            return;
        }
        let (partition, known) = (consumer.partition, consumer.leader);
        let leader = self.ask_for_leader(partition, known);
        let leader_only = self.rng.below(3) > 0;
        let target = if leader_only {
            leader.1
        } else {
            self.plan.hosts[self.rng.below(self.plan.hosts.len())]
        };
        let consumer = &mut self.consumers[index];
        consumer.leader = leader;
        consumer.request += 1;
        consumer.in_flight = Some((now_ms, leader_only));
        let consume = Consume {
            partition,
            leader_epoch: leader.0,
            offset: consumer.position,
            leader_only,
        };
        let message = Message::Consume(consumer.request, consume);
        let from = client_id(self.clients.len() + index);
        self.send(from, target, message);
    }

    pub(super) fn on_consume(
        &mut self,
        node: NodeId,
        client: NodeId,
        request: RequestId,
        consume: Consume,
    ) {
        let read = self.read_for_consumer(node, consume);
        self.send(node, client, Message::Consumed(request, read));
    }

    /// As `Partition::read`.
    fn read_for_consumer(
        &mut self,
        node: NodeId,
        consume: Consume,
    ) -> Result<Vec<Entry>, ErrorCode> {
        let shows_all = self.plan.bug == Some(Bug::ShowsUncommitted);
        let found = self.state_and_log(node, consume.partition);
        let (state, log) = found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let checked = if consume.leader_only {
            state.check_leader(consume.leader_epoch)
        } else {
            state.check_epoch(consume.leader_epoch)
        };
        checked.map_err(|error| error.code)?;
        if consume.offset > log.next_offset() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let end = if shows_all {
            log.next_offset()
        } else {
            state.high_watermark()
        };
        let begin = consume.offset.min(end) as usize;
        let entries = &log.entries()[begin..end as usize];
        Ok(entries[..entries.len().min(FETCH_MAX)].to_vec())
    }

    pub(super) fn on_consumed(
        &mut self,
        index: usize,
        request: RequestId,
        result: Result<Vec<Entry>, ErrorCode>,
    ) -> Checked {
        let consumer = &mut self.consumers[index];
        if request != consumer.request {
            return Ok(());
        }
        let Some((_, from_leader)) = consumer.in_flight.take() else {
            return Ok(());
        };
        match result {
            Ok(entries) => {
                let position = consumer.position;
                consumer.position += entries.len() as Offset;
                self.oracle.consumed(consumer.partition, position, &entries)
            }
            // The consumer would begin anew, somewhere.
            Err(ErrorCode::OffsetOutOfRange) if from_leader => Err(Violation(format!(
                "ConsistentRead: the leader's log ends before {consumer:?}"
            ))),
            Err(_) => Ok(()),
        }
    }
}
