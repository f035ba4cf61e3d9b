//! The naive twin of the sampler chain: full sorts and plain f64 sums, one filter after another.

use super::super::Params;

/// The twin's chain: (id, final probability) of every token that may be drawn, in order of id.
pub(super) fn naive(params: &Params, logits: &[f32], history: &[u32]) -> Vec<(u32, f64)> {
    let row = naive_edits(params, logits, history);
    let mut kept: Vec<(u32, f32)> = (0..).zip(row).filter(|t| t.1 > f32::NEG_INFINITY).collect();
    let keep = (params.min_keep as usize).max(1);
    let best_first = |kept: &mut Vec<(u32, f32)>| kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if params.top_k > 0 {
        best_first(&mut kept);
        kept.truncate((params.top_k as usize).max(keep));
    }
    if params.typical_p < 1.0 {
        best_first(&mut kept);
        let p = softmax(&kept, 1.0);
        let entropy: f64 = p.iter().map(|p| -p * p.ln()).sum();
        let mut order: Vec<usize> = (0..kept.len()).collect();
        order.sort_by(|&a, &b| (-p[a].ln() - entropy).abs().total_cmp(&(-p[b].ln() - entropy).abs()));
        let mut sum = 0.0;
        let end = order.iter().position(|&i| {
            sum += p[i];
            sum > f64::from(params.typical_p)
        });
        order.truncate(end.map_or(order.len(), |end| end + 1).max(keep));
        kept = order.iter().map(|&i| kept[i]).collect();
    }
    if params.top_p < 1.0 {
        best_first(&mut kept);
        let mut sum = 0.0;
        let end = softmax(&kept, 1.0).iter().position(|p| {
            sum += p;
            sum >= f64::from(params.top_p)
        });
        kept.truncate(end.map_or(kept.len(), |end| end + 1).max(keep));
    }
    if params.min_p > 0.0 {
        best_first(&mut kept);
        let p = softmax(&kept, 1.0);
        let passing = p.iter().filter(|x| **x >= f64::from(params.min_p) * p[0]).count();
        kept.truncate(passing.max(keep));
    }
    kept.sort_by_key(|t| t.0);
    let p = softmax(&kept, f64::from(params.temperature));
    kept.iter().map(|t| t.0).zip(p).collect()
}

fn naive_edits(params: &Params, logits: &[f32], history: &[u32]) -> Vec<f32> {
    let mut row = logits.to_vec();
    for &(id, bias) in &params.logit_bias {
        row[id as usize] += bias;
    }
    let length = if params.repeat_last_n < 0 { history.len() } else { params.repeat_last_n as usize };
    let window = &history[history.len().saturating_sub(length)..];
    for (id, logit) in (0u32..).zip(&mut row) {
        let count = window.iter().filter(|t| **t == id).count();
        if count > 0 {
            *logit = if *logit > 0.0 { *logit / params.repeat_penalty } else { *logit * params.repeat_penalty };
            *logit -= count as f32 * params.frequency_penalty + params.presence_penalty;
        }
    }
    row
}

fn softmax(kept: &[(u32, f32)], temperature: f64) -> Vec<f64> {
    let max = kept.iter().map(|t| f64::from(t.1)).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = kept.iter().map(|t| ((f64::from(t.1) - max) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}
