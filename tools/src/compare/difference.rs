//! How far two lists of numbers, or two rows of logits, are apart.

use crate::commands::score::largest;

/// What was found between two lists of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Squares of the differences, and of the first list.
    squares: f64,
    power: f64,
    /// The largest difference.
    pub max_abs: f64,
    /// The most floats that lie between two numbers.
    pub max_ulp: u32,
}

impl Difference {
    /// Adds two lists of the same length. A number that is not finite is infinitely far from all but the same bits.
    pub fn take(&mut self, a: &[f32], b: &[f32]) {
        for (&a, &b) in a.iter().zip(b) {
            let same = a.to_bits() == b.to_bits();
            let off = if same { 0.0 } else { f64::from(a) - f64::from(b) };
            let off = if off.is_finite() { off.abs() } else { f64::INFINITY };
            self.squares += off * off;
            self.power += if a.is_finite() { f64::from(a) * f64::from(a) } else { 0.0 };
            self.max_abs = self.max_abs.max(off);
            self.max_ulp = self.max_ulp.max(if off.is_finite() { ulps(a, b) } else { u32::MAX });
        }
    }

    /// Mean square of the differences over that of the first list.
    pub fn nmse(&self) -> f64 {
        if self.power > 0.0 { self.squares / self.power } else { self.squares }
    }

    /// Whether it is larger than allowed: where nothing is allowed, any difference of bits is.
    pub fn is_past(&self, tolerance: f64) -> bool {
        self.nmse() > tolerance || tolerance == 0.0 && self.max_ulp > 0
    }
}

/// How many floats it is from one to the other; those of both signs of zero are one apart.
fn ulps(a: f32, b: f32) -> u32 {
    // Bits in the order of the numbers.
    let place = |x: f32| if x.is_sign_negative() { !x.to_bits() } else { x.to_bits() | 1 << 31 };
    place(a).abs_diff(place(b))
}

/// How far two rows of logits agree about what comes next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Positions.
    pub positions: usize,
    /// Those with the same most probable token.
    pub same_top: usize,
    /// Tokens that are among the largest of both, in all positions.
    shared: usize,
    /// Tokens that could be.
    possible: usize,
    /// The fewest shared at a position.
    pub worst: Option<usize>,
}

impl Agreement {
    /// Adds rows of logits.
    pub fn take(&mut self, [a, b]: [&[f32]; 2], n_vocab: usize, top: usize) {
        for (a, b) in a.chunks_exact(n_vocab).zip(b.chunks_exact(n_vocab)) {
            let ids = |row| largest(row, top).into_iter().map(|(id, _)| id).collect::<Vec<u32>>();
            let (a, b) = (ids(a), ids(b));
            let shared = a.iter().filter(|id| b.contains(id)).count();
            self.positions += 1;
            self.same_top += usize::from(a.first() == b.first());
            self.shared += shared;
            self.possible += a.len();
            self.worst = Some(self.worst.map_or(shared, |worst| worst.min(shared)));
        }
    }

    /// Share of the largest that both have.
    pub fn overlap(&self) -> f64 {
        if self.possible == 0 { 1.0 } else { self.shared as f64 / self.possible as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let mut d = Difference::default();
        d.take(&[3.0, 4.0], &[3.0, 4.5]);
        assert_eq!((d.nmse(), d.max_abs, d.max_ulp), (0.25 / 25.0, 0.5, 1 << 20));
        assert!(d.is_past(0.0099) && !d.is_past(0.0101));
        let mut d = Difference::default();
        d.take(&[0.0], &[-0.0]);
        assert_eq!((d.nmse(), d.max_ulp), (0.0, 1));
        assert!(d.is_past(0.0) && !d.is_past(1e-30), "other bits");
        assert_eq!(
            (ulps(1.0, 1.0 + f32::EPSILON), ulps(-1.0, -1.0), ulps(-f32::MIN_POSITIVE, 0.0)),
            (1, 0, (1 << 23) + 1)
        );
    }

    #[test]
    fn what_is_not_finite_is_far_from_all_but_itself() {
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::INFINITY, f32::NEG_INFINITY), (1.0, f32::INFINITY)] {
            let mut d = Difference::default();
            d.take(&[a], &[b]);
            assert!(d.is_past(1e30), "{a} {b}: {d:?}");
        }
        let mut d = Difference::default();
        d.take(&[f32::NAN, f32::INFINITY], &[f32::NAN, f32::INFINITY]);
        assert!(!d.is_past(0.0), "{d:?}");
    }

    #[test]
    fn agreement_of_rows() {
        let mut agreement = Agreement::default();
        agreement.take([&[3.0, 2.0, 1.0, 0.0, 1.0, 2.0], &[3.0, 1.0, 2.0, 0.0, 2.0, 1.0]], 3, 2);
        assert_eq!((agreement.positions, agreement.same_top, agreement.worst), (2, 1, Some(1)));
        assert_eq!(agreement.overlap(), 0.75);
    }
}
