//! The table of subcommands, and the flags that several of them share.

use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use engine::sampler::Params;
use engine::{Device, GpuLayers, Isa, KvType, Options, Precision, Variant};

use crate::error::{Error, Result};
use crate::store::Store;
use crate::{commands, memory};

const EXAMPLES: &str = "\
Examples:
  handmill run smollm2 \"Why is the sky blue?\"   answer once; the model is obtained on first use
  handmill run                                  chat with the default model, on a terminal
  git diff | handmill run smollm2 \"Summarize:\"  argument, then standard input
  handmill run ./model.gguf \"Once upon a time\"  any GGUF file
  handmill serve                                answer over HTTP as Ollama and OpenAI do
  handmill show smollm2 --ctx 8192              what is inside, and the memory it will take

Models are kept in HANDMILL_HOME, by default the folder handmill below the XDG data folder.";

/// Runs GGUF language models on this machine's processor.
#[derive(Debug, Parser)]
#[command(name = "handmill", version, after_help = EXAMPLES, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer a prompt, or chat on a terminal.
    Run(commands::run::Arguments),
    /// Answer over HTTP, to clients of Ollama and of OpenAI.
    Serve(Box<crate::serve::Arguments>),
    /// Ask a server whether it takes requests.
    Health(commands::health::Arguments),
    /// Bring a model into the store: by its name in the catalogue, from a file or from an address.
    Pull(commands::pull::Arguments),
    /// Make a model of another one by a Modelfile.
    Create(commands::create::Arguments),
    /// Give a model another name.
    Cp(commands::create::CopyArguments),
    /// List the models of the store.
    #[command(visible_alias = "ls")]
    List(commands::list::Arguments),
    /// Remove models from the store.
    Rm(commands::rm::Arguments),
    /// Show what is inside a model and the memory it will take.
    Show(commands::show::Arguments),
    /// Check that the store's files are what their checksums say.
    Verify(commands::verify::Arguments),
    /// Turn text into token ids.
    Tokenize(commands::tokenize::Arguments),
    /// Compute logits, likelihoods and greedy answers of many prompts, as JSON lines.
    Score(commands::score::Arguments),
    /// Turn texts into vectors, as JSON lines.
    Embed(commands::embed::Arguments),
    /// List what models can run on: the processor and every adapter of a GPU API.
    Devices(commands::devices::Arguments),
    /// Measure how fast models run here, in a way that can be compared.
    Bench(crate::bench::Arguments),
    /// Judge how well a model predicts a text, and how near it is to another.
    Eval(crate::eval::Arguments),
    /// Compare what two devices, instruction sets, precisions or models make of a text, operation by operation.
    Compare(crate::compare::Arguments),
    /// Weigh quantized models against the one that they were made of: error, perplexity, divergence, speed, size.
    Quality(crate::quality::Arguments),
    /// Write a model in other formats.
    Quantize(crate::quantize::Arguments),
    /// Measure on a text which columns of a model's matrices matter.
    Imatrix(crate::imatrix::Arguments),
    /// Write a folder of Hugging Face's as a GGUF file.
    Convert(crate::convert::Arguments),
    /// Write a model of random weights in the shape of a known one, to measure its size without obtaining it.
    Synth(crate::synth::Arguments),
}

impl Command {
    /// The exit code of an error. A comparison ends with 1 where the two differ, so that its errors are 2, as those of
    /// `diff` and `cmp` are.
    pub fn failure(&self) -> u8 {
        if matches!(self, Command::Compare(_)) { 2 } else { 1 }
    }

    /// Carries it out.
    ///
    /// # Errors
    /// Whatever ends it early.
    pub fn run(self) -> Result<()> {
        match self {
            Command::Run(a) => commands::run::run(&a),
            Command::Serve(a) => crate::serve::run(&a),
            Command::Health(a) => commands::health::run(&a),
            Command::Pull(a) => commands::pull::run(&a),
            Command::Create(a) => commands::create::run(&a),
            Command::Cp(a) => commands::create::copy(&a),
            Command::List(a) => commands::list::run(&a),
            Command::Rm(a) => commands::rm::run(&a),
            Command::Show(a) => commands::show::run(&a),
            Command::Verify(a) => commands::verify::run(&a),
            Command::Tokenize(a) => commands::tokenize::run(&a),
            Command::Score(a) => commands::score::run(&a),
            Command::Embed(a) => commands::embed::run(&a),
            Command::Devices(a) => commands::devices::run(&a),
            Command::Bench(a) => crate::bench::run(&a),
            Command::Eval(a) => crate::eval::run(&a),
            Command::Compare(a) => crate::compare::run(&a),
            Command::Quality(a) => crate::quality::run(&a),
            Command::Quantize(a) => crate::quantize::run(&a),
            Command::Imatrix(a) => crate::imatrix::run(&a),
            Command::Convert(a) => crate::convert::run(&a),
            Command::Synth(a) => crate::synth::run(&a),
        }
    }
}

