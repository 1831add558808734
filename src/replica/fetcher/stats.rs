//! What fetchers count, under the names of Kafka's `FetcherStats`, `FetcherLagMetrics` and `ReplicaFetcherManager`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::{ByLeader, Context};
use crate::metrics::Scrape;

/// Counters of one fetcher.
#[derive(Debug, Default)]
pub struct FetcherStats {
    requests: AtomicU64,
    bytes: AtomicU64,
    rate: Mutex<OneMinuteRate>,
}

impl FetcherStats {
    pub fn requested(&self, now_ms: i64) {
        self.requests.fetch_add(1, Relaxed);
        self.with_rate(|rate| rate.mark(now_ms));
    }

    pub fn fetched(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn with_rate<R>(&self, f: impl FnOnce(&mut OneMinuteRate) -> R) -> R {
        f(&mut self.rate.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The values of all fetchers.
pub fn collect(scrape: &mut Scrape, context: &Context, fetchers: &ByLeader) {
    let now_ms = context.clock.monotonic_ms();
    let image = context.images.loaded();
    let listener = &context.config.load().inter_broker_listener_name;
    let (mut lag_max, mut failed, mut rate_min) = (0, 0, f64::INFINITY);
    for ((leader, index), assigned) in fetchers {
        let client_id = format!("ReplicaFetcherThread-{index}-{leader}");
        let broker = image.cluster.broker(*leader);
        if let Some(endpoint) = broker.and_then(|broker| broker.listener(listener)) {
            let port = endpoint.port.to_string();
            let labels = [
                ("clientId", &*client_id),
                ("brokerHost", &*endpoint.host),
                ("brokerPort", &*port),
            ];
            let (requests, bytes) = (&assigned.stats.requests, &assigned.stats.bytes);
            for (name, count) in [("requests", requests), ("bytes", bytes)] {
                let name = format!("kafka_server_fetcherstats_{name}_total");
                scrape.counter(&name, &labels, count.load(Relaxed) as f64);
            }
        }
        let followed = assigned.lock();
        if followed.is_empty() {
            continue;
        }
        let rate = assigned.stats.with_rate(|rate| rate.per_second(now_ms));
        rate_min = rate_min.min(rate);
        for followed in followed.values() {
            let lag = followed.lag.unwrap_or(-1);
            lag_max = lag_max.max(lag);
            failed += u32::from(followed.is_failed);
            let tp = &followed.partition.topic_partition;
            let index = tp.partition.to_string();
            let labels = [
                ("clientId", &*client_id),
                ("topic", &*tp.topic),
                ("partition", &*index),
            ];
            let name = "kafka_server_fetcherlagmetrics_consumerlag";
            scrape.gauge(name, &labels, lag as f64);
        }
    }
    let labels = [("clientId", "Replica")];
    let rate_min = if rate_min.is_finite() { rate_min } else { 0.0 };
    for (name, value) in [
        ("maxlag", lag_max as f64),
        ("minfetchrate", rate_min),
        ("failedpartitionscount", f64::from(failed)),
    ] {
        let name = format!("kafka_server_replicafetchermanager_{name}");
        scrape.gauge(&name, &labels, value);
    }
}

/// Events a second, each weighing less the longer ago it was (Yammer's one-minute moving average). Pure.
#[derive(Debug, Default)]
struct OneMinuteRate {
    /// When the last full interval ended; `None` before the first event.
    ticked_ms: Option<i64>,
    /// Events since.
    uncounted: u64,
    /// `None` before the first full interval.
    per_second: Option<f64>,
}

impl OneMinuteRate {
    const INTERVAL_MS: i64 = 5_000;
    /// After so many intervals without an event the rate is as good as nothing.
    const INTERVALS_MAX: i64 = 1_000;

    fn mark(&mut self, now_ms: i64) {
        self.tick(now_ms);
        self.uncounted += 1;
    }

    fn per_second(&mut self, now_ms: i64) -> f64 {
        self.tick(now_ms);
        self.per_second.unwrap_or(0.0)
    }

    fn tick(&mut self, now_ms: i64) {
        let ticked_ms = *self.ticked_ms.get_or_insert(now_ms);
        let intervals = (now_ms - ticked_ms) / Self::INTERVAL_MS;
        let weight = 1.0 - (-5.0 / 60.0_f64).exp();
        for _ in 0..intervals.min(Self::INTERVALS_MAX) {
            let now =
                std::mem::take(&mut self.uncounted) as f64 * 1000.0 / Self::INTERVAL_MS as f64;
            self.per_second = Some(match self.per_second {
                Some(before) => before + weight * (now - before),
                None => now,
            });
        }
        self.ticked_ms = Some(ticked_ms + intervals * Self::INTERVAL_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_begins_with_the_first_interval_and_fades() {
        let mut rate = OneMinuteRate::default();
        for at_ms in (0..5_000).step_by(100) {
            rate.mark(at_ms);
        }
        assert!(rate.per_second(4_999) < 0.1, "no full interval yet");
        assert!((rate.per_second(5_000) - 10.0).abs() < 0.1);
        let minute_later = rate.per_second(65_000);
        assert!(
            (minute_later - 10.0 / std::f64::consts::E).abs() < 0.1,
            "{minute_later}"
        );
        assert!(rate.per_second(i64::MAX / 2) < 0.1);
    }
}
