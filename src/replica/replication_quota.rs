//! Replication quotas (KIP-73): how fast this broker sends the replicas that a reassignment made, and fetches them. Kafka's
//! `ReplicationQuotaManager` over its `SimpleRate`: bytes of `replication.quota.window.num` windows, each of
//! `replication.quota.window.size.seconds`, divided by the time they took.
//!
//! What goes by a quota is decided where it is asked: only replicas that are throttled by name and out of sync.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::{Config, Value};
use crate::metrics::WindowedRate;

/// Both directions of one broker.
#[derive(Debug)]
pub struct ReplicationQuotas {
    /// What leaders here send to followers.
    pub leader: ReplicationQuota,
    /// What followers here fetch.
    pub follower: ReplicationQuota,
}

/// One direction.
#[derive(Debug)]
pub struct ReplicationQuota {
    /// Bytes a second; `i64::MAX` is no limit.
    limit: AtomicI64,
    rate: Mutex<WindowedRate>,
}

impl ReplicationQuotas {
    pub fn new(config: &Config) -> Self {
        let windows = config.replication_quota_window_num.max(1) as usize;
        let size_ms = i64::from(config.replication_quota_window_size_seconds.max(1)) * 1000;
        let quota = || ReplicationQuota {
            limit: AtomicI64::new(i64::MAX),
            rate: Mutex::new(WindowedRate::new(windows, size_ms)),
        };
        let quotas = Self {
            leader: quota(),
            follower: quota(),
        };
        quotas.update(config);
        quotas
    }

    /// The rates are dynamic configs.
    pub fn update(&self, config: &Config) {
        let limit = |name| match config.value(name) {
            Some(Value::Number(limit)) => limit,
            _ => i64::MAX,
        };
        let (leader, follower) = (&self.leader.limit, &self.follower.limit);
        leader.store(limit("leader.replication.throttled.rate"), Relaxed);
        follower.store(limit("follower.replication.throttled.rate"), Relaxed);
    }
}

impl ReplicationQuota {
    fn rate(&self) -> MutexGuard<'_, WindowedRate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes of throttled replicas were sent or fetched, over the quota or not.
    pub fn record(&self, bytes: u64, now_ms: i64) {
        self.rate().record(bytes, now_ms);
    }

    pub fn is_exceeded(&self, now_ms: i64) -> bool {
        let limit = self.limit.load(Relaxed);
        limit < i64::MAX && self.bytes_per_second(now_ms) > limit as f64
    }

    pub fn bytes_per_second(&self, now_ms: i64) -> f64 {
        self.rate().per_second(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule: throttle
    #[test]
    fn the_quota_holds_over_time_whatever_comes_at_once() {
        let config = Config::load(None, &[]).unwrap();
        let quotas = ReplicationQuotas::new(&config);
        let quota = &quotas.leader;
        assert!(!quota.is_exceeded(0));
        quota.record(u64::MAX / 4, 0);
        assert!(!quota.is_exceeded(1), "no limit by default");

        let quotas = ReplicationQuotas::new(&config);
        let quota = &quotas.leader;
        quota.limit.store(1000, Relaxed);
        let mut sent = 0;
        for now_ms in (0..60_000).step_by(100) {
            if !quota.is_exceeded(now_ms) {
                quota.record(700, now_ms);
                sent += 700;
            }
        }
        assert!(
            (55_000..=65_000).contains(&sent),
            "{sent} bytes in a minute"
        );
    }

    #[test]
    fn limits_are_dynamic() {
        let dynamic = |name: &str| {
            let settings = [(name.to_owned(), "4096".to_owned())].into();
            Config::load(None, &[])
                .unwrap()
                .with_dynamic(&settings, &std::collections::BTreeMap::new())
        };
        let quotas = ReplicationQuotas::new(&Config::load(None, &[]).unwrap());
        quotas.update(&dynamic("leader.replication.throttled.rate"));
        assert_eq!(quotas.leader.limit.load(Relaxed), 4096);
        assert_eq!(quotas.follower.limit.load(Relaxed), i64::MAX);
        quotas.update(&dynamic("follower.replication.throttled.rate"));
        assert_eq!(quotas.leader.limit.load(Relaxed), i64::MAX);
        assert_eq!(quotas.follower.limit.load(Relaxed), 4096);
    }
}
