//! Who hears whom, and how late. Links fail one way or both; messages get lost, and overtake each other.

use std::collections::BTreeSet;

use super::NodeId;
use crate::controller::Rng;

/// What a message meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lost,
    DelayMs(i64),
}

/// The links between nodes. Clients have negative ids; their links never fail, but lose messages too.
#[derive(Debug)]
pub struct Network {
    blocked: BTreeSet<(NodeId, NodeId)>,
    /// Of 1,000 messages.
    pub lost_per_mille: usize,
}

impl Network {
    pub fn new(lost_per_mille: usize) -> Self {
        Self {
            blocked: BTreeSet::new(),
            lost_per_mille,
        }
    }

    pub fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
    }

    pub fn heal(&mut self) {
        self.blocked.clear();
    }

    /// Whether both directions work.
    pub fn connects(&self, a: NodeId, b: NodeId) -> bool {
        a == b || !self.blocked.contains(&(a, b)) && !self.blocked.contains(&(b, a))
    }

    pub fn fate(&self, from: NodeId, to: NodeId, rng: &mut Rng) -> Fate {
        if from == to {
            return Fate::DelayMs(0);
        }
        if self.blocked.contains(&(from, to)) || rng.below(1000) < self.lost_per_mille {
            return Fate::Lost;
        }
        // Now and then a message is late enough to be overtaken by many.
        let slow = rng.below(50) == 0;
        Fate::DelayMs(1 + rng.below(if slow { 120 } else { 4 }) as i64)
    }
}
