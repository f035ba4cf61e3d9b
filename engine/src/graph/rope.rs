//! Rotary embeddings: the angles by which pairs turn.

use crate::spec::{Pairing, Rope};

/// Rotary embedding with its frequencies worked out.
#[derive(Clone, Debug)]
pub struct RopeFreqs {
    /// Each pair turns by this times the angle of the pair before it.
    pub ratio: f32,
    /// Factor on all angles.
    pub scale: f32,
    /// Divisors of the angles, one a pair.
    pub factors: Vec<f32>,
    /// Which elements pair up.
    pub pairing: Pairing,
    /// Factor on cosines and sines.
    pub magnitude: f64,
}

impl RopeFreqs {
    /// The angles of a rotary embedding (Su et al., 2021): pair i turns by `position * base^(-2i / dims) * scale / factor[i]`
    /// (factors as published with Llama 3.1, or those of YaRN).
    pub fn new(rope: &Rope, factors: Option<&[f32]>) -> RopeFreqs {
        let pairs = rope.dims / 2;
        let mut factors = factors.map_or_else(|| vec![1.0; pairs], <[f32]>::to_vec);
        if let Some(yarn) = rope.yarn {
            // The pair that turns `beta` times over the original context.
            let pair = |beta: f64| {
                rope.dims as f64 * libm::log(yarn.original as f64 / (beta * std::f64::consts::TAU))
                    / (2.0 * libm::log(rope.base))
            };
            let low = pair(yarn.beta_fast).floor().max(0.0);
            let high = pair(yarn.beta_slow).ceil().min(rope.dims as f64 - 1.0);
            for (i, factor) in factors.iter_mut().enumerate() {
                let interpolated = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                *factor /= (interpolated / yarn.factor + (1.0 - interpolated)) as f32;
            }
        }
        RopeFreqs {
            ratio: libm::pow(rope.base, -2.0 / rope.dims as f64) as f32,
            scale: rope.scale as f32,
            factors,
            pairing: rope.pairing,
            magnitude: rope.magnitude,
        }
    }

    /// Pairs of a head.
    pub fn pairs(&self) -> usize {
        self.factors.len()
    }

    /// Radians that each pair turns by at a position.
    ///
    /// The angles are a geometric series of f32, each rounded, as models were trained and as the engines that published
    /// expected values compute them; their cosines and sines are those of f64, rounded once. At position 750 exact
    /// angles would move the logits of gemma-3-270m by 0.0025.
    pub fn angles(&self, position: u32) -> impl Iterator<Item = f64> {
        let mut next = position as f32;
        self.factors.iter().map(move |factor| {
            let angle = next;
            next *= self.ratio;
            f64::from(self.scale * (angle / factor))
        })
    }

    /// Writes the cosines and sines of a position.
    pub fn fill(&self, position: u32, cos: &mut [f32], sin: &mut [f32]) {
        for ((cos, sin), angle) in cos.iter_mut().zip(sin).zip(self.angles(position)) {
            let (s, c) = libm::sincos(angle);
            (*cos, *sin) = ((c * self.magnitude) as f32, (s * self.magnitude) as f32);
        }
    }
}
