//! A look at what the products of a model are fed, for those who study models. Only the processor shows it, and only at
//! [`Precision::F32`](crate::Precision::F32) are it the numbers that are multiplied.

use std::fmt;
use std::sync::Arc;

type See = dyn Fn(&str, (usize, usize), &[f32]) + Send + Sync;

/// Hears of every row that is multiplied with a matrix: the tensor's name, which of its matrices and of how many, the row.
/// Called by the engine's workers, rows of one tensor in order.
#[derive(Clone)]
pub struct Probe(Arc<See>);

impl Probe {
    /// A probe that calls `see`.
    pub fn new(see: impl Fn(&str, (usize, usize), &[f32]) + Send + Sync + 'static) -> Probe {
        Probe(Arc::new(see))
    }

    /// Shows it a row.
    pub(crate) fn see(&self, name: &str, matrix: (usize, usize), row: &[f32]) {
        (self.0)(name, matrix, row);
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}
