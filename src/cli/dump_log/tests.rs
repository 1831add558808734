//! Tests of what the tool prints. That Apache Kafka prints the same of the same files is `compat-tests/disk`.

use std::fs;

use bytes::{BufMut, Bytes, BytesMut};
use clap::Parser;

use super::*;
use crate::protocol::batch::{BatchBuilder, CompressionType, control_batch};
use crate::protocol::control_records::{LeaderChangeMessage, Voter};
use crate::protocol::group_records::{GroupMetadataKey, GroupMetadataValue, GroupRecordKey};
use crate::protocol::group_records::{GroupRecordValue, MemberMetadata, OffsetCommitKey};
use crate::protocol::metadata_records::{TopicRecord, encode_record};
use crate::protocol::transaction_records::{TransactionLogKey, TransactionLogValue};
use crate::types::Uuid;

const NOW: i64 = 1_700_000_000_000;

#[derive(Debug, Parser)]
struct Tool {
    #[command(flatten)]
    args: DumpLogArgs,
}

/// Writes `files` beside each other and dumps the first. Returns what was printed, its path as `PATH`.
fn dump_files(
    files: &[(&str, &[u8])],
    flags: &[&str],
) -> (Result<Findings, DumpError>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let path = dir.path().join(files[0].0);
    let path = path.to_str().unwrap();
    let mut words = vec!["dump-log", "--files", path];
    words.extend(flags);
    let tool = Tool::try_parse_from(words).unwrap();
    let mut out = Vec::new();
    let done = dump(&tool.args, &mut out);
    let text = String::from_utf8(out).unwrap().replace(path, "PATH");
    (done, text.lines().map(str::to_owned).collect())
}

/// Of each line its end: batches are told by what stands behind their header fields.
fn check(files: &[(&str, &[u8])], flags: &[&str], expected_ends: &[&str]) -> Findings {
    let (done, lines) = dump_files(files, flags);
    assert_eq!(lines.len(), expected_ends.len(), "{lines:#?}");
    for (line, end) in lines.iter().zip(expected_ends) {
        assert!(line.ends_with(end), "{line}\n  does not end with\n{end}");
    }
    done.unwrap()
}

fn two_batches() -> (Vec<u8>, usize) {
    let mut first = BatchBuilder::new().base_offset(5).producer(9, 1, i32::MAX);
    first.append(NOW, Some(b"k"), Some(b"v"));
    first.append(NOW + 1, None, None);
    let mut second = BatchBuilder::new()
        .base_offset(8)
        .compression(CompressionType::Gzip, None);
    second.append_with_headers(NOW + 2, Some(b"a"), Some(b"b"), &[("h".into(), None)]);
    let mut bytes = first.build().to_vec();
    let at = bytes.len();
    bytes.extend_from_slice(&second.build());
    (bytes, at)
}

const LOG: &str = "00000000000000000005.log";

#[test]
fn a_segment_looks_as_kafka_prints_it() {
    let (bytes, second) = two_batches();
    let (_, lines) = dump_files(&[(LOG, &bytes)], &[]);
    assert_eq!(lines[0], "Dumping PATH");
    assert_eq!(lines[1], "Log starting offset: 5");
    let crc = u32::from_be_bytes(bytes[17..21].try_into().unwrap());
    assert_eq!(
        lines[2],
        format!(
            "baseOffset: 5 lastOffset: 6 count: 2 baseSequence: 2147483647 lastSequence: 0 producerId: 9 \
             producerEpoch: 1 partitionLeaderEpoch: -1 isTransactional: false isControl: false \
             deleteHorizonMs: OptionalLong.empty position: 0 CreateTime: 1700000000001 size: {second} magic: 2 \
             compresscodec: none crc: {crc} isvalid: true"
        )
    );
    assert!(lines[3].contains("compresscodec: gzip"), "{}", lines[3]);
    let deep = [
        "Dumping PATH",
        "Log starting offset: 5",
        "isvalid: true",
        "| offset: 5 CreateTime: 1700000000000 keySize: 1 valueSize: 1 sequence: 2147483647 headerKeys: [] key: k payload: v",
        "| offset: 6 CreateTime: 1700000000001 keySize: -1 valueSize: -1 sequence: 0 headerKeys: []",
        "isvalid: true",
        "| offset: 8 CreateTime: 1700000000002 keySize: 1 valueSize: 1 sequence: -1 headerKeys: [h] key: a payload: b",
    ];
    let findings = check(&[(LOG, &bytes)], &["--print-data-log"], &deep);
    let gaps: Vec<_> = findings
        .non_consecutive
        .values()
        .next()
        .unwrap()
        .iter()
        .collect();
    assert_eq!(gaps, [(&-1, &5), (&6, &8)]);
    let skipped = [
        "Dumping PATH",
        "offset: 5",
        "isvalid: true",
        "| key: k payload: v",
        "",
        "isvalid: true",
        "| key: a payload: b",
    ];
    check(
        &[(LOG, &bytes)],
        &["--print-data-log", "--skip-record-metadata"],
        &skipped,
    );
}

