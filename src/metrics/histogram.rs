//! Durations as Kafka's histograms show them: how many there were, and quantiles of the latest. `controller` records them.

use std::sync::{Mutex, PoisonError};

use super::Scrape;

/// How many of the latest count for the quantiles, as in Yammer's reservoirs.
const LATEST_MAX: usize = 1028;
/// Those that the JMX exporter's rules know.
const QUANTILES: [f64; 6] = [0.5, 0.75, 0.95, 0.98, 0.99, 0.999];

/// Durations in milliseconds.
#[derive(Debug, Default)]
pub struct Histogram(Mutex<Recorded>);

#[derive(Debug, Default)]
struct Recorded {
    /// The oldest is replaced when there are [`LATEST_MAX`].
    latest: Vec<i64>,
    next: usize,
    count: u64,
    sum: i64,
}

impl Histogram {
    pub fn record(&self, ms: i64) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.count += 1;
        recorded.sum += ms;
        if recorded.latest.len() < LATEST_MAX {
            recorded.latest.push(ms);
        } else {
            let next = recorded.next;
            recorded.latest[next] = ms;
            recorded.next = (next + 1) % LATEST_MAX;
        }
    }

    fn sorted(&self) -> (Vec<i64>, u64, i64) {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latest = recorded.latest.clone();
        latest.sort_unstable();
        (latest, recorded.count, recorded.sum)
    }

    /// A summary with quantiles.
    pub(super) fn collect(&self, scrape: &mut Scrape, name: &str) {
        let (latest, count, sum) = self.sorted();
        let at = |quantile: f64| ((latest.len() as f64 * quantile) as usize).min(latest.len() - 1);
        let value = |quantile| {
            if latest.is_empty() {
                0
            } else {
                latest[at(quantile)]
            }
        };
        let quantiles = QUANTILES.map(|quantile| (quantile, value(quantile) as f64));
        scrape.summary(name, &quantiles, count, sum as f64);
    }

    /// `<name>_avg` and `<name>_max` of the latest, as Kafka's raft metrics have it.
    pub(super) fn collect_mean(&self, scrape: &mut Scrape, name: &str) {
        let (latest, ..) = self.sorted();
        let mean = latest.iter().sum::<i64>() as f64 / latest.len().max(1) as f64;
        scrape.gauge(&format!("{name}_avg"), &[], mean);
        let max = latest.last().copied().unwrap_or(0);
        scrape.gauge(&format!("{name}_max"), &[], max as f64);
    }
}
