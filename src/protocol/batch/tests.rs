//! Batches built here read back the same through every codec; what Produce brings is judged as Kafka judges it.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::config::{BrokerCompressionType, CleanupPolicy, TimestampType, TopicConfig};
use crate::protocol::ErrorCode;

const NOW: i64 = 1_700_000_000_000;
const CODECS: [CompressionType; 5] = [
    CompressionType::None,
    CompressionType::Gzip,
    CompressionType::Snappy,
    CompressionType::Lz4,
    CompressionType::Zstd,
];

fn builder(codec: CompressionType, count: i64) -> BatchBuilder {
    let mut builder = BatchBuilder::new().compression(codec, None);
    for i in 0..count {
        let value = format!("value {i}").repeat(9);
        let header = (
            Bytes::from_static(b"h"),
            (i % 2 == 0).then(|| Bytes::from_static(b"x")),
        );
        builder.append_with_headers(NOW + i, Some(b"key"), Some(value.as_bytes()), &[header]);
    }
    builder
}

#[test]
fn built_batches_read_back_through_every_codec() {
    for codec in CODECS {
        let bytes = builder(codec, 1000).base_offset(7).build();
        let header = parse_header(&bytes).unwrap();
        assert_eq!(header.encode(), bytes[..HEADER_SIZE]);
        check_crc(&header, &bytes).unwrap();
        let records: Vec<_> = Records::new(&header, &bytes, 1 << 20)
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(records.len(), 1000);
        assert_eq!(
            (records[999].offset, records[999].timestamp),
            (1006, NOW + 999)
        );
        assert_eq!(records[0].key, Some(Bytes::from_static(b"key")));
        assert_eq!(records[1].headers, [(Bytes::from_static(b"h"), None)]);
        let seen = for_each_record(&header, &bytes, 1 << 20, |view| view.has_key).unwrap();
        assert_eq!(seen, 1000, "{codec:?}");
        if codec != CompressionType::None {
            let capped = for_each_record(&header, &bytes, 10_000, |_| true);
            assert!(
                matches!(capped, Err(RecordError::TooLarge(10_000))),
                "{codec:?}"
            );
        }
    }
}

/// Records that `kafka-protocol`, an independent codec, writes and reads.
#[test]
fn batches_are_those_of_another_implementation() {
    use kafka_protocol::records::{
        Compression, Record as TheirRecord, RecordBatchDecoder, RecordBatchEncoder,
        RecordEncodeOptions, TimestampType as TheirType,
    };
    let mut ours = builder(CompressionType::None, 20).build();
    let set = RecordBatchDecoder::decode(&mut ours).unwrap();
    assert_eq!(set.records.len(), 20);
    assert_eq!(set.records[19].timestamp, NOW + 19);
    let record = TheirRecord {
        transactional: true,
        control: false,
        partition_leader_epoch: 0,
        producer_id: 5,
        producer_epoch: 2,
        timestamp_type: TheirType::Creation,
        offset: 0,
        sequence: 9,
        timestamp: NOW,
        key: None,
        value: Some(Bytes::from_static(b"v")),
        headers: indexmap::IndexMap::new(),
        delete_horizon: false,
    };
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    RecordBatchEncoder::encode(&mut out, [&record], &options).unwrap();
    let mut builder = BatchBuilder::new()
        .producer(5, 2, 9)
        .transactional(true)
        .leader_epoch(0);
    builder.append(NOW, None, Some(b"v"));
    assert_eq!(builder.build(), out.freeze());
}

fn judge(
    bytes: impl Into<Bytes>,
    change: impl FnOnce(&mut TopicConfig),
) -> Result<ValidBatch, ProduceError> {
    let mut config = TopicConfig::default();
    change(&mut config);
    let ctx = ValidateContext {
        config: &config,
        now_ms: NOW,
        api_version: 9,
    };
    validate_produced(bytes.into(), &ctx)
}

fn code(bytes: impl Into<Bytes>, change: impl FnOnce(&mut TopicConfig)) -> i16 {
    match judge(bytes, change) {
        Ok(valid) => {
            check_crc_of(&valid);
            0
        }
        Err(refused) => refused.error.code(),
    }
}

/// The CRC of what the log will write.
fn check_crc_of(valid: &ValidBatch) {
    let mut bytes = valid.bytes.to_vec();
    bytes[..HEADER_SIZE].copy_from_slice(&valid.header.encode());
    check_crc(&valid.header, &bytes).unwrap();
}

/// A good batch whose header was changed, with a CRC that fits.
fn with_header(bytes: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = parse_header(bytes).unwrap();
    change(&mut header);
    header.update_crc(&bytes[HEADER_SIZE..]);
    let mut out = bytes.to_vec();
    out[..HEADER_SIZE].copy_from_slice(&header.encode());
    out.into()
}

