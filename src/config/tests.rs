//! Tests of the key tables, loading, and the typed views.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fields::FIELD_NAMES;
use super::*;

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, &[])
}

/// Settings that make a node, with `more` on top.
fn node(more: &str) -> Result<Config, ConfigError> {
    load(&format!("node.id=1\nlog.dirs=/tmp/x\n{more}"))
}

#[test]
fn every_key_parses_its_default_and_tables_are_sorted() {
    for table in [BROKER_KEYS, TOPIC_KEYS, GROUP_KEYS, CLIENT_METRICS_KEYS] {
        for key in table {
            if let Some(text) = key.default {
                let value = key.parse(text).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(value.to_string(), text, "{}", key.name);
            }
        }
        assert!(table.windows(2).all(|two| two[0].name < two[1].name));
    }
    for (topic, synonyms) in TOPIC_SYNONYMS {
        assert!(topic_key(topic).is_some(), "{topic}");
        assert!(
            synonyms.iter().all(|(name, _)| broker_key(name).is_some()),
            "{topic}"
        );
    }
}

#[test]
fn every_field_has_its_key() {
    for field in FIELD_NAMES {
        assert!(broker_key(&field.replace('_', ".")).is_some(), "{field}");
    }
    let config = Config::load(None, &[]).unwrap();
    assert_eq!(config.num_partitions, 1);
    assert_eq!(config.group_initial_rebalance_delay_ms, 3000);
    assert_eq!(config.offsets_topic_replication_factor, 1);
    assert_eq!(config.broker_rack, None);
    assert_eq!(config.ottla_http_listener, ":9404");
}

#[test]
fn topic_configs_take_the_first_broker_synonym_that_is_set() {
    let none = BTreeMap::new();
    let config = node("log.retention.hours=24\nlog.roll.ms=7\nlog.roll.hours=9").unwrap();
    let topic = TopicConfig::resolve(&config, &none);
    assert_eq!(topic.retention_ms, 24 * HOUR_MS);
    assert_eq!(topic.segment_ms, 7);
    let unlimited = node("log.retention.hours=-1").unwrap();
    assert_eq!(TopicConfig::resolve(&unlimited, &none).retention_ms, -1);
    let unlimited = node("log.retention.ms=-2").unwrap();
    assert_eq!(TopicConfig::resolve(&unlimited, &none).retention_ms, -1);
    let own = BTreeMap::from([
        ("retention.ms".to_owned(), "5".to_owned()),
        ("cleanup.policy".to_owned(), " compact , delete ".to_owned()),
    ]);
    let topic = TopicConfig::resolve(&config, &own);
    assert_eq!(topic.retention_ms, 5);
    assert!(topic.cleanup_policy.compact && topic.cleanup_policy.delete);
    assert_eq!(
        TopicConfig::resolve(&Config::load(None, &[]).unwrap(), &none),
        TopicConfig::default()
    );
}

#[test]
fn dynamic_configs_override_the_file_and_its_synonyms() {
    let none = BTreeMap::new();
    let map = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
    let config = node("log.retention.ms=1\nnum.io.threads=3").unwrap();
    let next = config.with_dynamic(&map("log.retention.hours", "2"), &none);
    assert_eq!(
        TopicConfig::resolve(&next, &none).retention_ms,
        1,
        "hours are read-only"
    );
    let next = config.with_dynamic(&map("log.retention.ms", "2"), &map("log.retention.ms", "3"));
    assert_eq!(TopicConfig::resolve(&next, &none).retention_ms, 3);
    let next = next.with_dynamic(&map("num.io.threads", "5"), &none);
    assert_eq!((next.num_io_threads, config.num_io_threads), (5, 3));
    assert_eq!(TopicConfig::resolve(&next, &none).retention_ms, 1);
    let code = |k: &str, v: &str, per_broker| {
        config
            .validate_dynamic(&map(k, v), per_broker)
            .map_err(|e| e.code())
    };
    assert_eq!(code("num.partitions", "2", true), Err(42));
    assert_eq!(code("log.retention.ms", "x", true), Err(42));
    assert_eq!(code("ssl.keystore.type", "PEM", true), Err(42));
    assert_eq!(
        code("listener.name.plaintext.ssl.keystore.type", "PEM", true),
        Ok(())
    );
    assert_eq!(
        code("listener.name.plaintext.ssl.keystore.type", "PEM", false),
        Err(42)
    );
    assert_eq!(code("no.such.key", "x", true), Ok(()));
    // One at first; halved or doubled at most.
    assert_eq!(code("log.cleaner.threads", "2", false), Ok(()));
    assert_eq!(code("log.cleaner.threads", "3", false), Err(42));
    assert_eq!(code("log.cleaner.threads", "0", false), Err(42));
    assert_eq!(code("num.replica.fetchers", "2", false), Ok(()));
    assert_eq!(code("num.replica.fetchers", "3", false), Err(42));
    let too_small = code("log.cleaner.dedupe.buffer.size", "1048576", false);
    assert_eq!(too_small, Err(42));
}

