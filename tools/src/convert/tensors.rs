//! From the tensors of a folder to those of a file: names, formats, and what becomes of the numbers.

use std::ops::Range;

use gguf::Format;

use super::config::Config;
use super::family::{Change, Computed, Family, Row};
use super::weights::{Stored, Weights};
use crate::error::Result;
use crate::quantize::recipe::{self, Facts, Tensor};
use crate::quantize::types::FileType;
use crate::quantize::wishes::Wishes;
use crate::quantize::write::{Planned, check, encode};
use crate::ui::format::printable;

/// Names that stand in front of a whole text model.
const WHOLE: [&str; 4] = ["language_model.", "model.", "bert.", "text_model."];

/// Where the numbers of a tensor come from.
enum Origin {
    Stored { tensor: Stored, order: Order, plus_one: bool },
    Computed(Vec<f32>),
}

/// Which row of the folder's tensor is a row of the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Same,
    /// Heads of so many rows, whose halves are woven into each other.
    Woven(u64),
}

impl Order {
    fn source(self, row: u64) -> u64 {
        match self {
            Order::Same => row,
            Order::Woven(head) => row / head * head + row % 2 * (head / 2) + row % head / 2,
        }
    }
}

/// All tensors of a model on their way into its file.
pub struct Plan {
    /// What is to be written.
    pub planned: Vec<Planned>,
    origins: Vec<Origin>,
    /// Tensors of the folder that are no part of the model.
    pub left_out: Vec<String>,
}

impl Plan {
    /// Finds a place for every tensor of a folder. `kind` says in what format matrices are; none keeps that of the folder.
    ///
    /// # Errors
    /// A tensor that the family does not have, of a type that is not read, or of a shape that cannot be written.
    pub fn new(weights: &Weights, config: &Config, family: &Family, kind: &FileType) -> Result<Plan> {
        let (mut found, mut left_out) = (Vec::new(), Vec::new());
        for Computed { name, values } in (family.computed)(config)? {
            found.push((name.to_string(), vec![values.len() as u64], Origin::Computed(values)));
        }
        for (name, tensor) in &weights.tensors {
            match place(name, config, family)? {
                None => left_out.push(name.clone()),
                Some((to, row)) => {
                    let (dims, origin) = origin(name, tensor, row, config)?;
                    found.push((to, dims, origin));
                }
            }
        }
        // What is of no layer comes first.
        found.sort_by_cached_key(|(name, ..)| (recipe::layer_of(name), name.clone()));
        if let Some(twice) = found.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(config.fault(format!("two tensors of the folder are {}", twice[0].0)));
        }
        let planned = formats(&found, config, kind)?;
        Ok(Plan { planned, origins: found.into_iter().map(|(.., origin)| origin).collect(), left_out })
    }

    /// The bytes of a range of elements of a tensor.
    ///
    /// # Errors
    /// The folder cannot be read, or holds numbers that are not finite.
    pub fn piece(&self, weights: &Weights, tensor: usize, range: Range<u64>) -> Result<Vec<u8>> {
        let planned = &self.planned[tensor];
        let mut values = vec![0.0; (range.end - range.start) as usize];
        match &self.origins[tensor] {
            Origin::Computed(all) => {
                values.copy_from_slice(&all[range.start as usize..range.end as usize]);
            }
            Origin::Stored { tensor, order: Order::Same, .. } => weights.read(tensor, range.start, &mut values)?,
            Origin::Stored { tensor, order, .. } => {
                let k = if planned.dims.len() > 1 { planned.dims[0] } else { 1 };
                let mut at = range.start;
                while at < range.end {
                    let (row, column) = (at / k, at % k);
                    let end = range.end.min(at - column + k);
                    let out = &mut values[(at - range.start) as usize..(end - range.start) as usize];
                    weights.read(tensor, order.source(row) * k + column, out)?;
                    at = end;
                }
            }
        }
        if matches!(&self.origins[tensor], Origin::Stored { plus_one: true, .. }) {
            values.iter_mut().for_each(|v| *v += 1.0);
        }
        check(&planned.name, &values, range.start)?;
        Ok(encode(&values, None, planned.format))
    }
}

