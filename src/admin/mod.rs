//! The HTTP side: `/metrics` for Prometheus, `/healthz` (the process answers) and `/readyz` (it serves clients).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::Config;
use crate::metrics::Metrics;

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// Serves on `ottla.http.listener` (`host:port`; `:port` for every interface; empty for not at all) until `stop`. Called
/// once clients are served. A port in use is warned about and the broker goes on: two brokers on one machine share the
/// default. Returns where it listens.
pub fn spawn(
    config: &Config,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Option<SocketAddr> {
    let listener = config.ottla_http_listener.as_str();
    if listener.is_empty() {
        return None;
    }
    let address = match listener.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => listener.to_owned(),
    };
    let bound = match bind(&address) {
        Ok(bound) => bound,
        Err(error) => {
            warn!(%address, %error, "no metrics: cannot listen on ottla.http.listener");
            return None;
        }
    };
    let local = bound.local_addr().ok()?;
    let app = router(Admin {
        metrics: Arc::clone(metrics),
        stop: stop.clone(),
    });
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(async move {
        if let Err(error) = axum::serve(bound, app)
            .with_graceful_shutdown(stopped)
            .await
        {
            warn!(%error, "the metrics endpoint stopped");
        }
    });
    info!(address = %local, "serving /metrics");
    Some(local)
}

fn bind(address: &str) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
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
    (kind, admin.metrics.encode().await)
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

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
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let metrics = Arc::new(Metrics::new());
        let config = |listener: &str| {
            Config::load(
                None,
                &[("ottla.http.listener".to_owned(), listener.to_owned())],
            )
            .unwrap()
        };
        let address = spawn(&config("127.0.0.1:0"), &metrics, &tasks, &stop).unwrap();
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let text = get(address, "/metrics").await;
        let total = "kafka_server_brokertopicmetrics_messagesin_total 0";
        assert!(text.contains(total), "{text}");
        assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));
        // The port is taken: no metrics, but no failure either. Empty: switched off.
        let taken = config(&address.to_string());
        assert_eq!(spawn(&taken, &metrics, &tasks, &stop), None);
        assert_eq!(spawn(&config(""), &metrics, &tasks, &stop), None);
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
