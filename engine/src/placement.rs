//! Where a model's layers run, what memory that takes, and how it is loaded there.
//!
//! All layers run on one device, or the first ones on the processor and the rest on a GPU: then the graph is cut, each part
//! has a plan of its own, and [`Split`](crate::backend::split::Split) makes one backend of the two.

use crate::backend::cpu::{CpuBackend, CpuOptions};
#[cfg(feature = "gpu")]
use crate::backend::gpu::{self, GpuBackend, GpuOptions};
use crate::backend::split::Split;
use crate::backend::{Backend, GpuLayers};
use crate::engine::Options;
use crate::error::{Error, Result};
use crate::graph::Graph;
#[cfg(feature = "gpu")]
use crate::kv::PAGE;
use crate::plan::{self, Plan, Precision};
use crate::scheduler::Limits;
use crate::source::Source;
use kernels::Isa;

/// Where the memory of one device goes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights in the backend's layout.
    pub weights: u64,
    /// KV cache of all sequences.
    pub kv: u64,
    /// Everything a step writes.
    pub activations: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.kv + self.activations
    }
}

/// Where the memory goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// On the processor.
    pub host: Memory,
    /// On a GPU.
    pub device: Memory,
}

impl MemoryPlan {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.host.total() + self.device.total()
    }

    /// Weights on both.
    pub fn weights(&self) -> u64 {
        self.host.weights + self.device.weights
    }

    /// KV cache on both.
    pub fn kv(&self) -> u64 {
        self.host.kv + self.device.kv
    }

    /// What steps write on both.
    pub fn activations(&self) -> u64 {
        self.host.activations + self.device.activations
    }
}

/// A model's parts, each laid out for its device. At least one is there.
pub struct Parts {
    /// What the processor computes.
    cpu: Option<Plan>,
    /// What a GPU computes.
    gpu: Option<Plan>,
    /// Layers of the processor, and of both.
    layers: [usize; 2],
}

impl Parts {
    /// Lays a graph of so many layers out for the devices that are asked for.
    ///
    /// # Errors
    /// An operation or weight that a device cannot compute, a graph that cannot be cut there, no such device.
    pub fn new(graph: &Graph, n_layer: usize, limits: &Limits, options: &Options) -> Result<Parts> {
        let here = match (options.device.is_cpu(), options.gpu_layers) {
            (true, _) if options.variant.is_some() => {
                return Err(Error::Option {
                    name: "--variant",
                    found: options.variant.map_or(String::new(), |variant| variant.to_string()),
                    expected: "a GPU: --device gpu, or a number or name of `handmill devices`".into(),
                });
            }
            (true, GpuLayers::All) => n_layer,
            (true, asked) => {
                return Err(Error::Option {
                    name: "--gpu-layers",
                    found: format!("{asked}, while --device is cpu"),
                    expected: "a GPU beside it: --device gpu, or a number or name of `handmill devices`".into(),
                });
            }
            (false, GpuLayers::All) => 0,
            (false, GpuLayers::Count(n)) => n_layer.saturating_sub(n),
            (false, GpuLayers::Fitting) => fewest_here(graph, n_layer, limits, options)?,
        };
        Parts::cut(graph, [here, n_layer], limits, options)
    }

    /// The first layers, so many of all, on the processor.
    fn cut(graph: &Graph, [here, n_layer]: [usize; 2], limits: &Limits, options: &Options) -> Result<Parts> {
        let layers = [here, n_layer];
        if here == n_layer {
            return Ok(Parts { cpu: Some(for_cpu(graph.clone(), limits, options)?), gpu: None, layers });
        }
        if here == 0 {
            return Ok(Parts { cpu: None, gpu: Some(for_gpu(graph.clone(), limits, options)?), layers });
        }
        let [front, back] = graph.cut(here)?;
        let (cpu, gpu) = (for_cpu(front, limits, options)?, for_gpu(back, limits, options)?);
        Ok(Parts { cpu: Some(cpu), gpu: Some(gpu), layers })
    }

    /// Where the memory will go.
    pub fn memory(&self, limits: &Limits, options: &Options) -> MemoryPlan {
        let shared = |graph| options.weights.as_ref().is_some_and(|weights| weights.cover(graph));
        let host = self.cpu.as_ref().map(|plan| Memory {
            weights: if shared(plan.graph()) { 0 } else { CpuBackend::weight_bytes(plan.graph()) },
            kv: CpuBackend::kv_bytes(plan.graph(), options.kv, limits.pages),
            activations: CpuBackend::activation_bytes(plan, limits.ctx) as u64,
        });
        MemoryPlan { host: host.unwrap_or_default(), device: self.on_gpu(limits, options) }
    }

    #[cfg(feature = "gpu")]
    fn on_gpu(&self, limits: &Limits, options: &Options) -> Memory {
        let memory = |plan: &Plan| Memory {
            weights: gpu::weight_bytes(plan.graph()),
            kv: gpu_options(limits, options).cache_bytes(plan.graph()).iter().sum(),
            activations: gpu_options(limits, options).step_bytes(plan),
        };
        self.gpu.as_ref().map(memory).unwrap_or_default()
    }

    #[cfg(not(feature = "gpu"))]
    fn on_gpu(&self, _: &Limits, _: &Options) -> Memory {
        Memory::default()
    }

