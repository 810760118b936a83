//! The datapath's bench in its short form: that every side and every figure of it works, not how fast.

use std::process::Command;

use anyhow::{Result, ensure};
use tests::netns::ready;

#[test]
fn the_bench_of_the_datapath_runs() -> Result<()> {
    if !ready("the_bench_of_the_datapath_runs") {
        return Ok(());
    }
    let mut bench = Command::new(env!("CARGO_BIN_EXE_datapath-bench"));
    let output = bench.arg("--short").output()?;
    let table = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{table}\n{said}");
    for part in [
        "overlay UDP_STREAM",
        "ClusterIP TCP_CRR",
        "NodePort TCP_CRR",
        "cold load",
        "pod attach",
    ] {
        assert!(table.contains(part), "no {part} in\n{table}");
    }
    Ok(())
}
