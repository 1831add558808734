//! Keyed deadlines of one coordinator shard: plain data, the event loop asks for the next one.
//!
//! Pushing a deadline back (every heartbeat does) only notes the new time; the queue entry moves when the old time
//! comes. The next deadline told may therefore be too early, never too late.

use std::collections::BTreeSet;
use std::hash::Hash;

use indexmap::IndexMap;

/// Deadlines by key, in monotonic milliseconds.
#[derive(Debug)]
pub struct Timers<K> {
    timers: IndexMap<K, Timer>,
    queue: BTreeSet<(i64, K)>,
}

#[derive(Debug)]
struct Timer {
    deadline_ms: i64,
    /// The time of this key's entry in the queue; never later than the deadline.
    queued_ms: i64,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self {
            timers: IndexMap::new(),
            queue: BTreeSet::new(),
        }
    }
}

impl<K: Clone + Ord + Hash> Timers<K> {
    /// Sets or replaces the deadline of `key`.
    pub fn schedule(&mut self, key: K, deadline_ms: i64) {
        if let Some(timer) = self.timers.get_mut(&key) {
            timer.deadline_ms = deadline_ms;
            if timer.queued_ms > deadline_ms {
                self.queue.remove(&(timer.queued_ms, key.clone()));
                timer.queued_ms = deadline_ms;
                self.queue.insert((deadline_ms, key));
            }
        } else {
            let timer = Timer {
                deadline_ms,
                queued_ms: deadline_ms,
            };
            self.timers.insert(key.clone(), timer);
            self.queue.insert((deadline_ms, key));
        }
    }

    pub fn cancel(&mut self, key: &K) {
        if let Some(timer) = self.timers.swap_remove(key) {
            self.queue.remove(&(timer.queued_ms, key.clone()));
        }
    }

    /// Removes and returns a key whose deadline has come.
    pub fn pop_due(&mut self, now_ms: i64) -> Option<K> {
        while self.queue.first().is_some_and(|(at, _)| *at <= now_ms) {
            let (_, key) = self.queue.pop_first()?;
            let timer = self.timers.get_mut(&key)?;
            if timer.deadline_ms <= now_ms {
                self.timers.swap_remove(&key);
                return Some(key);
            }
            timer.queued_ms = timer.deadline_ms;
            self.queue.insert((timer.queued_ms, key));
        }
        None
    }

    /// When to call [`Timers::pop_due`] next.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.queue.first().map(|(at, _)| *at)
    }

    pub fn contains(&self, key: &K) -> bool {
        self.timers.contains_key(key)
    }
}
