//! The codecs of record batches, in the framings that Kafka's clients write: gzip, snappy (xerial blocks or raw), lz4
//! frames and zstd. Inflating always streams; callers cap it.

use std::io::{self, BufRead, BufReader, Read, Write};

use lz4::block::CompressionMode;

use super::record::RecordError;

/// Codec ids of the attributes' low three bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CompressionType {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl CompressionType {
    pub fn from_id(id: i16) -> Option<Self> {
        Some(match id {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    pub fn id(self) -> i16 {
        self as i16
    }
}

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = 16;
/// Block size of snappy-java, which Kafka's own clients use.
const XERIAL_BLOCK: usize = 32 * 1024;

/// Magic, version 1 with independent blocks, 64 KiB, checksum of these two bytes.
const LZ4_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const LZ4_BLOCK: usize = 64 << 10;
/// Set in the length of a block that is not compressed.
const LZ4_STORED: u32 = 1 << 31;
/// Kafka's level that means the fast compressor; all others are the slow one's (`CompressionType.LZ4`).
const LZ4_LEVEL_DEFAULT: i32 = 9;

fn compression_error(error: impl std::fmt::Display) -> RecordError {
    RecordError::Compression(error.to_string())
}

/// A reader of the inflated payload.
pub(super) fn decompressor<'a>(
    codec: CompressionType,
    payload: &'a [u8],
) -> Result<Box<dyn BufRead + 'a>, RecordError> {
    Ok(match codec {
        CompressionType::None => Box::new(payload),
        CompressionType::Gzip => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(
            payload,
        ))),
        CompressionType::Snappy => Box::new(BufReader::new(SnappyReader::new(payload))),
        CompressionType::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(payload)),
        CompressionType::Zstd => Box::new(BufReader::new(
            zstd::stream::read::Decoder::with_buffer(payload).map_err(compression_error)?,
        )),
    })
}

/// Inflates a whole payload, at most `cap` bytes.
pub fn decompress(
    codec: CompressionType,
    payload: &[u8],
    cap: usize,
) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::new();
    decompressor(codec, payload)?
        .take(cap as u64 + 1)
        .read_to_end(&mut out)
        .map_err(compression_error)?;
    if out.len() > cap {
        return Err(RecordError::TooLarge(cap));
    }
    Ok(out)
}

/// Deflates a payload as Kafka's clients do. `level` is the codec's own scale; `None` takes Kafka's default.
pub fn compress(
    codec: CompressionType,
    payload: &[u8],
    level: Option<i32>,
) -> Result<Vec<u8>, RecordError> {
    let out = Vec::with_capacity(payload.len() / 2 + 64);
    match codec {
        CompressionType::None => Ok(payload.to_vec()),
        CompressionType::Gzip => {
            let level = match level {
                Some(level @ 0..=9) => flate2::Compression::new(level as u32),
                _ => flate2::Compression::default(),
            };
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            encoder.write_all(payload).map_err(compression_error)?;
            encoder.finish().map_err(compression_error)
        }
        CompressionType::Snappy => snappy_xerial(payload, out),
        CompressionType::Lz4 => lz4_frame(payload, level.unwrap_or(LZ4_LEVEL_DEFAULT), out),
        CompressionType::Zstd => {
            let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            zstd::stream::encode_all(payload, level).map_err(compression_error)
        }
    }
}

/// Kafka's frames have blocks of 64 KiB that stand alone, and no checksum but the header's (`Lz4BlockOutputStream`).
fn lz4_frame(payload: &[u8], level: i32, mut out: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    let mode = if level == LZ4_LEVEL_DEFAULT {
        CompressionMode::DEFAULT
    } else {
        CompressionMode::HIGHCOMPRESSION(level)
    };
    out.extend_from_slice(&LZ4_HEADER);
    for block in payload.chunks(LZ4_BLOCK) {
        let packed = lz4::block::compress(block, Some(mode), false).map_err(compression_error)?;
        let (bytes, flag) = if packed.len() < block.len() {
            (&packed[..], 0)
        } else {
            (block, LZ4_STORED)
        };
        out.extend_from_slice(&(bytes.len() as u32 | flag).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out.extend_from_slice(&0u32.to_le_bytes());
    Ok(out)
}

fn snappy_xerial(payload: &[u8], mut out: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    out.extend_from_slice(XERIAL_MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in payload.chunks(XERIAL_BLOCK) {
        let block = encoder.compress_vec(block).map_err(compression_error)?;
        out.extend_from_slice(&(block.len() as i32).to_be_bytes());
        out.extend_from_slice(&block);
    }
    Ok(out)
}

/// Snappy in xerial blocks (Java clients) or as one raw block (others).
struct SnappyReader<'a> {
    rest: &'a [u8],
    xerial: bool,
    block: Vec<u8>,
    at: usize,
}

/// A block that claims to inflate by more than this is refused: snappy's own limit is about 21 to 1 (a 64-byte copy
/// takes three bytes).
const SNAPPY_RATIO_MAX: usize = 64;

impl<'a> SnappyReader<'a> {
    fn new(payload: &'a [u8]) -> Self {
        let xerial = payload.len() >= XERIAL_HEADER && payload.starts_with(XERIAL_MAGIC);
        Self {
            rest: if xerial {
                &payload[XERIAL_HEADER..]
            } else {
                payload
            },
            xerial,
            block: Vec::new(),
            at: 0,
        }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let block = if self.xerial {
            let len = self
                .rest
                .first_chunk::<4>()
                .map(|len| i32::from_be_bytes(*len))
                .and_then(|len| usize::try_from(len).ok())
                .filter(|len| *len <= self.rest.len() - 4)
                .ok_or(io::ErrorKind::InvalidData)?;
            let (block, rest) = self.rest[4..].split_at(len);
            self.rest = rest;
            block
        } else {
            std::mem::take(&mut self.rest)
        };
        let claimed = snap::raw::decompress_len(block)?;
        if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.block.clear();
        self.block.resize(claimed, 0);
        self.at = 0;
        snap::raw::Decoder::new().decompress(block, &mut self.block)?;
        Ok(())
    }
}

impl Read for SnappyReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.next_block()?;
        }
        let len = out.len().min(self.block.len() - self.at);
        out[..len].copy_from_slice(&self.block[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}
