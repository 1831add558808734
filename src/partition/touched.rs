//! Timers that look at touched partitions only; retention, expired producers and scrub see all. Ten thousand that rest cost such
//! a timer nothing, not even the memory that it would have to look at.
//!
//! Every section under a partition's lock notes the partition, unless nothing in it is a timer's business (`Partition::look`). A
//! timer takes those that were noted since it last came; what has to be looked at again without an event is noted again.
//!
//! A timer's list is locked under a partition's lock, and nothing is locked under it.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::Partition;

/// The timers that look at touched partitions only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    CheckpointHighWatermarks,
    CheckpointLogs,
    CheckpointLogStarts,
    ShrinkIsr,
    ReleaseFiles,
    CleanLogs,
}

impl Timer {
    /// All of them, in their order.
    pub const ALL: [Self; 6] = [
        Self::CheckpointHighWatermarks,
        Self::CheckpointLogs,
        Self::CheckpointLogStarts,
        Self::ShrinkIsr,
        Self::ReleaseFiles,
        Self::CleanLogs,
    ];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What waits for the timers of one broker: each partition once for each timer at most. Of those that are gone no more are kept
/// than there were partitions: where a list would grow they are dropped.
#[derive(Debug, Default)]
pub struct Touched([Mutex<Vec<Weak<Partition>>>; Timer::ALL.len()]);

/// Of one partition: for which timers it waits, as bits.
#[derive(Debug, Default)]
pub(super) struct Waiting(AtomicU8);

impl Touched {
    fn lock(&self, timer: Timer) -> MutexGuard<'_, Vec<Weak<Partition>>> {
        self.0[timer as usize]
            .lock()
            .expect("pushing and taking do not panic")
    }

    /// Those that were touched since the last call and are still there. Only the timer itself may call this.
    pub fn take(&self, timer: Timer) -> Vec<Arc<Partition>> {
        let waiting = std::mem::take(&mut *self.lock(timer));
        let waiting: Vec<_> = waiting.iter().filter_map(Weak::upgrade).collect();
        for partition in &waiting {
            // Relaxed is enough: the bit is cleared before the caller takes the partition's lock. A section before that one which
            // found the bit set is seen by the caller, a section behind it finds the bit cleared.
            partition.waiting.0.fetch_and(!timer.bit(), Relaxed);
        }
        waiting
    }

    /// As [`Touched::take`] for a timer that looks at all if any was touched, or went away.
    pub fn take_any(&self, timer: Timer) -> bool {
        let any = !self.lock(timer).is_empty();
        self.take(timer);
        any
    }

    /// Notes `partition` for the timers in `bits`. Under its lock: a timer that came before then sees what happened, and one that
    /// comes later finds it here.
    fn note(&self, partition: &Partition, bits: u8) {
        if partition.waiting.0.load(Relaxed) & bits == bits {
            return;
        }
        let new = bits & !partition.waiting.0.fetch_or(bits, Relaxed);
        for timer in Timer::ALL {
            if new & timer.bit() != 0 {
                push(&mut self.lock(timer), Weak::clone(&partition.this));
            }
        }
    }

    /// Notes `partition` for all timers.
    pub(super) fn touch(&self, partition: &Partition) {
        let bits = Timer::ALL.iter().fold(0, |bits, timer| bits | timer.bit());
        self.note(partition, bits);
    }

    /// Has `timer` look again the next time.
    pub(super) fn keep(&self, partition: &Partition, timer: Timer) {
        self.note(partition, timer.bit());
    }
}

/// A timer may not come for hours, or never, as that of a cleaner which is off.
fn push(list: &mut Vec<Weak<Partition>>, partition: Weak<Partition>) {
    if list.len() == list.capacity() {
        list.retain(|partition| partition.strong_count() > 0);
    }
    list.push(partition);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_are_gone_do_not_pile_up() {
        let mut list = Vec::new();
        for _ in 0..10_000 {
            push(&mut list, Weak::new());
        }
        assert!(list.len() <= 8);
    }
}
