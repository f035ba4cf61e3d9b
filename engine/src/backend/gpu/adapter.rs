//! Adapters: which there are, which is meant, and how one is opened.

use super::super::{Description, Device, Variant};
use crate::error::{Error, Result};
use shaders::{EIGHT, SUBGROUPS, Way};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use wgpu::{Adapter, Backends, DeviceType, Features, Instance, InstanceDescriptor, Limits};

/// Something that there must be enough of: its name, how much, and how much there is.
type Need = (&'static str, u64, fn(&Limits) -> u64);

/// What the baseline kernels need; WebGPU's own minimum but for storage buffers, of which 6 are in use at most.
const NEEDED: [Need; 5] = [
    ("invocations a workgroup", 256, |l| u64::from(l.max_compute_invocations_per_workgroup)),
    ("bytes of workgroup memory", 16_000, |l| u64::from(l.max_compute_workgroup_storage_size)),
    ("storage buffers a kernel", 4, |l| u64::from(l.max_storage_buffers_per_shader_stage)),
    ("bytes of a storage binding", 128 << 20, |l| l.max_storage_buffer_binding_size),
    ("workgroups a dimension", 65_535, |l| u64::from(l.max_compute_workgroups_per_dimension)),
];

/// Longer than any step: a device that has not answered by then is taken for lost.
const PATIENCE: Duration = Duration::from_secs(600);

/// What helps where a device is gone or does not answer.
pub const RELOAD: &str = "load the model again, or use another device (--device cpu)";

/// Features that kernels or measurements make use of where they are there.
const USED: [(Features, &str); 4] = [
    (Features::SUBGROUP, "subgroups"),
    (Features::SHADER_F16, "f16"),
    (Features::TIMESTAMP_QUERY, "timestamps"),
    (Features::PIPELINE_CACHE, "pipeline-cache"),
];

fn instance() -> Instance {
    let backends = Backends::VULKAN | Backends::METAL | Backends::DX12 | Backends::GL;
    Instance::new(InstanceDescriptor { backends, ..InstanceDescriptor::new_without_display_handle() })
}

fn list(instance: &Instance) -> Vec<Adapter> {
    pollster::block_on(instance.enumerate_adapters(Backends::all()))
}

/// Every adapter of this machine, those that compute on the processor included.
pub fn adapters() -> Vec<Description> {
    list(&instance()).iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect()
}

fn kind(adapter: &Adapter) -> &'static str {
    match adapter.get_info().device_type {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "cpu",
        DeviceType::Other => "other",
    }
}

/// What the kernels need that limits do not allow.
fn lacks(limits: &Limits) -> Option<String> {
    let short = NEEDED.iter().filter(|(_, need, of)| of(limits) < *need);
    let lacks: Vec<String> =
        short.map(|(what, need, of)| format!("{} {what}, needed are {need}", of(limits))).collect();
    (!lacks.is_empty()).then(|| lacks.join("; "))
}

/// What is wrong with the version of desktop OpenGL, if this is its text: compute shaders came with 4.3, while some drivers
/// make a context of just the 3.3 that they are asked for, with compute shaders as an extension that no shader can name.
fn old_opengl(version: &str) -> Option<String> {
    let number = version.split_whitespace().next().unwrap_or_default();
    let mut parts = number.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (4, 3) => {
            Some(format!("compute shaders: its driver gives OpenGL {major}.{minor}, needed are 4.3 or ES 3.1"))
        }
        _ => None,
    }
}

fn describe(index: usize, adapter: &Adapter) -> Description {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let subgroup = [info.subgroup_min_size, info.subgroup_max_size];
    let has = |feature| features.contains(feature);
    let has = [has(Features::SUBGROUP), has(Features::SHADER_F16)];
    let (variant, why) = best(kind(adapter), has, subgroup);
    let old = (info.backend == wgpu::Backend::Gl).then(|| old_opengl(&info.driver_info)).flatten();
    let lacked = |v: Variant| way(v, has, subgroup).err().map(|lacked| (v, lacked));
    Description {
        index,
        name: info.name.clone(),
        kind: kind(adapter),
        api: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        features: USED.iter().filter(|(f, _)| features.contains(*f)).map(|(_, name)| *name).collect(),
        subgroup,
        buffer: [limits.max_buffer_size, limits.max_storage_buffer_binding_size],
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        variant,
        why,
        without: Variant::ALL.into_iter().filter_map(lacked).collect(),
        lacks: old.or_else(|| lacks(&limits)),
    }
}

