//! The sampler's source of uniform numbers: the same on every machine, one per drawn token.
//!
//! SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 14):
//! output n is a bijective mix of `start + n * GAMMA`, so the stream is a pure function of seed and position.

/// The golden ratio in 64 bits, made odd: the stream's step.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of uniform numbers fixed by its seed.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// The stream of `seed`. The seed is mixed first: unmixed, two seeds `GAMMA` apart would share one stream.
    pub(super) fn new(seed: u64) -> Self {
        Random { state: mix(seed) }
    }

    /// The next 64 bits.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// The next number of [0, 1): a multiple of 2^-53, exact in f64.
    pub(super) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// The finalizer of SplitMix64 (variant 13 of Stafford's MurmurHash3 mixers).
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the published generator for state 1234567 (the seed unmixed).
    #[test]
    fn matches_the_published_stream() {
        let mut random = Random { state: 1_234_567 };
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn uniform_stays_below_one_and_has_the_right_mean() {
        let mut random = Random::new(0);
        let draws: Vec<f64> = (0..100_000).map(|_| random.uniform()).collect();
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
        // The mean of n uniforms has deviation 1 / sqrt(12 n) = 0.00091; five of them.
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.0046, "mean {mean}");
    }
}
