//! Many pieces of memory in few buffers.
//!
//! Dispatches that bind the same buffers share a bind group, and what a step costs the processor is mostly bind groups
//! that no cache holds any more. So weights and caches lie side by side, as far as a binding reaches.

use super::adapter::Opened;
use crate::error::Result;
use wgpu::{Buffer, BufferUsages};

/// Larger buffers are asked for by no one: drivers find room for some of this size more easily than for a larger one.
const MOST: u64 = 1 << 30;
/// Every piece begins at a multiple of this, a quad.
const ALIGN: u64 = 16;

/// Where a piece lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// In which of the buffers.
    pub buffer: usize,
    /// Its first byte.
    pub at: u64,
}

/// Lays pieces out.
pub struct Slabs {
    most: u64,
    sizes: Vec<u64>,
}

impl Slabs {
    /// Buffers that a device can make and a kernel can bind whole.
    pub fn new(gpu: &Opened) -> Slabs {
        Slabs { most: most(gpu), sizes: vec![] }
    }

    /// Bytes of the largest piece.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Finds room for a piece: in the first buffer that has some, else in a new one.
    pub fn place(&mut self, bytes: u64) -> Place {
        let bytes = bytes.next_multiple_of(ALIGN);
        let room = self.sizes.iter().position(|size| size + bytes <= self.most);
        let buffer = room.unwrap_or_else(|| {
            self.sizes.push(0);
            self.sizes.len() - 1
        });
        let at = self.sizes[buffer];
        self.sizes[buffer] += bytes;
        Place { buffer, at }
    }

    /// Makes the buffers.
    ///
    /// # Errors
    /// The device has no room for them.
    pub fn make(&self, gpu: &Opened, what: &str, usage: BufferUsages) -> Result<Vec<Buffer>> {
        self.sizes.iter().map(|&bytes| gpu.buffer(what, bytes, usage)).collect()
    }
}

/// Bytes of the largest buffer that a kernel can see whole.
pub fn most(gpu: &Opened) -> u64 {
    let limits = gpu.device.limits();
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(MOST) / 256 * 256
}
