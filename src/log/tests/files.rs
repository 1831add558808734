//! The bytes of the files: checkpoints and a hand-checked segment.

use std::fs;

use super::super::checkpoint::*;
use super::super::paths::{delete_dir_name, parse_file_name};
use super::*;

#[test]
fn checkpoints_round_trip_and_reject_damage() {
    let offsets = [
        (TopicPartition::new("a-b", 0), 5),
        (TopicPartition::new("z", 11), i64::MAX),
    ];
    let text = format_offsets(offsets.iter().map(|(tp, o)| (tp, *o)));
    assert_eq!(text, "0\n2\na-b 0 5\nz 11 9223372036854775807\n");
    assert_eq!(parse_offsets(text.as_bytes()).unwrap().len(), 2);
    for bad in [
        "",
        "1\n0\n",
        "0\n2\na 0 5\n",
        "0\n1\na 0\n",
        "0\n1\na 0 5 6\n",
        "0\nx\n",
    ] {
        assert_eq!(parse_offsets(bad.as_bytes()), None, "{bad:?}");
    }
    assert_eq!(format_epochs(&[(0, 0), (3, 17)]), "0\n2\n0 0\n3 17\n");
    assert_eq!(
        parse_epochs(b"0\n2\n0 0\n3 17\n"),
        Some(vec![(0, 0), (3, 17)])
    );
    assert_eq!(
        parse_clean_shutdown(b"{\"version\":0,\"brokerEpoch\":7}"),
        7
    );
    assert_eq!(parse_clean_shutdown(b""), -1);
    assert_eq!(
        format_clean_shutdown(7),
        "{\"version\":0,\"brokerEpoch\":7}"
    );
}

#[test]
fn meta_properties_are_javas() {
    let meta = MetaProperties {
        cluster_id: "LMT3Sp_4T6OONQQVZoFtng".into(),
        node_id: 1,
        directory_id: crate::types::uuid_from_base64("kBfUTGjDYg4iezstILKx8Q"),
    };
    let text = "#\n#Mon Nov 23 22:47:15 UTC 2026\nnode.id=1\ndirectory.id=kBfUTGjDYg4iezstILKx8Q\nversion=1\n\
                cluster.id=LMT3Sp_4T6OONQQVZoFtng\n";
    assert_eq!(meta.format("Mon Nov 23 22:47:15 UTC 2026"), text);
    assert_eq!(MetaProperties::parse(text.as_bytes()), Some(meta));
    assert_eq!(MetaProperties::parse(b"version=0\nbroker.id=1\n"), None);
}

#[test]
fn names_of_files_and_directories() {
    assert_eq!(
        parse_file_name("00000000000000000042.log"),
        Some((42, "log"))
    );
    assert_eq!(
        parse_file_name("00000000000000000042.log.deleted"),
        Some((42, "log.deleted"))
    );
    for bad in [
        "42.log",
        "99999999999999999999.log",
        "partition.metadata",
        "-0000000000000000001.log",
    ] {
        assert_eq!(parse_file_name(bad), None, "{bad}");
    }
    let long = TopicPartition::new("t".repeat(249), 1234);
    assert_eq!(delete_dir_name(&long, Uuid::from_u128(1)).len(), 255);
}

/// Ruler in `protocol/batch/mod.rs`; every byte below was set by hand from Kafka's formats.
#[test]
fn a_segment_is_kafkas_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(|c| c.index_interval_bytes = 10);
    let mut log = open_with(dir.path(), &config);
    for timestamp in [1000, 900, 2000] {
        let mut builder = BatchBuilder::new();
        builder.append(timestamp, Some(b"k"), Some(b"v1"));
        builder.append(timestamp + 1, None, None);
        log.append_as_leader(&[valid(builder.build())], 5, NOW)
            .unwrap();
    }
    stop_cleanly(log);
    let file = |name: &str| fs::read(dir.path().join("topic-0").join(name)).unwrap();
    let records: &[u8] = &[
        18, 0, 0, 0, 2, b'k', 4, b'v', b'1',
        0, // length 9, deltas 0, key 1 byte, value 2 bytes, no headers
        12, 0, 2, 2, 1, 1, 0, // length 6, deltas 1, null key and value, no headers
    ];
    let mut batch = vec![0, 0, 0, 0, 0, 0, 0, 2]; // base offset
    batch.extend([0, 0, 0, 49 + 17, 0, 0, 0, 5, 2]); // length, leader epoch, magic
    let mut covered = vec![0, 0, 0, 0, 0, 1]; // attributes, last offset delta
    covered.extend(900i64.to_be_bytes());
    covered.extend(901i64.to_be_bytes());
    covered.extend([0xff; 14]); // no producer
    covered.extend([0, 0, 0, 2]);
    covered.extend(records);
    batch.extend(crc32c::crc32c(&covered).to_be_bytes());
    batch.extend(covered);
    let log_bytes = file("00000000000000000000.log");
    assert_eq!(log_bytes.len(), 3 * batch.len());
    assert_eq!(log_bytes[batch.len()..2 * batch.len()], batch);
    // One entry for each batch behind the first: its last offset, its position.
    assert_eq!(
        file("00000000000000000000.index"),
        [0, 0, 0, 3, 0, 0, 0, 78, 0, 0, 0, 5, 0, 0, 0, 156]
    );
    // The second batch did not raise the largest timestamp: its entry repeats the first batch's, once.
    let mut times = 1001i64.to_be_bytes().to_vec();
    times.extend([0, 0, 0, 1]);
    times.extend(2001i64.to_be_bytes());
    times.extend([0, 0, 0, 5]);
    assert_eq!(file("00000000000000000000.timeindex"), times);
    assert_eq!(
        file("00000000000000000006.snapshot"),
        [0, 1, 0x48, 0x67, 0x4b, 0xc7, 0, 0, 0, 0]
    );
    assert_eq!(file("leader-epoch-checkpoint"), b"0\n1\n5 0\n");
    assert_eq!(
        file("partition.metadata"),
        b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABw"
    );
}

/// Rule: diverging-epoch
#[test]
fn leader_epochs_answer_as_kafka_does() {
    let mut epochs = LeaderEpochCache::default();
    let end = |epochs: &LeaderEpochCache, epoch| {
        let end = epochs.end_offset_for(epoch, 100);
        (end.leader_epoch, end.end_offset)
    };
    assert_eq!(end(&epochs, 0), (-1, -1));
    for (epoch, start) in [(1, 0), (3, 10), (5, 30)] {
        assert!(epochs.assign(epoch, start));
    }
    assert!(!epochs.assign(5, 40));
    for (epoch, wanted) in [
        (-1, (-1, -1)),
        (0, (0, 0)),
        (1, (1, 10)),
        (2, (1, 10)),
        (3, (3, 30)),
        (5, (5, 100)),
        (6, (-1, -1)),
    ] {
        assert_eq!(end(&epochs, epoch), wanted, "epoch {epoch}");
    }
    assert_eq!(
        (epochs.epoch_for_offset(9), epochs.epoch_for_offset(10)),
        (Some(1), Some(3))
    );
    assert!(epochs.truncate_from_start(12) && !epochs.truncate_from_start(12));
    assert_eq!(epochs.entries(), [(3, 12), (5, 30)]);
    assert!(epochs.truncate_from_end(30) && !epochs.truncate_from_end(30));
    assert!(
        epochs.assign(4, 12),
        "an epoch that begins at the same offset takes the older one's place"
    );
    assert_eq!(epochs.entries(), [(4, 12)]);
}
