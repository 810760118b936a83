//! Notes the commit that the binary is built of, which `/version` tells clients.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=ORCHESTRATOR_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    // The log of HEAD changes with each commit and each change of branch.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let given = std::env::var("ORCHESTRATOR_COMMIT").ok();
    let commit = given.or_else(|| git(&["rev-parse", "HEAD"]));
    if let Some(commit) = commit.filter(|commit| is_hash(commit)) {
        println!("cargo::rustc-env=ORCHESTRATOR_COMMIT={commit}");
    }
}

/// What git says, if there is a repository.
fn git(words: &[&str]) -> Option<String> {
    let said = Command::new("git").args(words).output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| said.status.success() && !text.is_empty())
}

fn is_hash(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
