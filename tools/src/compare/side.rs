//! One side of a comparison, as people write it: `DEVICE[,KEY=VALUE]...`.

use std::str::FromStr;

use engine::{Device, GpuLayers, Isa, KvType, Options, Precision, Variant};

use crate::cli::{kv_type, precision};

/// What to run the model on, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// As it was written.
    pub text: String,
    /// The device.
    pub device: Device,
    /// Another model than the command's.
    pub model: Option<String>,
    isa: Option<Isa>,
    precision: Option<Precision>,
    kv: Option<KvType>,
    threads: Option<usize>,
    layers: GpuLayers,
    variant: Option<Variant>,
}

/// Where a key makes sense.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Cpu,
    Gpu,
    Any,
}

type Set = fn(&mut Side, &str) -> Result<(), String>;

/// THE list of keys: where they make sense, what they may be, and what they set.
const KEYS: [(&str, On, &str, Set); 7] = [
    ("isa", On::Cpu, "scalar, avx2, avx512, ...", |side, word| {
        side.isa = Some(Isa::from_str(word).map_err(|e| e.to_string())?);
        Ok(())
    }),
    ("precision", On::Any, "q8, f32, on the processor q16", |side, word| {
        side.precision = Some(precision(word)?);
        Ok(())
    }),
    ("threads", On::Cpu, "a number", |side, word| {
        side.threads = Some(word.parse().map_err(|_| "expected a number".to_string())?);
        Ok(())
    }),
    ("layers", On::Gpu, "how many run there, the rest on the processor", |side, word| {
        side.layers = word.parse()?;
        Ok(())
    }),
    ("variant", On::Gpu, "baseline, subgroup, f16, narrow or narrow-subgroup", |side, word| {
        side.variant = Some(word.parse()?);
        Ok(())
    }),
    ("kv", On::Any, "f16 or f32", |side, word| {
        side.kv = Some(kv_type(word)?);
        Ok(())
    }),
    ("model", On::Any, "a path, or a name of the store", |side, word| {
        side.model = Some(word.to_string());
        Ok(())
    }),
];

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Side, String> {
        let (device, keys) = text.split_once(',').unwrap_or((text, ""));
        // `gpu:0` and `gpu:NAME` say what `0` and `NAME` do.
        let device = match device.strip_prefix("gpu:") {
            Some(which) if matches!(which.trim(), "cpu" | "gpu") => Err(format!("\"{which}\" is no adapter")),
            Some(which) => Device::from_str(which),
            None => Device::from_str(device),
        };
        let device = device.map_err(|e| format!("{e}; as in cpu, gpu, gpu:0 or gpu:llvmpipe"))?;
        let mut side = Side { text: text.to_string(), device, ..Side::default() };
        for pair in keys.split(',').filter(|pair| !pair.is_empty()) {
            side.set(pair)?;
        }
        Ok(side)
    }
}

impl Side {
    fn set(&mut self, pair: &str) -> Result<(), String> {
        let on = if self.device.is_cpu() { "the processor" } else { "a GPU" };
        let here = if self.device.is_cpu() { On::Cpu } else { On::Gpu };
        let fits = |place: On| place == On::Any || place == here;
        let allowed: Vec<String> =
            KEYS.iter().filter(|k| fits(k.1)).map(|(key, _, values, _)| format!("{key}=... ({values})")).collect();
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match KEYS.iter().find(|k| k.0 == key.trim() && fits(k.1)) {
            Some((key, _, values, _)) if value.trim().is_empty() => {
                Err(format!("{key} has no value; it may be {values}"))
            }
            Some((key, _, _, set)) => set(self, value.trim()).map_err(|e| format!("{key}: {e}")),
            None => Err(format!("\"{pair}\" is nothing that {on} takes; allowed are {}", allowed.join(", "))),
        }
    }

    /// The options of a load over those of the command.
    pub fn options(&self, common: &Options) -> Options {
        let precision = self.precision.unwrap_or(common.precision);
        Options {
            device: self.device.clone(),
            gpu_layers: self.layers,
            isa: self.isa,
            threads: self.threads,
            kv: self.kv.unwrap_or(common.kv),
            precision,
            gpu_precision: precision,
            variant: self.variant,
            ..common.clone()
        }
    }
}

