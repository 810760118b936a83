//! Damaged input for every parser that reads from the network: none may panic, and none may take memory out
//! of proportion to its input.
//!
//! ```text
//! seeds ─▶ mutate (bytes, dictionary, splices, deep nesting) ─▶ parser, measured ─▶ longer outputs become seeds
//! ```
//!
//! A crate of its own: the allocator that counts would slow down everything that is linked with it.

mod mutate;
mod parsers;
mod random;
mod seeds;

pub use parsers::{PARSERS, Parser};

use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use mutate::Mutator;
use nix::time::{ClockId, clock_gettime};
use random::Random;

/// What an input may take: so much for each of its bytes …
const BYTES_PER_BYTE: u64 = 400;
/// … and so much on top, for tables that the first call fills.
const BYTES_ANYWAY: u64 = 16 * 1024 * 1024;
/// One input may take that much of a core; a build without optimisation is slow.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Inputs that led somewhere new and are mutated on.
const MAX_SEEDS: usize = 2_000;

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    Inputs(u64),
    Elapsed(Duration),
}

/// An input that a parser does not bear, and why.
#[derive(Clone, Debug)]
pub struct Finding {
    pub input: Vec<u8>,
    pub why: String,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub inputs: u64,
    /// Those that the parser took.
    pub accepted: u64,
    /// The most memory that one input took, in bytes.
    pub most_bytes: u64,
    /// The most of a core that one input took.
    pub slowest: Duration,
}

/// Runs a parser on damaged inputs; `before` is told each input before it is parsed, since a stack that
/// overflows ends the process.
///
/// # Errors
/// The first input that the parser does not bear.
pub fn run(
    parser: &Parser,
    seed: u64,
    until: Until,
    mut before: impl FnMut(&[u8]),
) -> Result<Seen, Box<Finding>> {
    let mut mutator = Mutator::new(Random::new(seed), seeds::of(parser.form));
    let mut seen = Seen::default();
    let began = Instant::now();
    // Tables that are filled once are not the first input's fault.
    let _ = one(parser, &[]);
    for input in mutator
        .originals()
        .into_iter()
        .chain(seeds::hostile(parser.form))
    {
        before(&input);
        check(parser, &input, &mut seen)?;
    }
    loop {
        let over = match until {
            Until::Inputs(count) => seen.inputs >= count,
            Until::Elapsed(limit) => began.elapsed() >= limit,
        };
        if over {
            return Ok(seen);
        }
        let input = mutator.next();
        before(&input);
        let accepted = check(parser, &input, &mut seen)?;
        if accepted && mutator.len() < MAX_SEEDS {
            mutator.keep(input);
        }
    }
}

/// Parses one input and judges what it took; whether the parser took it.
fn check(parser: &Parser, input: &[u8], seen: &mut Seen) -> Result<bool, Box<Finding>> {
    let finding = |why| {
        Box::new(Finding {
            input: input.to_vec(),
            why,
        })
    };
    let (accepted, bytes, took) = one(parser, input).map_err(finding)?;
    seen.inputs += 1;
    seen.accepted += u64::from(accepted);
    seen.most_bytes = seen.most_bytes.max(bytes);
    seen.slowest = seen.slowest.max(took);
    let limit = BYTES_ANYWAY + BYTES_PER_BYTE * input.len() as u64;
    if bytes > limit {
        let length = input.len();
        return Err(finding(format!(
            "{bytes} bytes of memory for {length} of input"
        )));
    }
    if took > TIME_LIMIT {
        return Err(finding(format!("{:.1} s", took.as_secs_f64())));
    }
    Ok(accepted)
}

/// Whether the parser took the input, the memory at its height and the time of this thread: what a busy
/// machine adds is not the parser's.
fn one(parser: &Parser, input: &[u8]) -> Result<(bool, u64, Duration), String> {
    let began = thread_time();
    let mut accepted = false;
    let parse = || {
        allocation_counter::measure(|| {
            accepted = (parser.parse)(input);
        })
    };
    match panic::catch_unwind(AssertUnwindSafe(parse)) {
        Ok(memory) => {
            let took = thread_time().saturating_sub(began);
            Ok((accepted, memory.bytes_max, took))
        }
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("a panic: {}", text.unwrap_or_default()))
        }
    }
}

/// What this thread has had of the cores.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough to notice what any input breaks; `cargo xtask fuzz` goes on for minutes.
    const INPUTS: u64 = 400;

    #[test]
    fn no_parser_panics_or_takes_memory_out_of_proportion() {
        for parser in PARSERS {
            if let Err(found) = run(parser, 1, Until::Inputs(INPUTS), |_| {}) {
                let input = String::from_utf8_lossy(&found.input);
                let shown: String = input.chars().take(2_000).collect();
                panic!("{}: {} of {shown}", parser.name, found.why);
            }
        }
    }

    #[test]
    fn a_panic_and_a_flood_of_memory_are_found() {
        let parser = |parse| Parser {
            name: "test",
            form: seeds::Form::Selector,
            parse,
        };
        let panics = parser(|_| panic!("here"));
        let found = run(&panics, 1, Until::Inputs(1), |_| {}).unwrap_err();
        assert_eq!(found.why, "a panic: here");
        let floods = parser(|_| vec![1u8; 64 * 1024 * 1024].len() > 1);
        let found = run(&floods, 1, Until::Inputs(1), |_| {}).unwrap_err();
        assert!(found.why.contains("bytes of memory"), "{}", found.why);
    }

    #[test]
    fn the_seeds_of_a_parser_are_accepted_by_it() {
        for parser in PARSERS {
            let seeds = seeds::of(parser.form);
            let accepted = seeds.iter().filter(|seed| (parser.parse)(seed));
            assert!(accepted.count() > 0, "{} takes none", parser.name);
        }
    }
}