/// How products are shared out in a variant on an adapter that may have subgroups and half floats.
///
/// # Errors
/// What the adapter lacks for it.
fn way(variant: Variant, [subgroups, halves]: [bool; 2], [least, most]: [u32; 2]) -> std::result::Result<Way, String> {
    let lanes = |needed: usize| match (subgroups, least as usize) {
        (false, _) => Err("it has no subgroups".to_string()),
        (true, n) if n < needed => {
            Err(format!("its subgroups have {least} to {most} lanes, needed are {needed} at least"))
        }
        _ => Ok(()),
    };
    match variant {
        Variant::Baseline => Ok(Way::Wide),
        Variant::Subgroup => lanes(EIGHT).map(|()| Way::Wide),
        Variant::F16 if halves => Ok(Way::WideHalf),
        Variant::F16 => Err("it has no half floats".into()),
        Variant::Narrow => Ok(Way::Narrow),
        Variant::NarrowSubgroup => {
            let [few, many] = SUBGROUPS;
            lanes(few).map(|()| Way::NarrowSubgroup(if lanes(many).is_ok() { many } else { few }))
        }
    }
}

/// The variant for an adapter where nobody asks for one, and why.
fn best(kind: &str, has: [bool; 2], subgroup: [u32; 2]) -> (Variant, String) {
    let (what, first, second) = match kind {
        "cpu" => ("it computes on the processor", Variant::NarrowSubgroup, Variant::Narrow),
        _ => ("it is a GPU", Variant::Subgroup, Variant::Baseline),
    };
    match way(first, has, subgroup) {
        Ok(_) => (first, format!("{what} with subgroups of {} lanes or more", subgroup[0])),
        Err(lacked) => (second, format!("{what}, and {lacked}")),
    }
}

/// What has gone wrong on a device since anyone looked. A lost device stays lost.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<String>>>, Arc<OnceLock<String>>);

impl Faults {
    fn push(&self, fault: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    fn lost(&self, how: String) {
        self.1.get_or_init(|| format!("the device was lost: {how}"));
    }

    /// The faults so far, forgotten but for the loss of the device.
    pub fn take(&self) -> Vec<String> {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        all.splice(0..0, self.1.get().cloned());
        all
    }
}

/// An opened adapter.
pub struct Opened {
    /// What it is.
    pub description: Description,
    /// How products are shared out on it.
    pub way: Way,
    /// Whether kernels beside products may use subgroups, where their size and the variant suit that.
    pub rows_in_subgroups: bool,
    /// Makes things.
    pub device: wgpu::Device,
    /// Takes work.
    pub queue: wgpu::Queue,
    /// What goes wrong outside of calls.
    pub faults: Faults,
    /// Bytes of all buffers that were made, and of all that will be, where that is known.
    taken: AtomicU64,
    needed: AtomicU64,
}

impl Opened {
    /// Lanes of every subgroup, where kernels that are one subgroup are to be used.
    pub fn subgroup(&self) -> Option<usize> {
        let [least, most] = self.description.subgroup.map(|n| n as usize);
        let exact = least == most && shaders::SUBGROUPS.contains(&least);
        (exact && self.rows_in_subgroups && matches!(self.way, Way::NarrowSubgroup(_))).then_some(least)
    }

    /// Whether kernels that add up over a workgroup do so in eights of lanes.
    pub fn eights(&self) -> bool {
        self.rows_in_subgroups && self.description.variant == Variant::Subgroup
    }

    /// Uses another variant from now on, which someone has asked for.
    ///
    /// # Errors
    /// What it lacks for that.
    pub fn take(&mut self, variant: Variant) -> Result<()> {
        self.change(variant, "it was asked for".into())
    }

