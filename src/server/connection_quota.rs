//! How many connections there may be and how fast they may come (Kafka's `ConnectionQuotas`): the acceptor of a listener rests
//! while `max.connections` or `max.connection.creation.rate` is reached, and closes what is over `max.connections.per.ip` or
//! its overrides. All of it as it is set when a connection comes; brokers' and controllers' listeners count apart.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Notify;
use tracing::warn;

use crate::api::Services;
use crate::config::Config;
use crate::metrics::WindowedRate;

/// The counts of the listeners of one role.
#[derive(Debug)]
pub struct ConnectionQuota {
    state: Mutex<State>,
    /// Told whenever a connection has closed.
    closed: Notify,
    windows: usize,
    window_ms: i64,
}

#[derive(Debug)]
struct State {
    rate: WindowedRate,
    /// At most as many as there are listeners.
    listeners: HashMap<Arc<str>, Listener>,
    /// Connections in all, also those of listeners that were closed.
    count: usize,
    /// At most as many as there are connections.
    by_ip: HashMap<IpAddr, usize>,
    overrides: Overrides,
}

#[derive(Debug)]
struct Listener {
    /// Its connections have it too: one that is closed and opened again begins anew.
    count: Arc<AtomicUsize>,
    rate: WindowedRate,
}

/// `max.connections.per.ip.overrides`, host names looked up once.
#[derive(Debug, Default)]
struct Overrides {
    text: String,
    by_ip: HashMap<IpAddr, usize>,
}

/// What became of a connection that asks for a place.
enum Taken {
    Place(Place),
    /// The listener or the broker has all it may have: another must close first.
    Full,
    /// The address has all it may have.
    TooManyFromIp,
}

/// A connection's place; it is given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    quota: Arc<ConnectionQuota>,
    of_listener: Arc<AtomicUsize>,
    ip: IpAddr,
}

