//! How `process.roles` must fit to listeners, node id and the addresses of the quorum (`KafkaConfig.validateValues`).

use std::collections::BTreeSet;

use super::fields::{Config, parse_server, parse_voter};
use super::key::Value;
use super::load::ConfigError;

impl Config {
    pub(super) fn check_roles(&self) -> Result<(), ConfigError> {
        self.check_quorum()?;
        let names = self.controller_listener_names.join(",");
        match (self.is_broker(), self.is_controller()) {
            (true, false) => self.check_broker_only(&names)?,
            (false, true) => self.check_controller_only(&names)?,
            _ => self.check_combined(&names)?,
        }
        if self.is_controller() {
            self.check_own_vote()?;
        }
        if self.is_broker() {
            self.check_broker(&names)?;
        }
        self.check_early_start()
    }

    /// Which listeners open before the node is ready makes no difference here: those of controllers do, others wait.
    fn check_early_start(&self) -> Result<(), ConfigError> {
        const KEY: &str = "early.start.listeners";
        let Some(Value::List(early)) = self.value(KEY) else {
            return Ok(());
        };
        let is_known = |name: &String| {
            let mut listeners = self.listeners.iter();
            listeners.any(|it| it.listener_name == *name)
        };
        let mut names = early.iter().filter(|name| !name.is_empty());
        match names.find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(ConfigError::new(
                format!(
                    "{KEY} contains listener {name}, but this is not contained in listeners or controller.listener.names"
                ),
                "name only listeners of this node in it",
            )),
        }
    }

    /// Where the controllers are.
    fn check_quorum(&self) -> Result<(), ConfigError> {
        let voters = &self.controller_quorum_voters;
        let bad = |what: String| {
            Err(ConfigError::new(
                what,
                "write ID@HOST:PORT for each controller",
            ))
        };
        if let Some(text) = voters.iter().find(|text| parse_voter(text).is_none()) {
            return bad(format!(
                "controller.quorum.voters has {text}, which is not ID@HOST:PORT"
            ));
        }
        if self.voter_ids().len() != voters.len() {
            return bad(format!(
                "controller.quorum.voters={} names a node twice",
                voters.join(",")
            ));
        }
        let servers = &self.controller_quorum_bootstrap_servers;
        if let Some(text) = servers.iter().find(|text| parse_server(text).is_none()) {
            return Err(ConfigError::new(
                format!("controller.quorum.bootstrap.servers has {text}, which is not HOST:PORT"),
                "write HOST:PORT for each controller",
            ));
        }
        // A file without either is that of a node alone, which is its own quorum.
        let is_apart = !self.is_broker() || !self.is_controller();
        if is_apart && voters.is_empty() && servers.is_empty() {
            return Err(ConfigError::new(
                "neither controller.quorum.bootstrap.servers nor controller.quorum.voters says where the controllers are",
                "set controller.quorum.bootstrap.servers to HOST:PORT of each controller",
            ));
        }
        Ok(())
    }

    fn voter_ids(&self) -> BTreeSet<i32> {
        self.quorum_voters().iter().map(|(id, ..)| *id).collect()
    }

    fn check_broker_only(&self, names: &str) -> Result<(), ConfigError> {
        if self.voter_ids().contains(&self.node_id) {
            return Err(ConfigError::new(
                format!(
                    "process.roles=broker, but controller.quorum.voters={} has node {}",
                    self.controller_quorum_voters.join(","),
                    self.node_id
                ),
                "give this node a node.id of its own, or add controller to process.roles",
            ));
        }
        if names.is_empty() {
            return Err(ConfigError::new(
                "process.roles=broker, but controller.listener.names is empty",
                "set controller.listener.names to the name of the controllers' listener, such as CONTROLLER",
            ));
        }
        if let Some(listener) = self.controller_listeners().next() {
            return Err(ConfigError::new(
                format!(
                    "process.roles=broker, but listeners has {listener}, one of controller.listener.names={names}"
                ),
                "remove it from listeners: only controllers open it",
            ));
        }
        let mut unmapped = self.controller_listener_names.iter();
        let map = &self.listener_security_protocol_map;
        if let Some(name) = unmapped.find(|name| !map.contains_key(&name.to_ascii_uppercase())) {
            return Err(ConfigError::new(
                format!(
                    "controller.listener.names has {name}, which listener.security.protocol.map lacks"
                ),
                format!("add {name}:PLAINTEXT to listener.security.protocol.map"),
            ));
        }
        if self.controller_quorum_auto_join_enable {
            return Err(ConfigError::new(
                "controller.quorum.auto.join.enable=true, but process.roles has no controller",
                "remove controller.quorum.auto.join.enable",
            ));
        }
        Ok(())
    }

    fn check_controller_only(&self, names: &str) -> Result<(), ConfigError> {
        if let Some(listener) = self.broker_listeners().next() {
            return Err(ConfigError::new(
                format!(
                    "process.roles=controller, but listeners has {listener}, which is not in controller.listener.names={names}"
                ),
                "leave only controller listeners in listeners",
            ));
        }
        let opened = |name: &String| {
            let mut listeners = self.listeners.iter();
            listeners.any(|it| it.listener_name.eq_ignore_ascii_case(name))
        };
        if names.is_empty() || !self.controller_listener_names.iter().all(opened) {
            return Err(ConfigError::new(
                format!(
                    "process.roles=controller, but controller.listener.names={names} names no listener, or one that listeners lacks"
                ),
                "set controller.listener.names to the controllers' listener in listeners",
            ));
        }
        let inter = &self.inter_broker_listener_name;
        if self.originals.contains_key("inter.broker.listener.name")
            && self.is_controller_listener(inter)
        {
            return Err(ConfigError::new(
                format!(
                    "process.roles=controller, but inter.broker.listener.name={inter} is in controller.listener.names={names}"
                ),
                "remove inter.broker.listener.name",
            ));
        }
        Ok(())
    }

    fn check_combined(&self, names: &str) -> Result<(), ConfigError> {
        // A file that says nothing of controllers is that of a node alone, which needs no listener for them.
        let is_told = names != "CONTROLLER"
            || !self.controller_quorum_voters.is_empty()
            || !self.controller_quorum_bootstrap_servers.is_empty();
        if is_told && self.controller_listeners().next().is_none() {
            return Err(ConfigError::new(
                format!(
                    "process.roles has controller, but controller.listener.names={names} names none of listeners"
                ),
                "add the controllers' listener to listeners, such as CONTROLLER://:9093",
            ));
        }
        Ok(())
    }

    /// Whether this node is a cluster of its own, which needs nobody's cluster id: broker and controller, and no controller but
    /// itself is named.
    pub fn is_alone(&self) -> bool {
        let servers = &self.controller_quorum_bootstrap_servers;
        self.is_broker()
            && self.is_controller()
            && self.controller_quorum_voters.len() <= 1
            && servers.len() <= 1
            && servers.iter().all(|server| self.is_own_controller(server))
    }

    /// Whether `HOST:PORT` is a controller listener of this node, as far as names tell.
    fn is_own_controller(&self, server: &str) -> bool {
        let Some((host, port)) = parse_server(server) else {
            return false;
        };
        let is_loopback = |host: &str| {
            let address = host.parse::<std::net::IpAddr>();
            host == "localhost" || address.is_ok_and(|it| it.is_loopback())
        };
        let mut own = self.listeners.iter().chain(&self.advertised_listeners);
        let named = is_loopback(&host) || own.any(|it| it.host.eq_ignore_ascii_case(&host));
        // 0: whichever port the listener got.
        named && (port == 0 || self.controller_listeners().any(|it| it.port == port))
    }

    fn check_own_vote(&self) -> Result<(), ConfigError> {
        let ids = self.voter_ids();
        if !ids.is_empty() && !ids.contains(&self.node_id) {
            return Err(ConfigError::new(
                format!(
                    "controller.quorum.voters={} does not have node {}",
                    self.controller_quorum_voters.join(","),
                    self.node_id
                ),
                "write ID@HOST:PORT with the node.id of this node",
            ));
        }
        Ok(())
    }

    fn check_broker(&self, names: &str) -> Result<(), ConfigError> {
        if self.broker_listeners().next().is_none() {
            return Err(ConfigError::new(
                format!(
                    "listeners has nothing but controller listeners (controller.listener.names={names})"
                ),
                "add a listener for clients, such as PLAINTEXT://:9092",
            ));
        }
        let inter = &self.inter_broker_listener_name;
        if self.originals.contains_key("inter.broker.listener.name")
            && self
                .originals
                .contains_key("security.inter.broker.protocol")
        {
            return Err(ConfigError::new(
                "inter.broker.listener.name and security.inter.broker.protocol are both set",
                "remove security.inter.broker.protocol",
            ));
        }
        let known = self
            .advertised_broker_listeners()
            .any(|e| &e.listener_name == inter);
        if !known {
            return Err(ConfigError::new(
                format!("the inter-broker listener {inter} is not among the advertised listeners"),
                "set inter.broker.listener.name to one of listeners",
            ));
        }
        Ok(())
    }
}
