//! Names that say nothing, and marks of work that is not done.

use super::source::{Mark, Source};

/// A file is named after what is in it.
const FILE_NAMES: &[&str] = &[
    "utils.rs",
    "util.rs",
    "helpers.rs",
    "helper.rs",
    "common.rs",
    "types.rs",
    "manager.rs",
    "misc.rs",
];

pub fn check(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let name = source
        .path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if FILE_NAMES.contains(&name.as_str()) {
        findings.push(source.finding(1, format!("`{name}` does not say what is in it")));
    }
    for (number, line) in source.text.lines().enumerate() {
        // Spelled apart, or this file would report itself.
        for word in [
            concat!("FIX", "ME"),
            concat!("XX", "X"),
            concat!("TO", "DO:"),
        ] {
            if line.contains(word) {
                findings.push(source.finding(number + 1, format!("`{word}`: do it or drop it")));
            }
        }
    }
    for (number, line) in source.text.lines().enumerate() {
        // Spelled apart, or this file would report itself.
        let asks = [concat!(".group", ","), concat!(".plural", ")")];
        if shipped(source) && asks.iter().all(|part| line.contains(part)) {
            let what = "a kind is known by its definition: no test of its group and plural";
            findings.push(source.finding(number + 1, what));
        }
    }
    for (mark, at) in &source.facts.marks {
        let what = match mark {
            Mark::Unfinished => "todo!, unimplemented! and dbg! do not stay",
            Mark::Ignored => "an ignored test is no test",
            Mark::Unwrap if !at.test && shipped(source) => {
                "unwrap outside tests: handle it, or `expect` with the reason why it holds"
            }
            Mark::Print
                if !at.test && source.path.starts_with("orchestrator") && !prints(source) =>
            {
                "only the command line prints; everything else logs"
            }
            _ => continue,
        };
        findings.push(source.finding(at.line, what));
    }
    findings
}

/// Part of the product, not of its tests and tools.
fn shipped(source: &Source) -> bool {
    let path = source.path.to_string_lossy();
    path.starts_with("orchestrator") && !path.ends_with("build.rs")
}

fn prints(source: &Source) -> bool {
    source.module[0] == "orchestrator" || !shipped(source)
}
