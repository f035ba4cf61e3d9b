//! The f64 twin against expected values computed elsewhere, so that it may judge the engine.

use tests::golden::{distance, tiny};
use tests::twin::{Past, Twin, argmax};

/// The expected values are f32 results in six digits; a float64 forward agrees with them to 5e-5.
const TOLERANCE: f64 = 5e-5;

#[test]
fn the_twin_agrees_with_every_tiny_model() {
    let mut failures = Vec::new();
    for (name, bytes, golden) in tiny() {
        let twin = Twin::load(&bytes);
        let mut past = Past::default();
        let logits = twin.logits(&mut past, &golden.ids);
        let mut last = logits.last().unwrap().clone();
        let mut greedy = Vec::new();
        for _ in &golden.greedy {
            greedy.push(argmax(&last));
            last = twin.step(&mut past, *greedy.last().unwrap());
        }
        let rows = [
            ("position 5", distance(&logits[5], &golden.logits_pos5)),
            ("last", distance(logits.last().unwrap(), &golden.logits_last)),
            ("after greedy", distance(&last, &golden.logits_after_greedy)),
        ];
        for (row, off) in rows.into_iter().filter(|row| row.1 > TOLERANCE) {
            failures.push(format!("{name}, {row}: off by {off:.1e}, allowed {TOLERANCE:.0e}"));
        }
        if greedy != golden.greedy {
            failures.push(format!("{name}: continued by {greedy:?}, expected {:?}", golden.greedy));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