#[test]
fn topic_config_rules_are_kafkas() {
    let config = Config::load(None, &[]).unwrap();
    let code = |pairs: &[(&str, &str)]| {
        let map = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        validate_topic_configs(&config, &BTreeMap::new(), &map).map_err(|e| e.code())
    };
    assert_eq!(code(&[]), Ok(()));
    assert_eq!(code(&[("cleanup.policy", " compact , delete ")]), Ok(()));
    assert_eq!(code(&[("cleanup.policy", "")]), Ok(()));
    assert_eq!(code(&[("cleanup.policy", "compact,compact")]), Ok(()));
    assert_eq!(code(&[("cleanup.policy", "compact,")]), Err(40));
    assert_eq!(code(&[("cleanup.policy", "keep")]), Err(40));
    assert_eq!(code(&[("no.such.key", "1")]), Err(40));
    assert_eq!(code(&[("segment.bytes", "1048575")]), Err(40));
    assert_eq!(code(&[("segment.bytes", "1048576")]), Ok(()));
    assert_eq!(code(&[("retention.ms", "-1")]), Ok(()));
    assert_eq!(code(&[("retention.ms", "-2")]), Err(40));
    assert_eq!(code(&[("retention.ms", "1.5")]), Err(40));
    assert_eq!(code(&[("max.message.bytes", "2147483648")]), Err(40));
    assert_eq!(code(&[("min.cleanable.dirty.ratio", "1.01")]), Err(40));
    assert_eq!(code(&[("min.cleanable.dirty.ratio", " 0.5f ")]), Ok(()));
    assert_eq!(code(&[("min.cleanable.dirty.ratio", "NaN")]), Ok(()));
    assert_eq!(code(&[("min.cleanable.dirty.ratio", "inf")]), Err(40));
    assert_eq!(code(&[("compression.gzip.level", "0")]), Err(40));
    assert_eq!(code(&[("compression.gzip.level", "-1")]), Ok(()));
    assert_eq!(code(&[("compression.type", "ZSTD")]), Err(40));
    assert_eq!(code(&[("preallocate", "TRUE")]), Ok(()));
    assert_eq!(code(&[("remote.storage.enable", "true")]), Err(40));
    let lags = [
        ("min.compaction.lag.ms", "10"),
        ("max.compaction.lag.ms", "9"),
    ];
    assert_eq!(code(&lags), Err(40));
    assert_eq!(
        code(&[("leader.replication.throttled.replicas", "0:1,1:2")]),
        Ok(())
    );
    assert_eq!(
        code(&[("leader.replication.throttled.replicas", "0-1")]),
        Err(40)
    );
}

/// The settings of the Kafka that `testdata` was read from.
const OBSERVED_NODE: &str = "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:29193
listeners=PLAINTEXT://127.0.0.1:29192,CONTROLLER://127.0.0.1:29193
advertised.listeners=PLAINTEXT://127.0.0.1:29192,CONTROLLER://127.0.0.1:29193
controller.listener.names=CONTROLLER
log.dirs=/tmp/kcfg/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=24
";

/// The lines that kafka-configs prints of `entries`, as in `testdata`.
fn lines(mut entries: Vec<ConfigEntry>) -> Vec<String> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let source = |source| match source {
        ConfigSource::DynamicTopic => "DYNAMIC_TOPIC_CONFIG",
        ConfigSource::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
        ConfigSource::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        ConfigSource::StaticBroker => "STATIC_BROKER_CONFIG",
        ConfigSource::Default => "DEFAULT_CONFIG",
        ConfigSource::DynamicBrokerLogger => "DYNAMIC_BROKER_LOGGER_CONFIG",
        ConfigSource::ClientMetrics => "DYNAMIC_CLIENT_METRICS_CONFIG",
        ConfigSource::Group => "DYNAMIC_GROUP_CONFIG",
    };
    let text = |value: &Option<String>| value.clone().unwrap_or("null".to_owned());
    entries
        .iter()
        .map(|e| {
            let synonyms: Vec<String> = e
                .synonyms
                .iter()
                .map(|s| format!("{}:{}={}", source(s.source), s.name, text(&s.value)))
                .collect();
            let sensitive = e.is_sensitive;
            format!(
                "{}\t{}\t{sensitive}\t{}",
                e.name,
                text(&e.value),
                synonyms.join(", ")
            )
        })
        .collect()
}

