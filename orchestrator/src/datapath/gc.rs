//! Removes what nobody needs: idle flows, pins of pods that are gone, and in the end everything.
//!
//! Ours is what lies below our pin directory or bears one of our link names; nothing else is touched.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use orchestrator_common::maps::flows::Flow;
use orchestrator_common::{Proto, Tuple};

use super::attach::{self, Links};
use super::kernel::Kernel;
use super::maps::Maps;
use super::table::Tables;
use super::{DatapathError, delta};

/// A connection that said goodbye: long enough for the last retransmission.
const CLOSED: Duration = Duration::from_secs(60);
/// Nobody has answered yet.
const HALF_OPEN: Duration = Duration::from_secs(60);
const UDP: Duration = Duration::from_secs(180);
const ICMP: Duration = Duration::from_secs(30);
/// An idle TCP connection: what Kubernetes sets for conntrack.
const TCP: Duration = Duration::from_secs(86_400);

/// Removes flows that are closed or idle, both rows of one together. Returns how many flows.
pub fn sweep_flows(maps: &mut Maps, now: Duration) -> Result<usize, DatapathError> {
    let mut dead = BTreeSet::new();
    for row in maps.flows() {
        let (key, flow) = row?;
        // A flow that chose another backend leaves the reply row of the old one behind, on its own.
        let other = maps.flow(&flow.other_key())?;
        let other = other.filter(|other| other.other_key() == key);
        if expired(&key, &flow, other.as_ref(), now) {
            let alone = flow.direction == Flow::FORWARD || other.is_none();
            dead.insert(if alone { key } else { flow.other_key() });
        }
    }
    for key in &dead {
        // The reply row's key comes from the forward row, so that one goes last.
        let flow = maps.flow(key)?;
        if let Some(flow) = flow.filter(|flow| flow.direction == Flow::FORWARD) {
            maps.remove_flow(&flow.other_key())?;
        }
        maps.remove_flow(key)?;
    }
    Ok(dead.len())
}

/// Has choose again every flow whose backend went while an agent died before it could say so.
pub fn raise_orphans(maps: &mut Maps, actual: &Tables) -> Result<(), DatapathError> {
    let known: BTreeSet<u32> = actual.backends.values().map(|backend| backend.id).collect();
    let mut orphans = BTreeSet::new();
    for row in maps.flows() {
        let (_, flow) = row?;
        if flow.backend != 0 && !known.contains(&flow.backend) {
            orphans.insert(flow.backend);
        }
    }
    orphans
        .into_iter()
        .try_for_each(|id| maps.write(delta::Op::Raise(id)))
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

/// A flow is as young as the younger of its rows, and closed when either side closed it.
fn expired(key: &Tuple, flow: &Flow, other: Option<&Flow>, now: Duration) -> bool {
    let last_ns = other
        .map_or(0, |other| other.last_seen_ns)
        .max(flow.last_seen_ns);
    let idle = now.saturating_sub(Duration::from_nanos(last_ns));
    let seen = flow.seen | other.map_or(0, |other| other.seen);
    let reply = if flow.direction == Flow::REPLY {
        Some(flow)
    } else {
        other
    };
    let answered = reply.is_some_and(|reply| reply.seen & Flow::USED != 0);
    let closed = seen & (Flow::FIN | Flow::RST) != 0;
    let limit = match key.proto {
        Proto::TCP if closed => CLOSED,
        _ if !answered => HALF_OPEN,
        Proto::TCP => TCP,
        Proto::UDP => UDP,
        _ => ICMP,
    };
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
        let key = Tuple {
            proto,
            ..Tuple::default()
        };
        let now = Duration::from_secs(now_s);
        let verdict = expired(&key, &forward, reply.as_ref(), now);
        if let Some(reply) = reply {
            assert_eq!(
                verdict,
                expired(&key, &reply, Some(&forward), now),
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
        let closed = row(Flow::REPLY, 0, Flow::USED | Flow::FIN);
        assert!(!is_expired(Proto::TCP, open, Some(closed), 59));
        assert!(is_expired(Proto::TCP, open, Some(closed), 61));
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
