//! Removes what nobody needs: idle flows, pins of pods that are gone, and in the end everything.
//!
//! Ours is what lies below our pin directory or bears one of our link names; nothing else is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use orchestrator_common::maps::flows::Flow;
use orchestrator_common::{MAPS, Proto, Tuple};

use super::DatapathError;
use super::attach::{self, Links};
use super::maps::Maps;
use super::table::Tables;

/// How long a flow of each kind may idle.
pub struct Limits {
    /// A connection that both sides closed, or one reset: long enough for the last retransmission.
    closed: Duration,
    /// One that a single side closed: the other may go on sending.
    half_closed: Duration,
    /// The client has not spoken again since it asked, or nobody has answered yet.
    half_open: Duration,
    /// An idle TCP connection: what Kubernetes sets for conntrack.
    tcp: Duration,
    udp: Duration,
    icmp: Duration,
}

/// While there is room.
pub const ROOMY: Limits = Limits {
    closed: Duration::from_secs(60),
    half_closed: Duration::from_secs(7200),
    half_open: Duration::from_secs(60),
    tcp: Duration::from_secs(86_400),
    udp: Duration::from_secs(180),
    icmp: Duration::from_secs(30),
};

/// Where the table was too full for a new flow: what was never a connection goes before anything else
/// does, connections stay as long as ever.
pub const CROWDED: Limits = Limits {
    closed: Duration::from_secs(5),
    half_open: Duration::from_secs(2),
    udp: Duration::from_secs(30),
    icmp: Duration::from_secs(2),
    ..ROOMY
};

/// Removes flows that are closed or idle, both rows of one together. Returns how many flows.
pub fn sweep_flows(
    maps: &mut Maps,
    now: Duration,
    limits: &Limits,
) -> Result<usize, DatapathError> {
    let mut dead = BTreeSet::new();
    for row in maps.flows() {
        let (key, flow) = row?;
        // A flow that chose another backend leaves the reply row of the old one behind, on its own.
        let other = other_row(maps, &key, &flow)?;
        if expired(&key, &flow, other.as_ref(), now, limits) {
            let alone = flow.direction == Flow::FORWARD || other.is_none();
            dead.insert(if alone { key } else { flow.other_key() });
        }
    }
    let mut gone = 0;
    for key in &dead {
        // It may have come to life while others were looked at.
        let Some(flow) = maps.flow(key)? else {
            continue;
        };
        let other = other_row(maps, key, &flow)?;
        if !expired(key, &flow, other.as_ref(), now, limits) {
            continue;
        }
        // The reply row's key comes from the forward row, so that one goes last.
        if flow.direction == Flow::FORWARD {
            maps.remove_flow(&flow.other_key())?;
        }
        maps.remove_flow(key)?;
        gone += 1;
    }
    Ok(gone)
}

/// The other row of a flow, if it still has it.
fn other_row(maps: &Maps, key: &Tuple, flow: &Flow) -> Result<Option<Flow>, DatapathError> {
    let other = maps.flow(&flow.other_key())?;
    Ok(other.filter(|other| other.other_key() == *key))
}

/// Removes what stands under numbers that nobody has: an agent died before it could.
pub fn sweep_numbers(maps: &mut Maps, actual: &Tables) -> Result<(), DatapathError> {
    let services = actual.numbers();
    let backends: BTreeSet<u32> = actual.backends.values().map(|backend| backend.id).collect();
    for id in maps.service_counters()?.into_keys() {
        if !services.contains(&id) {
            maps.remove_service_counter(id)?;
        }
    }
    for id in maps.backend_counters()?.into_keys() {
        if !backends.contains(&id) {
            maps.remove_backend_counter(id)?;
        }
    }
    Ok(())
}

/// Forgets which backend a client had where its Service is gone, or has no affinity any more, or it has
/// not come for the Service's time.
pub fn sweep_affinity(
    maps: &mut Maps,
    actual: &Tables,
    now: Duration,
) -> Result<(), DatapathError> {
    // Few have any, and this runs every few seconds.
    let rows = actual.services.values().filter(|row| row.affinity_s != 0);
    let timeouts: BTreeMap<u32, u32> = rows.map(|row| (row.id, row.affinity_s)).collect();
    let mut dead = Vec::new();
    for row in maps.affinities() {
        let (key, row) = row?;
        let timeout_s = timeouts.get(&key.service).copied().unwrap_or(0);
        let idle = now.saturating_sub(Duration::from_nanos(row.last_ns));
        if idle > Duration::from_secs(timeout_s.into()) {
            dead.push(key);
        }
    }
    dead.iter().try_for_each(|key| maps.remove_affinity(key))
}

/// Unpins the maps of older layouts. Programs that still use one hold it until they are replaced.
pub fn remove_old_maps(dir: &Path) -> Result<(), DatapathError> {
    let known = |name: &String| MAPS.iter().any(|spec| spec.name == name);
    let names = attach::names(dir)?;
    let old = names.iter().filter(|name| !known(name));
    old.map(|name| dir.join(name))
        .try_for_each(|pin| attach::unpin(&pin))
}

/// Detaches what was attached for pods that are gone: their links' names are in no one's wish.
pub fn prune_links(links: &Links, wanted: &BTreeSet<String>) -> Result<(), DatapathError> {
    let names = links.names()?;
    names
        .iter()
        .filter(|name| !wanted.contains(*name))
        .try_for_each(|name| links.detach(name))
}

/// Removes every pin of a node: programs detach and maps go with the last one.
pub fn remove_pins(node: &Path) -> Result<(), DatapathError> {
    for part in ["links", "maps"] {
        let dir = node.join(part);
        for name in attach::names(&dir)? {
            attach::unpin(&dir.join(name))?;
        }
        remove_dir(&dir)?;
    }
    remove_dir(node)
}