#[test]
fn described_configs_equal_those_of_kafka() {
    let none = BTreeMap::new();
    // What the eligible-leader-replicas feature sets when a cluster is formatted.
    let elr = BTreeMap::from([("min.insync.replicas".to_owned(), "1".to_owned())]);
    let config = load(OBSERVED_NODE).unwrap().with_dynamic(&elr, &none);
    let own = BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]);
    for (entries, expected) in [
        (
            config.describe_broker(),
            include_str!("testdata/broker.tsv"),
        ),
        (
            config.describe_topic(&own),
            include_str!("testdata/topic.tsv"),
        ),
        (
            config.describe_group(&none),
            include_str!("testdata/group.tsv"),
        ),
    ] {
        let expected: Vec<&str> = expected.lines().filter(|l| !l.starts_with('#')).collect();
        let got = lines(entries);
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(got, expected);
        }
        assert_eq!(got.len(), expected.len());
    }
    assert_eq!(lines(config.describe_cluster_default()).len(), 1);
    assert_eq!(describe_client_metrics(&none).len(), 3);
    assert!(docs::names().is_sorted());
    assert!(docs::names().all(|n| { broker_key(n).or(topic_key(n)).or(group_key(n)).is_some() }));
}

#[test]
fn kafkas_own_server_properties_loads() {
    // The settings of config/server.properties in Kafka 4.3.1.
    let config = load(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.bootstrap.servers=localhost:9093\n\
         listeners=PLAINTEXT://:9092,CONTROLLER://:9093\n\
         inter.broker.listener.name=PLAINTEXT\n\
         advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
         num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
         socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\n\
         log.dirs=/tmp/kraft-combined-logs\nnum.partitions=1\n\
         num.recovery.threads.per.data.dir=2\noffsets.topic.replication.factor=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         log.retention.hours=168\nlog.segment.bytes=1073741824\n\
         log.retention.check.interval.ms=300000\n",
    )
    .unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let built_in = Config::load(None, &[]).unwrap();
    assert_eq!(config.listeners, built_in.listeners);
    assert_eq!(config.advertised_listeners, built_in.advertised_listeners);
    assert_eq!(config.log_dirs, built_in.log_dirs);
    assert_eq!(config.broker_listeners().count(), 1);
    assert_eq!(config.controller_listeners().next().unwrap().port, 9093);
}

#[test]
fn errors_say_key_value_file_and_what_is_allowed() {
    let error = node("num.partitions=zero").unwrap_err().to_string();
    for part in ["num.partitions", "zero", "server.properties", "at least 1"] {
        assert!(error.contains(part), "{error}");
    }
    let overridden = Config::parse("node.id=1", &[("log.segment.bytes".into(), "1".into())]);
    assert!(overridden.unwrap_err().to_string().contains("--override"));
    let secret = node("ssl.key.password=hunter2\nnum.io.threads=0")
        .unwrap_err()
        .to_string();
    assert!(!secret.contains("hunter2"));
    for bad in [
        "advertised.listeners=PLAINTEXT://0.0.0.0:9092",
        "listeners=PLAINTEXT://:9092,PLAINTEXT://:9093",
        "listeners=PLAINTEXT://:9092,CONTROLLER://:9092",
        "listeners=FOO://:9092",
        "listeners=SSL://:9092",
        "listeners=PLAINTEXT://:99999",
        "listeners=",
        "advertised.listeners=OTHER://x:1",
        "listener.security.protocol.map=PLAINTEXT:CLEAR",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "create.topic.policy.class.name=com.example.Policy",
        "listener.name.plaintext.plain.sasl.server.callback.handler.class=com.example.Handler",
        "principal.builder.class=com.example.Builder",
        "zookeeper.connect=localhost:2181",
        "broker.id=2",
        "inter.broker.listener.name=INTERNAL",
        "max.connections.per.ip=0",
        "replica.fetch.wait.max.ms=40000",
        "log.roll.ms=0",
        "log.retention.ms=0",
        "remote.log.storage.system.enable=true",
        "controller.quorum.voters=2@localhost:9093",
        "controller.quorum.voters=2@a:1,3@b:1",
        "controller.quorum.voters=1@a:1,1@b:1",
        "controller.quorum.voters=1@a:1,b:1",
    ] {
        assert!(node(bad).is_err(), "{bad}");
    }
    assert!(
        load("log.dirs=/tmp/x")
            .unwrap_err()
            .to_string()
            .contains("node.id")
    );
    assert_eq!(load("broker.id=7\nlog.dir=/x").unwrap().node_id, 7);
}

