//! The only reader of clocks. State machines take the time as an argument; shells ask here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::types::TimestampMs;

/// Where shells read the time: the system's clocks, or a test's.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { start: Instant },
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn system() -> Self {
        Self(Source::System {
            start: Instant::now(),
        })
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(now_ms: TimestampMs) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now_ms))))
    }

    /// Milliseconds since the Unix epoch. May jump; use it for timestamps that leave the process.
    pub fn wall_ms(&self) -> TimestampMs {
        match &self.0 {
            Source::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as i64),
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since some fixed point; never jumps. Use it for timeouts.
    pub fn monotonic_ms(&self) -> i64 {
        match &self.0 {
            Source::System { start } => start.elapsed().as_millis() as i64,
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock; the system's cannot be moved.
    pub fn advance(&self, by_ms: i64) {
        match &self.0 {
            Source::System { .. } => panic!("only a manual clock can be advanced"),
            Source::Manual(now) => {
                now.fetch_add(by_ms, Ordering::Relaxed);
            }
        }
    }
}