fn remove_dir(dir: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|error| DatapathError::io(format!("remove {}", dir.display()), error)),
    }
}

/// A flow is as young as the younger of its rows. It is closed when both sides closed it or either reset
/// it.
fn expired(key: &Tuple, flow: &Flow, other: Option<&Flow>, now: Duration, limits: &Limits) -> bool {
    let seen = |direction| {
        let rows = std::iter::once(flow).chain(other);
        let mut rows = rows.filter(|row| row.direction == direction);
        rows.next().map_or(0, |row| row.seen)
    };
    let (asked, answered) = (seen(Flow::FORWARD), seen(Flow::REPLY));
    let limit = match key.proto {
        Proto::TCP if (asked | answered) & Flow::RST != 0 => limits.closed,
        Proto::TCP if asked & answered & Flow::FIN != 0 => limits.closed,
        _ if answered & Flow::USED == 0 => limits.half_open,
        // A server answers whoever asks; only a client that is there speaks again.
        Proto::TCP if asked & Flow::SYN != 0 => limits.half_open,
        Proto::TCP if (asked | answered) & Flow::FIN != 0 => limits.half_closed,
        Proto::TCP => limits.tcp,
        Proto::UDP => limits.udp,
        _ => limits.icmp,
    };
    let last_ns = other.map_or(0, |other| other.last_seen_ns);
    let idle = now.saturating_sub(Duration::from_nanos(last_ns.max(flow.last_seen_ns)));
    idle > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(direction: u16, last_s: u64, seen: u16) -> Flow {
        Flow {
            direction,
            seen,
            last_seen_ns: last_s * 1_000_000_000,
            ..Flow::default()
        }
    }

    fn is_expired(proto: Proto, forward: Flow, reply: Option<Flow>, now_s: u64) -> bool {
        is_over(&ROOMY, proto, forward, reply, now_s)
    }

    fn is_over(
        limits: &Limits,
        proto: Proto,
        forward: Flow,
        reply: Option<Flow>,
        now_s: u64,
    ) -> bool {
        let key = Tuple {
            proto,
            ..Tuple::default()
        };
        let now = Duration::from_secs(now_s);
        let verdict = expired(&key, &forward, reply.as_ref(), now, limits);
        if let Some(reply) = reply {
            assert_eq!(
                verdict,
                expired(&key, &reply, Some(&forward), now, limits),
                "seen from either row"
            );
        }
        verdict
    }

    #[test]
    fn a_flow_is_as_young_as_its_younger_row() {
        let (old, young) = (
            row(Flow::FORWARD, 0, Flow::USED),
            row(Flow::REPLY, 900, Flow::USED),
        );
        assert!(!is_expired(Proto::UDP, old, Some(young), 1000));
        assert!(is_expired(Proto::UDP, old, Some(young), 1100));
    }

    #[test]
    fn an_open_connection_may_idle_for_a_day_and_a_closed_one_for_a_minute() {
        let open = row(Flow::FORWARD, 0, Flow::USED);
        let answered = row(Flow::REPLY, 0, Flow::USED);
        assert!(!is_expired(Proto::TCP, open, Some(answered), 80_000));
        assert!(is_expired(Proto::TCP, open, Some(answered), 90_000));
        let left = row(Flow::FORWARD, 0, Flow::USED | Flow::FIN);
        let closed = row(Flow::REPLY, 0, Flow::USED | Flow::FIN);
        assert!(!is_expired(Proto::TCP, left, Some(closed), 59));
        assert!(is_expired(Proto::TCP, left, Some(closed), 61));
        let reset = row(Flow::REPLY, 0, Flow::USED | Flow::RST);
        assert!(is_expired(Proto::TCP, open, Some(reset), 61));
    }

    #[test]
    fn a_connection_that_one_side_closed_may_be_silent_for_an_hour() {
        let (open, closed) = (Flow::USED, Flow::USED | Flow::FIN);
        for (asked, answered) in [(open, closed), (closed, open)] {
            let (asked, answered) = (row(Flow::FORWARD, 0, asked), row(Flow::REPLY, 0, answered));
            for limits in [&ROOMY, &CROWDED] {
                assert!(!is_over(limits, Proto::TCP, asked, Some(answered), 3700));
            }
            assert!(is_expired(Proto::TCP, asked, Some(answered), 7300));
        }
    }

    #[test]
    fn a_full_table_gives_up_what_was_never_a_connection() {
        let asked = row(Flow::FORWARD, 0, Flow::USED | Flow::SYN);
        let accepted = row(Flow::REPLY, 0, Flow::USED | Flow::SYN);
        let silent = row(Flow::REPLY, 0, 0);
        for reply in [accepted, silent] {
            assert!(!is_expired(Proto::TCP, asked, Some(reply), 59));
            assert!(is_expired(Proto::TCP, asked, Some(reply), 61));
            assert!(is_over(&CROWDED, Proto::TCP, asked, Some(reply), 3));
            assert!(!is_over(&CROWDED, Proto::TCP, asked, Some(reply), 2));
        }
        let open = row(Flow::FORWARD, 0, Flow::USED);
        for reply in [accepted, row(Flow::REPLY, 0, Flow::USED)] {
            assert!(!is_over(&CROWDED, Proto::TCP, open, Some(reply), 80_000));
        }
    }

    #[test]
    fn nobody_waits_long_for_an_answer_that_does_not_come() {
        let asked = row(Flow::FORWARD, 0, Flow::USED);
        let silent = row(Flow::REPLY, 0, 0);
        for reply in [Some(silent), None] {
            assert!(!is_expired(Proto::TCP, asked, reply, 59));
            assert!(is_expired(Proto::TCP, asked, reply, 61));
        }
    }
}
