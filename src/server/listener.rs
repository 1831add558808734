//! Accepts connections of one listener and bounds their number: `max.connections`, `max.connections.per.ip` and its overrides, as
//! they are set when a connection comes.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::connection::{self, Limits};
use crate::api::{ConnectionInfo, Services};
use crate::config::Config;
use crate::protocol::principal::Principal;

/// Connections that the kernel holds for us while we do not accept.
const BACKLOG: u32 = 1024;
/// Rest after a failed accept (no descriptors left): the next try would fail at once too.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How many connections there may be, over all listeners of the broker.
#[derive(Debug, Default)]
pub struct ConnectionQuota {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    by_ip: HashMap<IpAddr, usize>,
}

impl ConnectionQuota {
    #[cfg(test)]
    fn count(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open
            .lock()
            .expect("connection counts are updated without panics")
    }

    /// A place for a connection from `ip`; it is given back when the place is dropped.
    fn admit(self: &Arc<Self>, ip: IpAddr, config: &Config) -> Option<Admitted> {
        let ip = ip.to_canonical();
        let connections_max = usize::try_from(config.max_connections).unwrap_or(0);
        let from_ip_max = config.connections_max_from(ip);
        let mut open = self.lock();
        let from_ip = open.by_ip.get(&ip).copied().unwrap_or(0);
        if open.count >= connections_max || from_ip >= from_ip_max {
            return None;
        }
        open.count += 1;
        open.by_ip.insert(ip, from_ip + 1);
        drop(open);
        Some(Admitted {
            quota: Arc::clone(self),
            ip,
        })
    }
}

struct Admitted {
    quota: Arc<ConnectionQuota>,
    ip: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.quota.lock();
        open.count -= 1;
        if let Some(count) = open.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.by_ip.remove(&self.ip);
            }
        }
    }
}

/// Binds a listening socket. Port 0 lets the system choose.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => {
                    warn!(listener = %self.name, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(admitted) = self.quota.admit(peer.ip(), &self.services.config.load()) else {
            debug!(%peer, "too many connections");
            return;
        };
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
            let _place = admitted;
            served.await;
            metrics.connection_closed();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Config {
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::load(None, &settings).unwrap()
    }

    #[test]
    fn quota_counts_in_all_and_per_address() {
        let quota = Arc::<ConnectionQuota>::default();
        let limits = config(&[("max.connections", "3"), ("max.connections.per.ip", "2")]);
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let places = [quota.admit(a, &limits), quota.admit(a, &limits)];
        assert!(places.iter().all(Option::is_some));
        assert!(quota.admit(a, &limits).is_none(), "third of one address");
        let other = quota.admit(b, &limits);
        assert!(other.is_some());
        assert!(quota.admit(b, &limits).is_none(), "fourth in all");
        drop(places);
        assert_eq!(quota.count(), 1);
        assert!(quota.admit(a, &limits).is_some());
    }

    #[test]
    fn limits_change_while_connections_are_open() {
        let quota = Arc::<ConnectionQuota>::default();
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let _first = quota.admit(a, &config(&[])).unwrap();
        let lower = config(&[("max.connections.per.ip", "1")]);
        assert!(quota.admit(a, &lower).is_none());
        let own = config(&[
            ("max.connections.per.ip", "0"),
            ("max.connections.per.ip.overrides", "127.0.0.1:2, ::1:7"),
        ]);
        assert!(quota.admit(b, &own).is_none());
        assert!(quota.admit(a, &own).is_some());
        assert_eq!(
            own.connections_max_from(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])),
            7
        );
    }
}
