//! A model of a few thousand random weights, for tests: two layers in the shape of Llama, with several formats.

use gguf::write::{Builder, ValueBuf};
use gguf::{Endian, Format};

/// Width, feed-forward width, vocabulary, heads and KV heads.
pub const SIZES: [u64; 5] = [64, 96, 40, 4, 2];

/// The bytes of a model file. Matrices are in Q8_0 in the first layer and in Q4_1 in the second, but for one in F16.
pub fn model() -> Vec<u8> {
    let [width, ff, vocab, heads, kv_heads] = SIZES;
    let kv = width / heads * kv_heads;
    let mut b = Builder::new(Endian::Little);
    let keys: [(&str, ValueBuf); 10] = [
        ("general.architecture", "llama".into()),
        ("general.name", "tiny".into()),
        ("llama.block_count", 2u32.into()),
        ("llama.context_length", 256u32.into()),
        ("llama.embedding_length", (width as u32).into()),
        ("llama.feed_forward_length", (ff as u32).into()),
        ("llama.attention.head_count", (heads as u32).into()),
        ("llama.attention.head_count_kv", (kv_heads as u32).into()),
        ("llama.attention.layer_norm_rms_epsilon", 1e-5f32.into()),
        ("tokenizer.ggml.model", "llama".into()),
    ];
    for (key, value) in keys {
        b.key(key, value).expect("a sound key");
    }
    let tokens: Vec<String> = (0..vocab).map(|i| format!("<{i}>")).collect();
    b.key("tokenizer.ggml.tokens", tokens).expect("a sound key");
    let mut tensors: Vec<(String, Vec<u64>, Format)> = vec![
        ("token_embd.weight".into(), vec![width, vocab], Format::Q8_0),
        ("output_norm.weight".into(), vec![width], Format::F32),
    ];
    for (layer, format) in [(0, Format::Q8_0), (1, Format::Q4_1)] {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let down = if layer == 1 { Format::F16 } else { format };
        tensors.extend([
            (name("attn_norm"), vec![width], Format::F32),
            (name("attn_q"), vec![width, width], format),
            (name("attn_k"), vec![width, kv], format),
            (name("attn_v"), vec![width, kv], format),
            (name("attn_output"), vec![width, width], format),
            (name("ffn_norm"), vec![width], Format::F32),
            (name("ffn_gate"), vec![width, ff], format),
            (name("ffn_up"), vec![width, ff], format),
            (name("ffn_down"), vec![ff, width], down),
        ]);
    }
    for (name, dims, format) in &tensors {
        b.tensor(name, dims, *format).expect("a sound tensor");
    }
    let mut writer = b.start(Vec::new()).expect("memory takes everything");
    for (i, (_, dims, format)) in tensors.iter().enumerate() {
        writer.data(&blocks(dims.iter().product::<u64>() as usize, *format, i as u64)).expect("as long as was said");
    }
    writer.finish().expect("all tensors were written")
}

/// Random numbers in a format: norms near 1, weights between -0.1 and 0.1.
fn blocks(n: usize, format: Format, seed: u64) -> Vec<u8> {
    let mut state = seed + 1;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut values = |scale: f32, shift: f32| -> Vec<f32> { (0..n).map(|_| next() * scale + shift).collect() };
    match format {
        Format::F32 => values(0.1, 1.0).iter().flat_map(|v| v.to_le_bytes()).collect(),
        // Any sign and fraction, exponents of 2^-5 and 2^-4.
        Format::F16 => {
            values(1.0, 0.0).iter().flat_map(|v| (v.to_bits() as u16 & 0x87ff | 0x2800).to_le_bytes()).collect()
        }
        _ => {
            let mut out = vec![0; format.row_bytes(n as u64).expect("whole blocks") as usize];
            format.encoder().expect("a format that can be written")(&values(0.1, 0.0), None, &mut out);
            out
        }
    }
}
