//! THE table of kernels: every variant that can be asked for, and what its text is composed with.

use crate::compose::{Defines, compose};
use crate::layout::{ALL, GROUP, LANES, Layout};
use crate::way::{self, SLICES_OF_K, Way};
use gguf::Format;

/// Positions on a page of the KV cache.
pub const PAGE: usize = 32;
/// Largest head that attention has room for.
pub const MAX_HEAD: usize = 1024;
/// Most experts of a layer that routing has room for.
pub const MAX_EXPERTS: usize = 512;
/// Slices of a row that [`Kernel::Best`] and [`Kernel::Topk`] are shared out by.
pub const SLICES: usize = 32;
/// Logits of a row that [`Kernel::Topk`] finds.
pub const TOP: usize = 64;
/// Invocations of [`Kernel::Topk`], one for each value of eight bits, and of what is to have many reads under way.
const MANY_WG: usize = 256;
/// Queries that [`Kernel::AttentionNarrow`] takes at once, and [`Kernel::Attention`] where it takes several.
pub const QUERIES: usize = 4;
/// Positions of a tile of [`Kernel::Attention`], two pages.
pub const POSITIONS: usize = 2 * PAGE;
/// Longest key of a head of which several queries find room.
pub const SHARED_HEAD: usize = 384;
/// Invocations of [`Kernel::Attention`]: so many words of a value it has at once.
pub const ATTEND_WG: usize = 256;
/// Subgroups that kernels for adapters that are CPUs are made for.
pub const SUBGROUPS: [usize; 2] = [4, 8];
/// Invocations of the kernels that walk rows.
pub const ROW_WG: usize = 64;

/// Values of a column that the products of experts stage at once.
const EXPERT_TILE: usize = 2048;

/// Quads of a group of 32 activations that [`Kernel::Quantize`] writes: codes, then scale and sums.
pub const ACT_QUADS: usize = 3;

/// Lanes that hand sums round where subgroups have at least so many: few, so that every subgroup of 8, 16, 32 or 64 will do
/// and all of them give the same bits. Workgroups that add up are some times eight of them.
pub const EIGHT: usize = 8;

/// How a workgroup walks a row that it norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Walk {
    /// In floats: rows that are no quads.
    Floats,
    /// In quads, one of each invocation of a small workgroup: heads.
    Short,
    /// In quads, several of each invocation of a large one.
    Long,
}

impl Walk {
    /// Every way to walk.
    pub const ALL: [Walk; 3] = [Walk::Floats, Walk::Short, Walk::Long];

    /// The way for rows of so many floats.
    pub fn of_row(width: usize) -> Walk {
        match width {
            _ if !width.is_multiple_of(4) => Walk::Floats,
            _ if width <= 4 * ROW_WG => Walk::Short,
            _ => Walk::Long,
        }
    }

    fn invocations(self) -> usize {
        if self == Walk::Long { MANY_WG } else { ROW_WG }
    }

    /// Reads that an invocation has under way.
    fn reads(self) -> usize {
        if self == Walk::Short { 1 } else { 4 }
    }

    /// What it adds to the name of a kernel.
    fn suffix(self) -> &'static str {
        match self {
            Walk::Floats => "-floats",
            Walk::Short => "-short",
            Walk::Long => "",
        }
    }
}

/// Kernels that add up over a workgroup, of which there is a variant that does so in eights of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reducing {
    /// [`Kernel::RmsNorm`].
    RmsNorm(Walk),
    /// [`Kernel::LayerNorm`].
    LayerNorm(Walk),
    /// [`Kernel::Best`].
    Best {
        /// Whether it takes the results of slices, not a slice.
        merge: bool,
    },
}

impl Reducing {
    /// All of them.
    pub const ALL: [Reducing; 8] = [
        Reducing::RmsNorm(Walk::Floats),
        Reducing::RmsNorm(Walk::Short),
        Reducing::RmsNorm(Walk::Long),
        Reducing::LayerNorm(Walk::Floats),
        Reducing::LayerNorm(Walk::Short),
        Reducing::LayerNorm(Walk::Long),
        Reducing::Best { merge: false },
        Reducing::Best { merge: true },
    ];

