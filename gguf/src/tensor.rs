//! The tensor table: names, shapes, where the data lies.

use std::fmt;

use crate::Format;
use crate::error::{Error, Fault, Site};

/// Dimensions of a tensor, fastest first: `dims()[0]` is the length of a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [u64; 4],
    n: u8,
}

impl Shape {
    /// A shape of 1 to 4 dimensions, each at least 1, with fewer than 2^63 elements; `None` for
    /// anything else.
    pub fn new(dims: &[u64]) -> Option<Shape> {
        if dims.is_empty() || dims.len() > 4 || dims.contains(&0) {
            return None;
        }
        let elements = dims.iter().try_fold(1u64, |product, &d| product.checked_mul(d))?;
        if i64::try_from(elements).is_err() {
            return None;
        }
        let mut all = [1; 4];
        all[..dims.len()].copy_from_slice(dims);
        Some(Shape { dims: all, n: dims.len() as u8 })
    }

    /// The dimensions, 1 to 4 of them, fastest first.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..usize::from(self.n)]
    }

    /// Elements a row: the first dimension.
    pub fn k(&self) -> u64 {
        self.dims[0]
    }

    /// Number of rows: the product of all dimensions but the first.
    pub fn rows(&self) -> u64 {
        self.dims[1] * self.dims[2] * self.dims[3]
    }

    /// Bytes of a tensor of this shape.
    pub(crate) fn bytes(&self, format: Format) -> Result<u64, Fault> {
        if !self.k().is_multiple_of(format.block_len() as u64) {
            return Err(Fault::Row { k: self.k(), format });
        }
        let bytes = format.row_bytes(self.k()).and_then(|row| row.checked_mul(self.rows()));
        bytes.filter(|&b| i64::try_from(b).is_ok()).ok_or_else(|| Fault::Overflow { dims: self.dims().to_vec() })
    }

    /// Number of elements; below 2^63.
    pub fn elements(&self) -> u64 {
        self.k() * self.rows()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dims().fmt(f)
    }
}

/// One tensor: what it is and where its bytes are. The fields agree with each other and with the
/// file where the value comes from [`crate::Gguf`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the model, 1 to 64 bytes.
    pub name: String,
    /// Dimensions, row length first.
    pub shape: Shape,
    /// How the elements are stored.
    pub format: Format,
    /// Which file of a split model holds it, from 0.
    pub part: usize,
    /// Where its data starts, in bytes from the start of its part.
    pub offset: u64,
    /// Bytes of data.
    pub size: u64,
    /// Where its entry in the tensor table starts, in bytes from the start of its part: for
    /// messages about its shape or format.
    pub entry: u64,
}

/// The tensors of a model and their order by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tensors {
    infos: Vec<TensorInfo>,
    by_name: Vec<u32>,
}

impl Tensors {
    /// Builds the name index; fails where a name occurs twice in the `parts` of the model.
    pub(crate) fn new(infos: Vec<TensorInfo>, parts: usize) -> Result<Tensors, Error> {
        match sorted_unique(infos.len(), |i| infos[i].name.as_bytes()) {
            Ok(by_name) => Ok(Tensors { infos, by_name }),
            Err((later, earlier)) => Err(duplicate(&infos, later, earlier, parts)),
        }
    }

    pub(crate) fn as_slice(&self) -> &[TensorInfo] {
        &self.infos
    }

    pub(crate) fn into_vec(self) -> Vec<TensorInfo> {
        self.infos
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [TensorInfo] {
        &mut self.infos
    }

    pub(crate) fn get(&self, name: &str) -> Option<&TensorInfo> {
        let find = self.by_name.binary_search_by(|&i| self.infos[i as usize].name.as_str().cmp(name));
        find.ok().map(|at| &self.infos[self.by_name[at] as usize])
    }
}

fn duplicate(infos: &[TensorInfo], later: usize, earlier: usize, parts: usize) -> Error {
    let (t, first) = (&infos[later], &infos[earlier]);
    let part = (t.part != first.part).then_some(first.part);
    let fault = Fault::Duplicate { first: first.entry, part };
    let error = fault.at(Site::tensor(later, t.name.as_bytes()), t.entry);
    match part {
        None => error,
        Some(_) => Error::Part { index: t.part, count: parts, error: Box::new(error) },
    }
}

/// The indices 0..n ordered by name, or the indices (later, earlier) of a name used twice.
/// `n` is below 2^32: the parser's caps see to that.
pub(crate) fn sorted_unique<'n>(n: usize, name: impl Fn(usize) -> &'n [u8]) -> Result<Vec<u32>, (usize, usize)> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.sort_unstable_by(|&a, &b| name(a as usize).cmp(name(b as usize)).then(a.cmp(&b)));
    match order.windows(2).find(|w| name(w[0] as usize) == name(w[1] as usize)) {
        Some(w) => Err((w[1] as usize, w[0] as usize)),
        None => Ok(order),
    }
}