#[test]
fn unknown_and_legacy_keys_are_warned_about() {
    let warnings = |text: &str| node(text).unwrap().warnings.join("\n");
    assert!(warnings("num.partition=3").contains("did you mean num.partitions?"));
    assert!(!warnings("my.own.plugin.setting.of.mine=3").contains("did you mean"));
    assert!(warnings("inter.broker.protocol.version=3.9").contains("metadata version"));
    assert!(warnings("log.message.downconversion.enable=true").contains("v2"));
    for without_effect in [
        "queued.max.requests",
        "metadata.max.idle.interval.ms",
        "metadata.max.retention.bytes",
        "metadata.max.retention.ms",
        "group.coordinator.append.linger.ms",
        "controller.quorum.append.linger.ms",
        "server.max.startup.time.ms",
    ] {
        let said = warnings(&format!("{without_effect}=1"));
        assert!(said.contains("is ignored"), "{without_effect}: {said}");
    }
    assert_eq!(
        warnings("listener.name.plaintext.connections.max.reauth.ms=1"),
        ""
    );
    assert_eq!(warnings("sasl.enabled.mechanisms=PLAIN"), "");
}

#[test]
fn what_a_list_has_twice_counts_once() {
    let config = load("node.id=1\nlog.dirs=/a, /b,/a\nlog.cleanup.policy=delete,delete").unwrap();
    let dirs = config.log_dirs.iter().map(|dir| dir.to_str().unwrap());
    assert_eq!(dirs.collect::<Vec<_>>(), ["/a", "/b"]);
    let policy = config.value("log.cleanup.policy").unwrap();
    assert_eq!(policy.to_string(), "delete");
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
}

#[test]
fn listeners_fit_their_protocol_map() {
    let config = node(
        "listeners=IN://127.0.0.1:1,OUT://[::1]:2,CTRL://127.0.0.1:3\n\
         listener.security.protocol.map=IN:PLAINTEXT,out:PLAINTEXT,CTRL:PLAINTEXT\n\
         advertised.listeners=out://host.example:9,IN://10.0.0.1:1\n\
         inter.broker.listener.name=IN\ncontroller.listener.names=CTRL",
    )
    .unwrap();
    let names: Vec<String> = config.listeners.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        ["IN://127.0.0.1:1", "OUT://[::1]:2", "CTRL://127.0.0.1:3"]
    );
    let advertised: Vec<String> = config
        .advertised_broker_listeners()
        .map(ToString::to_string)
        .collect();
    assert_eq!(advertised, ["OUT://host.example:9", "IN://10.0.0.1:1"]);
    let one = node(
        "listeners=PLAINTEXT://:1,INSIDE://:2,CONTROLLER://:3\nadvertised.listeners=PLAINTEXT://h:9\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
    )
    .unwrap();
    let advertised = one.advertised_listeners.iter();
    let advertised: Vec<&str> = advertised.map(|it| &*it.listener_name).collect();
    assert_eq!(
        advertised,
        ["PLAINTEXT", "CONTROLLER"],
        "INSIDE is not told"
    );
    let moved = Config::load(
        None,
        &[("listeners".into(), "PLAINTEXT://127.0.0.1:7".into())],
    )
    .unwrap();
    let advertised: Vec<String> = moved
        .advertised_broker_listeners()
        .map(ToString::to_string)
        .collect();
    assert_eq!(advertised, ["PLAINTEXT://127.0.0.1:7"]);
}

