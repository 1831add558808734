//! Tests of the counters and the text they make.

use super::{Histogram, Metrics, Scrape};

#[tokio::test]
async fn scrape_has_kafkas_names_and_totals_that_never_fall() {
    let metrics = Metrics::new();
    metrics.topic("a").appended(2, 1, 3, 100);
    metrics.topic("a").fetched(Some(50));
    metrics.topic("b").appended(1, 0, 1, 10);
    metrics.remove_topic("b");
    metrics.request(0, 13);
    metrics.request(0, 13);
    metrics.request(-1, 0);
    metrics.request(i16::MAX, i16::MAX);
    let listener = metrics.listener("PLAINTEXT");
    listener.connection_opened();
    listener.connection_opened();
    metrics.listener("PLAINTEXT").connection_closed();
    metrics.add_source(|| async {
        let mut scrape = Scrape::default();
        scrape.gauge("kafka_server_replicamanager_partitioncount", &[], 7.0);
        scrape
    });
    let text = metrics.encode().await;
    for line in [
        "kafka_server_brokertopicmetrics_messagesin_total{topic=\"a\"} 3",
        "kafka_server_brokertopicmetrics_messagesin_total 4",
        "kafka_server_brokertopicmetrics_bytesin_total 110",
        "kafka_server_brokertopicmetrics_bytesout_total 50",
        "kafka_network_requestmetrics_requests_total{request=\"Produce\",version=\"13\"} 2",
        "kafka_server_brokertopicmetrics_totalproducerequests_total 3",
        "kafka_server_brokertopicmetrics_failedproducerequests_total 1",
        "kafka_server_socket_server_metrics_connection_count{listener=\"PLAINTEXT\",networkProcessor=\"0\"} 1",
        "kafka_server_replicamanager_partitioncount 7",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
    }
    assert!(!text.contains("topic=\"b\""));
    if cfg!(target_os = "linux") {
        assert!(text.contains("process_resident_memory_bytes "));
        assert!(text.contains("process_max_fds "));
    }
}

#[tokio::test]
async fn a_histogram_has_quantiles_of_the_latest_and_counts_all() {
    let metrics = Metrics::new();
    let histogram = std::sync::Arc::new(Histogram::default());
    let source = std::sync::Arc::clone(&histogram);
    metrics.add_source(move || {
        let mut scrape = Scrape::default();
        source.collect(&mut scrape, "waited");
        source.collect_mean(&mut scrape, "waited");
        std::future::ready(scrape)
    });
    let text = metrics.encode().await;
    for line in [
        "waited_count 0",
        "waited{quantile=\"0.99\"} 0",
        "waited_max 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
    }
    histogram.record(1_000_000);
    for _ in 0..1000 {
        histogram.record(10);
    }
    for _ in 0..28 {
        histogram.record(300);
    }
    let text = metrics.encode().await;
    for line in [
        "waited_count 1029",
        "waited_sum 1018400",
        "waited{quantile=\"0.5\"} 10",
        "waited{quantile=\"0.95\"} 10",
        "waited{quantile=\"0.98\"} 300",
        "waited{quantile=\"0.999\"} 300",
        "waited_max 300",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
    }
}
