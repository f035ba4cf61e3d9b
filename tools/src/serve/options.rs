//! Sampling and length options under the names of Ollama's `options` and Modelfile parameters.

use engine::sampler::Params;
use serde_json::{Map, Value as Json};

use super::fault::{Fault, Result};
use super::fields::{Fields, int, number, texts, wrong};

/// Most texts that can end an answer, and the longest of them.
const STOPS: usize = 64;
const LONGEST_STOP: usize = 4096;

/// How an answer is drawn and when it ends.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How tokens are drawn.
    pub sampling: Params,
    /// Most tokens; none means until the context is full.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Context that the request asks for.
    pub ctx: Option<usize>,
    /// Whether it goes on after the end of the text.
    pub ignore_eog: bool,
    /// Adapters and how strong they are, in place of what the server was told.
    pub lora: Option<Vec<(usize, f32)>>,
    /// What was asked for and is not done, in words.
    pub warnings: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            sampling: Params::ollama(),
            max_tokens: None,
            stop: Vec::new(),
            ctx: None,
            ignore_eog: false,
            lora: None,
            warnings: Vec::new(),
        }
    }
}

const BIG: i64 = 1 << 31;

/// Options about where and how a model is loaded, which the server decides for all requests.
const OF_THE_SERVER: [(&str, &str); 12] = [
    ("num_batch", "--batch"),
    ("num_thread", "--threads"),
    ("num_gpu", "--device and --gpu-layers"),
    ("main_gpu", "--device"),
    ("low_vram", "--gpu-layers"),
    ("numa", "the operating system"),
    ("use_mmap", "the loader, which maps files"),
    ("use_mlock", "the operating system"),
    ("f16_kv", "--kv"),
    ("vocab_only", "the loader"),
    ("num_keep", "the context, which is never shifted"),
    ("draft_num_predict", "nothing: there are no draft models"),
];

impl Settings {
    /// Sets one option.
    ///
    /// # Errors
    /// A value of the wrong type or out of range, or a name that is not known: both are named.
    pub fn set(&mut self, name: &str, value: &Json) -> Result<()> {
        let full = format!("options.{name}");
        let float = |low: f64, high: f64| number(&full, value, low..=high).map(|v| v as f32);
        let whole = |low: i64, high: i64| int(&full, value, low..=high);
        let p = &mut self.sampling;
        match name {
            "temperature" => p.temperature = float(0.0, 1e6)?,
            "top_k" => p.top_k = whole(-1, BIG)?.max(0) as u32,
            "top_p" => p.top_p = float(0.0, 1.0)?,
            "min_p" => p.min_p = float(0.0, 1.0)?,
            "typical_p" => p.typical_p = float(0.0, 1.0)?,
            "repeat_penalty" => p.repeat_penalty = float(1e-6, 1e6)?,
            "presence_penalty" => p.presence_penalty = float(-1e6, 1e6)?,
            "frequency_penalty" => p.frequency_penalty = float(-1e6, 1e6)?,
            "repeat_last_n" => p.repeat_last_n = whole(-1, BIG - 1)? as i32,
            "seed" => {
                // Minus one is no seed at all; other negative numbers are seeds.
                let seed = whole(i64::MIN, i64::MAX)?;
                p.seed = (seed != -1).then_some(seed as u64);
            }
            "num_predict" => self.max_tokens = usize::try_from(whole(-2, BIG)?).ok(),
            "num_ctx" | "context_length" => self.ctx = Some(whole(1, 1 << 24)? as usize),
            "stop" => self.stop = stops(&full, value)?,
            "ignore_eos" => self.ignore_eog = value.as_bool().ok_or_else(|| wrong(&full, "a boolean", value))?,
            "penalize_newline" if *value == Json::Bool(true) => {}
            other => return self.of_the_server(other, value),
        }
        Ok(())
    }

