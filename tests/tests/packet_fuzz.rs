//! Random and mutilated packets through every program, beside the model.
//!
//! `ORCHESTRATOR_FUZZ_PACKETS` says how many for each world, `ORCHESTRATOR_FUZZ_SEED` where to begin:
//! `ORCHESTRATOR_FUZZ_PACKETS=10000000 nice -n 19 cargo test -p tests --test packet_fuzz`.

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use tests::fuzz::Fuzz;
use tests::fuzz::world::{Parts, tables};
use tests::prog::can_load;

const PACKETS: u64 = 100_000;

#[test]
fn whatever_comes_meets_what_the_model_says_in_ipv4() -> Result<()> {
    fuzz(
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
    fuzz("fuzz in two families", Parts::ALL)
}

#[test]
fn whatever_comes_meets_what_the_model_says_with_direct_return() -> Result<()> {
    fuzz(
        "fuzz with direct return",
        Parts {
            direct: true,
            ..Parts::ALL
        },
    )
}

#[test]
fn whatever_comes_meets_what_the_model_says_over_an_ipv6_underlay() -> Result<()> {
    fuzz(
        "fuzz over IPv6",
        Parts {
            underlay_v6: true,
            direct: true,
            affinity: false,
            ..Parts::ALL
        },
    )
}

fn fuzz(test: &str, parts: Parts) -> Result<()> {
    if !can_load(test) {
        return Ok(());
    }
    // Sockets of this machine must not hold ports that a flow might be given.
    unshare(CloneFlags::CLONE_NEWNET)?;
    let number = |name: &str, default: u64| -> Result<u64> {
        let set = std::env::var(name).ok();
        set.map_or(Ok(default), |text| {
            text.parse().with_context(|| format!("{name}={text}"))
        })
    };
    let packets = number("ORCHESTRATOR_FUZZ_PACKETS", PACKETS)?;
    let seed = number("ORCHESTRATOR_FUZZ_SEED", 1)?;
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
