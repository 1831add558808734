//! The controller's source of randomness: seeded, so that a run can be repeated.

use crate::types::{Uuid, uuid_to_base64};

/// xoshiro256++ (Blackman and Vigna, public domain).
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// The same seed gives the same numbers. The seed must not be zero, which the generator never leaves.
    pub fn new(seed: [u64; 4]) -> Self {
        assert_ne!(seed, [0; 4], "a zero seed yields only zeros");
        Self(seed)
    }

    /// A generator that nobody can foresee, seeded from the system's randomness.
    pub fn random() -> Self {
        let (high, low) = (Uuid::new_v4().as_u64_pair(), Uuid::new_v4().as_u64_pair());
        Self::new([high.0, high.1, low.0, low.1])
    }

    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % (bound.max(1) as u64)) as usize
    }

    /// A random (version 4) id whose text does not start with a dash, as `Uuid.randomUuid` makes them.
    pub fn uuid(&mut self) -> Uuid {
        loop {
            let bits = u128::from(self.next_u64()) << 64 | u128::from(self.next_u64());
            let id = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
            if !uuid_to_base64(id).starts_with('-') {
                return id;
            }
        }
    }
}
