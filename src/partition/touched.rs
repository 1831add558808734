//! Partitions that anything happened to, for the timers that look after them: ten thousand that rest cost a timer nothing,
//! not even the memory that it would have to look at.
//!
//! Every section under a partition's lock notes the partition, unless it only looks (`Partition::look`). A timer takes those that
//! were noted since it last came; what has to be looked at again without an event is noted again.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::Partition;

/// The timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    CheckpointHighWatermarks,
    CheckpointLogs,
    ShrinkIsr,
    ReleaseFiles,
    CleanLogs,
}

const TIMERS: usize = 5;
const ALL: u8 = (1 << TIMERS) - 1;

/// What waits for the timers of one broker: each partition once for each timer at most, and those that are gone since.
#[derive(Debug, Default)]
pub struct Touched([Mutex<Vec<Weak<Partition>>>; TIMERS]);

/// Of one partition: for which timers it waits, as bits.
#[derive(Debug, Default)]
pub(super) struct Waiting(AtomicU8);

impl Touched {
    fn lock(&self, timer: usize) -> MutexGuard<'_, Vec<Weak<Partition>>> {
        self.0[timer]
            .lock()
            .expect("pushing and taking do not panic")
    }

    /// Those that were touched since the last call and are still there.
    pub fn take(&self, timer: Timer) -> Vec<Arc<Partition>> {
        let waiting = std::mem::take(&mut *self.lock(timer as usize));
        let waiting: Vec<_> = waiting.iter().filter_map(Weak::upgrade).collect();
        for partition in &waiting {
            partition.waiting.0.fetch_and(!(1 << timer as u8), Relaxed);
        }
        waiting
    }

    /// As [`Touched::take`] for a timer that looks at all if any was touched, or went away.
    pub fn take_any(&self, timer: Timer) -> bool {
        let any = !self.lock(timer as usize).is_empty();
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
        for timer in (0..TIMERS).filter(|timer| new & 1 << timer != 0) {
            self.lock(timer).push(Weak::clone(&partition.this));
        }
    }

    /// Notes `partition` for all timers.
    pub(super) fn touch(&self, partition: &Partition) {
        self.note(partition, ALL);
    }

    /// Has `timer` look again the next time.
    pub(super) fn keep(&self, partition: &Partition, timer: Timer) {
        self.note(partition, 1 << timer as u8);
    }
}