    /// Uses another variant from now on, for a reason.
    pub(super) fn change(&mut self, variant: Variant, why: String) -> Result<()> {
        let d = &self.description;
        let has = ["subgroups", "f16"].map(|feature| d.features.contains(&feature));
        self.way = way(variant, has, d.subgroup).map_err(|lacked| {
            let can = Variant::ALL.into_iter().filter(|v| way(*v, has, d.subgroup).is_ok());
            let can: Vec<String> = can.map(|v| v.to_string()).collect();
            let expected = format!("one of {}, as {lacked} ({})", can.join(", "), d.name);
            Error::Option { name: "--variant", found: variant.to_string(), expected }
        })?;
        (self.description.variant, self.description.why) = (variant, why);
        Ok(())
    }

    /// An error about this device.
    pub fn error(&self, detail: impl Into<String>, hint: &'static str) -> Error {
        Error::Device { device: self.description.name.clone(), detail: detail.into(), hint }
    }

    /// Says how many bytes all buffers will take, for messages.
    pub fn announce(&self, bytes: u64) {
        self.needed.store(bytes, Relaxed);
    }

    /// Bytes of all buffers that were made, and of all that were said to be.
    pub fn taken(&self) -> [u64; 2] {
        [self.taken.load(Relaxed), self.needed.load(Relaxed)]
    }

    /// Fails with what has gone wrong.
    ///
    /// # Errors
    /// The faults.
    pub fn check(&self) -> Result<()> {
        match self.faults.take()[..] {
            [] => Ok(()),
            ref faults => Err(self.error(faults.join("; "), RELOAD)),
        }
    }

    /// Waits for all work.
    ///
    /// # Errors
    /// The device was lost, or does not answer.
    pub fn wait(&self) -> Result<()> {
        let done = self.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(PATIENCE) });
        self.check()?;
        done.map(|_| ()).map_err(|e| self.error(e.to_string(), RELOAD))
    }

    /// Waits for all work and gives the first `bytes` of a buffer that can be mapped.
    ///
    /// # Errors
    /// The device was lost, or does not answer.
    pub fn read(&self, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
        let mut out = vec![];
        self.read_with(buffer, bytes, &mut |view| out.extend_from_slice(view))?;
        Ok(out)
    }

    /// Waits for all work and shows the first `bytes` of a buffer that can be mapped.
    ///
    /// # Errors
    /// As [`Opened::read`].
    pub fn read_with(&self, buffer: &wgpu::Buffer, bytes: u64, see: &mut dyn FnMut(&[u8])) -> Result<()> {
        let slice = (bytes > 0).then(|| buffer.slice(..bytes));
        if let Some(slice) = &slice {
            slice.map_async(wgpu::MapMode::Read, |_| ());
        }
        self.wait()?;
        if let Some(slice) = slice {
            let view = slice.get_mapped_range().map_err(|e| self.error(e.to_string(), RELOAD))?;
            see(&view);
            drop(view);
            buffer.unmap();
        }
        Ok(())
    }

    /// Whether buffers of these sizes can be had all at once; they are given back.
    ///
    /// # Errors
    /// As [`Opened::wait`].
    pub fn has_room(&self, sizes: impl Iterator<Item = u64>) -> Result<bool> {
        let (mut held, mut room) = (vec![], true);
        for bytes in sizes {
            match self.buffer("a trial", bytes, wgpu::BufferUsages::STORAGE) {
                Ok(buffer) => held.push(buffer),
                Err(_) => {
                    room = false;
                    break;
                }
            }
        }
        held.iter().for_each(wgpu::Buffer::destroy);
        drop(held);
        self.wait()?;
        Ok(room)
    }

    /// A buffer.
    ///
    /// # Errors
    /// The device has no room for it.
    pub fn buffer(&self, what: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.make(what, bytes, usage, false)
    }

    /// A buffer that the processor can write at once, and that others are copied from.
    ///
    /// # Errors
    /// The device has no room for it.
    pub fn mapped(&self, what: &str, bytes: u64) -> Result<wgpu::Buffer> {
        self.make(what, bytes, wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC, true)
    }

    fn make(&self, what: &str, bytes: u64, usage: wgpu::BufferUsages, mapped: bool) -> Result<wgpu::Buffer> {
        let size = bytes.next_multiple_of(256).max(256);
        let full = |detail: String| {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            let (wanted, taken) = (mib(size), mib(self.taken.load(Relaxed)));
            let of = match mib(self.needed.load(Relaxed)) {
                0 => " MiB".to_string(),
                needed => format!(" of {needed} MiB"),
            };
            self.error(
                format!("no room for {wanted} MiB of {what}, {taken}{of} are taken already ({detail})"),
                "lower the context (--ctx) or the batch (--batch), use a smaller model or another device (--device cpu)",
            )
        };
        let limit = self.device.limits().max_buffer_size;
        if size > limit {
            return Err(full(format!("a buffer has at most {} MiB", limit >> 20)));
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size,
            usage,
            mapped_at_creation: mapped,
        });
        match pollster::block_on(scope.pop()) {
            None => {
                self.taken.fetch_add(size, Relaxed);
                Ok(buffer)
            }
            Some(error) => Err(full(error.to_string())),
        }
    }
}

