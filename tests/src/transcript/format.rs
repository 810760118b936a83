//! Reads and writes transcripts. Pure.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

/// What a command printed, by minor version of kubectl, in the versions' order.
pub type Answers = Vec<(u32, String)>;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Remarks at the top.
    head: String,
    pub steps: Vec<Step>,
    /// Name and content.
    pub files: Vec<(String, String)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    remarks: String,
    /// The oldest minor version that runs it.
    since: Option<u32>,
    pub command: String,
    /// Versions (none: all that are in no other block) and the text.
    expected: Vec<(Vec<u32>, String)>,
}

impl Step {
    pub fn is_for(&self, version: u32) -> bool {
        self.since.is_none_or(|since| version >= since)
    }

    /// What this version is expected to print.
    pub fn expected(&self, version: u32) -> &str {
        let own = self.expected.iter().find(|(of, _)| of.contains(&version));
        let all = || self.expected.iter().find(|(of, _)| of.is_empty());
        own.or_else(all).map_or("", |(_, text)| text)
    }

    /// Expects from now on what was answered; versions that answered the same share a block.
    pub fn expect(&mut self, answers: &Answers) {
        self.expected.clear();
        for (version, text) in answers {
            match self.expected.iter_mut().find(|(_, known)| known == text) {
                Some((versions, _)) => versions.push(*version),
                None => self.expected.push((vec![*version], text.clone())),
            }
        }
        if let [(versions, _)] = &mut self.expected[..] {
            versions.clear();
        }
    }
}

impl Transcript {
    pub fn read(text: &str) -> Result<Self> {
        let mut read = Self::default();
        let mut remarks = String::new();
        for (index, line) in text.lines().enumerate() {
            let place = || format!("line {}: {line}", index + 1);
            if let Some(name) = file_name(line) {
                read.files.push((name.to_owned(), String::new()));
            } else if let Some((_, content)) = read.files.last_mut() {
                content.push_str(line);
                content.push('\n');
            } else if line.starts_with("## ") {
                remarks.push_str(line);
                remarks.push('\n');
            } else if let Some((since, command)) = command(line).with_context(place)? {
                read.steps.push(Step {
                    remarks: std::mem::take(&mut remarks),
                    since,
                    command: command.to_owned(),
                    expected: Vec::new(),
                });
            } else if let Some(step) = read.steps.last_mut() {
                step.read(line).with_context(place)?;
            } else {
                read.head.push_str(&std::mem::take(&mut remarks));
                if !line.is_empty() {
                    bail!("line {} is before the first command: {line}", index + 1);
                }
            }
        }
        for step in &mut read.steps {
            for (_, text) in &mut step.expected {
                text.truncate(text.trim_end_matches('\n').len());
            }
        }
        Ok(read)
    }

    pub fn write(&self) -> String {
        let mut text = self.head.clone();
        for step in &self.steps {
            if !text.is_empty() {
                text.push('\n');
            }
            step.write(&mut text);
        }
        for (name, content) in &self.files {
            let _ = write!(text, "\n-- {name} --\n{}\n", content.trim_end());
        }
        text
    }
}

impl Step {
    /// A line of what is expected.
    fn read(&mut self, line: &str) -> Result<()> {
        if let Some(versions) = line.strip_prefix("@ ") {
            let versions = versions.split(' ').map(minor).collect::<Result<_>>()?;
            self.expected.push((versions, String::new()));
            return Ok(());
        }
        if self.expected.is_empty() {
            self.expected.push((Vec::new(), String::new()));
        }
        if let Some((_, text)) = self.expected.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
        Ok(())
    }

    fn write(&self, to: &mut String) {
        let since = self.since.map(|minor| format!("1.{minor}+"));
        let since = since.unwrap_or_default();
        let _ = writeln!(to, "{}${since} {}", self.remarks, self.command);
        for (versions, text) in &self.expected {
            if !versions.is_empty() {
                let versions = versions.iter().map(|minor| format!(" 1.{minor}"));
                let _ = writeln!(to, "@{}", versions.collect::<String>());
            }
            if !text.is_empty() {
                let _ = writeln!(to, "{text}");
            }
        }
    }
}

fn file_name(line: &str) -> Option<&str> {
    line.strip_prefix("-- ")?.strip_suffix(" --")
}

/// `$ COMMAND` or `$1.N+ COMMAND`.
fn command(line: &str) -> Result<Option<(Option<u32>, &str)>> {
    let Some(rest) = line.strip_prefix('$') else {
        return Ok(None);
    };
    let (since, command) = rest.split_once(' ').context("a blank follows the $")?;
    let since = match since {
        "" => None,
        since => Some(minor(since.strip_suffix('+').context("no +")?)?),
    };
    Ok(Some((since, command)))
}

fn minor(version: &str) -> Result<u32> {
    let minor = version.strip_prefix("1.").context("no version 1.N")?;
    Ok(minor.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "## About.\n\n$ kubectl get pods\nNAME\n\nweb\n\n## Why.\n$1.27+ kubectl \
                        events\n@ 1.27\nold\n@ 1.30 1.33\nnew\n\n$ true\n\n-- a.yaml --\na: 1\n";

    #[test]
    fn what_is_read_is_written_the_same() {
        assert_eq!(Transcript::read(TEXT).unwrap().write(), TEXT);
    }

    #[test]
    fn each_version_has_its_expectation() {
        let read = Transcript::read(TEXT).unwrap();
        assert_eq!(read.steps[0].expected(20), "NAME\n\nweb");
        assert_eq!(read.steps[1].expected(33), "new");
        assert_eq!(read.steps[1].expected(20), "");
        assert!(!read.steps[1].is_for(20) && read.steps[1].is_for(27));
        assert_eq!(read.steps[2].expected(20), "");
    }

    #[test]
    fn versions_that_answer_the_same_share_a_block() {
        let mut step = Step::default();
        step.expect(&vec![(20, "a".into()), (27, "b".into()), (30, "a".into())]);
        assert_eq!(step.expected(30), "a");
        assert_eq!(step.expected.len(), 2);
        step.expect(&vec![(20, "c".into()), (27, "c".into())]);
        assert_eq!(step.expected(33), "c");
    }
}
