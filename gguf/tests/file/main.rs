//! Tests of the crate through its public face, on whole files made byte by byte.

mod accept;
mod alloc;
mod encode;
mod formats;
mod fuzz;
mod raw;
mod refuse;
mod refuse_tensors;
mod split;
mod write;
