//! The page of the repository that says which parser ran how long, on which commit, and what was seen.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use fuzz::Seen;
use jiff::Timestamp;

/// Where the page is, from the root of the repository.
pub const PAGE: &str = "fuzz/RUNS.md";

const HEAD: &str = "\
# Runs of `cargo xtask fuzz`

The last run of each parser, written by the command itself. A shorter run does not replace a longer one that found
nothing. Memory and time of a core are those of the worst input; a build with debug assertions and overflow checks.

| parser | inputs | seconds | taken | most memory | slowest input | date | commit | found |
|---|---|---|---|---|---|---|---|---|
";

/// The commit that is checked out; a `+` behind it says that files differ from it.
pub struct Commit(String);

impl Commit {
    /// Of the working directory. `unknown` without git.
    pub fn of_worktree() -> Self {
        let git = |arguments: &[&str]| -> Option<String> {
            let output = Command::new("git").args(arguments).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            output.status.success().then(|| text.trim().to_owned())
        };
        let Some(head) = git(&["rev-parse", "--short=10", "HEAD"]) else {
            return Self("unknown".to_owned());
        };
        let changed = git(&[
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            "orchestrator",
        ]);
        let changed = changed.is_some_and(|files| !files.is_empty());
        Self(head + if changed { "+" } else { "" })
    }
}

/// One run of a parser.
pub struct Row<'a> {
    pub parser: &'a str,
    pub inputs: u64,
    pub seconds: u64,
    /// None: the run ended with what it found.
    pub seen: Option<&'a Seen>,
    /// Why an input was not borne.
    pub found: Option<&'a str>,
    pub at: Timestamp,
    pub commit: &'a Commit,
}

impl Row<'_> {
    fn line(&self) -> String {
        let (taken, memory, slowest) = match self.seen {
            Some(seen) => (
                format!(
                    "{:.1} %",
                    seen.accepted as f64 * 100.0 / seen.inputs.max(1) as f64
                ),
                format!("{:.1} MiB", seen.most_bytes as f64 / 1024.0 / 1024.0),
                format!("{:.2} s", seen.slowest.as_secs_f64()),
            ),
            None => Default::default(),
        };
        // A message of a panic may hold anything.
        let found = self
            .found
            .unwrap_or("nothing")
            .replace(['|', '\n', '`'], " ");
        let found: String = found.chars().take(100).collect();
        let (parser, inputs, seconds) = (self.parser, self.inputs, self.seconds);
        let (date, commit) = (self.at.strftime("%Y-%m-%d"), &self.commit.0);
        format!(
            "| {parser} | {inputs} | {seconds} | {taken} | {memory} | {slowest} | {date} | {commit} | {found} |"
        )
    }
}

/// Writes a run to the page, in the place of the parser's former one. Several processes may.
///
/// # Errors
/// The page cannot be read or written.
pub fn note(page: &Path, row: &Row) -> Result<()> {
    let mut file = File::options();
    let mut file = file
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(page)
        .with_context(|| format!("cannot open {}", page.display()))?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(with(&text, row).as_bytes())?;
    Ok(())
}

/// The page with this run.
fn with(page: &str, row: &Row) -> String {
    let mut rows: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| parser |"))
        .map(str::to_owned)
        .collect();
    let same = rows.iter().position(|line| cell(line, 0) == row.parser);
    match same {
        Some(at) if !is_longer(&rows[at], row) => rows[at] = row.line(),
        Some(_) => {}
        None => rows.push(row.line()),
    }
    rows.sort();
    HEAD.to_owned() + &rows.join("\n") + "\n"
}

/// Whether the former run is the better one: longer, and without a finding, as this one is.
fn is_longer(former: &str, row: &Row) -> bool {
    let seconds: u64 = cell(former, 2).parse().unwrap_or_default();
    row.found.is_none() && cell(former, 8) == "nothing" && seconds > row.seconds
}

fn cell(line: &str, column: usize) -> &str {
    line.split('|').nth(column + 1).unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_run_replaces_a_shorter_one_and_a_finding_is_always_told() {
        let commit = Commit("0123456789".to_owned());
        let seen = Seen {
            inputs: 4,
            accepted: 1,
            most_bytes: 1024 * 1024,
            ..Seen::default()
        };
        let row = |parser, seconds, found| Row {
            parser,
            inputs: 4,
            seconds,
            seen: Some(&seen),
            found,
            at: Timestamp::UNIX_EPOCH,
            commit: &commit,
        };
        let page = with("", &row("yaml", 600, None));
        assert!(page.ends_with(
            "| yaml | 4 | 600 | 25.0 % | 1.0 MiB | 0.00 s | 1970-01-01 | 0123456789 | nothing |\n"
        ));
        let page = with(&page, &row("json", 600, None));
        assert_eq!(with(&page, &row("yaml", 8, None)), page);
        let page = with(&page, &row("yaml", 8, Some("a panic: a | b")));
        let rows: Vec<&str> = page.lines().filter(|line| line.contains("0123")).collect();
        assert!(rows[0].starts_with("| json | 4 | 600") && rows.len() == 2);
        assert!(rows[1].ends_with("a panic: a   b |"), "{page}");
        assert!(with(&page, &row("yaml", 9, None)).contains("| yaml | 4 | 9 |"));
    }
}
