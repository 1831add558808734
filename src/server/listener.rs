//! Accepts connections of one listener, as far as the quota of connections lets it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::closing_order;
use super::connection::{self, Limits};
use super::connection_quota::{ConnectionQuota, Place};
use crate::api::{ConnectionInfo, Services};
use crate::config::Config;
use crate::protocol::principal::Principal;

/// Connections that the kernel holds for us while we do not accept, unless `socket.listen.backlog.size` is set.
const BACKLOG: u32 = 1024;
/// Rest after a failed accept (no descriptors left): the next try would fail at once too.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Binds a listening socket. Port 0 lets the system choose. Buffers are as large as the settings say (connections have those of
/// their listener), as in Kafka's own `server.properties`. What is not set is left to the system, whose buffers grow with the need.
pub fn bind(address: SocketAddr, config: &Config) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    // -1 leaves it to the system.
    let set = |name: &str, size: i32| {
        let is_set = config.is_set(name);
        is_set.then(|| u32::try_from(size).ok()).flatten()
    };
    if let Some(size) = set("socket.send.buffer.bytes", config.socket_send_buffer_bytes) {
        socket.set_send_buffer_size(size)?;
    }
    if let Some(size) = set(
        "socket.receive.buffer.bytes",
        config.socket_receive_buffer_bytes,
    ) {
        socket.set_recv_buffer_size(size)?;
    }
    socket.bind(address)?;
    let backlog = set(
        "socket.listen.backlog.size",
        config.socket_listen_backlog_size,
    );
    let listener = socket.listen(backlog.unwrap_or(BACKLOG))?;
    Ok(closing_order::listener(listener))
}

/// What every connection of a listener shares.
#[derive(Clone)]
pub struct Acceptor {
    pub name: Arc<str>,
    pub is_controller: bool,
    pub services: Arc<Services>,
    pub limits: Limits,
    pub quota: Arc<ConnectionQuota>,
    pub shutdown: CancellationToken,
    pub tasks: TaskTracker,
}

impl Acceptor {
    /// Accepts until shutdown.
    pub async fn run(self, listener: TcpListener) {
        info!(listener = %self.name, address = ?listener.local_addr().ok(), "listening");
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let admit = self.quota.admit(&self.name, peer.ip(), &self.services);
                    match self.shutdown.run_until_cancelled(admit).await {
                        Some(Some(place)) => self.serve(stream, peer, place),
                        Some(None) => debug!(%peer, "too many connections of this address"),
                        None => return,
                    }
                }
                Err(error) => {
                    warn!(listener = %self.name, %error, "accept failed");
                    let rest = tokio::time::sleep(ACCEPT_RETRY);
                    self.shutdown.run_until_cancelled(rest).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "connection gone before it was served");
            return;
        }
        let info = Arc::new(ConnectionInfo {
            listener: Arc::clone(&self.name),
            is_controller: self.is_controller,
            peer,
            principal: Principal::anonymous(),
        });
        let served = connection::serve(
            stream,
            info,
            Arc::clone(&self.services),
            self.limits.clone(),
            self.shutdown.clone(),
        );
        let metrics = self.services.metrics.listener(&self.name);
        metrics.connection_opened();
        self.tasks.spawn(async move {
            let _place = place;
            served.await;
            metrics.connection_closed();
        });
    }
}
