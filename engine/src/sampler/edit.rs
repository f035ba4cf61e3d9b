//! Changes to single logits before any filter: bias and the three repetition penalties.
//!
//! Few logits change, so a row is copied only when one does.

use super::{Error, Params};

/// Copies `logits` to `row` and applies bias and penalties there.
/// `window` is scratch space.
///
/// Penalties follow the documented arithmetic of llama.cpp's penalties sampler (the repeat penalty is that of CTRL,
/// Keskar et al. 2019, with negative logits multiplied): for a token that occurs n > 0 times in the window
/// `l = l > 0 ? l / repeat : l * repeat; l -= n * frequency + presence`.
pub(super) fn apply(
    params: &Params,
    history: &[u32],
    logits: &[f32],
    window: &mut Vec<u32>,
    row: &mut Vec<f32>,
) -> Result<(), Error> {
    row.clear();
    row.extend_from_slice(logits);
    for &(id, bias) in &params.logit_bias {
        let vocabulary = row.len();
        let logit = row.get_mut(id as usize).ok_or(Error::BiasOutOfVocabulary { id, vocabulary })?;
        // -inf wins over a +inf logit, whose sum would be NaN.
        *logit = if bias == f32::NEG_INFINITY { bias } else { *logit + bias };
    }
    if penalizes(params) {
        penalize(params, history, window, row);
    }
    Ok(())
}

/// Takes away every token whose bit is not set, and those for which there is no bit.
pub(super) fn forbid(allowed: &[u32], row: &mut [f32]) {
    let words = allowed.iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in row.chunks_mut(32).zip(words) {
        match word {
            u32::MAX => {}
            0 => logits.fill(f32::NEG_INFINITY),
            word => {
                for (_, logit) in logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// Whether any logit can change at all.
pub(super) fn needed(params: &Params) -> bool {
    penalizes(params) || !params.logit_bias.is_empty()
}

fn penalizes(params: &Params) -> bool {
    let neutral = params.repeat_penalty == 1.0 && params.presence_penalty == 0.0 && params.frequency_penalty == 0.0;
    params.repeat_last_n != 0 && !neutral
}

/// Applies the penalties to every token of the window once, with its count.
fn penalize(params: &Params, history: &[u32], window: &mut Vec<u32>, row: &mut [f32]) {
    let length = usize::try_from(params.repeat_last_n).unwrap_or(history.len()).min(history.len());
    window.clear();
    window.extend_from_slice(&history[history.len() - length..]);
    window.sort_unstable();
    for run in window.chunk_by(|a, b| a == b) {
        // A history may hold ids that this model does not know (another model's, or a caller's own): they have no logit.
        let Some(logit) = row.get_mut(run[0] as usize) else {
            continue;
        };
        let scaled = if *logit > 0.0 { *logit / params.repeat_penalty } else { *logit * params.repeat_penalty };
        *logit = scaled - (run.len() as f32 * params.frequency_penalty + params.presence_penalty);
    }
}
