//! Encoders of this project's own formats.

use super::super::Encode;
use super::super::own::Q4E;
use super::lanes::Lanes;
use super::search::{Groups, One, Whole, code};
use super::symmetric::fit_one_symmetric;
use super::{bytes, inverse, nibbles};

impl Encode for Q4E {
    /// The better of the two scales around the one of least error.
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let group = Groups::<V, One, 4>::new(cpu, x, importance);
        let best = fit_one_symmetric::<V, Whole<-8, 7>, 4>(&group);
        let bits = half::f16::from_f32((best.abs() / 4.0).min(1.875)).to_bits() >> 7;
        let sign = if best < 0.0 { 128 } else { 0 };
        let block = |byte: u16| {
            let empty = Q4E { e: [sign | byte.min(127) as u8], qs: [0; 16] };
            let inverse = inverse(empty.scale());
            let codes: [u8; 32] = bytes(|i| code(x[i] * inverse, -8.0, 7.0).wrapping_add(8));
            Q4E { qs: nibbles(&codes), ..empty }
        };
        let [below, above] = [block(bits), block(bits + 1)];
        if group.error(cpu, &above) < group.error(cpu, &below) { above } else { below }
    }
}