/// Opens the device that is meant.
///
/// # Errors
/// There is no such adapter, it lacks what kernels need, or its driver refuses.
pub fn open(wanted: &Device) -> Result<Opened> {
    open_within(wanted, u64::MAX)
}

/// Opens the device that is meant, as if buffers and bindings could have at most so many bytes.
///
/// # Errors
/// As [`open`].
pub fn open_within(wanted: &Device, binding: u64) -> Result<Opened> {
    let instance = instance();
    let adapters = list(&instance);
    let index = choose(wanted, &adapters.iter().enumerate().map(|(i, a)| describe(i, a)).collect::<Vec<_>>())?;
    let (adapter, description) = (&adapters[index], describe(index, &adapters[index]));
    let fail = |detail: String| Error::Device {
        device: description.name.clone(),
        detail,
        hint: "use another device; `handmill devices` lists them",
    };
    if let Some(lacks) = &description.lacks {
        return Err(fail(format!("it lacks what the kernels need: {lacks}")));
    }
    let mut limits = adapter.limits();
    limits.max_buffer_size = limits.max_buffer_size.min(binding);
    limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(binding);
    let features = USED.iter().fold(Features::empty(), |all, (f, _)| all | *f);
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        label: Some("handmill"),
        required_features: adapter.features() & features,
        required_limits: limits,
        ..wgpu::DeviceDescriptor::default()
    }))
    .map_err(|e| fail(e.to_string()))?;
    let faults = Faults::default();
    let (uncaptured, lost) = (faults.clone(), faults.clone());
    device.on_uncaptured_error(Arc::new(move |error| uncaptured.push(error.to_string())));
    device.set_device_lost_callback(move |reason, text| lost.lost(format!("{reason:?} {text}").trim().to_lowercase()));
    let (taken, needed) = (AtomicU64::default(), AtomicU64::default());
    let (variant, why) = (description.variant, description.why.clone());
    let way = Way::Wide;
    let mut opened = Opened { description, way, rows_in_subgroups: true, device, queue, faults, taken, needed };
    opened.change(variant, why)?;
    Ok(opened)
}

