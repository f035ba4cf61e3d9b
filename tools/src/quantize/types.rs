//! THE list of file types: what a whole model is quantized to. Their numbers (`general.file_type`), their words and the
//! mixtures that they mean are llama.cpp's.

use gguf::Format;

/// A file type.
#[derive(Debug)]
pub struct FileType {
    /// As it is typed, lower case.
    pub name: &'static str,
    /// `general.file_type`.
    pub id: u32,
    /// As llama-bench prints it.
    pub words: &'static str,
    /// The format of most matrices.
    pub format: Format,
    /// What gets a better one.
    pub better: Better,
}

/// Which matrices get more bits than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// None: plain floats, and types that are good enough for all.
    Nothing,
    /// The output matrix, or the embedding that serves as one, has Q6_K.
    Output,
    /// As `Output`; values of the first four layers and `ffn_down` of the first eighth have Q5_K.
    First,
    /// As `Output`; values and `ffn_down` of the first and last eighth and of every third layer between have Q6_K.
    Third,
    /// As `Output`; `ffn_down`, the output of attention and values have Q3_K, values that many queries share Q4_K.
    Two,
    /// As `Output`; `ffn_down` of the first eighth has Q4_K, and so have values that many queries share.
    TwoFirst,
    /// As `Output`; `ffn_down`, the output of attention and values have Q4_K, and Q5_K in the first layers.
    Three,
    /// As `Output`; `ffn_down`, the output of attention and values have Q5_K.
    ThreeLarge,
    /// As `Output`; `ffn_down` of the first eighth has Q5_K, and so have values that many queries share.
    Table,
    /// As `Output`; an embedding of its own has Q4_K.
    Ternary,
    /// All that is no matrix of an expert has Q8_0.
    Experts,
}

const fn row(name: &'static str, id: u32, words: &'static str, format: Format, better: Better) -> FileType {
    FileType { name, id, words, format, better }
}

/// Every file type. Where two have one number the first has its words.
pub const ALL: &[FileType] = &[
    row("f32", 0, "all F32", Format::F32, Better::Nothing),
    row("f16", 1, "F16", Format::F16, Better::Nothing),
    row("bf16", 32, "BF16", Format::BF16, Better::Nothing),
    row("q8_0", 7, "Q8_0", Format::Q8_0, Better::Nothing),
    row("q4_0", 2, "Q4_0", Format::Q4_0, Better::Output),
    row("q4_1", 3, "Q4_1", Format::Q4_1, Better::Output),
    row("q5_0", 8, "Q5_0", Format::Q5_0, Better::Output),
    row("q5_1", 9, "Q5_1", Format::Q5_1, Better::Output),
    row("q4_k_s", 14, "Q4_K - Small", Format::Q4K, Better::First),
    row("q4_k_m", 15, "Q4_K - Medium", Format::Q4K, Better::Third),
    row("q5_k_s", 16, "Q5_K - Small", Format::Q5K, Better::Output),
    row("q5_k_m", 17, "Q5_K - Medium", Format::Q5K, Better::Third),
    row("q4_k", 14, "Q4_K", Format::Q4K, Better::Output),
    row("q5_k", 16, "Q5_K", Format::Q5K, Better::Output),
    row("q6_k", 18, "Q6_K", Format::Q6K, Better::Output),
    row("q2_k", 10, "Q2_K - Medium", Format::Q2K, Better::Two),
    row("q2_k_s", 21, "Q2_K - Small", Format::Q2K, Better::TwoFirst),
    row("q3_k_s", 11, "Q3_K - Small", Format::Q3K, Better::Output),
    row("q3_k_m", 12, "Q3_K - Medium", Format::Q3K, Better::Three),
    row("q3_k_l", 13, "Q3_K - Large", Format::Q3K, Better::ThreeLarge),
    row("q3_k", 12, "Q3_K", Format::Q3K, Better::Three),
    row("iq4_nl", 25, "IQ4_NL - 4.5 bpw", Format::IQ4NL, Better::Table),
    row("iq4_xs", 30, "IQ4_XS - 4.25 bpw", Format::IQ4XS, Better::Table),
    row("tq1_0", 36, "TQ1_0 - 1.69 bpw ternary", Format::TQ1_0, Better::Ternary),
    row("tq2_0", 37, "TQ2_0 - 2.06 bpw ternary", Format::TQ2_0, Better::Ternary),
    row("mxfp4_moe", 38, "MXFP4 MoE", Format::MXFP4, Better::Experts),
    row("mxfp4", 38, "MXFP4", Format::MXFP4, Better::Output),
    row("q4_e", 1024, "Q4_E - 4.25 bpw", Format::Q4E, Better::Output),
];

impl FileType {
    /// The type of a name, in any case.
    ///
    /// # Errors
    /// No such type.
    pub fn parse(name: &str) -> Result<&'static FileType, String> {
        ALL.iter().find(|t| t.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
            let names: Vec<&str> = ALL.iter().map(|t| t.name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }

    /// The words of a `general.file_type`.
    pub fn words(id: u32) -> Option<&'static str> {
        ALL.iter().find(|t| t.id == id).map(|t| t.words)
    }
}
