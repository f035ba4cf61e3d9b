//! Lists and ranges of numbers as llama-bench takes them, and the product of all settings.

use engine::{GpuLayers, Isa, KvType, Precision, Variant};
use std::str::FromStr;

/// Numbers of an option: `512`, `1,2,4`, `128-512+128`, `1-16*2`, or several of these with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers(pub Vec<usize>);

/// A range is not allowed to give more numbers than this.
const MOST: usize = 1000;
/// Nor a number to be larger than this.
const LARGEST: usize = 1 << 24;

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Numbers, String> {
        let parts: Vec<Vec<usize>> = text.split(',').map(range).collect::<Result<_, _>>()?;
        let numbers = parts.concat();
        if numbers.len() > MOST {
            return Err(format!("{} numbers, expected at most {MOST}", numbers.len()));
        }
        Ok(Numbers(numbers))
    }
}

/// A number, or `first-last`, `first-last+step` or `first-last*factor`.
fn range(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || {
        format!("\"{text}\" is no number and no range: expected N, FIRST-LAST, FIRST-LAST+STEP or FIRST-LAST*FACTOR")
    };
    let number = |t: &str| t.trim().parse::<usize>().ok().filter(|&n| n <= LARGEST).ok_or_else(wrong);
    let Some((first, rest)) = text.split_once('-') else { return Ok(vec![number(text)?]) };
    let first = number(first)?;
    let (last, next): (usize, Box<dyn Fn(usize) -> usize>) = match (rest.split_once('+'), rest.split_once('*')) {
        (Some((last, step)), _) => {
            let step = number(step)?;
            (number(last)?, Box::new(move |n| n + step))
        }
        (_, Some((last, factor))) => {
            let factor = number(factor)?;
            (number(last)?, Box::new(move |n| n.saturating_mul(factor)))
        }
        _ => (number(rest)?, Box::new(|n| n + 1)),
    };
    let mut numbers = vec![];
    let mut n = first;
    while n <= last {
        numbers.push(n);
        if next(n) <= n || numbers.len() > MOST {
            return Err(format!("the range \"{text}\" does not end within {MOST} numbers"));
        }
        n = next(n);
    }
    match numbers.is_empty() {
        true => Err(format!("the range \"{text}\" is empty: its last number is below its first")),
        false => Ok(numbers),
    }
}

/// A prompt and what is generated after it: `512,128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub usize, pub usize);

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Pair, String> {
        match text.split(',').map(|t| t.trim().parse()).collect::<Result<Vec<usize>, _>>().as_deref() {
            Ok(&[p, n]) if p <= LARGEST && n <= LARGEST => Ok(Pair(p, n)),
            _ => Err(format!("\"{text}\" is no pair: expected PROMPT,GENERATED, as in 512,128")),
        }
    }
}

/// Values of an option with commas between, of a type with names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names<T>(pub Vec<T>);

impl FromStr for Names<Precision> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Precision::ALL.map(Precision::name).join(", ");
        let one = |t: &str| Precision::ALL.into_iter().find(|p| p.name() == t);
        text.split(',').map(one).collect::<Option<_>>().map(Names).ok_or_else(|| format!("expected {}", known()))
    }
}

impl FromStr for Names<KvType> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(crate::cli::kv_type).collect::<Result<_, _>>().map(Names)
    }
}

impl FromStr for Names<GpuLayers> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Names)
    }
}

impl FromStr for Names<Isa> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(|t| t.parse::<Isa>().map_err(|e| e.to_string())).collect::<Result<_, _>>().map(Names)
    }
}

/// What a model is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Which of the models.
    pub model: usize,
    /// Tokens of a prompt that a caller hands over at once.
    pub batch: usize,
    /// Of them, tokens that are computed in one step at most.
    pub ubatch: usize,
    /// Worker threads.
    pub threads: usize,
    /// Element type of the KV cache.
    pub kv: KvType,
    /// Precision of activations.
    pub precision: Precision,
    /// Instruction set.
    pub isa: Isa,
    /// Number of the adapter that it runs on; none for the processor.
    pub gpu: Option<usize>,
    /// How many layers run there.
    pub layers: GpuLayers,
    /// Precision of activations there.
    pub gpu_precision: Precision,
    /// Kernels of the GPU; none takes its best.
    pub variant: Option<Variant>,
}

