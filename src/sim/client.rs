//! Idempotent producers with acks=all: one record in flight, sent again until somebody acknowledges it.

use super::messages::{Event, Message, Produce, RequestId};
use super::oracle::{Checked, Violation};
use super::world::World;
use super::{NodeId, PartitionIndex};
use crate::protocol::ErrorCode;
use crate::types::{LeaderEpoch, Offset, ProducerId};

/// How long a producer waits for an answer before it sends again.
const REQUEST_TIMEOUT_MS: i64 = 250;
const RETRY_BACKOFF_MS: i64 = 20;

/// A leader and its epoch.
pub type KnownLeader = (LeaderEpoch, NodeId);

/// One producer; its node id on the network is negative.
#[derive(Debug)]
pub struct Producer {
    pub partition: PartitionIndex,
    /// Of the record that is to be acknowledged next.
    sequence: i32,
    request: RequestId,
    in_flight: Option<i64>,
    /// Who leads in the newest epoch that anybody told. Older news is no news (KIP-320).
    leader: KnownLeader,
    /// When to send again.
    next_ms: i64,
    /// Records it still has to send.
    pub left: usize,
}

impl Producer {
    pub fn new(partition: PartitionIndex, records: usize) -> Self {
        Self {
            partition,
            sequence: 0,
            request: 0,
            in_flight: None,
            leader: (-1, 1),
            next_ms: 0,
            left: records,
        }
    }
}

/// Network id of a client.
pub fn client_id(index: usize) -> NodeId {
    -1 - index as NodeId
}

fn producer_id(index: usize) -> ProducerId {
    1000 + index as ProducerId
}

impl World {
    pub(super) fn on_client_timer(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let client = &mut self.clients[index];
        if client.left == 0 {
            return;
        }
        let due = match client.in_flight {
            Some(sent_ms) => sent_ms + REQUEST_TIMEOUT_MS <= now_ms,
            None => client.next_ms <= now_ms,
        };
        if due {
            client.in_flight = Some(now_ms);
            client.request += 1;
            let message = Message::Produce(
                client.request,
                Produce {
                    partition: client.partition,
                    producer_id: producer_id(index),
                    sequence: client.sequence,
                },
            );
            let target = self.leader_for_client(index);
            self.send(client_id(index), target, message);
        }
        let pause_ms = 5 + self.rng.below(15) as i64;
        self.schedule(pause_ms, Event::Client(index));
    }

    pub(super) fn on_client_message(&mut self, client: NodeId, message: Message) -> Checked {
        let index = (-1 - client) as usize;
        match message {
            Message::Produced(request, result) => self.on_produced(index, request, result),
            Message::Consumed(request, result) => {
                self.on_consumed(index - self.clients.len(), request, result)
            }
            _ => Ok(()),
        }
    }

    fn leader_for_client(&mut self, index: usize) -> NodeId {
        let Producer {
            partition, leader, ..
        } = self.clients[index];
        self.clients[index].leader = self.ask_for_leader(partition, leader);
        self.clients[index].leader.1
    }

    /// Clients ask any broker who leads; only a newer epoch is news.
    pub(super) fn ask_for_leader(
        &mut self,
        partition: PartitionIndex,
        known: KnownLeader,
    ) -> KnownLeader {
        let asked = 1 + self.rng.below(self.nodes.len()) as NodeId;
        let told = self
            .broker(asked)
            .and_then(|broker| broker.image.topics.iter().next())
            .and_then(|topic| topic.partitions.get(&partition))
            .map(|registration| (registration.leader_epoch, registration.leader));
        told.filter(|(epoch, leader)| *epoch > known.0 && *leader >= 0)
            .unwrap_or(known)
    }

    fn on_produced(
        &mut self,
        index: usize,
        request: RequestId,
        result: Result<Offset, ErrorCode>,
    ) -> Checked {
        let now_ms = self.now_ms;
        let client = &mut self.clients[index];
        // A late answer to an attempt that was given up counts no less: brokers do not know that it was.
        if let Ok(offset) = result {
            let (partition, sequence) = (client.partition, client.sequence);
            if request == client.request && client.in_flight.is_some() {
                client.sequence += 1;
                client.left -= 1;
                client.in_flight = None;
                client.next_ms = now_ms;
                return self
                    .oracle
                    .acknowledge(partition, producer_id(index), sequence, offset);
            }
            return Ok(());
        }
        if request != client.request || client.in_flight.is_none() {
            return Ok(());
        }
        client.in_flight = None;
        client.next_ms = now_ms + RETRY_BACKOFF_MS;
        match result {
            Err(
                code @ (ErrorCode::OutOfOrderSequenceNumber
                | ErrorCode::InvalidProducerEpoch
                | ErrorCode::UnknownServerError),
            ) => Err(Violation(format!(
                "ProducerState: producer {index} got {code:?} for sequence {}",
                client.sequence
            ))),
            _ => Ok(()),
        }
    }
}
