//! Models cut into several files, `name-00001-of-00003.gguf` and so on.
//!
//! Every part is a GGUF file of its own with some of the tensors. The first has the metadata of the
//! model; each says in `split.no` which part it is, in `split.count` how many there are and in
//! `split.tensors.count` how many tensors they hold together.

use crate::error::{Error, Fault, Site};
use crate::tensor::Tensors;
use crate::{Gguf, Meta, Part, parse as file};

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Which part of a model a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Number of this part, from 0.
    pub no: u32,
    /// Number of parts.
    pub count: u32,
    /// Number of tensors in all parts together.
    pub tensors: u32,
}

impl Split {
    /// Reads the `split.*` keys; `None` where the file is a whole model.
    pub(crate) fn read(meta: &Meta<'_>) -> Result<Option<Split>, Error> {
        // Tools that cut a model write a count of 0 or 1 into one that stays whole.
        match meta.opt_u32(COUNT)? {
            None | Some(0 | 1) => Ok(None),
            Some(count) => Ok(Some(Split { no: meta.u32(NO)?, count, tensors: meta.u32(TENSORS)? })),
        }
    }
}

/// Parses the parts of a model, in order.
pub(crate) fn parse<'a>(parts: &[Part<'a>]) -> Result<Gguf<'a>, Error> {
    let mut merged: Option<(Gguf<'a>, Vec<crate::TensorInfo>)> = None;
    let count = parts.len();
    for (index, &bytes) in parts.iter().enumerate() {
        let in_part = |error| Error::Part { index, count, error: Box::new(error) };
        let part = file::parse(bytes).map_err(in_part)?;
        check(&part, index, count).map_err(in_part)?;
        let Some((first, all)) = &mut merged else {
            let mut part = part;
            let tensors = std::mem::take(&mut part.tensors).into_vec();
            merged = Some((part, tensors));
            continue;
        };
        if part.endian != first.endian {
            let bits = |e| if e == crate::Endian::Big { 1 } else { 0 };
            let (found, expected) = (bits(part.endian), bits(first.endian));
            let what = "byte order (0 little-endian, 1 big-endian)";
            return Err(in_part(Fault::Split { what, found, expected }.at(Site::Split, 4)));
        }
        first.parts.push(bytes);
        all.extend(part.tensors.into_vec().into_iter().map(|t| crate::TensorInfo { part: index, ..t }));
        if all.len() as u64 > file::MAX_TENSORS {
            let (found, max) = (all.len() as u64, file::MAX_TENSORS);
            return Err(in_part(Fault::Count { what: "tensors", found, max }.at(Site::Split, 8)));
        }
    }
    let Some((mut model, all)) = merged else {
        let fault = Fault::Split { what: "number of parts", found: 0, expected: 1 };
        return Err(fault.at(Site::Split, 0));
    };
    if let Some(split) = model.split()? {
        let (found, expected) = (all.len() as u64, u64::from(split.tensors));
        if found != expected {
            let offset = model.meta.offset(TENSORS).unwrap_or_default();
            let fault = Fault::Split { what: "number of tensors in all parts", found, expected };
            return Err(fault.at(Site::Split, offset));
        }
    }
    model.tensors = Tensors::new(all, count)?;
    Ok(model)
}

/// Checks what a part says of itself against its place in the list.
fn check(part: &Gguf<'_>, index: usize, count: usize) -> Result<(), Error> {
    let meta = &part.meta;
    let split = part.split()?.unwrap_or(Split { no: 0, count: 1, tensors: 0 });
    let numbers = [(COUNT, split.count, count), (NO, split.no, index)];
    for (what, found, expected) in numbers {
        if u64::from(found) != expected as u64 {
            let offset = meta.offset(what).unwrap_or_default();
            let fault = Fault::Split { what, found: found.into(), expected: expected as u64 };
            return Err(fault.at(Site::Split, offset));
        }
    }
    Ok(())
}

/// The file names of all parts, given the name (or path) of any one that ends in
/// `-00001-of-00003.gguf`; `None` for any other name. Names only: no file is looked for.
pub fn part_names(name: &str) -> Option<Vec<String>> {
    let stem = name.strip_suffix(".gguf")?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (stem, no) = stem.rsplit_once('-')?;
    let number = |digits: &str| {
        let plain = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<u32>().ok()).flatten()
    };
    let (no, count) = (number(no)?, number(count)?);
    if no == 0 || no > count {
        return None;
    }
    Some((1..=count).map(|i| format!("{stem}-{i:05}-of-{count:05}.gguf")).collect())
}
