//! `cargo xtask bench dns [--short] --unbound=FILE`: the cluster's DNS beside Debian's unbound.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tests::bench::awake::Awake;
use tests::bench::{dns, load, report};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "load") {
        return load::main(&arguments[1..]);
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the bench makes namespaces: run it as root"
    );
    ensure!(
        datapath::object::is_embedded(),
        "no datapath is built in: run `cargo xtask build-ebpf` first"
    );
    let unbound = arguments
        .iter()
        .find_map(|it| it.strip_prefix("--unbound="));
    let unbound = PathBuf::from(unbound.context("--unbound=FILE says where unbound is")?);
    let short = arguments.iter().any(|argument| argument == "--short");
    let (name, extent) = match short {
        true => ("dns-short", dns::SHORT),
        false => ("dns", dns::FULL),
    };
    let awake = Awake::keep()?;
    let outcomes = dns::figures(extent, &unbound)?;
    drop(awake);
    print!("{}", report::table(&outcomes));
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    fs::create_dir_all(&dir)?;
    let text = serde_json::to_string_pretty(&outcomes)?;
    fs::write(dir.join(format!("{name}.json")), text)?;
    fs::write(dir.join(format!("{name}.md")), report::markdown(&outcomes))?;
    Ok(())
}