    /// The kernel that needs no subgroups.
    pub fn baseline(self) -> Kernel {
        match self {
            Reducing::RmsNorm(walk) => Kernel::RmsNorm(walk),
            Reducing::LayerNorm(walk) => Kernel::LayerNorm(walk),
            Reducing::Best { merge } => Kernel::Best { merge },
        }
    }
}

/// Activation functions, as the kernel names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Act {
    Silu,
    GeluTanh,
    GeluErf,
    Relu,
    ReluSquared,
    Sigmoid,
}

impl Act {
    /// All of them.
    pub const ALL: [Act; 6] = [Act::Silu, Act::GeluTanh, Act::GeluErf, Act::Relu, Act::ReluSquared, Act::Sigmoid];
}

/// What an adapter can be asked to do as fast as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peak {
    /// Read memory.
    Read,
    /// Multiply and add floats.
    Float,
    /// Multiply and add 8-bit integers.
    Int8,
}

/// A variant of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Rows of a table.
    Embed(Format),
    /// Matrix product.
    MatMul {
        /// Format of the matrix.
        format: Format,
        /// Columns of a workgroup, one of [`Way::columns`].
        columns: usize,
        /// How it is shared out.
        way: Way,
    },
    /// Activations as 8-bit codes in groups of 32.
    Quantize,
    /// Product of each row with matrices of its own.
    Experts {
        /// Format of the matrices.
        format: Format,
        /// Whether it makes 8-bit codes of the row for integer dots.
        dot: bool,
    },
    /// RMS norm.
    RmsNorm(Walk),
    /// The same in subgroups of this many lanes.
    RmsNormNarrow(usize),
    /// Layer norm.
    LayerNorm(Walk),
    /// Activation.
    Act(Act),
    /// Gated activation.
    GatedAct(Act),
    /// The gate of gpt-oss.
    ClampedGlu,
    /// Soft cap.
    Softcap,
    /// Strength of a low-rank adapter.
    Adapt,
    /// Columns from one value to another.
    Copy,
    /// Choice of experts.
    Route,
    /// Sum of experts.
    Combine,
    /// Wanted rows.
    Gather,
    /// The largest of wanted rows.
    Best {
        /// Whether it takes the results of slices, not a slice.
        merge: bool,
    },
    /// The [`TOP`] largest of wanted rows.
    Topk {
        /// Whether it takes the results of slices, not a slice.
        merge: bool,
    },
    /// A measurement of what an adapter does at most.
    Roof(Peak),
    /// Rotary embedding and storage of keys and values.
    RopeStore {
        /// Whether the cache holds half floats.
        half: bool,
    },
    /// Attention.
    Attention {
        /// Whether the cache holds half floats.
        half: bool,
        /// Queries of a workgroup: 1 or [`QUERIES`].
        queries: usize,
        /// Whether a workgroup has one tile, whose result is merged later.
        split: bool,
    },
    /// What a token has of its tiles.
    AttentionMerge,
    /// A kernel that adds up over a workgroup, in eights of lanes.
    Eights(Reducing),
    /// Attention in subgroups.
    AttentionNarrow {
        /// Whether the cache holds half floats.
        half: bool,
        /// Lanes of a subgroup, one of [`SUBGROUPS`].
        subgroup: usize,
        /// Quads of words that a lane has of a value, one of [`BLOCKS`].
        blocks: usize,
    },
}

/// Quads of a value that a lane of [`Kernel::AttentionNarrow`] may have, ascending.
pub const BLOCKS: [usize; 4] = [1, 2, 4, 8];

