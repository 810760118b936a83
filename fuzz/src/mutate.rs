//! New inputs from old ones.

use std::collections::BTreeSet;

use crate::random::Random;

/// An input is not longer than this; what is longer is refused before it is parsed.
const MAX_INPUT: usize = 64 * 1024;
/// Words that are kept from the seeds.
const MAX_WORDS: usize = 2_000;
/// Text that parsers treat in a way of their own.
const SPECIAL: &[&str] = &[
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "-0",
    "1e400",
    "9223372036854775808",
    "0.1",
    "1Ei",
    "\\u0000",
    "\\ud800",
    "&a",
    "*a",
    "<<: *a",
    "!!binary ",
    "---\n",
    "? ",
    "|\n",
    "~1",
    "~0",
    "/-",
    "$patch",
    "$retainKeys",
    "$deleteFromPrimitiveList/",
    "$setElementOrder/",
    "k:{\"name\":\"a\"}",
    "v:1",
    "i:0",
    ".",
    "f:",
    "in (",
    ")",
    "!",
    "==",
    "!=",
    "notin",
    ",",
    "\u{feff}",
    "é",
    "\0",
    "(?i)",
    "[[:alpha:]]",
    "{1,1000}",
    "(((((",
    "*+",
    "\\pL",
    "k8s\0",
    "\u{7f}\u{80}",
];
/// Pairs that nest.
const NESTS: &[(&str, &str)] = &[
    ("[", "]"),
    ("{\"a\":", "}"),
    ("- ", ""),
    ("(", ")"),
    ("\n a:", ""),
];
/// How deep.
const DEPTHS: &[usize] = &[3, 70, 130, 1_000, 20_000];

pub struct Mutator {
    random: Random,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Mutator {
    pub fn new(random: Random, seeds: Vec<Vec<u8>>) -> Self {
        let text = seeds.iter().map(|seed| String::from_utf8_lossy(seed));
        let mut words = BTreeSet::new();
        for seed in text {
            let split = seed.split(|c: char| !c.is_alphanumeric() && c != '.' && c != '/');
            words.extend(
                split
                    .filter(|word| word.len() > 1)
                    .map(|word| word.as_bytes().to_vec()),
            );
        }
        let words = words.into_iter().take(MAX_WORDS);
        let special = SPECIAL.iter().map(|word| word.as_bytes().to_vec());
        Self {
            random,
            words: words.chain(special).collect(),
            seeds,
        }
    }

    pub fn originals(&self) -> Vec<Vec<u8>> {
        self.seeds.clone()
    }

    pub fn len(&self) -> usize {
        self.seeds.len()
    }

    /// An input that led somewhere is changed further.
    pub fn keep(&mut self, input: Vec<u8>) {
        self.seeds.push(input);
    }

    pub fn next(&mut self) -> Vec<u8> {
        let mut input = self.random.pick(&self.seeds).clone();
        for _ in 0..=self.random.below(4) {
            self.change(&mut input);
        }
        input.truncate(MAX_INPUT);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.below(input.len() + 1);
        let end = (at + self.random.below(32)).min(input.len());
        match self.random.below(9) {
            0 if !input.is_empty() => {
                let at = at.min(input.len() - 1);
                input[at] ^= 1 << self.random.below(8);
            }
            1 => insert(input, at, &[self.random.next() as u8]),
            2 => drop(input.drain(at..end)),
            3 => {
                let word = self.random.pick(&self.words).clone();
                insert(input, at, &word);
            }
            4 => {
                let word = self.random.pick(&self.words).clone();
                input.splice(at..end, word);
            }
            5 => {
                let part = input[at..end].to_vec();
                let times = 1 + self.random.below(200);
                insert(input, at, &part.repeat(times));
            }
            6 => {
                let other = self.random.pick(&self.seeds).clone();
                let from = self.random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            7 => self.nest(input, at, end),
            _ => self.value(input, at),
        }
    }

    /// Puts a part into many brackets.
    fn nest(&mut self, input: &mut Vec<u8>, at: usize, end: usize) {
        let ((open, close), depth) = (*self.random.pick(NESTS), *self.random.pick(DEPTHS));
        let depth = depth.min(MAX_INPUT / open.len());
        let mut nested = open.repeat(depth).into_bytes();
        nested.extend_from_slice(&input[at..end]);
        nested.extend_from_slice(close.repeat(depth).as_bytes());
        input.splice(at..end, nested);
    }

    /// Replaces what stands between a colon or comma and the next by another value of a seed.
    fn value(&mut self, input: &mut Vec<u8>, at: usize) {
        let is_border = |byte: &u8| matches!(byte, b':' | b',' | b'=' | b'\n');
        let Some(start) = input[at..].iter().position(is_border) else {
            return;
        };
        let start = at + start + 1;
        let end = input[start..].iter().position(is_border);
        let end = end.map_or(input.len(), |end| start + end);
        let other = self.random.pick(&self.seeds).clone();
        let from = self.random.below(other.len() + 1);
        let part = other[from..].split(is_border).nth(1).unwrap_or_default();
        input.splice(start..end, part.iter().copied());
    }
}

fn insert(input: &mut Vec<u8>, at: usize, part: &[u8]) {
    if input.len() + part.len() <= MAX_INPUT {
        input.splice(at..at, part.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_the_same_inputs_each_time_and_none_is_too_long() {
        let run = || {
            let mut mutator = Mutator::new(Random::new(7), vec![b"{\"a\":1}".to_vec()]);
            (0..2_000).map(|_| mutator.next()).collect::<Vec<_>>()
        };
        let inputs = run();
        assert_eq!(inputs, run());
        assert!(inputs.iter().all(|input| input.len() <= MAX_INPUT));
        assert!(inputs.iter().any(|input| input.len() > 10_000));
    }
}
