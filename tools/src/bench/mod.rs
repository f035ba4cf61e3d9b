//! `handmill bench`: how fast models run here, measured so that the figures can be compared.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`spelling`], [`values`] | options: llama-bench's spellings, lists and ranges, the product of settings |
//! | [`model`], [`bed`] | a model file, and a loaded model driven step by step |
//! | [`work`] | bytes and operations that a step needs at least |
//! | [`machine`], [`probe`] | the machine as the system describes it, and as small kernels measure it |
//! | [`measure`], [`stats`] | the order of runs and what is left out; medians, intervals, tests |
//! | [`kernels`] | every kernel of a model by itself |
//! | [`record`], [`output`] | results as columns, and as text |
//! | [`report`] | results and kernels as one page with drawings |
//! | [`compare`] | two results and which of their differences are real |
//!
//! Tokenizing and sampling are left out, as llama-bench leaves them out.

mod bed;
mod compare;
mod kernels;
mod machine;
mod measure;
mod model;
mod output;
mod probe;
mod progress;
mod record;
mod report;
mod spelling;
mod stats;
#[cfg(test)]
mod tiny;
mod values;
mod work;

use crate::error::{Error, Result};
use crate::ui::{Ui, format, print};
use bed::{Bed, Beds};
use clap::{Args, Subcommand};
use engine::backend::Info;
use engine::{Device, GpuLayers, Isa, KvType, Precision, Variant};
use machine::Machine;
use measure::{Anchor, News, Policy};
use model::Model;
use output::Format;
use probe::{Probe, Roof};
use progress::Progress;
use record::{Row, Sitting};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;
use values::{Names, Numbers, Pair, Setting, Test};

pub use record::kv_name;
pub use spelling::respelled;
pub use stats::quantile;

const EXAMPLES: &str = "\
Examples:
  handmill bench smollm2                            prompt of 512 and generation of 128 tokens
  handmill bench a.gguf b.gguf -t 1-8*2 -d 0,4096   every model with 1, 2, 4 and 8 threads, at two depths
  handmill bench smollm2 -r 10 -o json > a.json     every sample, for `bench compare`
  handmill bench compare a.json b.json              which differences are real
  handmill bench smollm2 --kernels                  each kernel by itself, against the machine's roof
  handmill bench smollm2 --device gpu --kernels     each kernel of a GPU by its own clock, against the adapter's roof
  handmill bench smollm2 --device gpu -ngl 10,20    with so many layers there and the rest on the processor

