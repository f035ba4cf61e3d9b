//! What this machine can do at most: loops that do nothing but read, multiply bytes or multiply floats.
//!
//! A benchmark runs them on all workers and calls the best of it the roof. They use the operations that the other
//! kernels use, so that a kernel can come near the roof but not pass it. Sums are named by index, never through a
//! reference: then they stay in registers from round to round. They return a mixture of what they computed,
//! so that no loop can be left out by the compiler; its value means nothing.

use crate::simd::{LANES, Simd};

/// Bytes of a line.
const LINE: usize = 64;
/// Stretches of memory that are read side by side: that keeps several prefetchers busy.
const STREAMS: usize = 4;
/// Steps of a round: each multiplies every accumulator's operands once.
pub const STEPS: usize = 8;

/// Codes of a round, at most 15 each: so many that an ISA which gathers in 16 bits must carry once a round.
pub type Codes = [[u8; LINE]; STEPS];
/// Floats of a round.
pub type Floats = [[f32; LANES]; STEPS];

/// The loops of an instruction set.
pub struct Roof {
    /// [`read`]: bytes.
    pub read: fn(&[u8]) -> u32,
    /// [`dot`]: codes, four bytes of the other operand a step, rounds.
    pub dot: fn(&Codes, &[i32; STEPS], usize) -> i32,
    /// [`fma`]: floats, the other operand, rounds.
    pub fma: fn(&Floats, &[f32; STEPS], usize) -> f32,
    /// Accumulators of [`dot`] and [`fma`]: [`accumulators`].
    pub accumulators: usize,
}

impl Roof {
    /// Multiplications and additions of integers in so many rounds of [`dot`].
    pub const fn dot_ops(&self, rounds: usize) -> u64 {
        4 * self.fma_ops(rounds)
    }

    /// Multiplications and additions of floats in so many rounds of [`fma`].
    pub const fn fma_ops(&self, rounds: usize) -> u64 {
        (2 * LANES * self.accumulators * STEPS * rounds) as u64
    }
}

/// Accumulators that an ISA's registers hold beside operands: enough to hide the time that one operation takes.
pub const fn accumulators<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 16 } else { 6 }
}

/// Reads every whole line of `bytes` once, [`STREAMS`] stretches side by side.
#[inline(always)]
pub fn read<S: Simd>(s: S, bytes: &[u8]) -> u32 {
    let (lines, _) = bytes.as_chunks::<LINE>();
    let stretch = lines.len() / STREAMS;
    let mut streams: [&[[u8; LINE]]; STREAMS] = [&[]; STREAMS];
    for (i, stream) in streams.iter_mut().enumerate() {
        *stream = &lines[i * stretch..][..stretch];
    }
    let mut mix = [s.splat_codes(0); STREAMS];
    for line in 0..stretch {
        for (mix, stream) in mix.iter_mut().zip(streams) {
            *mix = s.xor(*mix, s.load_codes(&stream[line]));
        }
    }
    for line in &lines[STREAMS * stretch..] {
        mix[0] = s.xor(mix[0], s.load_codes(line));
    }
    let all = mix.into_iter().fold(s.splat_codes(0), |all, mix| s.xor(all, mix));
    s.i32_array(s.words(all)).into_iter().fold(0, |mix, word| mix.rotate_left(1) ^ word.cast_unsigned())
}

/// Rounds of integer dots.
#[inline(always)]
pub fn dot<S: Simd>(s: S, codes: &Codes, x: &[i32; STEPS], rounds: usize) -> i32 {
    match accumulators::<S>() {
        16 => dots::<S, 4, 4>(s, codes, x, rounds),
        _ => dots::<S, 1, 6>(s, codes, x, rounds),
    }
}

/// Rounds of fused multiply-adds.
#[inline(always)]
pub fn fma<S: Simd>(s: S, w: &Floats, x: &[f32; STEPS], rounds: usize) -> f32 {
    match accumulators::<S>() {
        16 => fmas::<S, 4, 4>(s, w, x, rounds),
        _ => fmas::<S, 1, 6>(s, w, x, rounds),
    }
}