#[test]
fn damage_in_a_segment_is_told() {
    let (mut bytes, second) = two_batches();
    let torn = &bytes[..bytes.len() - 1];
    let rest = torn.len() - second;
    let end = format!("Found {rest} invalid bytes at the end of {LOG}");
    check(
        &[(LOG, torn)],
        &[],
        &["PATH", "offset: 5", "isvalid: true", &end],
    );
    check(
        &[(LOG, torn)],
        &["--max-bytes", "10"],
        &["PATH", "offset: 5"],
    );
    *bytes.last_mut().unwrap() ^= 1;
    check(
        &[(LOG, &bytes)],
        &[],
        &["PATH", "offset: 5", "isvalid: true", "isvalid: false"],
    );
    bytes.extend_from_slice(&[0; 100]);
    let refused = |bytes: &[u8], name: &str| {
        let error = dump_files(&[(name, bytes)], &[]).0.unwrap_err();
        error.to_string()
    };
    assert!(
        refused(&bytes, LOG)
            .starts_with("Found record size 0 smaller than minimum record overhead (14)")
    );
    bytes[16] = 1;
    assert!(refused(&bytes, LOG).contains("magic 1"));
    assert!(refused(&bytes, "x.log").contains("not named after an offset"));
    assert!(refused(&bytes, "x.checkpoint").contains("not named after a snapshot"));
}

