//! WGSL kernels as files, a composer for them, THE table of their variants, and how weights lie in a GPU's memory.
//!
//! The crate knows no GPU API. Its build composes and validates every variant of the table and writes [`ops`]: for each
//! kernel a struct of its parameters, read off the WGSL itself, and its bindings. A field that a shader does not have is
//! an error of the compiler.
//!
//! | to add | files |
//! | --- | --- |
//! | a format | `wgsl/unpack/<format>.wgsl` and one row in [`layout`] |
//! | a kernel | one `.wgsl` and one variant of [`Kernel`] |
#![forbid(unsafe_code)]

pub mod compose;
pub mod layout;
mod table;
mod way;

pub use layout::Layout;
pub use table::{
    ACT_QUADS, ATTEND_WG, Act, BLOCKS, EIGHT, Kernel, MAX_EXPERTS, MAX_HEAD, PAGE, POSITIONS, Peak, QUERIES, ROW_WG,
    Reducing, SHARED_HEAD, SLICES, SUBGROUPS, TOP, Walk,
};
pub use way::Way;

/// The parameters of each kernel, as its WGSL has them, and what each kernel binds.
pub mod ops {
    include!(concat!(env!("OUT_DIR"), "/ops.rs"));
}

/// What a kernel binds at a place of group 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// The place.
    pub index: u32,
    /// Uniform memory, or storage.
    pub uniform: bool,
    /// Whether it writes there.
    pub writes: bool,
}

/// Places of group 0.
pub mod place {
    /// What changes from step to step.
    pub const STEP: u32 = 0;
    /// The kernel's parameters.
    pub const OP: u32 = 1;
    /// What steps compute.
    pub const ARENA: u32 = 2;
    /// Weights, as quads.
    pub const QUADS: u32 = 3;
    /// Weights, as words.
    pub const WORDS: u32 = 4;
    /// One layer of the KV cache.
    pub const CACHE: u32 = 5;
    /// Tokens, positions, page tables, angles.
    pub const TABLES: u32 = 6;
    /// All weights that are vectors.
    pub const VECTORS: u32 = 7;
    /// What is read back in place of rows of logits.
    pub const RESULTS: u32 = 8;
}

/// A place in memory that is not there.
pub const NONE: u32 = u32::MAX;

impl Kernel {
    /// Its text.
    pub fn wgsl(self) -> String {
        let file = |name: &str| ops::FILES.iter().find(|f| f.0 == name).map(|f| f.1.to_string());
        // The build has composed every variant of the table.
        self.compose(&file).unwrap_or_default()
    }

    /// What it binds.
    pub fn bindings(self) -> &'static [Binding] {
        ops::BINDINGS.iter().find(|b| b.0 == self.file()).map_or(&[], |b| b.1)
    }
}
