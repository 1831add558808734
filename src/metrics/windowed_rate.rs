//! What Kafka's quotas measure with: events of the last so many windows, divided by the time they took.

use std::collections::VecDeque;

/// A rate over the last windows. Pure: times are arguments and never go back.
#[derive(Debug)]
pub struct WindowedRate {
    windows_max: usize,
    window_ms: i64,
    /// The newest last; at most `windows_max`.
    windows: VecDeque<Window>,
}

#[derive(Debug)]
struct Window {
    start_ms: i64,
    count: u64,
}

impl WindowedRate {
    pub fn new(windows_max: usize, window_ms: i64) -> Self {
        Self {
            windows_max,
            window_ms,
            windows: VecDeque::new(),
        }
    }

    pub fn record(&mut self, count: u64, now_ms: i64) {
        self.expire(now_ms);
        match self.windows.back_mut() {
            Some(last) if now_ms - last.start_ms < self.window_ms => {
                last.count = last.count.saturating_add(count);
            }
            _ => {
                if self.windows.len() == self.windows_max {
                    self.windows.pop_front();
                }
                let start_ms = now_ms;
                self.windows.push_back(Window { start_ms, count });
            }
        }
    }

    /// Over the time since the oldest window began, one window at least (Kafka's `SimpleRate`).
    pub fn per_second(&mut self, now_ms: i64) -> f64 {
        let (count, age_ms) = self.total(now_ms);
        count as f64 * 1000.0 / age_ms.max(self.window_ms) as f64
    }

    /// How many milliseconds something has to rest that was recorded last, so that the rate comes down to `limit` a second
    /// (`QuotaUtils.throttleTime` over `Rate`, for which windows that are not there yet were empty).
    pub fn over_limit_ms(&mut self, limit: f64, now_ms: i64) -> f64 {
        let (count, age_ms) = self.total(now_ms);
        let missing = (self.windows_max as i64 - 1 - age_ms / self.window_ms).max(0);
        let took_ms = (age_ms + missing * self.window_ms).max(1) as f64;
        let rate = count as f64 * 1000.0 / took_ms;
        if rate > limit {
            (rate - limit) / limit * took_ms
        } else {
            0.0
        }
    }

    /// What the windows hold, and the age of the oldest.
    fn total(&mut self, now_ms: i64) -> (u64, i64) {
        self.expire(now_ms);
        let start_ms = self
            .windows
            .front()
            .map_or(now_ms, |oldest| oldest.start_ms);
        let counts = self.windows.iter().map(|window| window.count);
        (counts.fold(0, u64::saturating_add), now_ms - start_ms)
    }

    /// Forgets windows that all the others together have outlived.
    fn expire(&mut self, now_ms: i64) {
        let age_max_ms = self.window_ms.saturating_mul(self.windows_max as i64);
        while let Some(oldest) = self.windows.front()
            && now_ms - oldest.start_ms - self.window_ms >= age_max_ms
        {
            self.windows.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_at_least_one_window_and_at_most_all() {
        let mut rate = WindowedRate::new(3, 1000);
        assert!(rate.per_second(0) < 0.1);
        rate.record(500, 0);
        rate.record(500, 10);
        assert!(
            (rate.per_second(10) - 1000.0).abs() < 0.1,
            "a window at least"
        );
        assert!((rate.per_second(2000) - 500.0).abs() < 0.1);
        for at_ms in [2000, 3000, 4000] {
            rate.record(900, at_ms);
        }
        let three = rate.per_second(5000);
        assert!(
            (three - 900.0).abs() < 0.1,
            "the first windows are gone: {three}"
        );
        assert!(
            rate.per_second(60_000) < 0.1,
            "nothing is remembered for ever"
        );
    }

    #[test]
    fn what_is_over_the_limit_rests_until_the_rate_is_kept() {
        let mut rate = WindowedRate::new(11, 1000);
        for _ in 0..20 {
            rate.record(1, 0);
        }
        assert!(
            rate.over_limit_ms(2.0, 0) < 0.1,
            "ten windows without any count too"
        );
        rate.record(1, 0);
        // 2.1 a second over 10 s: half a second later it is 2.
        let rest_ms = rate.over_limit_ms(2.0, 0);
        assert!((rest_ms - 500.0).abs() < 0.1, "{rest_ms}");
        assert!(rate.over_limit_ms(0.0, 0).is_infinite());
        assert!(rate.over_limit_ms(2.0, 60_000) < 0.1);
    }
}
