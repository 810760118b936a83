//! How long a file, a function and a line may be.

use super::source::Source;

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 70;

/// Pure tables may be longer than the file limit: a row a resource, a line a default.
const TABLES: &[&str] = &["orchestrator/api/src/scheme.rs"];

pub fn check(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = source.text.lines().count();
    let table = TABLES.iter().any(|table| source.path.ends_with(table));
    if lines > FILE_LINES && !table {
        findings.push(source.finding(1, format!("{lines} lines; a file has at most {FILE_LINES}")));
    }
    for function in source
        .facts
        .functions
        .iter()
        .filter(|f| f.lines > FUNCTION_LINES)
    {
        let what = format!(
            "`{}` has {} lines; a function has at most {FUNCTION_LINES}",
            function.name, function.lines
        );
        findings.push(source.finding(function.at.line, what));
    }
    if !source.test && !source.text.starts_with("//!") && !source.text.starts_with("#!") {
        findings.push(source.finding(1, "a file begins with what it owns and must not do (`//!`)"));
    }
    findings
}
