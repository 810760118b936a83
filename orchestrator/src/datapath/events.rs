//! The datapath's records of dropped packets, as they come.

use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::statistics::DROPS;
use orchestrator_common::{Addr, DropEvent, DropReason, Port, Proto, Scope, Tuple};

use super::DatapathError;

/// Reads what the programs wrote since the last look.
pub struct Drops(RingBuf<MapData>);

impl Drops {
    /// Opens the ring buffer pinned in `maps`.
    pub fn open(maps: &Path) -> Result<Self, DatapathError> {
        let failed = |error| DatapathError::kernel(format!("open the map {}", DROPS.name), error);
        let data = MapData::from_pin(maps.join(DROPS.name)).map_err(failed)?;
        let map = Map::from_map_data(data).map_err(failed)?;
        Ok(Self(RingBuf::try_from(map).map_err(failed)?))
    }

    /// Blocks until there may be a record.
    pub fn wait(&self) -> std::io::Result<()> {
        let mut watched = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next record, if there is one.
    pub fn next_event(&mut self) -> Option<DropEvent> {
        loop {
            let record = self.0.next()?;
            if let Some(event) = parse(&record) {
                return Some(event);
            }
        }
    }
}

/// An event as one line for a log.
pub fn describe(event: &DropEvent) -> String {
    let reason = DropReason::from_number(event.reason).map_or("unknown", DropReason::name);
    let hook = Hook::from_number(event.hook).map_or("unknown", Hook::name);
    format!(
        "{} dropped at {hook}, interface {}: {reason}",
        event.tuple, event.ifindex
    )
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