/// How a model is loaded.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model and machine")]
pub struct EngineFlags {
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Instruction set: scalar, avx2, avxvnni, avx512bw, avx512vnni, or avx512 for the better of the two [default: the best]
    #[arg(long, value_name = "ISA", value_parser = Isa::from_str)]
    pub isa: Option<Isa>,
    /// Context length in tokens [default: what the model was trained for, at most 4096]
    #[arg(long, value_name = "TOKENS")]
    pub ctx: Option<usize>,
    /// Tokens of a prompt that are computed in one step
    #[arg(long, value_name = "TOKENS", default_value_t = Options::default().batch)]
    pub batch: usize,
    /// Element type of the KV cache: f16 or f32
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv_type)]
    pub kv: KvType,
    /// Precision of activations: q8; q16, which is 128 times finer, on the processor only; or f32, the reference [default: q8 on
    /// the processor, f32 on a GPU]
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub precision: Option<Precision>,
    /// Refuse weights that are NaN or infinite; loading decodes every one of them then
    #[arg(long)]
    pub check_tensors: bool,
    /// A low-rank adapter for the model, at a strength other than 1 where one is given; may be given several times
    #[arg(long = "lora", value_name = "FILE[:SCALE]", value_parser = engine::Adapter::from_str)]
    pub adapters: Vec<engine::Adapter>,
    /// What to run on: cpu, gpu for the best GPU, or a number or name of `handmill devices`
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = Device::from_str)]
    pub device: Device,
    /// How many layers run on the GPU of --device, the last ones; those before run on the processor. 0 is none, -1 as many as
    /// it has room for [default: all]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = GpuLayers::from_str)]
    pub gpu_layers: Option<GpuLayers>,
    /// Kernels of the GPU: baseline, subgroup, f16, narrow or narrow-subgroup [default: the best that pass their tests; f16, which
    /// is less exact, never]
    #[arg(long, value_name = "VARIANT", value_parser = Variant::from_str)]
    pub variant: Option<Variant>,
}

impl EngineFlags {
    /// The engine's options. A model that needs more memory than there is will be refused before any work.
    pub fn options(&self) -> Options {
        Options {
            ctx: self.ctx,
            threads: self.threads,
            isa: self.isa,
            kv: self.kv,
            precision: self.precision.unwrap_or_default(),
            gpu_precision: self.precision.unwrap_or(Precision::F32),
            variant: self.variant,
            device: self.device.clone(),
            gpu_layers: self.gpu_layers.unwrap_or_default(),
            batch: self.batch,
            memory: memory::available(),
            adapters: self.adapters.clone(),
            check_tensors: self.check_tensors,
            checks: Store::checks_of_user(),
            ..Options::default()
        }
    }
}

/// The type of the KV cache that a word stands for.
///
/// # Errors
/// Another word.
pub fn kv_type(word: &str) -> Result<KvType, String> {
    match word {
        "f16" => Ok(KvType::F16),
        "f32" => Ok(KvType::F32),
        _ => Err("expected f16 or f32".into()),
    }
}

/// The precision of activations that a word stands for.
///
/// # Errors
/// Another word.
pub fn precision(word: &str) -> Result<Precision, String> {
    Precision::ALL.into_iter().find(|p| p.name() == word).ok_or_else(|| "expected q8, q16 or f32".into())
}

