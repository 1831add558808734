//! The HTTP side: `/metrics` for Prometheus, `/healthz` (the process answers) and `/readyz` (it serves clients).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics::Metrics;

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    ready: watch::Receiver<bool>,
}

/// Serves on `listener` (`host:port`, `:port` for every interface, empty for not at all) until `stop`. A port in use is
/// warned about, and the broker goes on without: two brokers on one machine share the default. Returns where it listens.
pub async fn start(
    listener: &str,
    metrics: Arc<Metrics>,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Option<SocketAddr> {
    if listener.is_empty() {
        return None;
    }
    let address = match listener.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => listener.to_owned(),
    };
    let bound = match TcpListener::bind(&address).await {
        Ok(bound) => bound,
        Err(error) => {
            warn!(%address, %error, "no metrics: cannot listen on ottla.http.listener");
            return None;
        }
    };
    let local = bound.local_addr().ok()?;
    let app = router(Admin { metrics, ready });
    tokio::spawn(async move {
        let served = axum::serve(bound, app).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            warn!(%error, "the metrics endpoint stopped");
        }
    });
    info!(address = %local, "serving /metrics");
    Some(local)
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(admin)
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, admin.metrics.encode())
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    if *admin.ready.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn serves_metrics_health_and_readiness() {
        let (ready, watch) = watch::channel(false);
        let stop = CancellationToken::new();
        let metrics = Arc::new(Metrics::new());
        let address = start("127.0.0.1:0", metrics.clone(), watch.clone(), stop.clone())
            .await
            .unwrap();
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        ready.send_replace(true);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let text = get(address, "/metrics").await;
        assert!(
            text.contains("kafka_server_brokertopicmetrics_messagesin_total 0"),
            "{text}"
        );
        assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));
        // The port is taken: no metrics, but no failure either.
        let taken = start(&address.to_string(), metrics, watch, stop.clone()).await;
        assert_eq!(taken, None);
        stop.cancel();
    }
}
