//! Tests of the key tables, loading, and the typed views.

use std::collections::BTreeMap;

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
    assert_eq!(code(&[("cleanup.policy", "compact,compact")]), Err(40));
    assert_eq!(code(&[("cleanup.policy", "keep")]), Err(40));
    assert_eq!(code(&[("no.such.key", "1")]), Err(40));
    assert_eq!(code(&[("segment.bytes", "1048575")]), Err(40));
    assert_eq!(code(&[("segment.bytes", "1048576")]), Ok(()));
    assert_eq!(code(&[("retention.ms", "-1")]), Ok(()));
    assert_eq!(code(&[("retention.ms", "-2")]), Err(40));
    assert_eq!(code(&[("retention.ms", "1.5")]), Err(40));
    assert_eq!(code(&[("max.message.bytes", "2147483648")]), Err(40));
    assert_eq!(code(&[("min.cleanable.dirty.ratio", "1.01")]), Err(40));
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
