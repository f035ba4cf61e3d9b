//! Composes and validates every variant of the table, and writes what Rust needs to know of the shaders.

#[path = "src/compose.rs"]
#[allow(dead_code, missing_docs)]
mod compose;
#[path = "src/layout.rs"]
#[allow(dead_code, missing_docs)]
mod layout;
#[path = "src/table.rs"]
#[allow(dead_code, missing_docs)]
mod table;
#[path = "src/way.rs"]
#[allow(dead_code, missing_docs)]
mod way;

use naga::{AddressSpace, Module, Scalar, ScalarKind, StorageAccess, TypeInner};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

fn main() {
    for path in ["wgsl", "src", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let mut files = BTreeMap::new();
    read(Path::new("wgsl"), "", &mut files);
    let file = |name: &str| files.get(name).cloned();
    let mut seen = BTreeMap::new();
    for kernel in table::Kernel::all() {
        let text = kernel.compose(&file).unwrap_or_else(|error| panic!("{}: {error}", kernel.name()));
        let module = validate(&kernel.name(), &text);
        seen.entry(kernel.file()).or_insert(module);
    }
    let mut out = String::new();
    for (file, module) in &seen {
        describe(file, module, &mut out);
    }
    let names: Vec<_> = seen.keys().map(|file| format!("({file:?}, {}),", file.to_uppercase())).collect();
    writeln!(out, "pub(crate) const BINDINGS: &[(&str, &[crate::Binding])] = &[{}];", names.concat()).unwrap();
    let texts: Vec<_> = files.iter().map(|(name, text)| format!("({name:?}, {text:?}),\n")).collect();
    writeln!(out, "pub(crate) const FILES: &[(&str, &str)] = &[\n{}];", texts.concat()).unwrap();
    let folder = std::env::var("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&folder).join("ops.rs"), out).expect("a writable folder");
}

fn read(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            read(&path, &format!("{prefix}{name}/"), files);
        } else {
            files.insert(format!("{prefix}{name}"), std::fs::read_to_string(&path).expect("UTF-8"));
        }
    }
}

fn validate(name: &str, text: &str) -> Module {
    let fail = |error: String| -> ! { panic!("{name}: {error}") };
    let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|error| fail(error.emit_to_string(text)));
    use naga::valid::Capabilities as Can;
    let allowed = Can::SUBGROUP | Can::SHADER_FLOAT16 | Can::SHADER_FLOAT16_IN_FLOAT32;
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), allowed);
    validator.validate(&module).unwrap_or_else(|error| fail(error.emit_to_string(text)));
    module
}

/// The struct of a kernel's parameters and its bindings.
fn describe(file: &str, module: &Module, out: &mut String) {
    let camel: String = file.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
    let (_, op) = module
        .types
        .iter()
        .find(|(_, ty)| ty.name.as_deref() == Some("Op"))
        .unwrap_or_else(|| panic!("{file} has no struct Op"));
    let TypeInner::Struct { members, span } = &op.inner else { panic!("{file}: Op is no struct") };
    writeln!(out, "/// Parameters of `{file}.wgsl`; the comments there say what they are.").unwrap();
    writeln!(out, "#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]").unwrap();
    writeln!(out, "#[repr(C)]\n#[allow(missing_docs)]\npub struct {camel} {{").unwrap();
    for (i, member) in members.iter().enumerate() {
        let ty = match module.types[member.ty].inner {
            TypeInner::Scalar(Scalar { kind: ScalarKind::Uint, width: 4 }) => "u32",
            TypeInner::Scalar(Scalar { kind: ScalarKind::Float, width: 4 }) => "f32",
            ref other => panic!("{file}: Op has a member that is {other:?}"),
        };
        assert_eq!(member.offset as usize, i * 4, "{file}: members of Op follow each other");
        writeln!(out, "    pub {}: {ty},", member.name.as_deref().unwrap_or_default()).unwrap();
    }
    writeln!(out, "}}\nconst _: () = assert!(size_of::<{camel}>() == {span});").unwrap();
    let mut bindings: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, v)| {
            let index = v.binding.as_ref()?.binding;
            let (uniform, writes) = match v.space {
                AddressSpace::Uniform => (true, false),
                AddressSpace::Storage { access } => (false, access.contains(StorageAccess::STORE)),
                _ => return None,
            };
            Some((index, format!("crate::Binding {{ index: {index}, uniform: {uniform}, writes: {writes} }},")))
        })
        .collect();
    bindings.sort();
    let rows: String = bindings.into_iter().map(|b| b.1).collect();
    writeln!(out, "pub(crate) const {}: &[crate::Binding] = &[{rows}];", file.to_uppercase()).unwrap();
}
