//! Ways to share out a matrix product among invocations.

use crate::layout::{GROUP, LANES, Layout};
use crate::table::ACT_QUADS;
use gguf::Format;

/// Values of all columns of a tile that [`Way::WideHalf`] stages at once.
const TILE: usize = 2048;
/// Slices of k that lie side by side in a workgroup of [`Way::Wide`] and [`Way::Dot`].
const WIDE_SLICES: usize = 32;
/// Rows of a workgroup there: half a panel.
const WIDE_ROWS: usize = LANES / 2;
/// Slices of k of [`Way::WideHalf`] and of the products of experts.
pub(crate) const SLICES_OF_K: usize = 8;

/// How a matrix product is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// For GPUs: slices of k side by side, and for many columns tiles of the matrix; columns are read by fours.
    Wide,
    /// The same for rows of floats that are not whole fours.
    WideOdd,
    /// For GPUs, with products of half floats.
    WideHalf,
    /// As the first for activations of 8-bit codes, as `quantize.wgsl` leaves them: integer dots.
    Dot,
    /// For adapters that are CPUs: a lane walks all of k, columns read by every lane.
    Narrow,
    /// The same with columns handed round in subgroups of at least this many lanes.
    NarrowSubgroup(usize),
}

/// Columns of a tile of [`Way::Wide`] and [`Way::Dot`] for many columns.
const MANY: usize = 64;

impl Way {
    /// Every way for activations that are floats.
    pub const ALL: [Way; 6] =
        [Way::Wide, Way::WideOdd, Way::WideHalf, Way::Narrow, Way::NarrowSubgroup(4), Way::NarrowSubgroup(8)];

    /// Whether it takes activations that are codes.
    pub fn is_dot(self) -> bool {
        self == Way::Dot
    }

    /// Whether there are kernels of it for a format.
    pub fn takes(self, format: Format) -> bool {
        let codes = Layout::of(format).is_some_and(|layout| layout.sub.is_some());
        match self {
            Way::Dot => codes,
            Way::WideOdd => !codes,
            _ => true,
        }
    }

    /// The way for rows of `k` values on an adapter that has this one: most read columns by fours where they can.
    pub fn of_row(self, k: usize) -> Way {
        if k.is_multiple_of(4) { self } else { Way::WideOdd }
    }

    /// Tiles of columns that its products come in, ascending.
    pub fn columns(self) -> &'static [usize] {
        if self.has_tiles() { &[1, 4, 8, MANY] } else { &[1, 4, 8] }
    }

    /// Most columns of a step for which tiles of so many columns are the best.
    pub fn most(self, columns: usize) -> usize {
        match self.columns() {
            // Measured on a H100: a tile of 64 takes the time of four or five passes of 8, however many columns it has.
            [.., last, MANY] if columns == *last => MANY / 2,
            [.., last] if columns == *last => usize::MAX,
            _ => columns,
        }
    }

    fn has_tiles(self) -> bool {
        matches!(self, Way::Wide | Way::Dot)
    }

    /// Workgroups along the panels of a matrix.
    pub fn workgroups(self, columns: usize, panels: usize) -> usize {
        match self {
            Way::Wide | Way::Dot if columns == MANY => panels.div_ceil(MANY / LANES),
            Way::Wide | Way::WideOdd | Way::Dot => panels * LANES / WIDE_ROWS,
            Way::WideHalf => panels,
            Way::Narrow | Way::NarrowSubgroup(_) => panels.div_ceil(self.panels_of_lane(columns)),
        }
    }

    /// Panels of one invocation where a lane walks all of k.
    fn panels_of_lane(self, columns: usize) -> usize {
        if columns > 1 { 4 } else { 1 }
    }

    fn slices(self) -> usize {
        match self {
            Way::Wide | Way::WideOdd | Way::Dot => WIDE_SLICES,
            Way::WideHalf => SLICES_OF_K,
            Way::Narrow | Way::NarrowSubgroup(_) => 1,
        }
    }

    /// Invocations of a workgroup.
    pub fn invocations(self) -> usize {
        match self {
            Way::Wide | Way::WideOdd | Way::Dot => WIDE_SLICES * WIDE_ROWS,
            // Adapters that are CPUs share small matrices out better in single panels.
            _ => LANES * self.slices(),
        }
    }

    /// The file of its products.
    pub fn file(self, columns: usize) -> &'static str {
        match self {
            Way::Wide if columns == MANY => "matmul_tile",
            Way::Wide | Way::WideOdd => "matmul_wide",
            Way::WideHalf => "matmul_half",
            Way::Dot if columns == MANY => "matmul_dot_tile",
            Way::Dot => "matmul_dot",
            Way::Narrow | Way::NarrowSubgroup(_) => "matmul_narrow",
        }
    }

    /// Its word in the names of kernels.
    pub fn name(self) -> String {
        match self {
            Way::Wide => "wide".into(),
            Way::WideOdd => "wide-odd".into(),
            Way::WideHalf => "wide-f16".into(),
            Way::Dot => "dot".into(),
            Way::Narrow => "narrow".into(),
            Way::NarrowSubgroup(n) => format!("narrow-sub{n}"),
        }
    }
}

/// Names that its products are composed with, beside those of formats.
pub(crate) fn define(set: &mut dyn FnMut(&str, usize), columns: usize, way: Way) {
    let dot = way.is_dot();
    let subgroup = if let Way::NarrowSubgroup(n) = way { n } else { 0 };
    let panels = way.panels_of_lane(columns);
    set("T", columns);
    set("TILE", TILE / GROUP / columns);
    set("S", way.slices());
    set("ROWS", WIDE_ROWS);
    set("STAGED", TILE / 4);
    set("SUMS", columns * way.invocations());
    set("R", panels);
    set("R4", usize::from(panels == 4));
    set("SUBGROUP", subgroup);
    set("SHARE", subgroup.max(1));
    set("SHARES", GROUP / 4 / subgroup.max(1));
    set("QUADWISE", usize::from(!matches!(way, Way::WideOdd | Way::WideHalf)));
    set("ODD", usize::from(way == Way::WideOdd));
    set("BITS", usize::from(dot));
    set("INTEGER", usize::from(dot));
    set("DIRECT", usize::from(dot));
    set("ACTQUADS", ACT_QUADS);
}
