//! The datapath's records of dropped packets, as they come.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData, MapError, RingBuf};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::MapSpec;
use orchestrator_common::maps::services::{SERVICES, Service, ServiceKey};
use orchestrator_common::maps::statistics::DROPS;
use orchestrator_common::{Addr, DropEvent, DropReason, Port, Proto, Scope, Tuple};

use super::DatapathError;

pub const RECORD: usize = size_of::<DropEvent>();

/// A record as a program wrote it.
pub type Record = [u8; RECORD];

/// Reads what the programs wrote since the last look. Each record goes to one reader only.
pub struct Drops {
    records: RingBuf<MapData>,
}

impl Drops {
    /// Opens the ring buffer pinned in `maps`.
    pub fn open(maps: &Path) -> Result<Self, DatapathError> {
        let records = open(maps, &DROPS)?;
        Ok(Self { records })
    }

    /// Blocks until there may be a record, for so long at most; `false` when that is over.
    pub fn wait(&self, patience: Duration) -> std::io::Result<bool> {
        wait(self.records.as_fd(), patience)
    }

    /// The next record, if there is one.
    pub fn next_record(&mut self) -> Option<Record> {
        loop {
            // One of another size is another version's.
            if let Ok(record) = Record::try_from(&*self.records.next()?) {
                return Some(record);
            }
        }
    }

    pub fn next_event(&mut self) -> Option<DropEvent> {
        parse(&self.next_record()?)
    }
}

/// Blocks until a ring buffer may have a record, for so long at most; `false` when that is over.
pub fn wait(records: BorrowedFd<'_>, patience: Duration) -> std::io::Result<bool> {
    let mut watched = [PollFd::new(records, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut watched, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Knows the Services that records are about, while they have rows.
pub struct Services(HashMap<MapData, ServiceKey, Service>);

impl Services {
    /// Opens the map pinned in `maps`.
    pub fn open(maps: &Path) -> Result<Self, DatapathError> {
        open(maps, &SERVICES).map(Self)
    }

    pub fn asked(&self, event: &DropEvent) -> Option<ServiceKey> {
        if event.service == 0 {
            return None;
        }
        let mut rows = self.0.iter().flatten();
        rows.find(|(_, row)| row.id == event.service)
            .map(|(key, _)| key)
    }
}

/// The time of an event, whose clock stands at `monotonic` at the time `now`.
pub fn time(event: &DropEvent, now: Timestamp, monotonic: Duration) -> Timestamp {
    let age = monotonic.saturating_sub(Duration::from_nanos(event.time_ns));
    now.checked_sub(age).unwrap_or(now)
}

/// An event as one line for a log, with the Service's address if one is known. What came by no
/// interface was never sent.
pub fn describe(event: &DropEvent, service: Option<ServiceKey>) -> String {
    let reason = DropReason::from_number(event.reason).map_or("unknown", DropReason::name);
    let hook = Hook::from_number(event.hook).map_or("unknown", Hook::name);
    let tuple = event.tuple;
    let mut line = match event.ifindex {
        0 => format!("{tuple} refused at {hook}: {reason}"),
        interface => format!("{tuple} dropped at {hook}, interface {interface}: {reason}"),
    };
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

/// The record's bytes in the order of the struct's fields; there are as many as those take.
pub fn parse(bytes: &Record) -> Option<DropEvent> {
    let mut reader = Reader(bytes);
    Some(DropEvent {
        time_ns: u64::from_ne_bytes(reader.take()?),
        tuple: reader.tuple()?,
        reason: u32::from_ne_bytes(reader.take()?),
        hook: u32::from_ne_bytes(reader.take()?),
        ifindex: u32::from_ne_bytes(reader.take()?),
        length: u32::from_ne_bytes(reader.take()?),
        service: u32::from_ne_bytes(reader.take()?),
        reserved: u32::from_ne_bytes(reader.take()?),
    })
}

/// A tuple as it lies in memory.
pub fn parse_tuple(bytes: &[u8]) -> Option<Tuple> {
    Reader(bytes).tuple()
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn tuple(&mut self) -> Option<Tuple> {
        Some(Tuple {
            src: self.addr()?,
            dst: self.addr()?,
            src_port: Port::from_wire(u16::from_ne_bytes(self.take()?)),
            dst_port: Port::from_wire(u16::from_ne_bytes(self.take()?)),
            proto: Proto {
                number: u8::from_ne_bytes(self.take()?),
            },
            scope: Scope {
                number: u8::from_ne_bytes(self.take()?),
            },
            reserved: self.take()?,
        })
    }

    fn addr(&mut self) -> Option<Addr> {
        Some(Addr::from_octets(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_time_that_its_clock_had() {
        let event = DropEvent {
            time_ns: 5_250_000_000,
            ..DropEvent::default()
        };
        let now = Timestamp::from_second(1_000).expect("in range");
        let at = time(&event, now, Duration::from_secs(7));
        assert_eq!(format!("{at:.3}"), "1970-01-01T00:16:38.250Z");
    }
}