fn plus(bytes: &Bytes, tail: &[u8]) -> Vec<u8> {
    [bytes, tail].concat()
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table of cases")]
fn headers_and_framing_are_judged_as_kafka_does() {
    let good = builder(CompressionType::None, 3).build();
    let mut bad_crc = good.to_vec();
    bad_crc[70] ^= 1;
    let magic = |magic: u8| {
        let mut bytes = good.to_vec();
        bytes[16] = magic;
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, i16)> = vec![
        ("good", good.to_vec(), 0),
        ("four stray bytes", plus(&good, &[1, 2, 3, 4]), 0),
        ("half a batch behind", plus(&good, &good[..80]), 0),
        ("two batches", plus(&good, &good), 87),
        ("no bytes", Vec::new(), 87),
        ("half a batch", good[..80].to_vec(), 87),
        ("magic 0", magic(0), 87),
        ("magic 1", magic(1), 87),
        ("magic 3", magic(3), 2),
        ("crc", bad_crc, 2),
        (
            "base offset",
            with_header(&good, |h| h.base_offset = 1).to_vec(),
            87,
        ),
        (
            "count",
            with_header(&good, |h| h.records_count = 4).to_vec(),
            87,
        ),
        (
            "last delta",
            with_header(&good, |h| h.last_offset_delta = 3).to_vec(),
            87,
        ),
        (
            "more than there are",
            with_header(&good, |h| {
                h.records_count = 4;
                h.last_offset_delta = 3;
            })
            .to_vec(),
            87,
        ),
        (
            "fewer than there are",
            with_header(&good, |h| {
                h.records_count = 2;
                h.last_offset_delta = 1;
            })
            .to_vec(),
            87,
        ),
        (
            "none",
            with_header(&good, |h| {
                h.records_count = 0;
                h.last_offset_delta = -1;
            })
            .to_vec(),
            87,
        ),
        (
            "control",
            with_header(&good, |h| h.attributes |= 0x20).to_vec(),
            87,
        ),
        (
            "sequence",
            with_header(&good, |h| h.producer_id = 1).to_vec(),
            87,
        ),
        (
            "codec 5",
            with_header(&good, |h| h.attributes |= 5).to_vec(),
            -1,
        ),
        (
            "codec 7",
            with_header(&good, |h| h.attributes |= 7).to_vec(),
            -1,
        ),
        (
            "not gzip",
            with_header(&good, |h| h.attributes |= 1).to_vec(),
            -1,
        ),
        (
            "not snappy",
            with_header(&good, |h| h.attributes |= 2).to_vec(),
            -1,
        ),
        (
            "not lz4",
            with_header(&good, |h| h.attributes |= 3).to_vec(),
            -1,
        ),
        (
            "not zstd",
            with_header(&good, |h| h.attributes |= 4).to_vec(),
            -1,
        ),
    ];
    for (name, bytes, wanted) in cases {
        assert_eq!(code(bytes, |_| {}), wanted, "{name}");
    }
    for codec in CODECS {
        let good = builder(codec, 3).build();
        assert_eq!(code(good.clone(), |_| {}), 0, "{codec:?}");
        let lying = with_header(&good, |h| {
            h.records_count = 4;
            h.last_offset_delta = 3;
        });
        assert_eq!(code(lying, |_| {}), 87, "{codec:?}");
        assert_eq!(
            code(good.clone(), |c| c.max_message_bytes =
                good.len() as i32 - 1),
            10
        );
        assert_eq!(
            code(good.clone(), |c| c.max_message_bytes = good.len() as i32),
            0
        );
        assert_eq!(
            code(good.clone(), |c| c.segment_bytes = good.len() as i32 - 1),
            18
        );
    }
    let config = TopicConfig::default();
    let ctx = ValidateContext {
        config: &config,
        now_ms: NOW,
        api_version: 6,
    };
    let zstd = builder(CompressionType::Zstd, 1).build();
    assert_eq!(validate_produced(zstd, &ctx).unwrap_err().error.code(), 76);
}

#[test]
fn answers_carry_the_log_start_only_where_kafka_got_to_the_log() {
    let good = builder(CompressionType::None, 1).build();
    let known = |bytes: Vec<u8>, max: i32| {
        judge(bytes, |c| c.max_message_bytes = max)
            .unwrap_err()
            .log_start_offset_known
    };
    assert!(!known(plus(&good, &good), 1 << 20));
    assert!(!known(good.to_vec(), 10));
    assert!(known(
        with_header(&good, |h| h.base_offset = 1).to_vec(),
        1 << 20
    ));
    assert!(known(
        with_header(&good, |h| h.records_count = 3).to_vec(),
        1 << 20
    ));
}

#[test]
fn timestamps_are_judged_and_stamped() {
    for codec in CODECS {
        let good = builder(codec, 3).build();
        // The header's maximal timestamp is computed anew where it is wrong.
        let wrong = with_header(&good, |h| h.max_timestamp = 5);
        assert_eq!(judge(wrong, |_| {}).unwrap().header.max_timestamp, NOW + 2);
        // Too far ahead, too old.
        let mut late = BatchBuilder::new().compression(codec, None);
        late.append(NOW + 3_600_000, None, None);
        late.append(NOW + 3_600_001, None, None);
        let refused = judge(late.build(), |_| {}).unwrap_err();
        assert_eq!(refused.error.code, ErrorCode::InvalidTimestamp);
        assert_eq!(refused.record_errors.len(), 1);
        assert_eq!(refused.record_errors[0].batch_index, 1);
        let mut old = BatchBuilder::new().compression(codec, None);
        old.append(NOW - 11, None, None);
        assert_eq!(
            code(old.build(), |c| c.message_timestamp_before_max_ms = 10),
            32
        );
        let mut none = BatchBuilder::new().compression(codec, None);
        none.append(-1, None, None);
        assert_eq!(
            code(none.build(), |c| c.message_timestamp_before_max_ms = 10),
            0
        );
        // A topic that stamps records itself.
        let stamp = |c: &mut TopicConfig| c.message_timestamp_type = TimestampType::LogAppendTime;
        let valid = judge(good.clone(), stamp).unwrap();
        assert!(valid.header.is_log_append_time() && valid.header.max_timestamp == NOW);
        check_crc_of(&valid);
        let marked = with_header(&good, |h| h.set_log_append_time(true));
        let refused = judge(marked.clone(), stamp).unwrap_err();
        assert_eq!((refused.error.code(), refused.record_errors.len()), (32, 3));
        let valid = judge(marked, |_| {}).unwrap();
        assert!(!valid.header.is_log_append_time());
        check_crc_of(&valid);
    }
}

#[test]
fn compacted_topics_need_keys() {
    let compact = |c: &mut TopicConfig| {
        c.cleanup_policy = CleanupPolicy {
            compact: true,
            delete: false,
        };
    };
    for codec in CODECS {
        assert_eq!(code(builder(codec, 3).build(), compact), 0);
        let mut keyless = builder(codec, 2);
        keyless.append(NOW, None, Some(b"v"));
        let refused = judge(keyless.build(), compact).unwrap_err();
        assert_eq!(refused.error.code(), 87);
        assert_eq!(refused.record_errors[0].batch_index, 2);
    }
}

#[test]
fn the_topics_codec_is_applied() {
    let targets = [
        (BrokerCompressionType::Uncompressed, CompressionType::None),
        (BrokerCompressionType::Gzip, CompressionType::Gzip),
        (BrokerCompressionType::Snappy, CompressionType::Snappy),
        (BrokerCompressionType::Lz4, CompressionType::Lz4),
        (BrokerCompressionType::Zstd, CompressionType::Zstd),
    ];
    for source in CODECS {
        for (config, target) in targets {
            let batch = builder(source, 50).producer(3, 1, 40).build();
            let valid = judge(batch.clone(), |c| c.compression_type = config).unwrap();
            check_crc_of(&valid);
            assert_eq!(valid.header.compression(), Some(target));
            assert_eq!(
                valid.bytes == batch,
                source == target,
                "unchanged where it fits"
            );
            assert_eq!(
                (valid.header.producer_id, valid.header.base_sequence),
                (3, 40)
            );
            let records = Records::new(&valid.header, &valid.bytes, 1 << 20).unwrap();
            assert_eq!(records.count(), 50);
        }
    }
}

/// Kafka takes them too, and stores U+FFFD for what is no UTF-8 where it builds the batch anew.
#[test]
fn header_keys_survive_another_codec_also_if_they_are_no_text() {
    let headers = [(Bytes::from_static(b"\xff\xed\xa0k"), None)];
    let mut builder = BatchBuilder::new();
    builder.append_with_headers(NOW, None, Some(b"v"), &headers);
    let valid = judge(builder.build(), |c| {
        c.compression_type = BrokerCompressionType::Gzip;
    });
    let valid = valid.unwrap();
    assert_eq!(valid.header.compression(), Some(CompressionType::Gzip));
    let mut records = Records::new(&valid.header, &valid.bytes, 1 << 20).unwrap();
    assert_eq!(records.next().unwrap().unwrap().headers, headers);
}

#[test]
fn what_kafka_cannot_build_anew_is_refused_only_where_it_would_be() {
    let good = builder(CompressionType::Lz4, 2).build();
    let faults: [fn(&mut BatchHeader); 4] = [
        |h| h.base_timestamp = -5000,
        |h| h.attributes |= 0x10,
        |h| (h.producer_id, h.base_sequence) = (7, 0),
        |h| (h.producer_id, h.producer_epoch) = (-2, 0),
    ];
    for (at, fault) in faults.into_iter().enumerate() {
        let bytes = with_header(&good, fault);
        assert_eq!(code(bytes.clone(), |_| {}), 0, "fault {at}");
        let gzip = |c: &mut TopicConfig| c.compression_type = BrokerCompressionType::Gzip;
        assert_eq!(code(bytes, gzip), -1, "fault {at}");
    }
    let mut gap = builder(CompressionType::None, 2).build().to_vec();
    let second = builder(CompressionType::None, 1).build().len();
    // The offset of the second record, behind its length of two bytes, attributes and timestamp.
    gap[second + 4] = 10;
    let gap = with_header(&Bytes::from(gap), |_| {});
    assert_eq!(code(gap.clone(), |_| {}), 0, "nobody looks");
    let packed = compress(CompressionType::Gzip, &gap[HEADER_SIZE..], None).unwrap();
    let packed = Bytes::from([&gap[..HEADER_SIZE], &packed[..]].concat());
    let packed = with_header(&packed, |h| {
        h.attributes = 1;
        h.batch_length = (packed.len() - LOG_OVERHEAD) as i32;
    });
    assert_eq!(code(packed.clone(), |_| {}), -1);
    let plain = |c: &mut TopicConfig| c.compression_type = BrokerCompressionType::Uncompressed;
    assert_eq!(code(packed, plain), 0, "built anew from the start");
}

#[test]
fn unknown_attributes_do_not_survive_a_change() {
    let good = builder(CompressionType::None, 2).build();
    let odd = with_header(&good, |h| h.attributes = 0x0180);
    assert_eq!(
        judge(odd.clone(), |_| {}).unwrap().header.attributes,
        0x0180
    );
    let changed = with_header(&odd, |h| h.max_timestamp = 1);
    assert_eq!(judge(changed, |_| {}).unwrap().header.attributes, 0);
}

#[test]
fn a_wrong_count_comes_before_faulty_records() {
    let compact = |c: &mut TopicConfig| c.cleanup_policy.compact = true;
    let mut keyless = BatchBuilder::new();
    keyless.append(NOW, None, Some(b"v"));
    let lying = with_header(&keyless.build(), |h| {
        h.records_count = 2;
        h.last_offset_delta = 1;
    });
    let refused = judge(lying, compact).unwrap_err();
    assert_eq!((refused.error.code(), refused.record_errors.len()), (87, 0));
}

#[test]
fn lz4_at_any_level_is_byte_for_byte_what_kafka_writes() {
    // Level, size and CRC-32C of what `Lz4BlockOutputStream` of Kafka 4.3.1 made of the text.
    let golden = [
        (1, 49002, 0x4ee4_906f),
        (2, 49002, 0x4ee4_906f),
        (3, 41798, 0x661b_c999),
        (5, 40387, 0xf496_a8a0),
        (9, 53470, 0xbe5d_fdb5),
        (10, 40711, 0x5da6_01e8),
        (12, 39366, 0x005f_e0d0),
        (17, 39366, 0x005f_e0d0),
    ];
    let mut text = String::new();
    let mut x = 1u64;
    for i in 0..9000 {
        x = (x * 1_103_515_245 + 12_345) & 0x7fff_ffff;
        writeln!(text, "value {} {}", i % 97, x % 1000).unwrap();
    }
    for (level, size, crc) in golden {
        let packed = compress(CompressionType::Lz4, text.as_bytes(), Some(level)).unwrap();
        assert_eq!(
            (packed.len(), crc32c::crc32c(&packed)),
            (size, crc),
            "{level}"
        );
        let read = decompress(CompressionType::Lz4, &packed, 1 << 20).unwrap();
        assert!(read == text.as_bytes(), "{level}");
    }
    let noise: Vec<u8> = (0..70_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let packed = compress(CompressionType::Lz4, &noise, None).unwrap();
    assert!(decompress(CompressionType::Lz4, &packed, 1 << 20).unwrap() == noise);
}

#[test]
fn the_topics_level_is_applied() {
    let size = |config: BrokerCompressionType, level: i32| {
        let batch = builder(CompressionType::None, 2000).build();
        let judged = judge(batch, |c| {
            c.compression_type = config;
            c.compression_gzip_level = level;
            c.compression_lz4_level = level;
            c.compression_zstd_level = level;
        });
        judged.unwrap().size_bytes()
    };
    for (codec, fast, best) in [
        (BrokerCompressionType::Gzip, 1, 9),
        (BrokerCompressionType::Lz4, 9, 12),
        (BrokerCompressionType::Zstd, -50, 19),
    ] {
        assert!(size(codec, fast) > size(codec, best), "{codec:?}");
    }
}

#[test]
fn a_record_that_lies_about_its_lengths_is_refused() {
    let good = builder(CompressionType::None, 3).build();
    for at in HEADER_SIZE..HEADER_SIZE + 8 {
        let mut bytes = good.to_vec();
        bytes[at] = bytes[at].wrapping_add(0x60);
        let bytes = with_header(&bytes.into(), |_| {});
        let code = code(bytes, |_| {});
        assert!(code == 87 || code == 0 || code == 32, "byte {at}: {code}");
    }
}

proptest! {
    #[test]
    fn mutated_batches_never_panic(
        codec in 0usize..5,
        count in 1i64..40,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        fix_crc in any::<bool>(),
        compact in any::<bool>(),
        target in any::<bool>(),
    ) {
        let mut bytes = builder(CODECS[codec], count).build().to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if fix_crc && let Ok(mut header) = parse_header(&bytes) {
            header.update_crc(&bytes[HEADER_SIZE..]);
            bytes[..HEADER_SIZE].copy_from_slice(&header.encode());
        } else {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let judged = judge(bytes.clone(), |c| {
            c.cleanup_policy.compact = compact;
            if target {
                c.compression_type = BrokerCompressionType::Lz4;
            }
        });
        if let Ok(valid) = judged {
            check_crc_of(&valid);
            let count = Records::new(&valid.header, &valid.bytes, 1 << 24).unwrap().count();
            prop_assert_eq!(count, valid.header.records_count as usize);
        }
        for batch in Batches::new(bytes.into()) {
            let Ok((header, batch)) = batch else { break };
            let _ = for_each_record(&header, &batch, 1 << 20, |_| true);
            if let Ok(records) = Records::new(&header, &batch, 1 << 20) {
                let _ = records.take(1000).count();
            }
        }
    }
}

#[test]
fn a_batch_that_inflates_beyond_all_measure_is_refused_in_little_memory() {
    let zeros = vec![0; 1 << 20];
    for codec in &CODECS[1..] {
        let mut builder = BatchBuilder::new().compression(*codec, None);
        for _ in 0..160 {
            builder.append(NOW, None, Some(&zeros));
        }
        let bomb = builder.build();
        let mut code = None;
        let memory = allocation_counter::measure(|| {
            let refused = judge(bomb.clone(), |config| {
                config.max_message_bytes = i32::MAX;
                config.segment_bytes = i32::MAX;
            });
            code = Some(refused.unwrap_err().error.code);
        });
        assert_eq!(code, Some(ErrorCode::MessageTooLarge), "{codec:?}");
        assert!(memory.bytes_max < 16 << 20, "{codec:?}: {memory:?}");
    }
}

#[test]
fn a_hundred_thousand_records_are_one_batch() {
    for codec in CODECS {
        let mut builder = BatchBuilder::new().compression(codec, None);
        for i in 0..100_000_i32 {
            builder.append(NOW, None, Some(&i.to_be_bytes()));
        }
        let valid = judge(builder.build(), |config| {
            config.max_message_bytes = 2 << 20;
        });
        assert_eq!(valid.unwrap().header.records_count, 100_000, "{codec:?}");
    }
}

#[test]
fn records_of_every_size_up_to_the_largest_message_are_taken() {
    let largest = TopicConfig::default().max_message_bytes as usize;
    let batch = |value_bytes: usize| {
        let mut builder = BatchBuilder::new();
        builder.append(NOW, None, Some(&vec![7; value_bytes]));
        builder.build()
    };
    // What surrounds a value of about half that size or more; its length takes three bytes.
    let around = batch(1 << 19).len() - (1 << 19);
    let powers = (0..20).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]);
    for size in powers.chain([largest - around]) {
        let valid = judge(batch(size), |_| {}).unwrap();
        assert_eq!(valid.header.records_count, 1, "{size}");
    }
    let refused = judge(batch(largest - around + 1), |_| {}).err();
    let code = refused.map(|refused| refused.error.code);
    assert_eq!(code, Some(ErrorCode::MessageTooLarge));
}