    /// Loads the parts onto their devices.
    ///
    /// # Errors
    /// There is no such device, it has no room, or a weight cannot be read.
    pub fn load(
        self,
        source: &dyn Source,
        limits: &Limits,
        options: &Options,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Backend>> {
        let plans = [&self.cpu, &self.gpu];
        let bytes = plans.map(|plan| plan.as_ref().map_or(0, |plan| file_bytes(plan.graph(), source)));
        let total = bytes[0] + bytes[1];
        let (operations, layers) = (self.cpu.as_ref().map_or(0, |plan| plan.graph().ops.len()), self.layers);
        let cpu = self.cpu.map(|plan| load_cpu(plan, source, limits, options, &mut |done, _| progress(done, total)));
        let cpu = cpu.transpose()?;
        let Some(plan) = self.gpu else {
            // Nothing of it runs there, but a device that is not there is never passed over.
            if !options.device.is_cpu() {
                crate::backend::number(&options.device)?;
            }
            return cpu.ok_or_else(|| Error::Internal("a model in no parts".into()));
        };
        let gpu = load_gpu(plan, source, limits, options, &mut |done, _| progress(bytes[0] + done, total))?;
        Ok(match cpu {
            None => gpu,
            Some(cpu) => Box::new(Split::new([cpu, gpu], operations, layers)),
        })
    }
}

/// Bytes of the file that a graph's weights are read from.
fn file_bytes(graph: &Graph, source: &dyn Source) -> u64 {
    graph.weights.iter().filter_map(|w| source.tensor(&w.name)).map(|t| t.size).sum()
}

fn plan_limits(limits: &Limits, precision: Precision) -> plan::Limits {
    plan::Limits { tokens: limits.batch, outputs: limits.outputs, precision }
}

fn for_cpu(graph: Graph, limits: &Limits, options: &Options) -> Result<Plan> {
    CpuBackend::check(&graph)?;
    Ok(Plan::compile(graph, plan_limits(limits, options.precision), &CpuBackend::act_bytes))
}

fn load_cpu(
    plan: Plan,
    source: &dyn Source,
    limits: &Limits,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Backend>> {
    let cpu = CpuOptions {
        threads: options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        isa: options.isa.unwrap_or_else(Isa::best),
        kv: options.kv,
        pages: limits.pages,
        ctx: limits.ctx,
        check_tensors: options.check_tensors,
        check_workers: options.check_workers,
        probe: options.probe.clone(),
        weights: options.weights.clone(),
    };
    Ok(Box::new(CpuBackend::load(plan, source, &cpu, progress)?))
}

#[cfg(feature = "gpu")]
mod gpus {
    use super::*;

    pub fn gpu_options(limits: &Limits, options: &Options) -> GpuOptions {
        GpuOptions {
            device: options.device.clone(),
            variant: options.variant,
            kv: options.kv,
            pages: limits.pages,
            page_entries: limits.sequences * limits.ctx.div_ceil(PAGE),
            check_tensors: options.check_tensors,
            checks: options.checks.clone(),
        }
    }

    pub fn for_gpu(graph: Graph, limits: &Limits, options: &Options) -> Result<Plan> {
        GpuBackend::check(&graph)?;
        let precision = options.gpu_precision;
        if precision == Precision::Q16 {
            let expected = "q8 or f32 on a GPU: activations in two planes of codes are the processor's alone".into();
            return Err(Error::Option { name: "--precision", found: precision.name().into(), expected });
        }
        Ok(Plan::compile(graph, plan_limits(limits, precision), &gpu::act_bytes))
    }

    pub fn load_gpu(
        plan: Plan,
        source: &dyn Source,
        limits: &Limits,
        options: &Options,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Backend>> {
        Ok(Box::new(GpuBackend::load(plan, source, &gpu_options(limits, options), progress)?))
    }

    /// The fewest layers on the processor with which the rest has room on the GPU, and both in what memory there is.
    pub fn fewest_here(graph: &Graph, n_layer: usize, limits: &Limits, options: &Options) -> Result<usize> {
        let device = gpu::adapter::open(&options.device)?;
        let shares_memory = matches!(device.description.kind, "cpu" | "integrated");
        let fits = |here: usize| -> Result<bool> {
            let parts = Parts::cut(graph, [here, n_layer], limits, options)?;
            let Some(plan) = &parts.gpu else { return Ok(true) };
            let memory = parts.memory(limits, options);
            let host = memory.host.total() + if shares_memory { memory.device.total() } else { 0 };
            if options.memory.is_some_and(|available| host > available) {
                return Ok(false);
            }
            gpu_options(limits, options).fits(&device, plan)
        };
        // Layers are of about one size, so what fits with some fits with fewer.
        let (mut fewest, mut most) = (0, n_layer);
        while fewest < most {
            let middle = (fewest + most) / 2;
            if fits(middle)? { most = middle } else { fewest = middle + 1 }
        }
        if fewest == n_layer {
            let hint = "lower the context (--ctx) or the batch (--batch), or use the processor (--device cpu)";
            return Err(device.error(format!("not one of {n_layer} layers has room"), hint));
        }
        Ok(fewest)
    }
}

#[cfg(not(feature = "gpu"))]
mod gpus {
    use super::*;
    use crate::backend::without_gpus;

    pub fn for_gpu(_: Graph, _: &Limits, options: &Options) -> Result<Plan> {
        Err(without_gpus(&options.device))
    }

    pub fn load_gpu(
        _: Plan,
        _: &dyn Source,
        _: &Limits,
        options: &Options,
        _: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Backend>> {
        Err(without_gpus(&options.device))
    }

    pub fn fewest_here(_: &Graph, _: usize, _: &Limits, options: &Options) -> Result<usize> {
        Err(without_gpus(&options.device))
    }
}

#[cfg(feature = "gpu")]
use gpus::gpu_options;
use gpus::{fewest_here, for_gpu, load_gpu};
