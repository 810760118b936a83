//! What dies in a round on a whole cluster, drawn from a seed.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::Instant;

use super::users::Users;
use super::witness::{self, Seen, Witness};
use crate::api_load::connection::Ask;
use crate::cluster::Cluster;
use crate::sim::rng::Rng;

/// What dies.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// An agent, by its node's number, or the server: they are missed by no connection.
    Process(Option<u8>),
    /// The same ones stand still for a while.
    Frozen(Option<u8>),
    /// A container of the round's namespace, or a sandbox.
    Container,
    Pod,
}

/// Between two, in milliseconds: at least, and up to so much more.
const CALM_MS: (u64, usize) = (300, 2200);
/// How long something stands still at most.
const FROZEN_MS: usize = 3000;

/// Kills until the users are done, and at least so often; what was done.
pub async fn run(
    (cluster, users, witness): (&Cluster, &Users, &Witness),
    (namespace, nodes): (&str, u8),
    mut rng: Rng,
    (least, done): (usize, watch::Receiver<bool>),
) -> Result<Vec<String>> {
    let began = Instant::now();
    let mut all = Vec::new();
    while all.len() < least || !*done.borrow() {
        sleep_ms(CALM_MS.0 + rng.below(CALM_MS.1) as u64).await;
        let at = began.elapsed().as_millis();
        let victim = draw(&mut rng, nodes);
        let seen = witness.of(namespace);
        let what = match victim {
            Victim::Process(number) => signal(cluster, number, Signal::SIGKILL),
            Victim::Frozen(number) => {
                let what = signal(cluster, number, Signal::SIGSTOP);
                sleep_ms(rng.below(FROZEN_MS) as u64).await;
                what.inspect(|(_, pid)| {
                    // It may have been killed meanwhile.
                    let _ = kill(*pid, Signal::SIGCONT);
                })
            }
            Victim::Container => end_container(cluster, &seen, &mut rng).map(|it| (it, NOBODY)),
            Victim::Pod => delete(users, &seen, &mut rng).await?.map(|it| (it, NOBODY)),
        };
        all.extend(what.map(|(what, _)| format!("{at} ms: {victim:?} {what}")));
    }
    Ok(all)
}

const NOBODY: Pid = Pid::from_raw(0);

fn draw(rng: &mut Rng, nodes: u8) -> Victim {
    let process = match rng.below(usize::from(nodes) + 1) {
        0 => None,
        number => Some(number as u8),
    };
    match rng.below(10) {
        0..5 => Victim::Process(process),
        5 => Victim::Frozen(process),
        6..8 => Victim::Container,
        _ => Victim::Pod,
    }
}

/// None: it does not run at the moment.
fn signal(cluster: &Cluster, node: Option<u8>, signal: Signal) -> Option<(String, Pid)> {
    let what = node.map_or("server".to_owned(), |number| format!("node-{number}"));
    let pid = Pid::from_raw(cluster.pid(&what).ok()?);
    kill(pid, signal).ok()?;
    Some((what, pid))
}

fn end_container(cluster: &Cluster, seen: &[Seen], rng: &mut Rng) -> Option<String> {
    let running = witness::running(seen);
    let victim = *rng.pick(&running)?;
    cluster.docker(&["kill", &victim.id]).ok()?;
    Some(format!("{}/{}", victim.pod, victim.container))
}

async fn delete(users: &Users, seen: &[Seen], rng: &mut Rng) -> Result<Option<String>> {
    let running = witness::running(seen);
    let Some(victim) = rng.pick(&running) else {
        return Ok(None);
    };
    let Seen { namespace, pod, .. } = victim;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
    users.surely(&Ask::delete(path)).await?;
    Ok(Some(pod.clone()))
}

async fn sleep_ms(length: u64) {
    tokio::time::sleep(Duration::from_millis(length)).await;
}