impl Kernel {
    /// Every variant.
    pub fn all() -> Vec<Kernel> {
        let mut all = vec![Kernel::Gather, Kernel::Copy, Kernel::Softcap];
        all.extend(Walk::ALL.into_iter().flat_map(|walk| [Kernel::RmsNorm(walk), Kernel::LayerNorm(walk)]));
        all.extend([Kernel::ClampedGlu, Kernel::Adapt, Kernel::Route, Kernel::Combine, Kernel::Quantize]);
        all.extend(Reducing::ALL.map(Kernel::Eights));
        all.extend(Act::ALL.map(Kernel::Act));
        all.extend(Act::ALL.map(Kernel::GatedAct));
        all.extend([false, true].map(|merge| Kernel::Best { merge }));
        all.extend([false, true].map(|merge| Kernel::Topk { merge }));
        all.extend([Peak::Read, Peak::Float, Peak::Int8].map(Kernel::Roof));
        for half in [true, false] {
            all.push(Kernel::RopeStore { half });
            for queries in [1, QUERIES] {
                all.extend([true, false].map(|split| Kernel::Attention { half, queries, split }));
            }
            for subgroup in SUBGROUPS {
                all.extend(BLOCKS.map(|blocks| Kernel::AttentionNarrow { half, subgroup, blocks }));
            }
        }
        all.push(Kernel::AttentionMerge);
        all.extend(SUBGROUPS.map(Kernel::RmsNormNarrow));
        for Layout { format, sub, .. } in ALL {
            all.extend([Kernel::Embed(format), Kernel::Experts { format, dot: false }]);
            all.extend(sub.map(|_| Kernel::Experts { format, dot: true }));
            for way in Way::ALL.into_iter().chain([Way::Dot]).filter(|way| way.takes(format)) {
                all.extend(way.columns().iter().map(|&columns| Kernel::MatMul { format, columns, way }));
            }
        }
        all
    }

