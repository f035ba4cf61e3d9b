//! kernels
pub mod simd;