#[test]
fn control_records_are_read() {
    let marker = control_batch(
        BatchBuilder::new()
            .base_offset(5)
            .producer(9, 1, -1)
            .transactional(true),
        NOW,
        0,
        &[0, 0, 0, 0, 0, 7],
    );
    let expected = [
        "PATH",
        "offset: 5",
        "isvalid: true",
        "headerKeys: [] endTxnMarker: ABORT coordinatorEpoch: 7",
    ];
    check(&[(LOG, &marker)], &["--deep-iteration"], &expected);
    check(&[(LOG, &marker)], &["--print-data-log"], &expected);
    let change = LeaderChangeMessage {
        leader_id: 3,
        voters: vec![Voter {
            voter_id: 3,
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut value = BytesMut::new();
    change.encode(&mut value, 0).unwrap();
    let batch = control_batch(BatchBuilder::new().base_offset(5), NOW, 2, &value);
    let json =
        r#"LeaderChange: {"version":0,"leaderId":3,"voters":[{"voterId":3}],"grantingVoters":[]}"#;
    let expected = ["PATH", "offset: 5", "isvalid: true", json];
    check(&[(LOG, &batch)], &["--deep-iteration"], &expected);
}

fn one_record(key: Option<&[u8]>, value: Option<&[u8]>) -> Bytes {
    let mut batch = BatchBuilder::new().base_offset(0);
    batch.append(NOW, key, value);
    batch.build()
}

const ZERO: &str = "00000000000000000000.log";

#[test]
fn internal_topics_are_shown_as_json() {
    let topic = TopicRecord {
        name: "t".into(),
        topic_id: Uuid::from_u128(1),
    };
    let batch = one_record(None, Some(&encode_record(&topic.into())));
    let decoded = |batch: &Bytes, flag: &str, end: &str| {
        let ends = ["PATH", "offset: 0", "isvalid: true", end];
        check(&[(ZERO, batch)], &[flag], &ends);
    };
    decoded(
        &batch,
        "--cluster-metadata-decoder",
        r#"] payload: {"type":"TOPIC_RECORD","version":0,"data":{"name":"t","topicId":"AAAAAAAAAAAAAAAAAAAAAQ"}}"#,
    );
    let key = GroupRecordKey::OffsetCommit(OffsetCommitKey {
        group: "g".into(),
        topic: "t".into(),
        partition: 3,
    });
    decoded(
        &one_record(Some(&key.encode().unwrap()), None),
        "--offsets-decoder",
        r#"key: {"type":"1","data":{"group":"g","topic":"t","partition":3}} payload: <DELETE>"#,
    );
    decoded(
        &one_record(Some(b"\x00\x63"), None),
        "--offsets-decoder",
        "key: Unknown record type 99 at offset 0, skipping.",
    );
    decoded(
        &one_record(Some(b"\0\x03\0\x01g"), Some(b"\0\0\0\0\0\x05\0")),
        "--offsets-decoder",
        r#"key: {"type":"3","data":{"groupId":"g"}} payload: {"version":"0","data":{"epoch":5}}"#,
    );
    decoded(
        &one_record(Some(b"\0\0\0\x02id"), Some(b"\0\x07")),
        "--transaction-log-decoder",
        "key: Error at offset 0, skipping. version 7 is not known",
    );
}

#[test]
fn a_transaction_shows_its_fields_in_kafkas_order() {
    let key = TransactionLogKey {
        transactional_id: "id".into(),
    };
    let value = TransactionLogValue {
        client_transaction_version: 2,
        ..Default::default()
    };
    let (key, value) = (key.to_record().unwrap(), value.to_record(1).unwrap());
    let end = r#""transactionStartTimestampMs":0,"clientTransactionVersion":2}}"#;
    check(
        &[(ZERO, &one_record(Some(&key), Some(&value)))],
        &["--transaction-log-decoder"],
        &["PATH", "offset: 0", "isvalid: true", end],
    );
}

#[test]
fn members_of_a_consumer_group_show_what_they_subscribed_to() {
    let mut subscription = BytesMut::new();
    subscription.put_i16(0);
    subscription.put_i32(1);
    subscription.put_slice(b"\0\x01t");
    subscription.put_i32(-1);
    let group = GroupMetadataValue {
        protocol_type: "consumer".into(),
        members: vec![MemberMetadata {
            member_id: r#""subscription":""#.into(),
            subscription: subscription.freeze(),
            assignment: Bytes::from_static(b"\xff"),
            ..Default::default()
        }],
        ..Default::default()
    };
    let key = GroupRecordKey::GroupMetadata(GroupMetadataKey { group: "g".into() });
    let value = GroupRecordValue::GroupMetadata(group).encode(0).unwrap();
    check(
        &[(
            ZERO,
            &one_record(Some(&key.encode().unwrap()), Some(&value)),
        )],
        &["--offsets-decoder"],
        &[
            "PATH",
            "offset: 0",
            "isvalid: true",
            r#""sessionTimeout":0,"subscription":{"topics":["t"],"userData":null},"assignment":"/w=="}]}}"#,
        ],
    );
}

#[test]
fn indexes_are_compared_with_the_log() {
    let (log, second) = two_batches();
    let entry = |offset: u32, position: usize| {
        let mut entry = offset.to_be_bytes().to_vec();
        entry.put_u32(position as u32);
        entry
    };
    let index = "00000000000000000005.index";
    let good = [entry(1, 0), entry(3, second), vec![0; 8]].concat();
    let findings = check(
        &[(index, &good), (LOG, &log)],
        &[],
        &[
            "PATH",
            "offset: 6 position: 0",
            &format!("offset: 8 position: {second}"),
        ],
    );
    assert!(findings.index_mismatches.is_empty());
    check(
        &[(index, &good), (LOG, &log)],
        &["--index-sanity-check"],
        &["PATH", "PATH passed sanity check."],
    );
    check(
        &[(index, b""), (LOG, &log)],
        &[],
        &["PATH", "PATH is empty."],
    );
    let bad = entry(2, second);
    let findings = check(
        &[(index, &bad), (LOG, &log)],
        &["--verify-index-only"],
        &["PATH"],
    );
    let found: Vec<_> = findings
        .index_mismatches
        .values()
        .next()
        .unwrap()
        .iter()
        .collect();
    assert_eq!(found, [(&std::cmp::Reverse(7), &8)]);
    let odd = &good[..9];
    let error = dump_files(&[(index, odd), (LOG, &log)], &["--index-sanity-check"]).0;
    assert!(error.unwrap_err().to_string().contains("found 9 bytes"));
    let times = "00000000000000000005.timeindex";
    let time = |timestamp: i64, offset: u32| {
        let mut entry = timestamp.to_be_bytes().to_vec();
        entry.put_u32(offset);
        entry
    };
    let bytes = [time(NOW + 1, 1), time(NOW, 3), time(NOW + 9, 7)].concat();
    let findings = check(
        &[(times, &bytes), (index, &good), (LOG, &log)],
        &[],
        &["PATH", "offset: 6", "offset: 8", "offset: 12"],
    );
    let first = |pairs: &BTreeMap<PathBuf, Vec<(i64, i64)>>| pairs.values().next().cloned();
    assert_eq!(first(&findings.time_mismatches), Some(vec![(NOW, NOW + 2)]));
    assert_eq!(
        first(&findings.time_out_of_order),
        Some(vec![(NOW, NOW + 1)])
    );
    assert_eq!(
        first(&findings.time_offsets_not_found),
        Some(vec![(12, -1)])
    );
}

#[test]
fn decoder_classes_that_need_a_jvm_are_refused() {
    let batch = one_record(Some(&7i32.to_be_bytes()), Some(&8i64.to_be_bytes()));
    let flags = [
        "--key-decoder-class",
        "org.apache.kafka.tools.api.IntegerDecoder",
        "--value-decoder-class=org.apache.kafka.tools.api.LongDecoder",
    ];
    let ends = ["PATH", "offset: 0", "isvalid: true", " key: 7 payload: 8"];
    check(&[(ZERO, &batch)], &flags, &ends);
    let error = dump_files(&[(ZERO, &batch)], &["--value-decoder-class=my.Own"]).0;
    assert!(error.unwrap_err().to_string().contains("my.Own"));
    let error = dump_files(&[(ZERO, &batch)], &["--remote-log-metadata-decoder"]).0;
    assert!(error.unwrap_err().to_string().contains("tiered storage"));
}

#[test]
fn paths_are_shown_as_java_shows_them() {
    assert_eq!(java_path("a//b/"), "a/b");
    assert_eq!(java_path("/"), "/");
    assert_eq!(java_path("./x.log"), "./x.log");
}

#[test]
fn strings_are_broken_as_java_breaks_them() {
    // Seen with Java 17.
    for (bytes, mistakes, rest) in [
        (&b"\xED\xA0\x80x"[..], 1, "x"),
        (b"\xED\xB0x", 1, "x"),
        (b"\xE0\x80x", 2, "x"),
        (b"\xF5\x80\x80\x80", 4, ""),
        (b"\xF0\x9F\x98", 1, ""),
        (b"\xF4\x90\x80\x80", 4, ""),
        (b"\xF1\x80\xC0", 2, ""),
    ] {
        let expected = "\u{FFFD}".repeat(mistakes) + rest;
        assert_eq!(decoder::java_string(bytes), expected, "{bytes:?}");
    }
}

#[test]
fn verify_finds_damage_in_directories_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let partition = dir.path().join("t-0");
    fs::create_dir(&partition).unwrap();
    let (mut bytes, second) = two_batches();
    fs::write(partition.join(LOG), &bytes).unwrap();
    let name = [dir.path().to_str().unwrap().to_owned()];
    let verify = || {
        let mut out = Vec::new();
        let code = verify::verify(&name, &mut out).unwrap();
        (code == ExitCode::SUCCESS, String::from_utf8(out).unwrap())
    };
    let (sound, text) = verify();
    assert!(
        sound && text.contains("2 batches") && text.ends_with(": 0 findings\n"),
        "{text}"
    );
    let preallocated = [bytes.clone(), vec![0; 300_000]].concat();
    fs::write(partition.join(LOG), &preallocated).unwrap();
    let (sound, text) = verify();
    assert!(
        sound && text.contains("bytes, 300000 bytes preallocated, ok"),
        "{text}"
    );
    // Zeros in front of another segment, or with something behind them, are not what `preallocate` leaves.
    let next = partition.join("00000000000000000099.log");
    fs::write(&next, b"").unwrap();
    let (sound, text) = verify();
    assert!(
        !sound && text.contains("300000 bytes that are no batch"),
        "{text}"
    );
    fs::remove_file(&next).unwrap();
    fs::write(partition.join(LOG), [preallocated, vec![1]].concat()).unwrap();
    assert!(!verify().0);
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(partition.join(LOG), &bytes).unwrap();
    fs::write(
        partition.join("00000000000000000009.snapshot"),
        b"\0\x01bad",
    )
    .unwrap();
    let (sound, text) = verify();
    assert!(!sound && text.ends_with(": 2 findings\n"), "{text}");
    assert!(
        text.contains(&format!("position {second}, offset 8: stored crc")),
        "{text}"
    );
    assert!(text.contains("Snapshot failed schema validation"), "{text}");
    let other = ["x.index".to_owned()];
    assert!(verify::verify(&other, &mut Vec::new()).is_err());
}
