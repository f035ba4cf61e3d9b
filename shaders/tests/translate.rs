//! Every variant of the table in the languages of the drivers that cannot run here: SPIR-V, MSL, HLSL and GLSL ES 3.1.

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage, back, front};
use shaders::{Binding, Kernel, place};

fn parse(kernel: Kernel) -> Result<(Module, ModuleInfo), String> {
    let text = kernel.wgsl();
    let module = front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text))?;
    let mut allowed = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    allowed.set(Capabilities::SUBGROUP, kernel.needs_subgroups());
    allowed.set(Capabilities::SHADER_FLOAT16, kernel.needs_halves());
    let info = Validator::new(ValidationFlags::all(), allowed)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(&text))?;
    Ok((module, info))
}

type Translate = fn(&Module, &ModuleInfo) -> Result<usize, String>;

fn spirv(module: &Module, info: &ModuleInfo) -> Result<usize, String> {
    let options = back::spv::Options { lang_version: (1, 3), ..back::spv::Options::default() };
    back::spv::write_vec(module, info, &options, None).map(|words| words.len()).map_err(|e| e.to_string())
}

fn msl(module: &Module, info: &ModuleInfo) -> Result<usize, String> {
    let options = back::msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
    let written = back::msl::write_string(module, info, &options, &back::msl::PipelineOptions::default());
    written.map(|(text, _)| text.len()).map_err(|e| e.to_string())
}

fn hlsl(module: &Module, info: &ModuleInfo) -> Result<usize, String> {
    let options = back::hlsl::Options {
        // The first with half floats.
        shader_model: back::hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        ..back::hlsl::Options::default()
    };
    let mut text = String::new();
    let pipeline = back::hlsl::PipelineOptions::default();
    back::hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| e.to_string())?;
    Ok(text.len())
}

fn glsl(module: &Module, info: &ModuleInfo) -> Result<usize, String> {
    let options = back::glsl::Options { version: back::glsl::Version::new_gles(310), ..Default::default() };
    let pipeline =
        back::glsl::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into(), multiview: None };
    let mut text = String::new();
    let policies = naga::proc::BoundsCheckPolicies::default();
    back::glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
        .and_then(|mut writer| writer.write().map(|_| ()))
        .map_err(|e| e.to_string())?;
    Ok(text.len())
}

/// Whether a kernel can be said in a language.
type Says = fn(Kernel) -> bool;

/// GLSL ES 3.1 has neither subgroups nor half floats, and no adapter of it says that it has.
const LANGUAGES: [(&str, Translate, Says); 4] = [
    ("SPIR-V", spirv, |_| true),
    ("MSL", msl, |_| true),
    ("HLSL", hlsl, |_| true),
    ("GLSL ES 3.1", glsl, |kernel| !kernel.needs_subgroups() && !kernel.needs_halves()),
];

#[test]
fn every_variant_translates_to_every_language() {
    let mut failures = Vec::new();
    for kernel in Kernel::all() {
        match parse(kernel) {
            Err(error) => failures.push(format!("{}: {error}", kernel.name())),
            Ok((module, info)) => {
                for (language, translate, _) in LANGUAGES.into_iter().filter(|(_, _, says)| says(kernel)) {
                    match translate(&module, &info) {
                        Ok(length) if length > 100 => (),
                        Ok(length) => failures.push(format!("{} in {language}: {length} long", kernel.name())),
                        Err(error) => failures.push(format!("{} in {language}: {error}", kernel.name())),
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The baseline: what WebGPU promises everywhere.
#[test]
fn no_variant_needs_more_than_every_adapter_has() {
    let mut failures = Vec::new();
    for kernel in Kernel::all() {
        let storage = |b: &&Binding| !b.uniform;
        let buffers = kernel.bindings().iter().filter(storage).count();
        let (module, _) = parse(kernel).unwrap_or_else(|error| panic!("{error}"));
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).expect("a sound module");
        let workgroup: u32 = module
            .global_variables
            .iter()
            .filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup)
            .map(|(_, v)| layouter[v.ty].size)
            .sum();
        let invocations: u32 = module.entry_points[0].workgroup_size.iter().product();
        if buffers > 4 || workgroup > 16_000 || invocations > 256 {
            failures.push(format!(
                "{}: {buffers} storage buffers, {workgroup} bytes of workgroup memory, {invocations} invocations",
                kernel.name()
            ));
        }
        assert_eq!(invocations as usize, kernel.invocations(), "{}", kernel.name());
        assert!(kernel.bindings().iter().any(|b| b.index == place::ARENA && b.writes), "{}", kernel.name());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn names_are_of_one_kernel_each() {
    let mut names: Vec<String> = Kernel::all().into_iter().map(Kernel::name).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}
