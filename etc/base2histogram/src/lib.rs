//! Stand-in for the `base2histogram` crate, of which openraft needs a small part for statistics that nobody reads here.
//!
//! The real one fills lookup tables of 26 MiB when the first histogram is made: more memory than all the rest of an idle
//! broker, and most of its start. This one counts by powers of two. Remove it when the crate makes its tables on demand.

use std::fmt;
use std::marker::PhantomData;

const BUCKETS: usize = 65;

/// Counts of values by their number of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    data: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            data: PhantomData,
        }
    }

    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    pub fn record_n(&mut self, value: u64, count: u64) {
        self.counts[bucket(value)] += count;
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The smallest value of the bucket that holds the `p`-quantile, `p` from 0 to 1.
    pub fn percentile(&self, p: f64) -> u64 {
        let wanted = ((self.total() as f64 * p).ceil() as u64).max(1);
        let mut seen = 0;
        for (bits, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return bits.checked_sub(1).map_or(0, |shift| 1 << shift);
            }
        }
        0
    }

    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

fn bucket(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()) as usize
}

/// Quantiles of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[samples: {}, P50: {}, P90: {}, P99: {}, P99.9: {}]",
            self.samples, self.p50, self.p90, self.p99, self.p99_9
        )
    }
}

/// Named histograms; prints their quantiles.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    series: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn add<T>(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.series
            .push((name.to_owned(), histogram.percentile_stats()));
        self
    }

    pub fn compact(&self) -> &Self {
        self
    }

    pub fn detailed(&self) -> &Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.series
            .iter()
            .try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bucket_starts() {
        let mut histogram = Histogram::<()>::new();
        for value in [0, 1, 5, 5, 1000] {
            histogram.record(value);
        }
        assert_eq!(histogram.total(), 5);
        assert_eq!(histogram.percentile(0.5), 4);
        assert_eq!(histogram.percentile(0.1), 0);
        assert_eq!(histogram.percentile(1.0), 512);
    }
}
