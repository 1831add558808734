//! Batches built here read back the same, through every codec.

use bytes::Bytes;

use super::*;

#[test]
fn built_batches_read_back_through_every_codec() {
    for codec in [
        CompressionType::None,
        CompressionType::Gzip,
        CompressionType::Snappy,
        CompressionType::Lz4,
        CompressionType::Zstd,
    ] {
        let mut builder = BatchBuilder::new().base_offset(7).compression(codec, None);
        for i in 0..1000 {
            let value = format!("value {i}").repeat(9);
            builder.append(1000 + i, Some(b"key"), Some(value.as_bytes()));
        }
        let bytes = builder.build();
        let header = parse_header(&bytes).unwrap();
        check_crc(&header, &bytes).unwrap();
        let records: Vec<_> = Records::new(&header, &bytes, 1 << 20)
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(records.len(), 1000);
        assert_eq!((records[999].offset, records[999].timestamp), (1006, 1999));
        assert_eq!(records[0].key, Some(Bytes::from_static(b"key")));
        let seen = for_each_record(&header, &bytes, 1 << 20, |view| view.has_key).unwrap();
        assert_eq!(seen, 1000, "{codec:?}");
    }
}