/// How tokens are drawn, and when an answer ends.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingFlags {
    /// Temperature; 0 always takes the most probable token [default: 0.8]
    #[arg(long, value_name = "T")]
    temp: Option<f32>,
    /// Keep the K most probable tokens; 0 keeps all [default: 40]
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Keep the most probable tokens that together reach this probability; 1 keeps all [default: 0.95]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep tokens at least this many times as probable as the best; 0 keeps all [default: 0.05]
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Keep the most typical tokens up to this probability; 1 keeps all [default: 1]
    #[arg(long, value_name = "P")]
    typical: Option<f32>,
    /// Divides the logits of tokens seen lately; 1 changes nothing [default: 1]
    #[arg(long, value_name = "X")]
    repeat_penalty: Option<f32>,
    /// Taken off the logits of tokens seen lately [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Taken off the logits of tokens seen lately, once for each time [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// How many tokens "lately" is; 0 none, -1 all [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    repeat_last_n: Option<i32>,
    /// Seed of the draws: the same seed gives the same answer [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Most tokens to generate [default: until the context is full]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// A text that ends the answer; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

/// What a person may set between two answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// How tokens are drawn.
    pub sampling: Params,
    /// Most tokens of an answer.
    pub max_tokens: Option<usize>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
}

impl SamplingFlags {
    /// The flags over the defaults of llama.cpp, whose chain and order this is.
    ///
    /// # Errors
    /// A value out of its range.
    pub fn generation(&self) -> Result<Generation> {
        let mut p = Params::default();
        let floats = [
            (&mut p.temperature, self.temp),
            (&mut p.top_p, self.top_p),
            (&mut p.min_p, self.min_p),
            (&mut p.typical_p, self.typical),
            (&mut p.repeat_penalty, self.repeat_penalty),
            (&mut p.presence_penalty, self.presence_penalty),
            (&mut p.frequency_penalty, self.frequency_penalty),
        ];
        for (field, flag) in floats {
            *field = flag.unwrap_or(*field);
        }
        p.top_k = self.top_k.unwrap_or(p.top_k);
        p.repeat_last_n = self.repeat_last_n.unwrap_or(p.repeat_last_n);
        p.seed = self.seed;
        p.validate().map_err(engine::Error::from).map_err(Error::from)?;
        Ok(Generation { sampling: p, max_tokens: self.max_tokens, stop: self.stop.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_table_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_ollama() {
        let Command::Run(arguments) = Cli::parse_from(["handmill", "run"]).command else { panic!("not run") };
        assert_eq!(arguments.sampling.generation().unwrap().sampling, Params::default());
        let options = arguments.engine.options();
        assert_eq!((options.batch, options.kv), (512, KvType::F16));
        assert_eq!((options.precision, options.gpu_precision), (Precision::Q8, Precision::F32));
    }

    #[test]
    fn flags_arrive() {
        let line = "handmill run m p --temp 0.5 --top-k 7 --top-p 0.6 --min-p 0.1 --typical 0.9 --repeat-penalty 1.1 --presence-penalty -1 \
                    --frequency-penalty 2 --repeat-last-n -1 --seed 9 -n 5 --stop a --stop b --isa scalar --kv f32 --precision f32 --ctx 64";
        let Command::Run(arguments) = Cli::parse_from(line.split_whitespace()).command else { panic!("not run") };
        let g = arguments.sampling.generation().unwrap();
        let p = &g.sampling;
        assert_eq!((p.temperature, p.top_k, p.top_p, p.min_p, p.typical_p), (0.5, 7, 0.6, 0.1, 0.9));
        assert_eq!((p.repeat_penalty, p.presence_penalty, p.frequency_penalty, p.repeat_last_n), (1.1, -1.0, 2.0, -1));
        assert_eq!((p.seed, g.max_tokens, g.stop), (Some(9), Some(5), vec!["a".to_string(), "b".into()]));
        let options = arguments.engine.options();
        assert_eq!(
            (options.isa, options.kv, options.precision, options.ctx),
            (Some(Isa::Scalar), KvType::F32, Precision::F32, Some(64))
        );
        assert!(!options.check_tensors);
        let Command::Run(arguments) =
            Cli::parse_from(["handmill", "run", "--precision", "q8", "--variant", "subgroup"]).command
        else {
            panic!("not run")
        };
        let options = arguments.engine.options();
        assert_eq!(
            (options.precision, options.gpu_precision, options.variant),
            (Precision::Q8, Precision::Q8, Some(Variant::Subgroup))
        );
        let Command::Run(arguments) = Cli::parse_from(["handmill", "run", "m", "p", "--check-tensors"]).command else {
            panic!("not run")
        };
        assert!(arguments.engine.options().check_tensors);
    }
}
