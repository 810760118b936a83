//! `cargo xtask tidy`: the rules of this repository that neither compiler nor clippy checks.
//!
//! Every source file is parsed once; each rule reads the result and reports lines. Run as a test
//! too, so that a rule cannot rot.

mod imports;
mod lengths;
mod modules;
mod source;
mod words;

use std::process::ExitCode;

use anyhow::Result;

use crate::cluster::workspace;

/// Prints what was found.
pub fn run() -> Result<ExitCode> {
    let findings = check()?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: nothing to say");
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {} findings", findings.len());
    Ok(ExitCode::FAILURE)
}

/// All findings, `path:line: sentence`, in the order of paths.
pub fn check() -> Result<Vec<String>> {
    let tree = modules::Tree::read(workspace())?;
    let mut findings = tree.findings.clone();
    findings.extend(imports::manifests(workspace())?);
    for file in &tree.files {
        findings.extend(lengths::check(file));
        findings.extend(imports::check(file));
        findings.extend(words::check(file));
    }
    findings.sort();
    findings.dedup();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_repository_is_tidy() {
        let findings = super::check().unwrap();
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }
}
