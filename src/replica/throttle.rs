//! Keeps background work below a rate (Kafka's `Throttler`): everybody reports what he did, and is told when to sleep.

use std::sync::{Mutex, PoisonError};

/// How often the rate is looked at.
const CHECK_INTERVAL_MS: i64 = 300;

/// Shared by those who are throttled together.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<Period>);

#[derive(Debug, Default)]
struct Period {
    start_ms: Option<i64>,
    observed: u64,
}

impl Throttle {
    /// Takes note of `observed` units of work; the answer is for how long to sleep, so that the rate is `rate_max` a second.
    pub fn observe(&self, observed: u64, rate_max: f64, now_ms: i64) -> Option<u64> {
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start_ms = *period.start_ms.get_or_insert(now_ms);
        period.observed += observed;
        let elapsed_ms = now_ms - start_ms;
        if elapsed_ms <= CHECK_INTERVAL_MS {
            return None;
        }
        let wanted_ms = period.observed as f64 * 1000.0 / rate_max.max(1.0);
        *period = Period {
            start_ms: Some(now_ms),
            observed: 0,
        };
        let sleep_ms = wanted_ms - elapsed_ms as f64;
        if sleep_ms < 1.0 {
            return None;
        }
        period.start_ms = Some(now_ms + sleep_ms as i64);
        Some(sleep_ms as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_until_the_rate_is_kept() {
        let throttle = Throttle::default();
        assert_eq!(throttle.observe(1000, 1000.0, 0), None, "too early to tell");
        assert_eq!(throttle.observe(1000, 1000.0, 301), Some(1699));
        // The sleep is not counted as time without work.
        assert_eq!(throttle.observe(200, 1000.0, 2100), None);
        assert_eq!(throttle.observe(500, 1000.0, 2400), Some(300));
    }

    #[test]
    fn an_unlimited_rate_never_sleeps() {
        let throttle = Throttle::default();
        for now_ms in (0..10_000).step_by(100) {
            assert_eq!(
                throttle.observe(u64::from(u32::MAX), f64::MAX, now_ms),
                None
            );
        }
    }

    #[test]
    fn idle_time_is_not_saved_up_beyond_one_period() {
        let throttle = Throttle::default();
        throttle.observe(1, 1000.0, 0);
        assert_eq!(throttle.observe(1, 1000.0, 60_000), None);
        assert_eq!(throttle.observe(2000, 1000.0, 60_301), Some(1699));
    }
}
