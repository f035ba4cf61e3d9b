//! Which kernels a GPU uses, where several compute the same.

use std::fmt;
use std::str::FromStr;

/// A variant of the kernels that products, norms and attention are made of. Each gives the same bits on one device however a
/// batch is made up; two of them may differ in the last bits of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Needs no feature at all.
    Baseline,
    /// Hands sums round in subgroups.
    Subgroup,
    /// Products of half floats: faster and less exact, so it is never taken unasked.
    F16,
    /// For adapters that compute on the processor.
    Narrow,
    /// The same with what lanes share handed round in subgroups.
    NarrowSubgroup,
}

impl Variant {
    /// All of them.
    pub const ALL: [Variant; 5] =
        [Variant::Baseline, Variant::Subgroup, Variant::F16, Variant::Narrow, Variant::NarrowSubgroup];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Baseline => "baseline",
            Variant::Subgroup => "subgroup",
            Variant::F16 => "f16",
            Variant::Narrow => "narrow",
            Variant::NarrowSubgroup => "narrow-subgroup",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(word: &str) -> Result<Variant, String> {
        Variant::ALL.into_iter().find(|v| v.name() == word.trim()).ok_or_else(|| {
            let names: Vec<&str> = Variant::ALL.iter().map(|v| v.name()).collect();
            format!("expected one of {}; `handmill devices` says which an adapter has", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_variants() {
        for variant in Variant::ALL {
            assert_eq!(variant.name().parse(), Ok(variant));
        }
        assert!("fast".parse::<Variant>().unwrap_err().contains("baseline, subgroup, f16"));
    }
}
