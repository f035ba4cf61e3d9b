//! Pipelines: each kernel compiled once, whoever uses it.

use super::adapter::Opened;
use super::cache::Kept;
use crate::error::Result;
use shaders::{Binding, Kernel, place};
use std::collections::HashMap;
use wgpu::{BindGroupLayout, BindingType, BufferBindingType, ComputePipeline, PipelineLayout};

/// The pipelines of a plan.
#[derive(Default)]
pub struct Pipelines {
    all: Vec<ComputePipeline>,
    kernels: Vec<Kernel>,
    by_kernel: HashMap<Kernel, usize>,
    /// Layouts by the kernels' bindings, so that variants share bind groups.
    layouts: HashMap<&'static [Binding], (BindGroupLayout, PipelineLayout)>,
    /// What was compiled before.
    kept: Option<Kept>,
}

impl Pipelines {
    /// None yet; they will be made of what was kept, where there is something.
    pub fn new(kept: Option<Kept>) -> Pipelines {
        Pipelines { kept, ..Pipelines::default() }
    }

    /// Keeps what was compiled.
    pub fn keep(&self) {
        self.kept.iter().for_each(Kept::save);
    }

    /// Whether what was kept was of no use.
    pub fn dropped(&self) -> bool {
        self.kept.as_ref().is_some_and(Kept::dropped)
    }

    /// The pipelines in order of their index.
    pub fn all(&self) -> &[ComputePipeline] {
        &self.all
    }

    /// The kernel of a pipeline.
    pub fn kernel(&self, index: usize) -> Kernel {
        self.kernels[index]
    }

    /// The layout of a kernel's bind group.
    ///
    /// # Panics
    /// If [`Pipelines::get`] was never asked for the kernel.
    pub fn layout(&self, kernel: Kernel) -> &BindGroupLayout {
        &self.layouts[kernel.bindings()].0
    }

    /// Index of a kernel's pipeline, which is made if it is not there.
    ///
    /// # Errors
    /// The driver refuses the kernel.
    pub fn get(&mut self, gpu: &Opened, kernel: Kernel) -> Result<usize> {
        if let Some(&index) = self.by_kernel.get(&kernel) {
            return Ok(index);
        }
        let (_, layout) = self.layouts.entry(kernel.bindings()).or_insert_with(|| layouts(gpu, kernel));
        let name = kernel.name();
        let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&name),
            source: wgpu::ShaderSource::Wgsl(kernel.wgsl().into()),
        });
        let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&name),
            layout: Some(layout),
            module: &module,
            entry_point: Some("main"),
            // Kernels write workgroup memory before they read it.
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..wgpu::PipelineCompilationOptions::default()
            },
            cache: self.kept.as_ref().map(Kept::cache),
        });
        gpu.check()?;
        self.all.push(pipeline);
        self.kernels.push(kernel);
        self.by_kernel.insert(kernel, self.all.len() - 1);
        Ok(self.all.len() - 1)
    }
}

fn layouts(gpu: &Opened, kernel: Kernel) -> (BindGroupLayout, PipelineLayout) {
    let entry = |b: &Binding| wgpu::BindGroupLayoutEntry {
        binding: b.index,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: BindingType::Buffer {
            ty: match b {
                Binding { uniform: true, .. } => BufferBindingType::Uniform,
                Binding { writes, .. } => BufferBindingType::Storage { read_only: !writes },
            },
            // Dispatches that bind the same buffers differ in their parameters.
            has_dynamic_offset: b.index == place::OP,
            min_binding_size: None,
        },
        count: None,
    };
    let entries: Vec<_> = kernel.bindings().iter().map(entry).collect();
    let group = gpu
        .device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel.file()), entries: &entries });
    let layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(kernel.file()),
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    (group, layout)
}
