//! Products of one value with several matrices in one dispatch: queries, keys and values, or the gate and its partner.
//!
//! Small matrices leave most of a GPU idle, and each dispatch waits for the one before. An element adds up its products in
//! the same order whatever is computed beside it, so that it is the same bits.

use crate::graph::{Graph, Op, WeightId};
use crate::plan::operands;

/// Matrices that the parameters of the kernel have room for.
const MOST: usize = 3;

/// Runs of operations that one dispatch computes, each of two operations or more, by their indices.
pub fn products(graph: &Graph) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = vec![];
    let mut open: Vec<usize> = vec![];
    for index in 0..=graph.ops.len() {
        let goes_on = graph.ops.get(index).is_some()
            && open.last().is_some_and(|&last| follows(graph, open[0], index) && last + 1 == index)
            && open.len() < MOST;
        if !goes_on {
            runs.extend((open.len() > 1).then(|| open.clone()));
            open.clear();
        }
        open.push(index);
    }
    runs
}

/// Whether an operation multiplies the same value as the first of a run, by a matrix of the same format.
fn follows(graph: &Graph, first: usize, index: usize) -> bool {
    let (
        Op::MatMul { x: a, weight: v, scale: s, residual: None, out: p, .. },
        Op::MatMul { x, weight, scale, residual: None, out, .. },
    ) = (graph.ops[first], graph.ops[index])
    else {
        return false;
    };
    let (one, two) = (&graph.weights[v.0 as usize], &graph.weights[weight.0 as usize]);
    let rows = |v: crate::graph::ValueId| graph.values[v.0 as usize].rows;
    let own = |w: WeightId| graph.ops.iter().filter(|op| op.weights().contains(&w)).count() == 1;
    a == x
        && s == scale
        && rows(p) == rows(out)
        && (one.format, one.k, one.experts, two.experts) == (two.format, two.k, 1, 1)
        && own(v)
        && own(weight)
        && writes_alone(graph, first, index)
}

/// Whether nothing between two operations touches what the second writes: it is written earlier than the graph says.
fn writes_alone(graph: &Graph, first: usize, index: usize) -> bool {
    let out = graph.ops[index].written();
    graph.ops[first..index].iter().all(|op| operands(op).iter().all(|(v, _)| *v != out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Rows, ValueId, ValueInfo, WeightInfo, WeightKind};
    use gguf::Format;

    fn graph(products: &[(u32, u32, Format)]) -> Graph {
        let weight = |(i, &(_, _, format)): (usize, &(u32, u32, Format))| {
            let (name, kind) = (format!("blk.0.{i}.weight"), WeightKind::Matrix);
            WeightInfo { name, format, first: 0, rows: 32, k: 256, experts: 1, kind }
        };
        let op = |(i, &(x, out, _)): (usize, &(u32, u32, Format))| {
            let (x, out, weight) = (ValueId(x), ValueId(out), WeightId(i as u32));
            Op::MatMul { x, weight, scale: None, bias: None, residual: None, out }
        };
        Graph {
            values: vec![ValueInfo { width: 256, rows: Rows::Tokens }; 16],
            weights: products.iter().enumerate().map(weight).collect(),
            ropes: vec![],
            ops: products.iter().enumerate().map(op).collect(),
            slopes: vec![],
            input: None,
            logits: ValueId(0),
        }
    }

    #[test]
    fn neighbours_of_one_value_and_format_are_one() {
        use Format::{Q4K, Q6K};
        let of = |products: &[(u32, u32, Format)]| super::products(&graph(products));
        assert_eq!(of(&[(0, 1, Q4K), (0, 2, Q4K), (0, 3, Q4K), (4, 5, Q4K)]), [[0, 1, 2]]);
        assert_eq!(of(&[(0, 1, Q4K), (0, 2, Q4K), (0, 3, Q6K)]), [[0, 1]]);
        assert_eq!(of(&[(0, 1, Q4K), (0, 2, Q4K), (0, 3, Q4K), (0, 4, Q4K), (0, 5, Q4K)]), [vec![0, 1, 2], vec![3, 4]]);
        assert!(of(&[(0, 1, Q4K), (1, 2, Q4K), (2, 3, Q4K)]).is_empty());
        // A matrix that something else takes too stays by itself.
        let mut shared = graph(&[(0, 1, Q4K), (0, 2, Q4K), (3, 4, Q4K)]);
        let Op::MatMul { weight, .. } = &mut shared.ops[2] else { panic!("a product") };
        *weight = WeightId(1);
        assert!(super::products(&shared).is_empty());
    }
}