/// The place of the adapter that is meant.
///
/// # Errors
/// There is none.
pub fn choose(wanted: &Device, adapters: &[Description]) -> Result<usize> {
    let listed = || match adapters {
        [] => "there is no adapter at all".to_string(),
        all => all
            .iter()
            .map(|a| format!("{} ({}, {}, {})", a.index, a.name, a.kind, a.api))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let order = ["discrete", "integrated", "virtual", "other"];
    let found = match wanted {
        Device::Cpu => None,
        Device::Gpu => order.iter().find_map(|kind| adapters.iter().find(|a| a.kind == *kind && a.lacks.is_none())),
        Device::Index(i) => adapters.get(*i),
        Device::Name(name) => adapters.iter().find(|a| a.name.to_lowercase().contains(&name.to_lowercase())),
    };
    found.map(|a| a.index).ok_or_else(|| Error::Option {
        name: "--device",
        found: format!("{wanted}, which is not here"),
        expected: match wanted {
            Device::Gpu => format!(
                "a machine with a GPU; adapters that compute on the processor must be asked for by number or name: {}",
                listed()
            ),
            _ => format!("cpu, gpu, or one of: {}", listed()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, name: &str, kind: &'static str) -> Description {
        Description {
            index,
            name: name.into(),
            kind,
            api: "vulkan".into(),
            driver: String::new(),
            features: vec![],
            subgroup: [4, 4],
            buffer: [0, 0],
            workgroup_memory: 0,
            variant: Variant::Narrow,
            why: String::new(),
            without: vec![],
            lacks: None,
        }
    }

    #[test]
    fn a_variant_is_chosen_by_what_an_adapter_has() {
        for (kind, has, subgroup, variant, why) in [
            ("cpu", [true, true], [8, 8], Variant::NarrowSubgroup, "subgroups of 8 lanes"),
            ("cpu", [false, false], [0, 0], Variant::Narrow, "it has no subgroups"),
            ("discrete", [true, true], [32, 32], Variant::Subgroup, "a GPU with subgroups of 32"),
            ("discrete", [true, false], [32, 64], Variant::Subgroup, "32 lanes or more"),
            ("other", [true, false], [4, 4], Variant::Baseline, "4 to 4 lanes, needed are 8"),
            ("integrated", [false, true], [0, 0], Variant::Baseline, "it has no subgroups"),
        ] {
            let (found, reason) = best(kind, has, subgroup);
            assert!(found == variant && reason.contains(why), "{kind}: {found}, {reason}");
        }
        assert_eq!(way(Variant::F16, [false, true], [0, 0]), Ok(Way::WideHalf));
        assert_eq!(way(Variant::F16, [true, false], [8, 8]).unwrap_err(), "it has no half floats");
        assert_eq!(way(Variant::NarrowSubgroup, [true, false], [4, 128]), Ok(Way::NarrowSubgroup(4)));
    }

    #[test]
    fn an_adapter_that_lacks_what_kernels_need_says_so_with_the_numbers() {
        assert_eq!(lacks(&Limits::default()), None);
        let lacks = lacks(&Limits { max_compute_invocations_per_workgroup: 128, ..Limits::default() });
        assert_eq!(lacks.as_deref(), Some("128 invocations a workgroup, needed are 256"));
    }

    #[test]
    fn an_opengl_without_compute_shaders_says_so() {
        let found = old_opengl("3.3.0 NVIDIA 580.159.04").expect("too old");
        assert!(found.contains("OpenGL 3.3"), "{found}");
        for sound in ["4.5 (Core Profile) Mesa 22.3.6", "4.6.0 NVIDIA 580.159.04", "OpenGL ES 3.2 Mesa 22.3.6", ""] {
            assert_eq!(old_opengl(sound), None);
        }
    }

    #[test]
    fn the_best_gpu_is_never_the_processor() {
        let all = [adapter(0, "llvmpipe", "cpu"), adapter(1, "Iris", "integrated"), adapter(2, "RTX", "discrete")];
        assert_eq!(choose(&Device::Gpu, &all).unwrap(), 2);
        assert_eq!(choose(&Device::Gpu, &all[..2]).unwrap(), 1);
        assert_eq!(choose(&Device::Name("LLVM".into()), &all).unwrap(), 0);
        assert_eq!(choose(&Device::Index(1), &all).unwrap(), 1);
        let error = choose(&Device::Gpu, &all[..1]).unwrap_err().to_string();
        assert!(error.contains("0 (llvmpipe, cpu, vulkan)"), "{error}");
        let error = choose(&Device::Index(7), &[]).unwrap_err().to_string();
        assert!(error.contains("there is no adapter at all"), "{error}");
    }
}