/// The name of a tensor in the file and its row of the family's list; none for what is no part of the model.
fn place(name: &str, config: &Config, family: &Family) -> Result<Option<(String, &'static Row)>> {
    let mut bare = name;
    while let Some(rest) = WHOLE.iter().find_map(|prefix| bare.strip_prefix(prefix)) {
        bare = rest;
    }
    let outside = |part: &&&str| bare.starts_with(**part) || format!(".{bare}").ends_with(**part);
    if family.left_out.iter().find(outside).is_some() {
        return Ok(None);
    }
    let (stem, suffix) = bare.rsplit_once('.').unwrap_or((bare, ""));
    if stem == "lm_head" && config.flag("tie_word_embeddings", false) {
        return Ok(None);
    }
    if matches!(suffix, "weight" | "bias") {
        for row in family.tensors.iter().copied().flatten() {
            if let Some(to) = renamed(row, stem, config)? {
                return Ok(Some((format!("{to}.{suffix}"), row)));
            }
        }
    }
    Err(config.fault(format!(
        "a model of class {} has no tensor {}",
        config.architectures().join(", "),
        printable(name)
    )))
}

/// The name that a row gives, where it is that row.
fn renamed(row: &Row, stem: &str, config: &Config) -> Result<Option<String>> {
    let Some((before, after)) = row.from.split_once("{}") else {
        return Ok((stem == row.from).then(|| row.to.to_string()));
    };
    let number = stem.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    let Some(layer) = number.and_then(|n| n.parse::<u32>().ok()) else { return Ok(None) };
    let layers = config.count("num_hidden_layers")?;
    if layer >= layers {
        return Err(config.fault(format!("num_hidden_layers is {layers}, but the folder has {}", printable(stem))));
    }
    Ok(Some(row.to.replace("{}", &layer.to_string())))
}

/// Dimensions in the file, and where the numbers come from.
fn origin(name: &str, tensor: &Stored, row: &Row, config: &Config) -> Result<(Vec<u64>, Origin)> {
    let name = printable(name);
    if tensor.format().is_none() {
        let found = tensor.type_name();
        return Err(config.fault(format!("tensor {name} is of type {found}: expected F32, F16 or BF16")));
    }
    let mut dims = tensor.shape.clone();
    dims.reverse();
    if !(1..=2).contains(&dims.len()) || dims.contains(&0) {
        return Err(config.fault(format!("tensor {name} has shape {:?}: expected a vector or a matrix", tensor.shape)));
    }
    let rows = tensor.shape[0];
    let heads = match row.change {
        Change::Queries => Some("num_attention_heads"),
        Change::Keys if config.get("num_key_value_heads").is_some() => Some("num_key_value_heads"),
        Change::Keys => Some("num_attention_heads"),
        Change::Same | Change::PlusOne => None,
    };
    let order = match heads {
        None => Order::Same,
        Some(key) => {
            let heads = u64::from(config.count(key)?);
            if heads == 0 || !rows.is_multiple_of(2 * heads) {
                return Err(config.fault(format!("tensor {name} has {rows} rows, which are no {heads} even heads")));
            }
            Order::Woven(rows / heads)
        }
    };
    Ok((dims, Origin::Stored { tensor: tensor.clone(), order, plus_one: row.change == Change::PlusOne }))
}

/// The format of each tensor: that of the kind for matrices that `quantize` would turn into it, F32 for the others.
fn formats(found: &[(String, Vec<u64>, Origin)], config: &Config, kind: &FileType) -> Result<Vec<Planned>> {
    let tensors: Vec<Tensor> = found.iter().map(|(name, dims, _)| Tensor { name, dims }).collect();
    let heads = config.opt_count("num_attention_heads")?;
    let facts = Facts {
        layers: config.count("num_hidden_layers")? as usize,
        experts: 0,
        shared: config.opt_count("num_key_value_heads")?.and_then(|kv| heads?.checked_div(kv)).unwrap_or(1) as usize,
    };
    let choices = recipe::choose(kind, &tensors, facts, &Wishes::default());
    let planned = |((name, dims, _), choice): (&(String, Vec<u64>, Origin), Option<recipe::Choice>)| Planned {
        name: name.clone(),
        dims: dims.clone(),
        format: choice.map_or(Format::F32, |c| c.format),
    };
    Ok(found.iter().zip(choices).map(planned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_head_are_woven() {
        let order = Order::Woven(6);
        let found: Vec<u64> = (0..12).map(|row| order.source(row)).collect();
        assert_eq!(found, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
