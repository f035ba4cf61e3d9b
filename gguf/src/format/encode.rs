//! Quantization: from f32 to blocks. Nothing here is needed to run a model.

mod legacy;