Numbers may be lists (1,2,4) and ranges (FIRST-LAST, FIRST-LAST+STEP, FIRST-LAST*FACTOR); the product of all is run.
llama-bench's -pg, -ub, -ctk, -oe and -ngl are understood. Tokenizing and sampling are not part of the times.";

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// Names of the store or the catalogue, or paths of GGUF files
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// The same, as llama-bench has it
    #[arg(short, long, value_name = "MODEL", value_delimiter = ',', hide = true)]
    model: Vec<String>,
    /// Tokens of prompts
    #[arg(short = 'p', long, value_name = "N", default_value = "512")]
    n_prompt: Vec<Numbers>,
    /// Tokens to generate
    #[arg(short, long, value_name = "N", default_value = "128")]
    n_gen: Vec<Numbers>,
    /// Prompt and generation in one test
    #[arg(long, value_name = "P,N")]
    pg: Vec<Pair>,
    /// Tokens in the cache before
    #[arg(short = 'd', long, value_name = "N", default_value = "0")]
    n_depth: Vec<Numbers>,
    /// Tokens of a prompt that are handed over at once
    #[arg(short, long, value_name = "N", default_value = "2048")]
    batch_size: Vec<Numbers>,
    /// Tokens that are computed in one step, at most
    #[arg(long, value_name = "N", default_value = "512")]
    ubatch_size: Vec<Numbers>,
    /// Worker threads [default: one a core]
    #[arg(short, long, value_name = "N")]
    threads: Vec<Numbers>,
    /// Element types of the KV cache: f16, f32
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    cache_type: Vec<Names<KvType>>,
    /// Precisions of activations [default: q8 on the processor, f32 on a GPU]
    #[arg(long, value_name = "PRECISION")]
    precision: Vec<Names<Precision>>,
    /// Instruction sets [default: the best]
    #[arg(long, value_name = "ISA")]
    isa: Vec<Names<Isa>>,
    /// What to run on: cpu, gpu for the best GPU, or a number or name of `handmill devices`
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = Device::from_str)]
    device: Device,
    /// How many layers run on the GPU of --device, the last ones; -1 as many as it has room for [default: all]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    gpu_layers: Vec<Names<GpuLayers>>,
    /// Kernels of the GPU: baseline, subgroup, f16, narrow or narrow-subgroup [default: the best that pass their tests]
    #[arg(long, value_name = "VARIANT", value_parser = Variant::from_str)]
    variant: Option<Variant>,
    /// Good runs of each test
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repetitions: u16,
    /// Measure the kernels that the models use, one by one, instead of whole steps
    #[arg(long)]
    kernels: bool,
    /// Also write a page with drawings of the results and of the kernels, in one file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Skip the runs that warm up
    #[arg(long)]
    no_warmup: bool,
    /// A run counts only if the machine's speed was this near to the usual, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    drift: f64,
    /// Format of the results
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    output: Format,
    /// A second format, on standard error
    #[arg(long, value_name = "FORMAT")]
    output_err: Option<Format>,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Compare two results in JSON and say which differences are real.
    Compare {
        /// The first.
        a: PathBuf,
        /// The second.
        b: PathBuf,
    },
}

impl Arguments {
    /// The number of the adapter that is meant; none for the processor.
    fn adapter(&self) -> Result<Option<usize>> {
        Ok(if self.device.is_cpu() { None } else { Some(engine::backend::number(&self.device)?) })
    }

    fn settings(&self, models: usize, gpu: Option<usize>) -> Vec<Setting> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.threads.is_empty() { vec![cores] } else { numbers(&self.threads) };
        let isas: Vec<Isa> = self.isa.iter().flat_map(|n| n.0.clone()).collect();
        let isas = if isas.is_empty() { vec![Isa::best()] } else { isas };
        let (batches, ubatches) = (numbers(&self.batch_size), numbers(&self.ubatch_size));
        let layers: Vec<GpuLayers> = self.gpu_layers.iter().flat_map(|n| n.0.clone()).collect();
        let layers = if layers.is_empty() { vec![GpuLayers::All] } else { layers };
        let own: Vec<Precision> = self.precision.iter().flat_map(|n| n.0.clone()).collect();
        let mut settings = vec![];
        for (model, &layers) in (0..models).flat_map(|model| layers.iter().map(move |layers| (model, layers))) {
            // What is not said is each device's own; of a model on both, the processor's is named.
            let alone = gpu.is_some() && layers == GpuLayers::All;
            let usual = if alone { Precision::F32 } else { Precision::default() };
            let precisions = if own.is_empty() { vec![usual] } else { own.clone() };
            for (&batch, &ubatch) in batches.iter().flat_map(|b| ubatches.iter().map(move |u| (b, u))) {
                for &threads in &threads {
                    for &kv in self.cache_type.iter().flat_map(|n| &n.0) {
                        for &precision in &precisions {
                            settings.extend(isas.iter().map(|&isa| Setting {
                                model,
                                batch,
                                ubatch,
                                threads,
                                kv,
                                precision,
                                isa,
                                gpu,
                                gpu_precision: if own.is_empty() { Precision::F32 } else { precision },
                                layers,
                                variant: self.variant,
                            }));
                        }
                    }
                }
            }
        }
        settings
    }

    fn tests(&self) -> Vec<Test> {
        values::tests(&numbers(&self.n_prompt), &numbers(&self.n_gen), &self.pg, &numbers(&self.n_depth))
    }

    fn policy(&self) -> Policy {
        Policy { reps: self.repetitions.into(), warmup: !self.no_warmup, drift: self.drift / 100.0, patience: 3 }
    }

    fn check(&self, settings: &[Setting], tests: &[Test]) -> Result<()> {
        let wrong = |text: &str| Err(Error::Usage(text.into()));
        if settings.iter().any(|s| s.batch == 0 || s.ubatch == 0 || s.threads == 0 || s.threads > 1024) {
            return wrong("-b and -ub must be at least 1, -t 1 to 1024");
        }
        if self.device.is_cpu() && !(self.gpu_layers.is_empty() && self.variant.is_none()) {
            let needs =
                "--gpu-layers and --variant need a GPU: --device gpu, or a number or name of `handmill devices`";
            return wrong(needs);
        }
        if self.drift <= 0.0 || self.drift.is_nan() {
            return wrong("--drift must be more than 0");
        }
        if tests.is_empty() {
            return wrong("nothing to measure: -p, -n and -pg give no test");
        }
        Ok(())
    }
}