impl Setting {
    /// Tokens that are computed in one step.
    pub fn chunk(&self) -> usize {
        self.batch.min(self.ubatch)
    }
}

/// What is timed: a prompt, a number of generated tokens, or both, after tokens that are in the cache already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens generated.
    pub generated: usize,
    /// Tokens in the cache before.
    pub depth: usize,
}

impl Test {
    /// Its name: `pp512`, `tg128`, `pp512+tg128`, each with ` @ d4096` at a depth.
    pub fn name(&self) -> String {
        let test = match (self.prompt, self.generated) {
            (p, 0) => format!("pp{p}"),
            (0, n) => format!("tg{n}"),
            (p, n) => format!("pp{p}+tg{n}"),
        };
        if self.depth > 0 { format!("{test} @ d{}", self.depth) } else { test }
    }

    /// Tokens that count for the speed.
    pub fn tokens(&self) -> usize {
        self.prompt + self.generated
    }

    /// Positions that it needs.
    pub fn positions(&self) -> usize {
        self.depth + self.tokens()
    }
}

/// All tests of all prompts, generations and pairs at all depths; zeros drop out.
pub fn tests(prompts: &[usize], generations: &[usize], pairs: &[Pair], depths: &[usize]) -> Vec<Test> {
    let mut tests = vec![];
    for &depth in depths {
        let prompts = prompts.iter().map(|&p| Pair(p, 0));
        let generations = generations.iter().map(|&n| Pair(0, n));
        for Pair(prompt, generated) in prompts.chain(generations).chain(pairs.iter().copied()) {
            let test = Test { prompt, generated, depth };
            if test.tokens() > 0 && !tests.contains(&test) {
                tests.push(test);
            }
        }
    }
    tests
}

#[cfg(test)]
mod tests_of_values {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        let cases: [(&str, &[usize]); 9] = [
            ("512", &[512]),
            ("0", &[0]),
            ("1,2,4", &[1, 2, 4]),
            ("3-6", &[3, 4, 5, 6]),
            ("128-512+128", &[128, 256, 384, 512]),
            ("128-500+128", &[128, 256, 384]),
            ("1-16*2", &[1, 2, 4, 8, 16]),
            ("1-9*3,7", &[1, 3, 9, 7]),
            ("5-5", &[5]),
        ];
        for (text, numbers) in cases {
            assert_eq!(text.parse(), Ok(Numbers(numbers.to_vec())), "{text}");
        }
        for text in
            ["", "a", "1,", "-1", "5-4", "1-5+0", "1-5*1", "0-5*2", "1-2-3", "1-9*2+1", "1-100000", "99999999999"]
        {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
    }

    #[test]
    fn pairs() {
        assert_eq!("512,128".parse(), Ok(Pair(512, 128)));
        for text in ["512", "1,2,3", "a,b", ""] {
            assert!(text.parse::<Pair>().is_err(), "{text}");
        }
    }

    #[test]
    fn names() {
        assert_eq!("f32,q8".parse(), Ok(Names(vec![Precision::F32, Precision::Q8])));
        assert!("q9".parse::<Names<Precision>>().is_err());
        assert!("f16,f32".parse::<Names<KvType>>().is_ok() && "f8".parse::<Names<KvType>>().is_err());
        assert_eq!("scalar".parse(), Ok(Names(vec![Isa::Scalar])));
        assert_eq!("3,-1".parse(), Ok(Names(vec![GpuLayers::Count(3), GpuLayers::Fitting])));
        assert!("3,many".parse::<Names<GpuLayers>>().is_err());
    }

    #[test]
    fn tests_are_the_product_without_repeats() {
        let names = |p: &[usize], n: &[usize], pg: &[Pair], d: &[usize]| -> Vec<String> {
            tests(p, n, pg, d).iter().map(Test::name).collect()
        };
        assert_eq!(names(&[512], &[128], &[], &[0]), ["pp512", "tg128"]);
        assert_eq!(
            names(&[0], &[16, 16], &[Pair(8, 4)], &[0, 4096]),
            ["tg16", "pp8+tg4", "tg16 @ d4096", "pp8+tg4 @ d4096"]
        );
        assert_eq!(names(&[0], &[0], &[Pair(0, 0)], &[0]), [] as [&str; 0]);
    }
}