impl ConnectionQuota {
    pub fn new(config: &Config) -> Self {
        let windows = config.quota_window_num.max(1) as usize;
        let window_ms = i64::from(config.quota_window_size_seconds.max(1)) * 1000;
        Self {
            state: Mutex::new(State {
                rate: WindowedRate::new(windows, window_ms),
                listeners: HashMap::new(),
                count: 0,
                by_ip: HashMap::new(),
                overrides: Overrides::default(),
            }),
            closed: Notify::new(),
            windows,
            window_ms,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add_listener(&self, name: Arc<str>) {
        let rate = WindowedRate::new(self.windows, self.window_ms);
        let count = Arc::default();
        let listener = Listener { count, rate };
        self.state().listeners.entry(name).or_insert(listener);
    }

    /// Its connections, which end, count on for their addresses and in all.
    pub fn remove_listener(&self, name: &str) {
        self.state().listeners.remove(name);
        self.closed.notify_waiters();
    }

    /// Looks up the hosts in `max.connections.per.ip.overrides`, unless they are known. While one cannot be looked up, the former
    /// overrides hold.
    pub async fn look_up_hosts(&self, config: &Config) -> io::Result<()> {
        let text = &config.max_connections_per_ip_overrides;
        if self.state().overrides.text == *text {
            return Ok(());
        }
        let mut by_ip = HashMap::new();
        for (host, connections_max) in config.connections_max_by_host() {
            match look_up(&host).await {
                Ok(ip) => drop(by_ip.insert(ip, connections_max)),
                Err(error) => {
                    self.state().overrides.text.clone_from(text);
                    let text = format!("cannot look up {host}: {error}");
                    return Err(io::Error::new(error.kind(), text));
                }
            }
        }
        let text = text.clone();
        self.state().overrides = Overrides { text, by_ip };
        Ok(())
    }

    /// Resolves with a place for a connection from `ip`, as soon as there is one; `None`: the address has too many.
    pub async fn admit(
        self: &Arc<Self>,
        listener: &Arc<str>,
        ip: IpAddr,
        services: &Services,
    ) -> Option<Place> {
        let config = services.config();
        if let Err(error) = self.look_up_hosts(&config).await {
            warn!(%error, "max.connections.per.ip.overrides");
        }
        let rest = self.record(listener, &config, services.clock.monotonic_ms());
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        let mut changes = services.images.watch();
        loop {
            let closed = self.closed.notified();
            match self.take(listener, ip, &services.config()) {
                Taken::Place(place) => return Some(place),
                Taken::TooManyFromIp => return None,
                Taken::Full => {}
            }
            // Limits are dynamic configs.
            tokio::select! {
                () = closed => {}
                Ok(()) = changes.changed() => {}
            }
        }
    }

    /// Counts a connection that has come; what is returned is how long the listener has to rest for it, at most a window.
    fn record(&self, listener: &str, config: &Config, now_ms: i64) -> Duration {
        const KEY: &str = "max.connection.creation.rate";
        let limit = |limit: Option<i64>| limit.unwrap_or(i64::MAX) as f64;
        let mut state = self.state();
        let is_protected = state.is_protected(listener, config);
        let mut rest_ms: f64 = 0.0;
        if !is_protected {
            state.rate.record(1, now_ms);
            let limit = limit(Some(config.max_connection_creation_rate.into()));
            rest_ms = state.rate.over_limit_ms(limit, now_ms);
        }
        if let Some(own) = state.listeners.get_mut(listener) {
            own.rate.record(1, now_ms);
            let limit = limit(config.listener_number(listener, KEY));
            rest_ms = rest_ms.max(own.rate.over_limit_ms(limit, now_ms));
        }
        Duration::from_millis(rest_ms.min(self.window_ms as f64).round() as u64)
    }

    fn take(self: &Arc<Self>, listener: &Arc<str>, ip: IpAddr, config: &Config) -> Taken {
        let ip = ip.to_canonical();
        let mut state = self.state();
        if state.is_full(listener, config) {
            return Taken::Full;
        }
        let connections_max = state.overrides.by_ip.get(&ip).copied();
        let connections_max =
            connections_max.unwrap_or(usize::try_from(config.max_connections_per_ip).unwrap_or(0));
        let count = state.by_ip.get(&ip).copied().unwrap_or(0);
        if count >= connections_max {
            return Taken::TooManyFromIp;
        }
        state.by_ip.insert(ip, count + 1);
        state.count += 1;
        let own = state.listeners.get(listener);
        let of_listener = own.map_or_else(Arc::default, |own| Arc::clone(&own.count));
        of_listener.fetch_add(1, Ordering::Relaxed);
        Taken::Place(Place {
            quota: Arc::clone(self),
            of_listener,
            ip,
        })
    }
}

impl State {
    /// Brokers get in among themselves, whatever clients do on other listeners.
    fn is_protected(&self, listener: &str, config: &Config) -> bool {
        config.inter_broker_listener_name == listener && self.listeners.len() > 1
    }

    fn is_full(&self, listener: &str, config: &Config) -> bool {
        let max =
            |number: Option<i64>| number.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(0));
        let own = self.listeners.get(listener);
        let own = own.map_or(0, |own| own.count.load(Ordering::Relaxed));
        if own >= max(config.listener_number(listener, "max.connections")) {
            return true;
        }
        !self.is_protected(listener, config)
            && self.count >= max(Some(config.max_connections.into()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.quota.state();
        state.count -= 1;
        self.of_listener.fetch_sub(1, Ordering::Relaxed);
        if let Some(count) = state.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                state.by_ip.remove(&self.ip);
            }
        }
        drop(state);
        self.quota.closed.notify_waiters();
    }
}

/// The first address of a host, an IPv4 one before others, as Java's `InetAddress.getByName` gives it.
async fn look_up(host: &str) -> io::Result<IpAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(ip.to_canonical());
    }
    let addresses: Vec<SocketAddr> = lookup_host((host, 0)).await?.collect();
    let v4 = addresses.iter().find(|address| address.is_ipv4());
    let first = v4.or(addresses.first());
    first
        .map(|address| address.ip().to_canonical())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    fn config(settings: &[(&str, &str)]) -> Config {
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::load(None, &settings).unwrap()
    }

    /// A quota of these listeners; PLAINTEXT is that of brokers.
    fn quota(listeners: &[&str], config: &Config) -> Arc<ConnectionQuota> {
        let quota = Arc::new(ConnectionQuota::new(config));
        for listener in listeners {
            quota.add_listener((*listener).into());
        }
        quota
    }

    fn take(quota: &Arc<ConnectionQuota>, listener: &str, ip: IpAddr, config: &Config) -> Taken {
        quota.take(&listener.into(), ip, config)
    }

    #[test]
    fn places_are_counted_in_all_and_by_address_and_listener() {
        let limits = config(&[
            ("max.connections", "3"),
            ("max.connections.per.ip", "2"),
            ("listener.name.x.max.connections", "1"),
        ]);
        let quota = quota(&["X", "Y"], &limits);
        let places = ["X", "Y"].map(|listener| take(&quota, listener, A, &limits));
        assert!(places.iter().all(|taken| matches!(taken, Taken::Place(_))));
        let third = take(&quota, "Y", A, &limits);
        assert!(
            matches!(third, Taken::TooManyFromIp),
            "third of one address"
        );
        let own = take(&quota, "X", B, &limits);
        assert!(matches!(own, Taken::Full), "second of the listener");
        let other = take(&quota, "Y", B, &limits);
        assert!(matches!(other, Taken::Place(_)));
        let fourth = take(&quota, "Y", B, &limits);
        assert!(matches!(fourth, Taken::Full), "fourth in all");
        let higher = config(&[("max.connections", "4")]);
        let fourth = take(&quota, "Y", B, &higher);
        assert!(matches!(fourth, Taken::Place(_)), "limits change");
        drop((places, other, fourth));
        assert!(quota.state().by_ip.is_empty());
        assert_eq!(quota.state().count, 0);
        let counts = quota.state().listeners["X"].count.load(Ordering::Relaxed);
        assert_eq!(counts, 0);
    }

    #[test]
    fn a_listener_that_is_opened_again_does_not_count_its_former_connections() {
        let limits = config(&[
            ("max.connections", "3"),
            ("listener.name.x.max.connections", "1"),
        ]);
        let quota = quota(&["X", "Y"], &limits);
        let former = take(&quota, "X", A, &limits);
        quota.remove_listener("X");
        quota.add_listener("X".into());
        let _own = take(&quota, "X", A, &limits);
        drop(former);
        assert!(matches!(take(&quota, "X", A, &limits), Taken::Full));
        let _other = take(&quota, "Y", A, &limits);
        assert_eq!(quota.state().count, 2);
    }

    #[test]
    fn brokers_get_in_whatever_clients_do() {
        let limits = config(&[
            ("max.connections", "1"),
            ("max.connection.creation.rate", "1"),
        ]);
        let alone = quota(&["PLAINTEXT"], &limits);
        let _place = take(&alone, "PLAINTEXT", A, &limits);
        assert!(matches!(take(&alone, "PLAINTEXT", A, &limits), Taken::Full));
        let wide = config(&[
            ("max.connections", "1"),
            ("listener.name.plaintext.max.connections", "2"),
        ]);
        let quota = quota(&["PLAINTEXT", "X"], &wide);
        let _place = take(&quota, "X", A, &wide);
        let broker = take(&quota, "PLAINTEXT", A, &wide);
        assert!(matches!(broker, Taken::Place(_)));
    }

    #[test]
    fn a_listener_rests_while_connections_come_too_fast() {
        let limits = config(&[
            ("max.connection.creation.rate", "2"),
            ("listener.name.y.max.connection.creation.rate", "1"),
        ]);
        let quota = quota(&["X", "Y"], &limits);
        for _ in 0..10 {
            assert!(quota.record("Y", &limits, 0).is_zero());
        }
        for _ in 0..10 {
            assert!(quota.record("X", &limits, 0).is_zero());
        }
        assert_eq!(quota.record("X", &limits, 0), Duration::from_millis(500));
        // A window at most.
        assert_eq!(quota.record("Y", &limits, 0), Duration::from_secs(1));
        assert!(quota.record("X", &config(&[]), 0).is_zero());
        assert!(quota.record("X", &limits, 60_000).is_zero());
    }

    #[tokio::test]
    async fn overrides_name_addresses_or_hosts() {
        let limits = config(&[
            ("max.connections.per.ip", "0"),
            ("max.connections.per.ip.overrides", "localhost:2, ::1:7"),
        ]);
        let quota = quota(&["X"], &limits);
        quota.look_up_hosts(&limits).await.unwrap();
        assert!(matches!(
            take(&quota, "X", B, &limits),
            Taken::TooManyFromIp
        ));
        let _places = [(); 2].map(|()| take(&quota, "X", A, &limits));
        assert!(matches!(
            take(&quota, "X", A, &limits),
            Taken::TooManyFromIp
        ));
        let v6 = "::1".parse().unwrap();
        assert!(matches!(take(&quota, "X", v6, &limits), Taken::Place(_)));
        let unknown = config(&[("max.connections.per.ip.overrides", "no-such-host.invalid:1")]);
        assert!(quota.look_up_hosts(&unknown).await.is_err());
        assert!(
            quota.look_up_hosts(&unknown).await.is_ok(),
            "not asked again"
        );
    }
}