#[inline(always)]
fn dots<S: Simd, const P: usize, const C: usize>(s: S, codes: &Codes, x: &[i32; STEPS], rounds: usize) -> i32 {
    let mut sums = [[s.dot_start(s.splat_i32(0)); C]; P];
    for _ in 0..rounds {
        for step in 0..STEPS {
            for p in 0..P {
                let codes = s.load_codes(&codes[(step + p) % STEPS]);
                for c in 0..C {
                    sums[p][c] = s.dot_small(sums[p][c], codes, x[(step + c) % STEPS]);
                }
            }
        }
        for p in 0..P {
            for c in 0..C {
                sums[p][c] = s.dot_carry(sums[p][c]);
            }
        }
    }
    let lanes = sums.into_iter().flatten().flat_map(|sum| s.i32_array(s.dot_end(sum)));
    lanes.fold(0, i32::wrapping_add)
}

#[inline(always)]
fn fmas<S: Simd, const P: usize, const C: usize>(s: S, w: &Floats, x: &[f32; STEPS], rounds: usize) -> f32 {
    let mut sums = [[s.splat(0.0); C]; P];
    for _ in 0..rounds {
        for step in 0..STEPS {
            for p in 0..P {
                let w = s.load(&w[(step + p) % STEPS]);
                for c in 0..C {
                    sums[p][c] = s.fma(w, s.splat(x[(step + c) % STEPS]), sums[p][c]);
                }
            }
        }
    }
    sums.into_iter().flatten().fold(0.0, |all, sum| all + s.reduce_add(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Kernels};

    fn roofs() -> impl Iterator<Item = (Isa, &'static Roof)> {
        Isa::available().map(|isa| (isa, &Kernels::for_isa(isa).expect("an available instruction set").roof))
    }

    /// The panels and columns whose product is the number of accumulators.
    fn shape(roof: &Roof) -> (usize, usize) {
        if roof.accumulators == 16 { (4, 4) } else { (1, roof.accumulators) }
    }

    #[test]
    fn every_line_is_read() {
        // Whole stretches, a rest of lines, and a rest of bytes that is no line.
        let mut bytes = vec![0u8; (4 * 3 + 2) * LINE + 7];
        bytes.iter_mut().enumerate().for_each(|(i, b)| *b = (i * 37 % 251) as u8);
        for (isa, roof) in roofs() {
            let before = (roof.read)(&bytes);
            for i in 0..14 * LINE {
                bytes[i] ^= 0x40;
                assert_ne!((roof.read)(&bytes), before, "byte {i} on {isa}");
                bytes[i] ^= 0x40;
            }
            assert_eq!((roof.read)(&[]), 0);
        }
    }

    #[test]
    fn dots_are_exact() {
        let mut codes: Codes = [[15; LINE]; STEPS];
        codes.iter_mut().flatten().enumerate().for_each(|(i, c)| *c -= (i * 7 % 5) as u8);
        let bytes: [[i8; 4]; STEPS] = std::array::from_fn(|i| [127, -127, 90 + i as i8, -(i as i8)]);
        let x = bytes.map(|b| i32::from_ne_bytes(b.map(i8::cast_unsigned)));
        for (isa, roof) in roofs() {
            let (panels, columns) = shape(roof);
            let mut expected = 0;
            for (step, p, c) in
                (0..STEPS).flat_map(|s| (0..panels).flat_map(move |p| (0..columns).map(move |c| (s, p, c))))
            {
                let (codes, x) = (&codes[(step + p) % STEPS], &bytes[(step + c) % STEPS]);
                expected += codes.iter().zip(x.iter().cycle()).map(|(&c, &x)| i32::from(c) * i32::from(x)).sum::<i32>();
            }
            assert_eq!((roof.dot)(&codes, &x, 3), 3 * expected, "{isa}");
            assert_eq!(roof.dot_ops(3), (3 * STEPS * panels * columns * LINE * 2) as u64);
        }
    }

    #[test]
    fn floats_are_multiplied() {
        // Small whole numbers: exact.
        let w: Floats = std::array::from_fn(|i| std::array::from_fn(|lane| (i + lane) as f32));
        let x: [f32; STEPS] = std::array::from_fn(|i| i as f32 - 3.0);
        for (isa, roof) in roofs() {
            let (panels, columns) = shape(roof);
            let mut expected = 0.0;
            for (step, p, c) in
                (0..STEPS).flat_map(|s| (0..panels).flat_map(move |p| (0..columns).map(move |c| (s, p, c))))
            {
                expected += w[(step + p) % STEPS].iter().sum::<f32>() * x[(step + c) % STEPS];
            }
            assert_eq!((roof.fma)(&w, &x, 2), 2.0 * expected, "{isa}");
            assert_eq!(roof.fma_ops(2), (2 * STEPS * panels * columns * LANES * 2) as u64);
        }
    }
}
