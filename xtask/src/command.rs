//! Running other programs: arguments in, output or a sentence out.
//!
//! Every failure names the command, how it ended and the last lines that it wrote, because that is
//! what a person needs to act on it.

use std::{
    ffi::OsStr,
    io::Write as _,
    process::{Command, ExitStatus, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::cluster::workspace;

/// Runs to the end and returns standard output; anything but exit code 0 is an error.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    output(&mut command)
}

/// Like [`run`], for a command that was put together by hand.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    checked_output(&shown, &output)
}

/// Like [`run`], with `input` on standard input.
pub fn with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let shown = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stops reading early says why on its standard error.
        let _ = stdin.write_all(input);
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("`{shown}` was lost"))?;
    checked_output(&shown, &output)
}

/// The cargo that runs us, for this workspace. What it said of xtask stays here: build scripts of
/// dependencies (ring's) ask for `CARGO_PKG_NAME` and the like, and would have half of the tree
/// built anew at each change between `cargo xtask` and plain cargo.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(workspace());
    for (name, _) in std::env::vars_os() {
        let ours = |prefix: &&str| name.to_string_lossy().starts_with(*prefix);
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ]
        .iter()
        .any(ours)
        {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// True when `program` is somewhere in PATH or in the directories of the superuser.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/bin".into()])
        .any(|dir| dir.join(program).is_file())
}

fn checked_output(shown: &str, output: &Output) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    checked(shown, output.status, &stdout, &stderr)
}

/// What a program printed, or an error with the last lines of it.
pub fn checked(shown: &str, status: ExitStatus, stdout: &str, stderr: &str) -> Result<String> {
    if !status.success() {
        let lines = stderr.lines().chain(stdout.lines());
        let lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n  ");
        bail!("`{shown}` failed ({status}):\n  {tail}");
    }
    Ok(stdout.to_owned())
}

/// The command as a person would type it, shortened.
pub fn describe(command: &Command) -> String {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        shown.push(' ');
        shown.push_str(&arg.to_string_lossy());
    }
    if shown.chars().count() > 160 {
        shown = shown.chars().take(157).collect::<String>() + "...";
    }
    shown
}