fn numbers(lists: &[Numbers]) -> Vec<usize> {
    lists.iter().flat_map(|n| n.0.clone()).collect()
}

/// Carries it out.
///
/// # Errors
/// A model cannot be found or loaded, an option makes no sense, or the engine fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(Other::Compare { a, b }) = &arguments.other {
        return print(&compare::run(a, b)?);
    }
    let ui = Ui::stderr();
    let wanted: Vec<&String> = arguments.models.iter().chain(&arguments.model).collect();
    if wanted.is_empty() {
        return Err(Error::Usage("which model? `handmill bench MODEL`".into()));
    }
    let (settings, tests) = (arguments.settings(wanted.len(), arguments.adapter()?), arguments.tests());
    arguments.check(&settings, &tests)?;
    let before = machine::memory().map(|(now, _)| now);
    let paths = wanted.iter().map(|m| crate::commands::find(m, ui)).collect::<Result<Vec<_>>>()?;
    let models = paths.iter().map(|p| Model::look(p, ui)).collect::<Result<Vec<_>>>()?;
    let machine = Machine::this();
    let most = settings.iter().map(|s| s.threads).max().unwrap_or(1);
    let mut probe = Probe::new(most, settings[0].isa, machine.cache)?;
    if arguments.kernels {
        if !arguments.device.is_cpu() {
            return device_kernels(arguments, &models, &settings);
        }
        for k in measure_kernels(arguments, &models, &settings, &mut probe)? {
            print(&kernels::write(arguments.output, &models[k.setting.model], k.setting, &k.rows))?;
        }
        return Ok(());
    }
    let time = format::rfc3339(SystemTime::now());
    let mut sitting = Sitting { machine, roof: probe.roof()?, device: None, time };
    let mut results = vec![];
    let job = Job { models: &models, tests: &tests, policy: arguments.policy(), before, ui };
    for group in job.groups(&settings)? {
        let (measured, device) = job.measure(&group, &mut probe)?;
        results.extend(measured);
        sitting.device = device.map(|(info, roof)| {
            sitting.roof = roof;
            info
        });
    }
    if sitting.device.is_none() {
        sitting.roof = probe.roof()?;
    }
    let rows: Vec<Row> = results.into_iter().map(|r| r.row(&sitting, &models)).collect();
    if let Some(path) = &arguments.html {
        let kernels = measure_kernels(arguments, &models, &settings, &mut probe)?;
        std::fs::write(path, report::page(&rows, &kernels)).map_err(Error::io("cannot write", path))?;
    }
    if let Some(format) = arguments.output_err {
        eprint!("{}", output::results(format, &rows));
    }
    print(&output::results(arguments.output, &rows))
}

/// Every kernel of every model with every setting.
fn measure_kernels(
    arguments: &Arguments,
    models: &[Model],
    settings: &[Setting],
    probe: &mut Probe,
) -> Result<Vec<report::Kernels>> {
    let depth = numbers(&arguments.n_depth).into_iter().max().unwrap_or(0);
    let one = |&setting: &Setting| {
        let model = &models[setting.model];
        let rows = kernels::run(model, setting, depth, probe, Ui::stderr())?;
        Ok(report::Kernels { model: model.kind.clone(), setting, rows })
    };
    settings.iter().map(one).collect()
}