    fn of_the_server(&mut self, name: &str, value: &Json) -> Result<()> {
        let row = OF_THE_SERVER.iter().find(|r| r.0 == name);
        let Some((_, who)) = row else {
            let shown = crate::ui::format::printable(name);
            return Err(Fault::field(&format!("options.{shown}"), format!("option \"{shown}\" is not known")));
        };
        // These say what is so in any case.
        let harmless = (name == "num_gpu" && value.as_i64() == Some(-1))
            || (name == "use_mmap" && *value == Json::Bool(true))
            || (name == "main_gpu" && value.as_i64() == Some(0))
            || (matches!(name, "low_vram" | "numa" | "use_mlock" | "vocab_only") && *value == Json::Bool(false));
        if !harmless {
            self.warnings.push(format!("option {name} has no effect: that is decided by {who}"));
        }
        Ok(())
    }

    /// Sets all options of an object.
    ///
    /// # Errors
    /// As [`Settings::set`], for the first one that is wrong.
    pub fn set_all(&mut self, options: &Map<String, Json>) -> Result<()> {
        options.iter().filter(|(_, v)| !v.is_null()).try_for_each(|(name, value)| self.set(name, value))
    }
}

/// `lora`: `[{"id": 0, "scale": 0.5}]`; adapters that are not named are not used.
///
/// # Errors
/// It is no such list.
pub fn lora(name: &str, list: Vec<Json>) -> Result<Vec<(usize, f32)>> {
    let one = |(at, json): (usize, Json)| {
        let mut fields = Fields::of(json, &format!("{name}[{at}]"))?;
        let id =
            fields.size("id", 0..=1 << 16)?.ok_or_else(|| fields.fault("id", "must be the number of an adapter"))?;
        let scale = fields.take("scale").ok_or_else(|| fields.fault("scale", "must be a number"))?;
        let scale = number(&format!("{name}[{at}].scale"), &scale, -1e6..=1e6)? as f32;
        match fields.unknown(&[]).first() {
            None => Ok((id, scale)),
            Some(other) => Err(Fault::field(other, format!("field {other} is not known"))),
        }
    };
    list.into_iter().enumerate().map(one).collect()
}

/// Texts that end an answer.
///
/// # Errors
/// They are no texts, too many or too long.
pub fn stops(name: &str, value: &Json) -> Result<Vec<String>> {
    let mut stops = texts(name, value.clone())?;
    stops.retain(|s| !s.is_empty());
    if stops.len() > STOPS || stops.iter().any(|s| s.len() > LONGEST_STOP) {
        return Err(Fault::field(
            name,
            format!("{name} has more than {STOPS} texts or one of more than {LONGEST_STOP} bytes"),
        ));
    }
    Ok(stops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(options: Json) -> Result<Settings> {
        let mut settings = Settings::default();
        settings.set_all(options.as_object().unwrap())?;
        Ok(settings)
    }

    #[test]
    fn values_arrive() {
        let s = set(json!({"temperature": 0, "top_k": 7.0, "seed": -1, "num_predict": -1, "stop": "x", "num_ctx": 99}))
            .unwrap();
        assert_eq!((s.sampling.temperature, s.sampling.top_k, s.sampling.seed), (0.0, 7, None));
        assert_eq!((s.max_tokens, s.stop, s.ctx), (None, vec!["x".to_string()], Some(99)));
        assert!(set(json!({"num_gpu": -1, "use_mmap": true})).unwrap().warnings.is_empty());
        assert_eq!(set(json!({"num_gpu": 35, "num_thread": 8})).unwrap().warnings.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rows = [
            json!({"temperature": "hot"}),
            json!({"top_p": 1.5}),
            json!({"top_k": 1e300}),
            json!({"num_predict": -3}),
            json!({"num_ctx": 0}),
            json!({"num_ctx": 1u64 << 60}),
            json!({"stop": 3}),
            json!({"stop": vec!["x"; 65]}),
            json!({"repeat_penalty": 0}),
            json!({"seed": 1.5}),
            json!({"mirostat": 2}),
        ];
        for options in rows {
            let fault = set(options.clone()).unwrap_err();
            let name = options.as_object().unwrap().keys().next().unwrap();
            assert!(fault.message.contains(name) && fault.status == 400, "{options}: {}", fault.message);
        }
    }
}