    /// The file that it is composed from.
    pub fn file(self) -> &'static str {
        match self {
            Kernel::Embed(_) => "embed",
            Kernel::MatMul { way, columns, .. } => way.file(columns),
            Kernel::Quantize => "quantize",
            Kernel::Eights(of) => of.baseline().file(),
            Kernel::Experts { .. } => "experts",
            Kernel::RmsNorm(_) => "rms_norm",
            Kernel::LayerNorm(_) => "layer_norm",
            Kernel::Act(_) => "act",
            Kernel::Softcap => "softcap",
            Kernel::Adapt => "adapt",
            Kernel::Copy => "copy",
            Kernel::Route => "route",
            Kernel::Combine => "combine",
            Kernel::GatedAct(_) | Kernel::ClampedGlu => "gated_act",
            Kernel::Gather => "gather",
            Kernel::Best { .. } => "best",
            Kernel::Topk { .. } => "topk",
            Kernel::Roof(_) => "roof",
            Kernel::RopeStore { .. } => "rope_store",
            Kernel::Attention { .. } => "attention",
            Kernel::AttentionMerge => "attention_merge",
            Kernel::AttentionNarrow { .. } => "attention_narrow",
            Kernel::RmsNormNarrow(_) => "rms_norm_narrow",
        }
    }

    /// A name for people and profilers: kernel, format, variant.
    pub fn name(self) -> String {
        match self {
            Kernel::Embed(format) => format!("embed-{format}"),
            Kernel::MatMul { format, columns, way } => {
                format!("matmul-{format}-{}-{columns}", way.name())
            }
            Kernel::Eights(of) => format!("{}-sub", of.baseline().name()),
            Kernel::Experts { format, dot } => format!("experts-{format}{}", if dot { "-dot" } else { "" }),
            Kernel::Act(act) => format!("act-{act:?}").to_lowercase(),
            Kernel::GatedAct(act) => format!("gated-{act:?}").to_lowercase(),
            Kernel::ClampedGlu => "clamped-glu".into(),
            Kernel::RopeStore { half } => format!("rope-store-{}", kv(half)),
            Kernel::Attention { half, queries, split } => {
                format!("attention-{}{}-{queries}", kv(half), if split { "-split" } else { "" })
            }
            Kernel::AttentionNarrow { half, subgroup, blocks } => {
                format!("attention-{}-narrow-sub{subgroup}-{blocks}", kv(half))
            }
            Kernel::RmsNormNarrow(subgroup) => format!("rms-norm-narrow-sub{subgroup}"),
            Kernel::Best { merge: true } => "best-merge".into(),
            Kernel::Topk { merge: true } => "topk-merge".into(),
            Kernel::Roof(Peak::Read) => "roof-read".into(),
            Kernel::Roof(Peak::Float) => "roof-f32".into(),
            Kernel::Roof(Peak::Int8) => "roof-int8".into(),
            Kernel::RmsNorm(walk) => format!("rms-norm{}", walk.suffix()),
            Kernel::LayerNorm(walk) => format!("layer-norm{}", walk.suffix()),
            one => one.file().replace('_', "-"),
        }
    }

    /// Whether it needs subgroup operations.
    pub fn needs_subgroups(self) -> bool {
        self.subgroup().is_some()
    }

    /// Lanes that subgroups must have at least, where it needs them.
    pub fn subgroup(self) -> Option<usize> {
        match self {
            Kernel::MatMul { way: Way::NarrowSubgroup(n), .. } => Some(n),
            Kernel::Eights(_) => Some(EIGHT),
            Kernel::AttentionNarrow { subgroup, .. } | Kernel::RmsNormNarrow(subgroup) => Some(subgroup),
            _ => None,
        }
    }

    /// Whether subgroups of so many lanes at least and at most will do. Kernels that are one subgroup need just theirs.
    pub fn fits(self, [least, most]: [usize; 2]) -> bool {
        let exact = matches!(self, Kernel::AttentionNarrow { .. } | Kernel::RmsNormNarrow(_));
        self.subgroup().is_none_or(|n| least >= n && (!exact || most == n))
    }

    /// Whether it needs half floats.
    pub fn needs_halves(self) -> bool {
        matches!(self, Kernel::MatMul { way: Way::WideHalf, .. })
    }

    /// Invocations of a workgroup.
    pub fn invocations(self) -> usize {
        match self {
            Kernel::MatMul { way, .. } => way.invocations(),
            Kernel::Experts { .. } => LANES * SLICES_OF_K,
            Kernel::AttentionNarrow { subgroup, .. } | Kernel::RmsNormNarrow(subgroup) => subgroup,
            Kernel::Topk { .. } | Kernel::Best { merge: false } | Kernel::Roof(_) => MANY_WG,
            Kernel::RmsNorm(walk) | Kernel::LayerNorm(walk) => walk.invocations(),
            Kernel::Eights(of) => of.baseline().invocations(),
            Kernel::Attention { .. } => ATTEND_WG,
            _ => ROW_WG,
        }
    }

    fn defines(self) -> Defines {
        if let Kernel::Eights(of) = self {
            return of.baseline().defines().into_iter().chain([("EIGHTS".into(), "1".into())]).collect();
        }
        let mut d = Defines::new();
        let mut set = |name: &str, value: usize| drop(d.insert(name.to_string(), value.to_string()));
        set("WG", self.invocations());
        set("PAGE", PAGE);
        match self {
            Kernel::Embed(format) => unpack(&mut d, format),
            Kernel::Quantize => {
                set("ACTQUADS", ACT_QUADS);
                set("QUADWISE", 1);
                set("BITS", 1);
            }
            Kernel::MatMul { format, columns, way } => {
                way::define(&mut set, columns, way);
                unpack(&mut d, format);
            }
            Kernel::Experts { format, dot } => {
                let groups = EXPERT_TILE / GROUP;
                set("TILE", groups);
                set("S", SLICES_OF_K);
                set("STAGED", groups * if dot { ACT_QUADS } else { GROUP / 4 });
                set("INTEGER", usize::from(dot));
                set("ACTQUADS", ACT_QUADS);
                unpack(&mut d, format);
            }
            Kernel::Act(act) | Kernel::GatedAct(act) => set(&format!("{act:?}").to_uppercase(), 1),
            Kernel::ClampedGlu => set("CLAMPED", 1),
            Kernel::Route => set("MAXEXPERTS", MAX_EXPERTS),
            Kernel::RopeStore { half } => set("HALF", usize::from(half)),
            Kernel::Attention { half, queries, split } => attention(&mut set, half, queries, split),
            // It has one query and sees no cache.
            Kernel::AttentionMerge => attention(&mut set, false, 1, true),
            Kernel::AttentionNarrow { half, subgroup, blocks } => attention_narrow(&mut set, half, subgroup, blocks),
            Kernel::RmsNormNarrow(subgroup) => {
                set("QUADWISE", 1);
                set("SUB", subgroup);
            }
            Kernel::Roof(peak) => roof(&mut set, peak),
            Kernel::RmsNorm(walk) | Kernel::LayerNorm(walk) => norm(&mut set, walk),
            Kernel::Topk { merge } => {
                set("SLICES", SLICES);
                set("K", TOP);
                set("MERGE", usize::from(merge));
            }
            Kernel::Best { merge } => {
                set("QUADWISE", 1);
                set("SLICES", SLICES);
                set("MERGE", usize::from(merge));
            }
            _ => {}
        }
        d
    }

    /// Its text. `file` gives the text of a file by its name without the suffix.
    ///
    /// # Errors
    /// A mistake in a file.
    pub fn compose(self, file: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
        compose(self.file(), &self.defines(), file)
    }
}