#[test]
fn loggers_have_levels_that_can_change() {
    // The levels are the process's: only this test touches `ottla.partition`.
    let level = |name: &str| loggers().into_iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!(level("ottla.partition"), "INFO");
    let code = |changes: &[LoggerChange<'_>], only| {
        set_loggers(changes, only).map_err(|error| error.code())
    };
    assert_eq!(code(&[("ottla.partition", Some("DEBUG"))], true), Ok(()));
    assert_eq!(level("ottla.partition"), "INFO");
    assert_eq!(code(&[("ottla.partition", Some("DEBUG"))], false), Ok(()));
    assert_eq!(level("ottla.partition"), "DEBUG");
    assert_eq!(code(&[("ottla.partition", Some("LOUD"))], false), Err(40));
    assert_eq!(
        code(
            &[("ottla.partition", None), ("no.such", Some("INFO"))],
            false
        ),
        Err(40)
    );
    assert_eq!(code(&[(ROOT_LOGGER, None)], false), Err(42));
    assert_eq!(level("ottla.partition"), "DEBUG");
    assert_eq!(code(&[("ottla.partition", None)], false), Ok(()));
    assert_eq!(level("ottla.partition"), "INFO");
}

#[test]
fn values_can_stand_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secrets.properties");
    std::fs::write(&file, "partitions=4\n").unwrap();
    std::fs::write(dir.path().join("rack"), "r1").unwrap();
    let classes = "config.providers=env,file,dir\n\
        config.providers.env.class=org.apache.kafka.common.config.provider.EnvVarConfigProvider\n\
        config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider\n\
        config.providers.dir.class=org.apache.kafka.common.config.provider.DirectoryConfigProvider\n";
    let (file, dir) = (file.display(), dir.path().display());
    let config = node(&format!(
        "{classes}num.partitions=${{file:{file}:partitions}}\nbroker.rack=a-${{dir:{dir}:rack}}-${{no:x}}\n"
    ))
    .unwrap();
    assert_eq!(config.num_partitions, 4);
    assert_eq!(config.broker_rack.as_deref(), Some("a-r1-${no:x}"));
    assert_eq!(config.warnings, Vec::<String>::new());
    let home = node(&format!("{classes}broker.rack=${{env:PATH}}")).unwrap();
    assert_eq!(home.broker_rack, std::env::var("PATH").ok());
    for bad in [
        "${env:NO_SUCH_VARIABLE_HERE}",
        "${file:/no/such:key}",
        "${file:nothing}",
    ] {
        assert!(
            node(&format!("{classes}broker.rack={bad}")).is_err(),
            "{bad}"
        );
    }
    assert!(node("config.providers=vault\n").is_err());
    let untouched = node("broker.rack=${env:PATH}").unwrap();
    assert_eq!(untouched.broker_rack.as_deref(), Some("${env:PATH}"));
}

proptest! {
    /// Whatever a file says, it is loaded or refused.
    #[test]
    fn any_setting_is_taken_or_refused(
        settings in prop::collection::vec((0..BROKER_KEYS.len(), "[-0-9a-z:/,.*${}@ ]{0,12}|-?[0-9]{1,20}"), 1..4)
    ) {
        let mut text = String::from("node.id=1\nlog.dirs=/tmp/x\n");
        for (key, value) in &settings {
            text.push_str(BROKER_KEYS[*key].name);
            text.push('=');
            text.push_str(value);
            text.push('\n');
        }
        if let Ok(config) = load(&text) {
            prop_assert!(config.describe_broker().len() >= 340);
            TopicConfig::resolve(&config, &BTreeMap::new());
        }
    }
}

