//! Random and mutilated packets through every program, beside the model.
//!
//! `ORCHESTRATOR_FUZZ_PACKETS` says how many for each world, `ORCHESTRATOR_FUZZ_SEED` where to begin:
//! `ORCHESTRATOR_FUZZ_PACKETS=12500000 nice -n 19 cargo test -p tests --test packet_fuzz` are ten million
//! through each program of the stack; XDP's are `--test packet xdp_does_nothing`, beside the stack's.

use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use tests::fuzz::world::{Parts, tables};
use tests::fuzz::{self, Fuzz, cut};
use tests::prog::can_load;

const PACKETS: u64 = 100_000;

#[test]
fn whatever_comes_meets_what_the_model_says_in_ipv4() -> Result<()> {
    run(
        "fuzz in IPv4",
        Parts {
            v6: false,
            outside: false,
            affinity: false,
            ranges: false,
            maglev: false,
            ..Parts::ALL
        },
    )
}

#[test]
fn whatever_comes_meets_what_the_model_says_in_two_families() -> Result<()> {
    run("fuzz in two families", Parts::ALL)
}

#[test]
fn whatever_comes_meets_what_the_model_says_with_direct_return() -> Result<()> {
    run(
        "fuzz with direct return",
        Parts {
            direct: true,
            ..Parts::ALL
        },
    )
}

#[test]
fn whatever_comes_meets_what_the_model_says_over_an_ipv6_underlay() -> Result<()> {
    run(
        "fuzz over IPv6",
        Parts {
            underlay_v6: true,
            direct: true,
            affinity: false,
            ..Parts::ALL
        },
    )
}

#[test]
fn whatever_is_to_be_cut_comes_out_whole_or_in_two_pieces() -> Result<()> {
    if !can_load("fuzz of pieces") {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNET)?;
    // The first pieces go there.
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    assert!(up.success());
    let (packets, seed) = fuzz::extent(PACKETS)?;
    let parts = Parts {
        underlay_v6: true,
        direct: true,
        ..Parts::ALL
    };
    let met = cut::run(packets / 5, seed, tables(parts)).with_context(|| format!("seed {seed}"))?;
    println!("whole, in pieces, dropped: {met:?}");
    assert!(met.iter().all(|times| *times > 0), "{met:?}");
    Ok(())
}

fn run(test: &str, parts: Parts) -> Result<()> {
    if !can_load(test) {
        return Ok(());
    }
    // Sockets of this machine must not hold ports that a flow might be given.
    unshare(CloneFlags::CLONE_NEWNET)?;
    let (packets, seed) = fuzz::extent(PACKETS)?;
    let started = std::time::Instant::now();
    let mut fuzz = Fuzz::start(seed, tables(parts))?;
    let judged = fuzz.run(packets).with_context(|| format!("seed {seed}"));
    for ((hook, what), times) in &fuzz.met {
        println!("{hook:16} {what:30} {times}");
    }
    println!(
        "{:.0} packets a second",
        packets as f64 / started.elapsed().as_secs_f64()
    );
    judged
}
