//! Random values of the message types, for tests. `message!` implements [`Sample`] for every struct.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::wire::Records;

/// A small generator with a seed that tests print.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 32) as usize % bound
    }
}

/// A type with random values.
pub trait Sample {
    fn sample(rng: &mut Rng, version: i16) -> Self;
}

macro_rules! sample_numbers {
    ($($type:ty),*) => { $(
        impl Sample for $type {
            fn sample(rng: &mut Rng, _: i16) -> Self {
                match rng.below(6) {
                    0 => 0,
                    1 => <$type>::MAX,
                    2 => <$type>::MIN,
                    _ => rng.next() as $type,
                }
            }
        }
    )* };
}
sample_numbers!(i8, i16, i32, i64, u16);

impl Sample for bool {
    fn sample(rng: &mut Rng, _: i16) -> Self {
        rng.below(2) == 1
    }
}

impl Sample for f64 {
    fn sample(rng: &mut Rng, _: i16) -> Self {
        rng.next() as f64 / 7.0
    }
}

impl Sample for Uuid {
    fn sample(rng: &mut Rng, _: i16) -> Self {
        Uuid::from_u64_pair(rng.next(), rng.next())
    }
}

impl Sample for String {
    fn sample(rng: &mut Rng, _: i16) -> Self {
        // Beyond 127 the compact length takes two bytes.
        let len = [0, 1, 7, 130][rng.below(4)];
        (0..len)
            .map(|_| ['a', 'Z', '-', '\u{e9}', '\u{1f600}'][rng.below(5)])
            .collect()
    }
}

impl Sample for StrBytes {
    fn sample(rng: &mut Rng, version: i16) -> Self {
        StrBytes::from_string(String::sample(rng, version))
    }
}

impl Sample for Bytes {
    fn sample(rng: &mut Rng, _: i16) -> Self {
        (0..[0, 3, 200][rng.below(3)])
            .map(|_| rng.next() as u8)
            .collect()
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(rng: &mut Rng, version: i16) -> Self {
        (0..rng.below(4)).map(|_| T::sample(rng, version)).collect()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(rng: &mut Rng, version: i16) -> Self {
        (rng.below(3) > 0).then(|| T::sample(rng, version))
    }
}

impl Sample for Records<Bytes> {
    fn sample(rng: &mut Rng, version: i16) -> Self {
        Self(Option::<Bytes>::sample(rng, version).filter(|bytes| !bytes.is_empty()))
    }
}