/// How far apart two sides may be where nobody says, and why.
pub fn tolerance([a, b]: [&Options; 2], same_model: bool) -> (f64, &'static str) {
    let either = |p| [a.precision, b.precision].contains(&p);
    if !same_model {
        return (0.1, "two models");
    }
    let alike = a.gpu_layers == b.gpu_layers && a.precision == b.precision && a.kv == b.kv && a.variant == b.variant;
    if a.device == b.device && alike {
        return (0.0, "one device and one precision give the same bits");
    }
    if a.precision != b.precision && either(Precision::Q8) {
        return (2e-2, "activations of 8 bits are off by about 1/250 of their size in every product");
    }
    if a.variant != b.variant && [a.variant, b.variant].contains(&Some(Variant::F16)) {
        return (1e-3, "weights and activations of 11 bits in every product");
    }
    if either(Precision::Q8) {
        return (2e-2, "a last bit that differs turns codes of 8 bits over, and layer after layer those that follow");
    }
    if [a.kv, b.kv].contains(&KvType::F16) {
        return (1e-5, "f32 sums in another order, after which keys and values round to f16 the other way");
    }
    (1e-6, "f32 sums in another order")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_sides() {
        let side = |text: &str| text.parse::<Side>();
        assert_eq!(side("cpu").unwrap().device, Device::Cpu);
        assert_eq!(side("gpu:1").unwrap().device, Device::Index(1));
        assert_eq!(side("gpu:llvmpipe").unwrap().device, Device::Name("llvmpipe".into()));
        assert_eq!(side("llvmpipe,kv=f32").unwrap().kv, Some(KvType::F32));
        let s = side("cpu,isa=scalar,precision=q16,threads=3,model=./x.gguf").unwrap();
        assert_eq!(
            (s.isa, s.precision, s.threads, s.model.as_deref()),
            (Some(Isa::Scalar), Some(Precision::Q16), Some(3), Some("./x.gguf"))
        );
        for (wrong, says) in [
            ("", "expected cpu, gpu, a number or a name"),
            ("gpu:cpu", "no adapter"),
            ("cpu,speed=9", "allowed are isa="),
            ("gpu,isa=avx2", "nothing that a GPU takes"),
            ("cpu,layers=3", "nothing that the processor takes"),
            ("gpu,layers=some", "layers: expected a number"),
            ("cpu,isa=mmx", "isa: "),
            ("cpu,precision=q9", "expected q8, q16 or f32"),
            ("cpu,variant=baseline", "nothing that the processor takes"),
            ("gpu,variant=best", "expected one of baseline"),
            ("cpu,threads", "threads has no value"),
        ] {
            let error = side(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn tolerances() {
        let of = |text: &str| text.parse::<Side>().unwrap().options(&Options::default());
        let pair = |a: &str, b: &str| tolerance([&of(a), &of(b)], true).0;
        assert_eq!(pair("cpu,isa=scalar", "cpu,threads=1"), 0.0);
        assert_eq!(pair("cpu,precision=f32", "gpu,precision=f32"), 1e-5);
        assert_eq!(pair("cpu,precision=f32,kv=f32", "gpu,precision=f32,kv=f32"), 1e-6);
        assert!(pair("cpu", "gpu,precision=f32") > 1e-3, "the processor's default is 8 bits");
        assert_eq!(pair("gpu,precision=f32,variant=baseline", "gpu,precision=f32,variant=baseline"), 0.0);
        assert_eq!(
            pair("gpu,precision=f32,kv=f32,variant=baseline", "gpu,precision=f32,kv=f32,variant=subgroup"),
            1e-6
        );
        assert_eq!(pair("cpu,precision=q8", "gpu,precision=q8"), 2e-2);
        assert!(pair("gpu,precision=f32,variant=baseline", "gpu,precision=f32,variant=f16") > 1e-5);
        assert!(tolerance([&of("cpu"), &of("cpu")], false).0 > 0.0);
    }
}
