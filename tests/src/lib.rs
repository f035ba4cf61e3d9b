//! What the tests and benches of all crates share: case tables, naive f64 twins, the tiny-model maker and the means
//! to start the program. The tests themselves stand in `tests/`.
//!
//! | module | what it has |
//! | --- | --- |
//! | [`corrupt`] | files that must be refused, and what must be said |
//! | [`draft`] | a GGUF file as entries, written without checks |
//! | [`golden`] | expected values, from `fixtures/` |
//! | [`gpu`] | the adapters that GPU tests run on |
//! | [`http`] | a server of the program's, and a client that can say anything to it |
//! | [`huggingface`] | a model taken apart into the folder that a converter is given |
//! | [`models`] | the real models, obtained by the program |
//! | [`observe`] | the engine asked for logits |
//! | [`process`] | the program started as a user does, under limits |
//! | [`random`] | numbers from a seed |
//! | [`tiny`] | tiny random models of any shape and format |

pub mod cases;
pub mod corrupt;
pub mod draft;
pub mod golden;
pub mod gpu;
pub mod http;
pub mod huggingface;
pub mod models;
pub mod observe;
pub mod process;
pub mod random;
pub mod tiny;
pub mod twin;
