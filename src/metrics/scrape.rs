//! One scrape in the making: values are put in by name and labels, families come out sorted.

use std::collections::BTreeMap;

use prometheus::proto::{
    Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary,
};

/// Collects the values of one scrape.
#[derive(Default)]
pub struct Scrape {
    families: BTreeMap<String, MetricFamily>,
}

impl Scrape {
    /// A value that may fall.
    pub fn gauge(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(labels);
        metric.set_gauge(gauge);
        self.push(name, MetricType::GAUGE, metric);
    }

    /// A value that only grows while the process lives.
    pub fn counter(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = labelled(labels);
        metric.set_counter(counter);
        self.push(name, MetricType::COUNTER, metric);
    }

    /// Quantiles with their values, how many values there were and what they add up to.
    pub fn summary(&mut self, name: &str, quantiles: &[(f64, f64)], count: u64, sum: f64) {
        let quantiles = quantiles.iter().map(|(at, value)| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(*at);
            quantile.set_value(*value);
            quantile
        });
        let mut summary = Summary::default();
        summary.set_quantile(quantiles.collect());
        summary.set_sample_count(count);
        summary.set_sample_sum(sum);
        let mut metric = labelled(&[]);
        metric.set_summary(summary);
        self.push(name, MetricType::SUMMARY, metric);
    }

    fn push(&mut self, name: &str, kind: MetricType, metric: Metric) {
        if let Some(family) = self.families.get_mut(name) {
            family.mut_metric().push(metric);
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(String::new());
        family.set_field_type(kind);
        family.mut_metric().push(metric);
        self.families.insert(name.to_owned(), family);
    }

    /// Takes over the families of another scrape; they have other names.
    pub(super) fn merge(&mut self, other: Scrape) {
        self.families.extend(other.families);
    }

    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.families.into_values().collect()
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let mut metric = Metric::default();
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    metric.set_label(pairs.collect());
    metric
}