/// The kernels of every model with every setting on an adapter.
fn device_kernels(arguments: &Arguments, models: &[Model], settings: &[Setting]) -> Result<()> {
    let depth = numbers(&arguments.n_depth).into_iter().max().filter(|&depth| depth > 0).unwrap_or(kernels::DEPTH);
    for &setting in settings {
        let model = &models[setting.model];
        let mut bed = Bed::load(model, setting, (depth + 1).max(setting.chunk()), None)?;
        print(&kernels::device::run(arguments.output, model, &mut bed, depth)?)?;
    }
    Ok(())
}

/// An adapter and its roof.
type Seen = (Info, Roof);

/// What all groups of settings share.
struct Job<'a> {
    models: &'a [Model],
    tests: &'a [Test],
    policy: Policy,
    before: Option<u64>,
    ui: Ui,
}

/// A measured case, before the sitting is over.
struct Measured {
    setting: Setting,
    cost: bed::Cost,
    test: Test,
    work: Vec<work::Work>,
    runs: Vec<measure::Run>,
}

impl Measured {
    fn row<'a>(self, sitting: &'a Sitting, models: &'a [Model]) -> Row<'a> {
        let Measured { setting, cost, test, work, runs } = self;
        Row { sitting, model: &models[setting.model], setting, cost, test, work, runs }
    }
}

impl Job<'_> {
    fn positions(&self) -> usize {
        self.tests.iter().map(Test::positions).max().unwrap_or(1)
    }

    /// Settings that are measured side by side: as many as the memory holds.
    fn groups(&self, settings: &[Setting]) -> Result<Vec<Vec<Setting>>> {
        let room = crate::memory::available().map_or(u64::MAX, |free| free / 4 * 3);
        let (mut groups, mut used): (Vec<Vec<Setting>>, u64) = (vec![], 0);
        for setting in settings {
            let needed = bed::footprint(&self.models[setting.model], setting, self.positions())?;
            match groups.last_mut() {
                Some(group) if used.saturating_add(needed) <= room => {
                    group.push(*setting);
                    used += needed;
                }
                _ => {
                    groups.push(vec![*setting]);
                    used = needed;
                }
            }
        }
        if groups.len() > 1 {
            self.ui.say(&format!(
                "memory holds not all settings at once: they are measured in {} groups, one after the other",
                groups.len()
            ));
        }
        Ok(groups)
    }

    /// The results, and the adapter that they were had on, with its roof.
    fn measure(&self, group: &[Setting], probe: &mut Probe) -> Result<(Vec<Measured>, Option<Seen>)> {
        let mut beds = Beds::default();
        for (i, &setting) in group.iter().enumerate() {
            beds.beds.push(Bed::load(&self.models[setting.model], setting, self.positions(), self.before)?);
            beds.cases.extend(self.tests.iter().map(|&test| (i, test)));
        }
        let cases = beds.cases.clone();
        let progress = Progress::new(self.ui, self.policy.reps * cases.len());
        let name = |case: usize| cases[case].1.name();
        let mut watch = |news| match news {
            News::Warmup { case } => progress.say(&format!("warming up {}", name(case))),
            News::Run { case, done, planned } => progress.at(done, planned, &name(case)),
        };
        let mut own = beds.anchor();
        let anchor: &mut dyn Anchor = match &mut own {
            Some(own) => own,
            None => probe,
        };
        let runs = measure::measure(&mut beds, anchor, cases.len(), &self.policy, &mut watch)?;
        drop((own, progress));
        let measured = cases.iter().zip(runs).map(|(&(i, test), runs)| {
            let bed = &beds.beds[i];
            Measured { setting: group[i], cost: bed.cost, test, work: bed.work(&test), runs }
        });
        let measured = measured.collect();
        let first = &mut beds.beds[0];
        let roof = first.roof()?;
        Ok((measured, roof.map(|roof| (first.info(), roof))))
    }
}