fn attention(set: &mut dyn FnMut(&str, usize), half: bool, queries: usize, split: bool) {
    let parts = ATTEND_WG / POSITIONS;
    set("HALF", usize::from(half));
    set("SPLIT", usize::from(split));
    set("MANY", usize::from(queries > 1));
    set("Q", queries);
    set("TILE", POSITIONS);
    set("PARTS", parts);
    set("STRIDE", 8 * parts);
    set("KEY", if queries > 1 { SHARED_HEAD } else { MAX_HEAD });
    set("SHARES", if half { 2 * ATTEND_WG } else { ATTEND_WG });
}

fn attention_narrow(set: &mut dyn FnMut(&str, usize), half: bool, subgroup: usize, blocks: usize) {
    let per = if half { 2 } else { 1 };
    set("HALF", usize::from(half));
    set("PER", per);
    set("QUADWISE", 1);
    set("SUB", subgroup);
    set("VB", blocks);
    set("Q", QUERIES);
    set("PQ", PAGE / 4 / subgroup);
    set("CHUNK", 4 * subgroup);
    set("CHUNKWORDS", 4 * subgroup / per);
}

fn roof(set: &mut dyn FnMut(&str, usize), peak: Peak) {
    set("READ", usize::from(peak == Peak::Read));
    set("INT8", usize::from(peak == Peak::Int8));
}

fn norm(set: &mut dyn FnMut(&str, usize), walk: Walk) {
    set("QUADWISE", usize::from(walk != Walk::Floats));
    set("READS", walk.reads());
}

fn kv(half: bool) -> &'static str {
    if half { "f16" } else { "f32" }
}

/// What a format's layout is called in WGSL.
fn unpack(d: &mut Defines, format: Format) {
    let Some(layout) = Layout::of(format) else { return };
    let sub = layout.sub.unwrap_or(GROUP);
    d.insert("FORMAT".into(), format.name().into());
    for (name, value) in [
        ("GROUPS", layout.block / GROUP),
        ("QUADS", layout.quads),
        ("WORDS", layout.words),
        ("SUBS", GROUP / sub),
        ("JOBS", sub / 4),
        ("WHOLE", usize::from(sub == GROUP)),
        ("FLOORS", usize::from(layout.floors)),
        ("SCALED", usize::from(layout.sub.is_some() && !layout.floors)),
        ("SCALES", GROUP / sub * LANES),
        ("RAGGED", usize::from(layout.sub.is_none())),
    ] {
        d.insert(name.into(), value.to_string());
    }
}
