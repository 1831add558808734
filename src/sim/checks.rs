//! What is looked at after every event, and at the end; the oracle judges.

use std::fmt;

use super::PartitionIndex;
use super::oracle::{Checked, Replica, Violation};
use super::world::World;
use crate::metadata::{MetadataImage, TopicImage};
use crate::types::Offset;

impl World {
    /// After every event: all replicas, and all who may become leader.
    pub(super) fn check_step(&mut self) -> Checked {
        for node in self.plan.hosts {
            let machine = self.nodes.get_mut(&node).expect("all exist");
            let (logs, process) = machine.logs_and_process();
            for (index, log) in logs {
                let state = process.and_then(|process| {
                    let state = process.broker.partitions.get(index)?;
                    Some((process.number, state))
                });
                let replica = Replica {
                    node,
                    partition: *index,
                    log,
                    state,
                };
                self.oracle.replica(replica)?;
            }
        }
        (0..self.plan.partitions).try_for_each(|index| self.check_candidates(index))
    }

    /// Everybody who may become leader has everything, except who just lost it and could not tell yet.
    fn check_candidates(&self, index: PartitionIndex) -> Checked {
        for node in self.oracle.candidates(index) {
            let disk = &self.nodes[&node];
            if !(disk.lost_records && disk.is_unregistered) {
                self.oracle.candidate(index, node)?;
            }
        }
        Ok(())
    }

    /// MetadataLogMatching: whoever has the first `count` batches of the metadata log has the same image of them.
    pub(super) fn check_image(
        &self,
        who: fmt::Arguments<'_>,
        image: &MetadataImage,
        count: usize,
    ) -> Checked {
        let expected = count.checked_sub(1).and_then(|at| self.images.get(at));
        if expected.is_none_or(|expected| is_same(image, expected)) {
            return Ok(());
        }
        Err(Violation(format!(
            "MetadataLogMatching: {who} has another image of the first {count} batches: {image:?} instead of {expected:?}"
        )))
    }

    fn committed_end(&self, index: PartitionIndex) -> Offset {
        self.oracle.committed_count(index) as Offset
    }

    /// Whether every producer is done, everybody in sync and up, and all logs are the same.
    pub(super) fn settled(&self) -> Checked {
        let left: usize = self.clients.iter().map(|client| client.left).sum();
        if left > 0 {
            return Err(Violation(format!(
                "Progress: {left} records are not acknowledged at the end"
            )));
        }
        self.quorum_settled()?;
        if let Some(behind) = self.consumers.iter().find(|it| !self.has_read_all(it)) {
            return Err(Violation(format!(
                "Progress: at the end there is more to read than {behind:?}"
            )));
        }
        for topic in self.committed.topics.iter() {
            for (index, registration) in &topic.partitions {
                if registration.isr.len() < self.plan.hosts.len() {
                    return Err(Violation(format!(
                        "Progress: the ISR of {index} is {:?} at the end",
                        registration.isr
                    )));
                }
                for (node, disk) in &self.nodes {
                    if let Some(log) = disk.logs.get(index) {
                        self.oracle.converged(*index, *node, log)?;
                    }
                    let known = self.broker(*node).and_then(|it| it.partitions.get(index));
                    if known.is_some_and(|it| it.high_watermark() < self.committed_end(*index)) {
                        return Err(Violation(format!(
                            "Progress: {node} does not know what of {index} is committed"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// Who is in every ISR has everything back.
    pub(super) fn find_healed(&mut self) {
        for node in self.plan.nodes.iter().copied() {
            let disk = &self.nodes[&node];
            if !disk.is_recovering || disk.is_unregistered || self.broker(node).is_none() {
                continue;
            }
            let is_in_sync = |topic: &TopicImage| {
                let mut partitions = topic.partitions.values();
                partitions.all(|it| it.isr.contains(&node) || !it.replicas.contains(&node))
            };
            let is_healed = self.committed.topics.iter().all(is_in_sync);
            if is_healed {
                let disk = self.nodes.get_mut(&node).expect("all exist");
                disk.lost_records = false;
                disk.is_recovering = false;
            }
        }
    }
}

/// Batches have times and epochs of their own; the rest is what records say.
fn is_same(a: &MetadataImage, b: &MetadataImage) -> bool {
    let of = |it: &MetadataImage| (it.last_offset, it.transaction_open);
    of(a) == of(b)
        && a.features == b.features
        && a.cluster == b.cluster
        && a.topics == b.topics
        && a.configs == b.configs
        && a.producer_ids == b.producer_ids
        && a.security == b.security
}
