//! THE list of shapes: hyperparameters of known models, as their published files have them.

/// What is built like what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 3.
    Llama,
    /// Qwen 2: biases on queries, keys and values.
    Qwen2,
    /// Gemma 3: norms around each block and in each head.
    Gemma3,
    /// Phi 3 and 4: queries, keys and values in one matrix, gate and up in one.
    Phi3,
}

impl Family {
    /// The word of `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Gemma3 => "gemma3",
            Family::Phi3 => "phi3",
        }
    }

    /// Whether prompts begin with a token of their own.
    pub fn adds_bos(self) -> bool {
        matches!(self, Family::Llama | Family::Gemma3)
    }
}

/// How wavelengths are stretched beyond the context of the first training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stretch {
    /// Not.
    None,
    /// Llama 3's: long wavelengths by this factor.
    Llama3(f32),
    /// Phi's: one list of factors for contexts up to this length, one for longer ones.
    Long(u32),
}

/// A shape.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// As it is typed.
    pub name: &'static str,
    /// Size in words.
    pub label: &'static str,
    /// What it is built like.
    pub family: Family,
    /// Tokens.
    pub vocab: u32,
    /// Context trained for.
    pub context: u32,
    /// Width of the residual stream.
    pub width: u32,
    /// Layers.
    pub layers: u32,
    /// Query heads, heads of keys and values, and the size of each.
    pub heads: [u32; 3],
    /// Width of the feed-forward.
    pub ff: u32,
    /// Epsilon of norms.
    pub eps: f32,
    /// Base of the rotary embedding.
    pub base: f32,
    /// How it is stretched.
    pub stretch: Stretch,
    /// Elements of a head that rotate.
    pub rotated: u32,
    /// Sliding window.
    pub window: Option<u32>,
    /// Whether the embedding is the output matrix too.
    pub tied: bool,
}

const LLAMA: Shape = Shape {
    name: "llama-3.2-1b",
    label: "1B",
    family: Family::Llama,
    vocab: 128_256,
    context: 131_072,
    width: 2048,
    layers: 16,
    heads: [32, 8, 64],
    ff: 8192,
    eps: 1e-5,
    base: 500_000.0,
    stretch: Stretch::Llama3(32.0),
    rotated: 64,
    window: None,
    tied: true,
};

const QWEN: Shape = Shape {
    name: "qwen2.5-0.5b",
    label: "0.5B",
    family: Family::Qwen2,
    vocab: 151_936,
    context: 32_768,
    width: 896,
    layers: 24,
    heads: [14, 2, 64],
    ff: 4864,
    eps: 1e-6,
    base: 1_000_000.0,
    stretch: Stretch::None,
    ..LLAMA
};

/// Every shape.
pub const ALL: &[Shape] = &[
    Shape {
        name: "tiny",
        label: "4M",
        vocab: 1024,
        context: 4096,
        width: 256,
        layers: 4,
        heads: [4, 2, 64],
        ff: 768,
        base: 10_000.0,
        stretch: Stretch::None,
        tied: false,
        ..LLAMA
    },
    LLAMA,
    Shape { name: "llama-3.2-3b", label: "3B", width: 3072, layers: 28, heads: [24, 8, 128], rotated: 128, ..LLAMA },
    Shape {
        name: "llama-3.1-8b",
        label: "8B",
        width: 4096,
        layers: 32,
        heads: [32, 8, 128],
        rotated: 128,
        ff: 14_336,
        stretch: Stretch::Llama3(8.0),
        tied: false,
        ..LLAMA
    },
    QWEN,
    Shape {
        name: "qwen2.5-1.5b",
        label: "1.5B",
        width: 1536,
        layers: 28,
        heads: [12, 2, 128],
        rotated: 128,
        ff: 8960,
        ..QWEN
    },
    Shape {
        name: "qwen2.5-7b",
        label: "7B",
        vocab: 152_064,
        width: 3584,
        layers: 28,
        heads: [28, 4, 128],
        rotated: 128,
        ff: 18_944,
        tied: false,
        ..QWEN
    },
    Shape {
        name: "gemma-3-1b",
        label: "1B",
        family: Family::Gemma3,
        vocab: 262_144,
        width: 1152,
        layers: 26,
        heads: [4, 1, 256],
        rotated: 256,
        ff: 6912,
        window: Some(512),
        ..QWEN
    },
    Shape {
        name: "phi-4-mini",
        label: "3.8B",
        family: Family::Phi3,
        vocab: 200_064,
        context: 131_072,
        width: 3072,
        layers: 32,
        heads: [24, 8, 128],
        rotated: 96,
        eps: 1e-5,
        base: 10_000.0,
        stretch: Stretch::Long(4096),
        window: Some(262_144),
        ..LLAMA
    },
];

impl Shape {
    /// The shape of a name, in any case.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(name: &str) -> Result<&'static Shape, String> {
        ALL.iter().find(|s| s.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
            let names: Vec<&str> = ALL.iter().map(|s| s.name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}
