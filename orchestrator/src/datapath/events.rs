//! The datapath's records of dropped packets, as they come.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::{HashMap, Map, MapData, MapError, RingBuf};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::MapSpec;
use orchestrator_common::maps::services::{SERVICES, Service, ServiceKey};
use orchestrator_common::maps::statistics::DROPS;
use orchestrator_common::{Addr, DropEvent, DropReason, Port, Proto, Scope, Tuple};

use super::DatapathError;

/// Reads what the programs wrote since the last look.
pub struct Drops {
    records: RingBuf<MapData>,
    services: HashMap<MapData, ServiceKey, Service>,
}

impl Drops {
    /// Opens the ring buffer pinned in `maps`.
    pub fn open(maps: &Path) -> Result<Self, DatapathError> {
        Ok(Self {
            records: open(maps, &DROPS)?,
            services: open(maps, &SERVICES)?,
        })
    }

    /// Blocks until there may be a record.
    pub fn wait(&self) -> std::io::Result<()> {
        let mut watched = [PollFd::new(self.records.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The Service that a record is about, while it has rows.
    pub fn service(&self, event: &DropEvent) -> Option<ServiceKey> {
        if event.service == 0 {
            return None;
        }
        let mut rows = self.services.iter().flatten();
        rows.find(|(_, row)| row.id == event.service)
            .map(|(key, _)| key)
    }

    /// The next record, if there is one.
    pub fn next_event(&mut self) -> Option<DropEvent> {
        loop {
            let record = self.records.next()?;
            if let Some(event) = parse(&record) {
                return Some(event);
            }
        }
    }
}

/// An event as one line for a log, with the Service's address if one is known.
pub fn describe(event: &DropEvent, service: Option<ServiceKey>) -> String {
    let reason = DropReason::from_number(event.reason).map_or("unknown", DropReason::name);
    let hook = Hook::from_number(event.hook).map_or("unknown", Hook::name);
    let mut line = format!(
        "{} dropped at {hook}, interface {}: {reason}",
        event.tuple, event.ifindex
    );
    if let Some(ServiceKey { addr, port, .. }) = service {
        let asked = SocketAddr::new(addr.into(), port.host());
        line.push_str(&format!(", Service {asked}"));
    }
    line
}

fn open<M: TryFrom<Map, Error = MapError>>(dir: &Path, spec: &MapSpec) -> Result<M, DatapathError> {
    let failed = |error| DatapathError::kernel(format!("open the map {}", spec.name), error);
    let data = MapData::from_pin(dir.join(spec.name)).map_err(failed)?;
    M::try_from(Map::from_map_data(data).map_err(failed)?).map_err(failed)
}

/// The record's bytes in the order of the struct's fields; `None` for a record of another version.
fn parse(bytes: &[u8]) -> Option<DropEvent> {
    if bytes.len() != size_of::<DropEvent>() {
        return None;
    }
    let mut reader = Reader(bytes);
    Some(DropEvent {
        time_ns: u64::from_ne_bytes(reader.take()?),
        tuple: Tuple {
            src: reader.addr()?,
            dst: reader.addr()?,
            src_port: Port::from_wire(u16::from_ne_bytes(reader.take()?)),
            dst_port: Port::from_wire(u16::from_ne_bytes(reader.take()?)),
            proto: Proto {
                number: u8::from_ne_bytes(reader.take()?),
            },
            scope: Scope {
                number: u8::from_ne_bytes(reader.take()?),
            },
            reserved: reader.take()?,
        },
        reason: u32::from_ne_bytes(reader.take()?),
        hook: u32::from_ne_bytes(reader.take()?),
        ifindex: u32::from_ne_bytes(reader.take()?),
        length: u32::from_ne_bytes(reader.take()?),
        service: u32::from_ne_bytes(reader.take()?),
        reserved: u32::from_ne_bytes(reader.take()?),
    })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn addr(&mut self) -> Option<Addr> {
        Some(Addr::from_octets(self.take()?))
    }
}
