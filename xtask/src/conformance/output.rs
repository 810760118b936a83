//! What ginkgo prints about a test that has ended. Pure.
//!
//! With `-succinct` and a threshold that calls every test slow, a test is a block:
//!
//! ```text
//! • [SLOW TEST:6.512 seconds]                 or  • Failure in Spec Setup (BeforeEach) [3.1 seconds]
//! [sig-x] Thing [It] should work                  the block that failed is marked in the name
//! /path/thing.go:12
//!
//!   why, over some lines
//!
//!   /path/thing.go:40
//! ------------------------------
//! ```

/// Bytes of a reason that are shown.
const REASON_BYTES: usize = 300;
const END: &str = "------------------------------";
/// How ginkgo marks the part of a name that failed.
const MARKS: &[&str] = &[
    "[It] ",
    "[BeforeEach] ",
    "[JustBeforeEach] ",
    "[AfterEach] ",
    "[Measurement] ",
    "[BeforeSuite] ",
    "[AfterSuite] ",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// One test that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub name: String,
    pub verdict: Verdict,
    pub seconds: f64,
    /// Why it failed or was skipped, on one line.
    pub reason: String,
}

/// Reads ginkgo's output line by line.
#[derive(Default)]
pub struct Reader {
    block: Option<Block>,
}

struct Block {
    outcome: Outcome,
    /// The code location after the name was seen.
    located: bool,
    /// The reason is complete.
    explained: bool,
}

impl Reader {
    /// The test that ends with this line.
    pub fn read(&mut self, line: &str) -> Option<Outcome> {
        if let Some((verdict, seconds)) = heading(line) {
            self.block = Some(Block {
                outcome: Outcome {
                    name: String::new(),
                    verdict,
                    seconds,
                    reason: String::new(),
                },
                located: false,
                explained: false,
            });
            return None;
        }
        if line.starts_with(END) {
            let ended = self.block.take()?.outcome;
            return (!ended.name.is_empty()).then_some(ended);
        }
        self.block.as_mut()?.read(line);
        None
    }
}

impl Block {
    fn read(&mut self, line: &str) {
        let text = line.trim();
        if self.outcome.name.is_empty() {
            self.outcome.name = MARKS
                .iter()
                .fold(line.to_owned(), |name, mark| name.replacen(mark, "", 1))
                .trim_end()
                .to_owned();
        } else if !self.located {
            self.located = true;
        } else if is_location(text) {
            self.explained = true;
        } else if !self.explained && !text.is_empty() {
            let reason = &mut self.outcome.reason;
            if !reason.is_empty() {
                reason.push(' ');
            }
            reason.push_str(text);
            let end = (0..=REASON_BYTES.min(reason.len()))
                .rev()
                .find(|at| reason.is_char_boundary(*at));
            reason.truncate(end.unwrap_or(0));
        }
    }
}

impl Outcome {
    /// A test that should have run and did not: its process died, or the run was cut short.
    pub fn without_result(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            verdict: Verdict::Failed,
            seconds: 0.0,
            reason: "it has no result".into(),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s {}", self.seconds, self.name)?;
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}

/// The first line of a block: `• [SLOW TEST:`, `• Failure`, `•! Panic`, `•... Timeout`, `S [SKIPPING]`.
fn heading(line: &str) -> Option<(Verdict, f64)> {
    // What was printed without an end of line before it stands in front.
    let at = [
        "• [SLOW TEST:",
        "• Failure",
        "•! Panic",
        "•... Timeout",
        "S [SKIPPING]",
    ]
    .iter()
    .find_map(|start| line.find(start))?;
    let line = &line[at..];
    let number = line.strip_suffix(" seconds]")?;
    let number = number.rsplit(['[', ':']).next()?;
    let verdict = match line {
        _ if line.starts_with("• [SLOW") => Verdict::Passed,
        _ if line.starts_with('S') => Verdict::Skipped,
        _ => Verdict::Failed,
    };
    Some((verdict, number.parse().ok()?))
}

fn is_location(text: &str) -> bool {
    text.starts_with('/')
        && text
            .rsplit_once(".go:")
            .is_some_and(|(_, line)| line.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The name in a progress report of the suite, `{"msg":"PASSED NAME", …}`, which may stand after dots.
pub fn passed(line: &str) -> Option<String> {
    let report = &line[line.find("{\"msg\":")?..];
    let report: serde_json::Value = serde_json::from_str(report).ok()?;
    let name = report["msg"].as_str()?.strip_prefix("PASSED ")?;
    Some(name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Outcome> {
        let mut reader = Reader::default();
        text.lines().filter_map(|line| reader.read(line)).collect()
    }

    #[test]
    fn each_block_of_ginkgo_is_one_outcome() {
        let found = read(
            "SSS\n------------------------------\nSTEP: making a pod\n\
             • [SLOW TEST:6.512 seconds]\n[sig-a] Pods should  run [Conformance] \n/go/a.go:12\n\
             ------------------------------\n\
             • Failure in Spec Setup (BeforeEach) [3.100 seconds]\n\
             [BeforeEach] [sig-b] Jobs should end \n/go/b.go:3\n\n  Unexpected error:\n      timed out\n\n\
             \u{20} /go/b.go:40\n  Full Stack Trace\n------------------------------\n\
             S [SKIPPING] in Spec Setup (BeforeEach) [0.001 seconds]\n[sig-c] [It] needs IPVS \n/go/c.go:1\n\n\
             \u{20} not here\n\n  /go/c.go:2\n------------------------------\n",
        );
        let rows: Vec<_> = found
            .iter()
            .map(|it| (it.name.as_str(), it.verdict, it.reason.as_str()))
            .collect();
        let expected = [
            (
                "[sig-a] Pods should  run [Conformance]",
                Verdict::Passed,
                "",
            ),
            (
                "[sig-b] Jobs should end",
                Verdict::Failed,
                "Unexpected error: timed out",
            ),
            ("[sig-c] needs IPVS", Verdict::Skipped, "not here"),
        ];
        assert_eq!(rows, expected);
        assert_eq!(found[0].seconds, 6.512);
    }

    #[test]
    fn a_dry_run_names_its_tests_in_progress_reports() {
        let line =
            r#"SSS•{"msg":"PASSED [sig-a] Pods should  run [Conformance]","total":5,"failed":0}"#;
        assert_eq!(
            passed(line).unwrap(),
            "[sig-a] Pods should  run [Conformance]"
        );
        assert_eq!(passed(r#"{"msg":"Test Suite starting","total":5}"#), None);
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let text = format!(
            "• Failure [1.000 seconds]\nname\n/a.go:1\n\n  {}\n\n  /a.go:2\n{END}\n",
            "é".repeat(400)
        );
        assert_eq!(read(&text)[0].reason, "é".repeat(150));
    }
}
