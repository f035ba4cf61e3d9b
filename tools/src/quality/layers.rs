//! How far what two models feed their layers is apart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::Probe;

use super::weights::{ratio, squares};
use crate::quantize::recipe::layer_of;

/// What went into the first product of each layer, in order of the layers; what goes to the logits comes last.
pub type Inputs = BTreeMap<u32, (String, Vec<f32>)>;

/// Records what a model feeds its layers, while it is told to.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Option<Inputs>>>);

impl Recorder {
    /// A probe that records.
    pub fn probe(&self) -> Probe {
        let inputs = self.0.clone();
        Probe::new(move |name, _, row| {
            let mut inputs = inputs.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(inputs) = inputs.as_mut() else { return };
            let layer = match layer_of(name) {
                Some(layer) => layer,
                None if matches!(name, "output.weight" | "token_embd.weight") => u32::MAX,
                None => return,
            };
            // The first matrix of a layer that is multiplied stays its first.
            let (first, rows) = inputs.entry(layer).or_insert_with(|| (name.to_string(), Vec::new()));
            if first.as_str() == name {
                rows.extend_from_slice(row);
            }
        })
    }

    /// Begins to record.
    pub fn start(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Inputs::new());
    }

    /// Ends and gives what was recorded.
    pub fn stop(&self) -> Inputs {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}

/// The relative error of each layer's input.
pub fn compare(ours: &Inputs, truth: &Inputs) -> Vec<(String, f64)> {
    let one = |(layer, (_, x)): (&u32, &(String, Vec<f32>))| {
        let (_, y) = truth.get(layer).filter(|(_, y)| y.len() == x.len())?;
        let name = if *layer == u32::MAX { "output".to_string() } else { layer.to_string() };
        Some((name, ratio(squares(x, y))))
    };
    ours.iter().filter_map(one).collect()
}
