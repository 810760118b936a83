//! What test binaries print: counts, the names of failed tests and what these said. Pure.

/// Lines kept of what a failed test said.
const REPORT_LINES: usize = 40;

/// Results of tests, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

/// One failed test and the beginning of what it said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub name: String,
    pub lines: Vec<String>,
}

/// The output of one run of test binaries, read line by line.
#[derive(Default)]
pub struct Output {
    pub count: Count,
    pub failed: Vec<Report>,
    section: Section,
}

/// Where in a binary's output the reader is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Section {
    #[default]
    Elsewhere,
    /// Inside what the newest report's test said.
    Report,
    /// After `failures:`: names, or the first report.
    Names,
}

impl Output {
    /// A test binary prints `---- NAME stdout ----` (or `---- NAME ----`) and what the test said for each
    /// that failed, then `failures:` and the names.
    pub fn read(&mut self, line: &str) {
        if let Some(count) = Count::parse(line) {
            self.count.add(count);
            self.section = Section::Elsewhere;
        } else if line == "failures:" {
            self.section = Section::Names;
        } else if let Some(name) = heading(line) {
            self.report(name);
            self.section = Section::Report;
        } else if self.section == Section::Names {
            if let Some(name) = line.strip_prefix("    ").filter(|name| !name.is_empty()) {
                self.report(name);
            }
        }
        if self.section == Section::Report
            && let Some(report) = self.failed.last_mut()
            && report.lines.len() < REPORT_LINES
        {
            report.lines.push(line.to_owned());
        }
    }

    fn report(&mut self, name: &str) {
        if !self.failed.iter().any(|report| report.name == name) {
            self.failed.push(Report {
                name: name.to_owned(),
                lines: Vec::new(),
            });
        }
    }
}

fn heading(line: &str) -> Option<&str> {
    let name = line.strip_prefix("---- ")?.strip_suffix(" ----")?;
    Some(name.strip_suffix(" stdout").unwrap_or(name))
}

impl Count {
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// What has come since an earlier count.
    pub fn since(self, before: Self) -> Self {
        Self {
            passed: self.passed - before.passed,
            failed: self.failed - before.failed,
            skipped: self.skipped - before.skipped,
        }
    }

    /// Of `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
    fn parse(line: &str) -> Option<Self> {
        let rest = line.trim().strip_prefix("test result: ")?;
        let number = |what: &str| -> Option<usize> {
            rest.split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
        };
        Some(Self {
            passed: number("passed")?,
            failed: number("failed")?,
            skipped: number("ignored")?,
        })
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Output {
        let mut output = Output::default();
        text.lines().for_each(|line| output.read(line));
        output
    }

    #[test]
    fn the_counts_of_a_test_binary_are_read_from_its_last_line() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        let count = Count::parse(line).unwrap();
        assert_eq!(count.to_string(), "12 passed, 3 failed, 1 skipped");
        assert!(Count::parse("test a ... ok").is_none());
    }

    #[test]
    fn what_a_failed_test_said_is_kept_for_the_end() {
        let output = read(
            "test good ... ok\ntest bad ... FAILED\n\nfailures:\n\n---- bad stdout ----\n\
             thread 'bad' panicked at a.rs:1:2:\n\nfailures:\n    bad\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored\n",
        );
        assert_eq!(output.failed.len(), 1);
        assert_eq!(output.failed[0].name, "bad");
        let said = [
            "---- bad stdout ----",
            "thread 'bad' panicked at a.rs:1:2:",
            "",
        ];
        assert_eq!(output.failed[0].lines, said);
        assert_eq!((output.count.passed, output.count.failed), (1, 1));
    }

    #[test]
    fn a_failed_test_that_said_nothing_is_known_by_its_name() {
        let output = read(
            "failures:\n\n---- first ----\nwhy\n\nfailures:\n    first\n    second case\n\n\
             test result: FAILED. 0 passed; 2 failed; 0 ignored\n    no name\n",
        );
        let names: Vec<&str> = output.failed.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["first", "second case"]);
    }
}
