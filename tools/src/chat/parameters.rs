//! The parameters that `/set parameter` changes and `/show parameters` prints, by the names that Ollama's options have.

use std::str::FromStr;

use crate::cli::Generation;
use crate::error::{Error, Result};

/// The names, for messages.
const NAMES: &str = "temperature, top_k, top_p, min_p, typical_p, repeat_penalty, presence_penalty, frequency_penalty, \
                     repeat_last_n, seed, num_predict and stop";

/// Changes one parameter. Nothing changes where the value is refused.
///
/// # Errors
/// An unknown name, a value that is no number, or one out of range.
pub fn set(generation: &mut Generation, name: &str, value: &str) -> Result<()> {
    let mut new = generation.clone();
    let p = &mut new.sampling;
    match name {
        "temperature" => p.temperature = number(name, value)?,
        "top_k" => p.top_k = number(name, value)?,
        "top_p" => p.top_p = number(name, value)?,
        "min_p" => p.min_p = number(name, value)?,
        "typical_p" => p.typical_p = number(name, value)?,
        "repeat_penalty" => p.repeat_penalty = number(name, value)?,
        "presence_penalty" => p.presence_penalty = number(name, value)?,
        "frequency_penalty" => p.frequency_penalty = number(name, value)?,
        "repeat_last_n" => p.repeat_last_n = number(name, value)?,
        // Negative values mean "another one each time" and "no limit", as in Ollama.
        "seed" => p.seed = u64::try_from(number::<i64>(name, value)?).ok(),
        "num_predict" => new.max_tokens = usize::try_from(number::<i64>(name, value)?).ok(),
        "stop" => new.stop = value.split_whitespace().map(String::from).collect(),
        "num_ctx" => {
            return Err(Error::Usage("the context is fixed while the model is loaded; leave and give --ctx".into()));
        }
        _ => return Err(Error::Usage(format!("unknown parameter {name}; known are {NAMES}"))),
    }
    new.sampling.validate().map_err(engine::Error::from)?;
    *generation = new;
    Ok(())
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::Usage(format!("{name} is \"{value}\", which is no number of its kind")))
}

/// All parameters, a line each.
pub fn lines(generation: &Generation) -> String {
    let p = &generation.sampling;
    let mut lines = vec![
        format!("temperature        {}", p.temperature),
        format!("top_k              {}", p.top_k),
        format!("top_p              {}", p.top_p),
        format!("min_p              {}", p.min_p),
        format!("typical_p          {}", p.typical_p),
        format!("repeat_penalty     {}", p.repeat_penalty),
        format!("presence_penalty   {}", p.presence_penalty),
        format!("frequency_penalty  {}", p.frequency_penalty),
        format!("repeat_last_n      {}", p.repeat_last_n),
        format!("seed               {}", p.seed.map_or("-1".into(), |s| s.to_string())),
        format!("num_predict        {}", generation.max_tokens.map_or("-1".into(), |n| n.to_string())),
    ];
    lines.extend(generation.stop.iter().map(|s| format!("stop               {s:?}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::sampler::Params;

    #[test]
    fn every_printed_parameter_can_be_set_to_what_is_printed() {
        let first = Generation { sampling: Params::ollama(), max_tokens: None, stop: vec!["x".into()] };
        let mut second = first.clone();
        second.stop.clear();
        for line in lines(&first).lines() {
            let (name, value) = line.split_once(' ').unwrap();
            set(&mut second, name, value.trim().trim_matches('"')).unwrap();
        }
        assert_eq!(second, first);
    }

    #[test]
    fn refused_values_change_nothing() {
        let first = Generation { sampling: Params::ollama(), max_tokens: Some(3), stop: vec![] };
        let mut g = first.clone();
        let refused = [
            ("top_p", "2"),
            ("top_k", "-1"),
            ("temperature", "NaN"),
            ("temperature", "hot"),
            ("num_ctx", "64"),
            ("x", "1"),
            ("seed", "1.5"),
        ];
        for (name, value) in refused {
            assert!(set(&mut g, name, value).is_err(), "{name} {value}");
        }
        assert_eq!(g, first);
        set(&mut g, "seed", "7").unwrap();
        set(&mut g, "num_predict", "-1").unwrap();
        set(&mut g, "stop", "a b").unwrap();
        assert_eq!((g.sampling.seed, g.max_tokens, g.stop.len()), (Some(7), None, 2));
    }
}
