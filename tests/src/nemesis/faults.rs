//! What the nemesis does to a site, drawn from a seed.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::site::{Kind, Part, Site};
use super::wires::Way;
use crate::sim::rng::Rng;

/// Something that is done to processes, and made good again after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill(Part),
    Stop(Part),
    /// Its fsync takes long.
    SlowFsync(Part),
    /// Members of etcd do not hear it, it does not hear them, or both.
    Cut(Part, Way),
    /// The server cannot write until it is started again, as it says itself.
    FillDisk,
    KillMembers,
    /// A server's clock is set: so many seconds from the right time.
    Jump(usize, i64),
    /// A member is taken out of etcd, and an empty one added in its place.
    Replace(usize),
    /// As if the whole rack lost its power.
    KillAll,
}

/// Between faults, in milliseconds: at least, and up to so much more.
const CALM_MS: (u64, usize) = (150, 900);
/// Further than a second, and further than anything that the servers wait for.
const JUMPS_S: [i64; 2] = [-30, 3600];
/// How long one lasts.
const LASTS_MS: (u64, usize) = (50, 1500);

/// Disturbs a site for that long; returns what was done.
///
/// # Errors
/// A process has ended by itself, or cannot be started again.
pub async fn run(site: &mut Site, rng: &mut Rng, length: Duration) -> Result<Vec<String>> {
    let (began, possible) = (Instant::now(), possible(site));
    let end = began + length;
    let mut done = Vec::new();
    loop {
        sleep(rng, CALM_MS, end).await;
        let fault = match rng.pick(&possible) {
            Some(fault) if Instant::now() < end => *fault,
            _ => break,
        };
        let at = began.elapsed().as_millis();
        begin(site, fault).await?;
        sleep(rng, LASTS_MS, end).await;
        if fault == Fault::FillDisk {
            site.process(Part::Server(0)).kill();
        }
        done.push(format!(
            "{at} ms to {} ms: {fault:?}",
            began.elapsed().as_millis()
        ));
        site.mend()?;
        site.put_back().await?;
    }
    tokio::time::sleep_until(end).await;
    Ok(done)
}

fn possible(site: &Site) -> Vec<Fault> {
    let servers = (0..site.servers.len()).map(Part::Server);
    let members: Vec<Part> = (0..site.members.len()).map(Part::Member).collect();
    let mut all = Vec::new();
    for part in servers.clone().chain(members.clone()) {
        all.extend([Fault::Kill(part), Fault::Stop(part)]);
        let is_cut_off = site.means.wires.is_some() && site.members.len() > 1;
        if is_cut_off {
            all.extend([Way::In, Way::Out, Way::Both].map(|way| Fault::Cut(part, way)));
        }
    }
    if site.means.has_strace {
        match site.kind {
            Kind::Redb => all.extend(servers.map(Fault::SlowFsync)),
            _ => all.extend(members.into_iter().map(Fault::SlowFsync)),
        }
    }
    if site.has_disk() {
        all.push(Fault::FillDisk);
    }
    if site.means.faketime.is_some() {
        let servers = 0..site.servers.len();
        all.extend(servers.flat_map(|server| JUMPS_S.map(|seconds| Fault::Jump(server, seconds))));
    }
    if site.means.replaces_members && site.members.len() > 2 {
        all.extend((0..site.members.len()).map(Fault::Replace));
    }
    if matches!(site.kind, Kind::Etcd { .. }) {
        all.extend([Fault::KillMembers, Fault::KillAll]);
    }
    all
}

async fn begin(site: &mut Site, fault: Fault) -> Result<()> {
    match fault {
        Fault::Kill(part) => site.process(part).kill(),
        Fault::Stop(part) => site.process(part).stop(),
        Fault::SlowFsync(part) => site.slow_fsync(part)?,
        Fault::Cut(part, way) => site.cut(part, way)?,
        Fault::FillDisk => site.fill_disk()?,
        Fault::Jump(server, seconds) => site.jump(server, seconds)?,
        // A round in which etcd does not do it has one fault less.
        Fault::Replace(member) => {
            site.remove_member(member).await?;
        }
        Fault::KillMembers => site.members.iter_mut().for_each(|it| it.kill()),
        Fault::KillAll => {
            let all = site.members.iter_mut().chain(&mut site.servers);
            all.for_each(|it| it.kill());
        }
    }
    Ok(())
}

async fn sleep(rng: &mut Rng, (least, more): (u64, usize), end: Instant) {
    let length = Duration::from_millis(least + rng.below(more) as u64);
    tokio::time::sleep_until((Instant::now() + length).min(end)).await;
}