#[test]
fn roles_must_fit_to_listeners_and_quorum() {
    const BROKER: &str = "process.roles=broker\nlisteners=PLAINTEXT://:9092\n";
    const CONTROLLER: &str = "process.roles=controller\nlisteners=CONTROLLER://:9093\n";
    const SERVERS: &str = "controller.quorum.bootstrap.servers=a:9093,[::1]:9093\n";
    for (roles, rest, named) in [
        (BROKER, SERVERS, None),
        (BROKER, "controller.quorum.voters=5@a:9093\n", None),
        (CONTROLLER, SERVERS, None),
        (CONTROLLER, "controller.quorum.voters=1@a:9093\n", None),
        (BROKER, "", Some("controller.quorum.bootstrap.servers")),
        (CONTROLLER, "", Some("controller.quorum.bootstrap.servers")),
        (
            BROKER,
            "controller.quorum.bootstrap.servers=a\n",
            Some("HOST:PORT"),
        ),
        (
            BROKER,
            "controller.quorum.voters=1@a:9093\n",
            Some("node 1"),
        ),
        (
            CONTROLLER,
            "controller.quorum.voters=5@a:9093\n",
            Some("node 1"),
        ),
        (
            BROKER,
            "controller.quorum.voters=5@a:1\ncontroller.listener.names=\n",
            Some("controller.listener.names"),
        ),
        (
            BROKER,
            "controller.quorum.voters=5@a:1\nlisteners=PLAINTEXT://:9092,CONTROLLER://:9093\n",
            Some("CONTROLLER"),
        ),
        (
            BROKER,
            "controller.quorum.voters=5@a:1\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT\n",
            Some("listener.security.protocol.map"),
        ),
        (
            BROKER,
            "controller.quorum.voters=5@a:1\ncontroller.quorum.auto.join.enable=true\n",
            Some("auto.join"),
        ),
        (
            CONTROLLER,
            "controller.quorum.voters=1@a:1\nlisteners=CONTROLLER://:9093,PLAINTEXT://:9092\n",
            Some("PLAINTEXT"),
        ),
        (
            CONTROLLER,
            "controller.quorum.voters=1@a:1\ncontroller.listener.names=CONTROLLER,OTHER\n",
            Some("OTHER"),
        ),
        (
            CONTROLLER,
            "controller.quorum.voters=1@a:1\ninter.broker.listener.name=CONTROLLER\n",
            Some("inter.broker.listener.name"),
        ),
    ] {
        // Where a key is there twice the last one counts.
        let text = format!("node.id=1\nlog.dirs=/tmp/x\n{roles}{rest}");
        match (load(&text), named) {
            (Ok(_), None) => {}
            (Err(error), Some(named)) => {
                let said = error.to_string();
                assert!(said.contains(named), "{rest}: {said}");
            }
            (loaded, _) => panic!("{rest}: {:?}", loaded.map(|_| ())),
        }
    }
}

#[test]
fn early_start_listeners_are_listeners_of_this_node() {
    let check = |names: &str| {
        let text = format!(
            "node.id=1\nlisteners=A://:9092\nlistener.security.protocol.map=A:PLAINTEXT\n\
             inter.broker.listener.name=A\nearly.start.listeners={names}\n"
        );
        node(&text).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(check("A"), Ok(()));
    assert_eq!(check(""), Ok(()));
    for unknown in ["B", "A,B", "a"] {
        let refused = check(unknown).unwrap_err();
        assert!(
            refused.contains("early.start.listeners contains"),
            "{refused}"
        );
    }
}

#[test]
fn a_combined_node_has_the_listener_that_it_names() {
    let listeners = "listeners=PLAINTEXT://:9092,CONTROLLER://:9093\n\
        listener.security.protocol.map=CTRL:PLAINTEXT,CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n";
    let check = |rest: &str| node(&format!("node.id=1\n{rest}")).map(|_| ());
    let refused = |rest: &str| check(rest).unwrap_err().to_string();
    assert!(check(listeners).is_ok());
    let named = refused(&format!("{listeners}controller.listener.names=CTRL\n"));
    assert!(named.contains("=CTRL names none of listeners"), "{named}");
    let told = refused("controller.quorum.bootstrap.servers=a:9093\nlisteners=PLAINTEXT://:9092\n");
    assert!(told.contains("controller.listener.names"), "{told}");
}

#[test]
fn a_node_alone_names_no_controller_but_itself() {
    let is_alone = |rest: &str| {
        let text = format!(
            "node.id=1\nlisteners=PLAINTEXT://:9092,CONTROLLER://:9093\n\
             advertised.listeners=PLAINTEXT://kafka:9092\n{rest}"
        );
        node(&text).unwrap().is_alone()
    };
    assert!(is_alone(""));
    for own in [
        "localhost:9093",
        "127.0.0.1:9093",
        "[::1]:9093",
        "kafka:9093",
    ] {
        let own = format!("controller.quorum.bootstrap.servers={own}\n");
        assert!(is_alone(&own), "{own}");
    }
    for others in ["localhost:9094", "other:9093", "kafka:9093,other:9093"] {
        let others = format!("controller.quorum.bootstrap.servers={others}\n");
        assert!(!is_alone(&others), "{others}");
    }
    assert!(is_alone("controller.quorum.voters=1@other:9093\n"));
    assert!(!is_alone("controller.quorum.voters=1@a:9093,2@b:9093\n"));
}
