//! The module tree of every crate, from its roots: what no `mod` leads to is dead.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::source::Source;

/// The crates, by directory. Everything below them that ends in `.rs` belongs to one of them.
pub const CRATES: &[&str] = &[
    "orchestrator",
    "orchestrator/agent",
    "orchestrator/api",
    "orchestrator/apiserver",
    "orchestrator/client",
    "orchestrator/controllers",
    "orchestrator/datapath",
    "orchestrator/scheduler",
    "orchestrator/store",
    "orchestrator/streams",
    "orchestrator/sys",
    "orchestrator-common",
    "orchestrator-ebpf",
    "tests",
    "xtask",
];

pub struct Tree {
    pub files: Vec<Source>,
    pub findings: Vec<String>,
}

impl Tree {
    pub fn read(workspace: &Path) -> Result<Self> {
        let mut tree = Self {
            files: Vec::new(),
            findings: Vec::new(),
        };
        for name in CRATES {
            tree.read_crate(workspace, name)?;
        }
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn read_crate(&mut self, workspace: &Path, directory: &str) -> Result<()> {
        let dir = workspace.join(directory);
        let name = directory.rsplit('/').next().unwrap_or(directory);
        let mut all = BTreeSet::new();
        rust_files(&dir, &mut all);
        let mut seen = BTreeSet::new();
        for root in roots(&dir) {
            // Integration tests and benches are crates of their own, for tests only.
            let test = root
                .parent()
                .is_some_and(|p| p.ends_with("tests") || p.ends_with("benches"));
            self.read_module(workspace, &root, vec![name.to_owned()], test, &mut seen)?;
        }
        for dead in all.difference(&seen) {
            let shown = dead.strip_prefix(workspace).unwrap_or(dead).display();
            self.findings
                .push(format!("{shown}:1: no `mod` leads to this file"));
        }
        Ok(())
    }

    fn read_module(
        &mut self,
        workspace: &Path,
        path: &Path,
        module: Vec<String>,
        test: bool,
        seen: &mut BTreeSet<PathBuf>,
    ) -> Result<()> {
        if !seen.insert(path.to_owned()) {
            return Ok(());
        }
        let source = Source::parse(workspace, path, module, test)?;
        let below = directory_below(path, source.module.len() == 1);
        for declared in &source.facts.modules {
            let candidates = match &declared.file {
                Some(file) => vec![path.parent().unwrap_or(workspace).join(file)],
                None => vec![
                    below.join(format!("{}.rs", declared.name)),
                    below.join(&declared.name).join("mod.rs"),
                ],
            };
            match candidates.iter().find(|file| file.exists()) {
                Some(file) => {
                    let module = [&source.module[..], &[declared.name.clone()]].concat();
                    self.read_module(workspace, file, module, test || declared.test, seen)?;
                }
                None => {
                    let what = format!("`mod {};` has no file", declared.name);
                    self.findings.push(source.finding(declared.at.line, what));
                }
            }
        }
        self.files.push(source);
        Ok(())
    }
}

/// Where the files of a module's children are.
fn directory_below(path: &Path, root: bool) -> PathBuf {
    let parent = path.parent().unwrap_or(Path::new("")).to_owned();
    let stem = path.file_stem().unwrap_or_default();
    if root || stem == "mod" {
        parent
    } else {
        parent.join(stem)
    }
}

/// The files that cargo compiles without being told by a `mod`.
fn roots(dir: &Path) -> Vec<PathBuf> {
    let fixed = ["src/lib.rs", "src/main.rs", "build.rs"].map(|name| dir.join(name));
    let mut roots: Vec<PathBuf> = fixed.into_iter().filter(|path| path.exists()).collect();
    for place in ["src/bin", "tests", "benches", "examples"] {
        let entries = fs::read_dir(dir.join(place))
            .into_iter()
            .flatten()
            .flatten();
        roots.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| is_rust(path)),
        );
    }
    roots
}

fn rust_files(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for path in fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
    {
        if path.is_dir() {
            // A directory with a manifest is a crate of its own.
            if !path.ends_with("target") && !path.join("Cargo.toml").exists() {
                rust_files(&path, found);
            }
        } else if is_rust(&path) {
            found.insert(path);
        }
    }
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}
