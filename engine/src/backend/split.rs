//! Two devices that share the layers of a model: the first computes the layers in front and hands the residual stream of
//! all tokens over, the second goes on with it.
//!
//! Each holds the weights and the KV cache of its own layers; pages have the same numbers in both.

use super::{Anchor, Backend, Info, KernelTime, Logits, Reach, Replay, Written};
use crate::batch::Batch;
use crate::error::Result;
use crate::sampler::{Best, Wants};

/// Two backends, one after the other.
pub struct Split {
    parts: [Box<dyn Backend>; 2],
    /// Operations of the first.
    operations: usize,
    /// Layers of the first, and of both.
    layers: [usize; 2],
}

impl Split {
    /// Joins the backends of the parts of a graph: the first of so many operations, with the layers of the first and of
    /// both.
    pub fn new(parts: [Box<dyn Backend>; 2], operations: usize, layers: [usize; 2]) -> Split {
        Split { parts, operations, layers }
    }

    /// The second part, with what the first computes of a batch.
    fn handed(&mut self, batch: &Batch) -> Result<&mut dyn Backend> {
        let [first, second] = &mut self.parts;
        second.give(pollster::block_on(first.run(batch))?)?;
        Ok(&mut **second)
    }
}

impl Backend for Split {
    fn run<'a>(&'a mut self, batch: &'a Batch) -> Logits<'a> {
        let [first, second] = &mut self.parts;
        Logits::Later(Box::pin(async move {
            second.give(first.run(batch).await?)?;
            second.run(batch).await
        }))
    }

    fn gives(&self, wants: Wants) -> bool {
        self.parts[1].gives(wants)
    }

    fn top<'a>(&'a mut self, batch: &'a Batch) -> Result<&'a [(u32, f32)]> {
        self.handed(batch)?.top(batch)
    }

    fn best<'a>(&'a mut self, batch: &'a Batch) -> Result<&'a [Best]> {
        self.handed(batch)?.best(batch)
    }

    /// The kernels of the second part; the first has no clock of its own.
    fn times(&mut self, batch: &Batch) -> Result<Option<Vec<KernelTime>>> {
        self.handed(batch)?.times(batch)
    }

    fn replay(&mut self, batch: &Batch) -> Result<Option<Replay>> {
        self.handed(batch)?.replay(batch)
    }

    fn reach(&mut self) -> Result<Option<Reach>> {
        self.parts[1].reach()
    }

    fn anchor(&self) -> Option<Anchor> {
        self.parts[1].anchor()
    }

    fn give(&mut self, rows: &[f32]) -> Result<()> {
        self.parts[0].give(rows)
    }

    fn operation(&mut self, batch: &Batch, index: usize) -> Result<Vec<Written>> {
        let [first, second] = &mut self.parts;
        if index >= self.operations {
            return second.operation(batch, index - self.operations);
        }
        let written = first.operation(batch, index)?;
        // The last operation before a cut writes what is handed over.
        if let (true, [handed]) = (index + 1 == self.operations, &written[..]) {
            second.give(&handed.values)?;
        }
        Ok(written)
    }

    fn info(&self) -> Info {
        let [first, second] = [self.parts[0].info(), self.parts[1].info()];
        let ([cut, all], output) = (self.layers, "and the output");
        let range = |from: usize, to: usize| match to - from {
            1 => format!("layer {from}"),
            _ => format!("layers {from} to {}", to - 1),
        };
        Info {
            device: format!("{}: {}; {}: {} {output}", first.device, range(0, cut), second.device, range(cut, all)),
            kernels: format!("{}; {}", first.kernels, second.kernels),
            threads: first.threads.max(second.threads),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    /// A device whose anchor takes so many nanoseconds; none computes on the processor.
    struct MadeUp(Option<f64>);

    impl Backend for MadeUp {
        fn run<'a>(&'a mut self, _: &'a Batch) -> Logits<'a> {
            Logits::Ready(Some(Ok(&[])))
        }

        fn give(&mut self, _: &[f32]) -> Result<()> {
            Ok(())
        }

        fn operation(&mut self, _: &Batch, _: usize) -> Result<Vec<Written>> {
            Ok(vec![])
        }

        fn anchor(&self) -> Option<Anchor> {
            let ns = self.0?;
            Some(Box::new(move || Ok(Level { memory: ns, arithmetic: ns })))
        }

        fn info(&self) -> Info {
            Info { device: String::new(), kernels: String::new(), threads: 0 }
        }
    }

    #[test]
    fn the_anchor_is_that_of_the_second_device() {
        let split = |second| Split::new([Box::new(MadeUp(None)), Box::new(MadeUp(second))], 1, [1, 2]);
        let mut anchor = split(Some(7.0)).anchor().expect("the second has one");
        assert_eq!(anchor().unwrap(), Level { memory: 7.0, arithmetic: 7.0 });
        assert!(split(None).anchor().is_none(), "both compute on the processor");
    }
}
