//! What goes wrong, and when. One fault after another, until a quiet end in which everything must heal.

use super::NodeId;
use super::messages::Event;
use super::world::World;

/// A fault, without the node that it hits: that is chosen when it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9: the page cache stays.
    Kill,
    KillAll,
    /// What was not synced is lost, or a part of it.
    PowerFailure,
    /// SIGTERM, then a reboot of the machine.
    Stop,
    /// SIGSTOP for a while.
    Freeze,
    /// Nobody hears the node, and it hears nobody.
    Isolate,
    /// The node is heard, and hears nobody.
    Deafen,
    /// One link fails.
    Part,
    /// The nodes fall apart into two groups.
    Split,
    /// kill -9, and `metadata.log.dir` is on a disk of its own that fails.
    LoseMetadata,
    /// Somebody, or NTP, sets the wall clock while the node runs.
    ClockJump,
}

/// Kills are as likely as all the rest.
const FAULTS: [Fault; 14] = [
    Fault::Kill,
    Fault::Kill,
    Fault::Kill,
    Fault::KillAll,
    Fault::PowerFailure,
    Fault::PowerFailure,
    Fault::Stop,
    Fault::Stop,
    Fault::Freeze,
    Fault::Isolate,
    Fault::Deafen,
    Fault::Part,
    Fault::ClockJump,
    Fault::ClockJump,
];

/// What is hard on a quorum whose voters change.
const VOTERS_FAULTS: [Fault; 17] = [
    Fault::Kill,
    Fault::Kill,
    Fault::KillAll,
    Fault::PowerFailure,
    Fault::Stop,
    Fault::Freeze,
    Fault::Freeze,
    Fault::Isolate,
    Fault::Isolate,
    Fault::Deafen,
    Fault::Part,
    Fault::Split,
    Fault::Split,
    Fault::LoseMetadata,
    Fault::LoseMetadata,
    Fault::LoseMetadata,
    Fault::ClockJump,
];

/// The longest step of a wall clock. All of them together are less than `producer.id.expiration.ms`, the one thing that goes by
/// the wall clock: who sets it a day forward has producers forgotten, in Kafka as well.
const CLOCK_JUMP_MAX_MS: i64 = 3_600_000;

impl World {
    /// Lets some faults strike between now and `until_ms`.
    pub(super) fn schedule_faults(&mut self, until_ms: i64) {
        let (faults, least): (&[Fault], _) = if self.plan.changes_voters {
            (&VOTERS_FAULTS, 8)
        } else {
            (&FAULTS, 3)
        };
        let count = least + self.rng.below(8);
        for _ in 0..count {
            let fault = faults[self.rng.below(faults.len())];
            let delay_ms = self.rng.below((until_ms - self.now_ms) as usize) as i64;
            self.schedule(delay_ms, Event::Fault(fault));
        }
    }

    /// Half of the time the fault hits who leads something.
    fn victim(&mut self) -> NodeId {
        let leaders: Vec<NodeId> = self
            .committed
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.values())
            .map(|registration| registration.leader)
            .chain(self.quorum.leader)
            .filter(|leader| *leader >= 0)
            .collect();
        if !leaders.is_empty() && self.rng.below(2) == 0 {
            return leaders[self.rng.below(leaders.len())];
        }
        self.plan.nodes[self.rng.below(self.plan.nodes.len())]
    }

    pub(super) fn on_fault(&mut self, fault: Fault) {
        let node = self.victim();
        self.note(format_args!("FAULT {fault:?} of {node}"));
        let nodes = self.plan.nodes.iter().copied();
        let others = nodes.clone().filter(|other| *other != node);
        match fault {
            Fault::Kill => {
                self.kill(node);
            }
            Fault::KillAll => {
                for node in nodes {
                    self.kill(node);
                }
            }
            Fault::PowerFailure => self.fail_power(node),
            Fault::Stop => {
                let now_ms = self.now_ms;
                if let Some(broker) = self.broker_mut(node) {
                    broker.leave(now_ms);
                }
            }
            Fault::Freeze => {
                let until_ms = self.now_ms + 100 + self.rng.below(900) as i64;
                self.freeze(node, until_ms);
            }
            Fault::Isolate => others.for_each(|other| {
                self.network.block(node, other);
                self.network.block(other, node);
            }),
            Fault::Deafen => others.for_each(|other| self.network.block(other, node)),
            Fault::Part => {
                let others: Vec<NodeId> = others.collect();
                let other = others[self.rng.below(others.len())];
                self.network.block(node, other);
                self.network.block(other, node);
            }
            Fault::Split => self.split(),
            Fault::LoseMetadata => self.lose_metadata(node),
            Fault::ClockJump => self.jump_clock(node),
        }
        if matches!(
            fault,
            Fault::Isolate | Fault::Deafen | Fault::Part | Fault::Split
        ) {
            let delay_ms = 100 + self.rng.below(900) as i64;
            self.schedule(delay_ms, Event::HealNetwork);
        }
    }

    /// Steps that sessions and lag times would not outlive, small ones back, and an hour either way.
    fn jump_clock(&mut self, node: NodeId) {
        let sessions_ms = 5 * self.settings.config.broker_session_timeout_ms as usize;
        let step_ms = match self.rng.below(4) {
            0 => 1 + self.rng.below(sessions_ms) as i64,
            1 => -1 - self.rng.below(50) as i64,
            2 => -1 - self.rng.below(sessions_ms) as i64,
            _ if self.rng.below(2) == 0 => CLOCK_JUMP_MAX_MS,
            _ => -CLOCK_JUMP_MAX_MS,
        };
        self.note(format_args!("{node} has its clock set by {step_ms} ms"));
        let machine = self.nodes.get_mut(&node).expect("all exist");
        machine.wall_offset_ms += step_ms;
    }

    fn split(&mut self) {
        let nodes = self.plan.nodes;
        let group = nodes.iter().copied().filter(|_| self.rng.below(2) == 0);
        let group: Vec<NodeId> = group.collect();
        let is_in = |node: &NodeId| group.contains(node);
        for a in nodes.iter().filter(|node| is_in(node)) {
            for b in nodes.iter().filter(|node| !is_in(node)) {
                self.network.block(*a, *b);
                self.network.block(*b, *a);
            }
        }
    }

    /// A crash: the controller takes the node for one that may have lost records. While another one really has, that would
    /// be more than acks=all is made for. Whether a process ended.
    fn kill(&mut self, node: NodeId) -> bool {
        if self
            .nodes
            .iter()
            .any(|(id, other)| *id != node && other.lost_records)
        {
            return false;
        }
        let ends = self.end_process(node);
        if ends {
            let disk = self.nodes.get_mut(&node).expect("all exist");
            disk.is_recovering = true;
            disk.is_unregistered = true;
            let delay_ms = 20 + self.rng.below(600) as i64;
            self.schedule(delay_ms, Event::Restart(node));
        }
        ends
    }

    /// The quorum survives that while a majority has its disks.
    fn lose_metadata(&mut self, node: NodeId) {
        if self.can_lose_metadata(node) && self.kill(node) {
            self.note(format_args!("{node} loses its metadata disk"));
            self.quorum.lose_disk(node);
        }
    }

    /// acks=all promises a record on `min.insync.replicas` machines: with 2, one of them may lose it, as long as no other
    /// is on its way back from a crash.
    fn fail_power(&mut self, node: NodeId) {
        self.kill(node);
        let others_are_well = self
            .nodes
            .iter()
            .all(|(id, other)| *id == node || !other.is_recovering);
        if self.plan.min_insync_replicas >= 2 && others_are_well {
            self.lose_unsynced(node);
        }
    }
}
