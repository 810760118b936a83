//! How a client stands with a Service: whether its source ranges have it, and which backend it had.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use orchestrator_common::maps::affinity::{Affinity, AffinityKey};
use orchestrator_common::maps::services::{Backend, Service};
use orchestrator_common::{Addr, Prefix};

use crate::DatapathError;
use crate::maps::Maps;
use crate::table::{Admitted, Tables};

/// As the maps had it before a program ran.
pub struct Standing {
    service: Service,
    client: Addr,
    /// The narrowest range that has the client.
    range: Option<Admitted>,
    had: Option<Affinity>,
    /// The generation of the backend that it had, and for how long it has not come.
    generation: u32,
    idle: Duration,
}

impl Standing {
    pub fn read(
        maps: &Maps,
        tables: &Tables,
        service: &Service,
        client: Addr,
    ) -> Result<Self, DatapathError> {
        let had = match service.affinity_s {
            0 => None,
            _ => maps.affinity(&key(service, client))?,
        };
        let generation = had.map(|had| maps.generation(had.backend.id)).transpose()?;
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from);
        let came = Duration::from_nanos(had.map_or(0, |had| had.last_ns));
        Ok(Self {
            service: *service,
            client,
            range: range(tables, service, &client),
            had,
            generation: generation.unwrap_or(0),
            idle: now.unwrap_or_default().saturating_sub(came),
        })
    }

    pub fn is_admitted(&self) -> bool {
        self.service.flags & Service::SOURCE_RANGES == 0 || self.range.is_some()
    }

    /// The backend that the client comes back to.
    pub fn backend(&self) -> Option<Backend> {
        let had = self.had.filter(|_| self.ended().is_none())?;
        Some(had.backend)
    }

    /// Why what the client had holds no more.
    fn ended(&self) -> Option<&'static str> {
        let had = self.had?;
        if had.generation != self.generation {
            return Some("that has gone");
        }
        let limit = Duration::from_secs(self.service.affinity_s.into());
        (self.idle >= limit).then_some("that is too long ago")
    }

    /// The rows that decide, in the dump's words.
    pub fn rows(&self) -> Vec<String> {
        let (number, client) = (self.service.id, self.client);
        let mut rows = Vec::new();
        if self.service.flags & Service::SOURCE_RANGES != 0 {
            rows.push(match self.range {
                Some(Admitted { addr, bits, .. }) => {
                    let bits = if addr.is_v4() {
                        bits.saturating_sub(96)
                    } else {
                        bits
                    };
                    format!("source range {number} {addr}/{bits}")
                }
                None => format!("no source range {number} has {client}"),
            });
        }
        if let Some(had) = self.had {
            let Backend { addr, port, id, .. } = had.backend;
            let to = super::socket(addr, port);
            let ended = self.ended().map(|why| format!(", {why}"));
            rows.push(format!(
                "affinity {client} {number} = {to}, number {id}, {} s of {} s ago{}",
                self.idle.as_secs(),
                self.service.affinity_s,
                ended.unwrap_or_default(),
            ));
        }
        rows
    }

    /// Puts back what a program has written of the client since.
    pub fn restore(&self, maps: &mut Maps) -> Result<(), DatapathError> {
        let key = key(&self.service, self.client);
        match self.had {
            _ if self.service.affinity_s == 0 => Ok(()),
            Some(had) => maps.put_affinity(&key, &had),
            None => maps.remove_affinity(&key),
        }
    }
}

fn key(service: &Service, client: Addr) -> AffinityKey {
    AffinityKey {
        client,
        service: service.id,
        reserved: 0,
    }
}

fn range(tables: &Tables, service: &Service, client: &Addr) -> Option<Admitted> {
    let ranges = tables.source_ranges.iter();
    let own = ranges.filter(|range| range.service == service.id);
    let having = own.filter(|range| prefix(range).contains(client));
    having.copied().max_by_key(|range| range.bits)
}

fn prefix(range: &Admitted) -> Prefix {
    Prefix {
        addr: range.addr,
        mask: Addr::v6_mask(u8::try_from(range.bits).unwrap_or(128)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(service: Service, ranges: &[(&str, u8)], had: Option<Affinity>) -> Standing {
        let mut tables = Tables::default();
        for (addr, bits) in ranges {
            let range = Prefix::new(addr.parse().expect("an address"), *bits);
            tables
                .source_ranges
                .insert(Admitted::new(service.id, &range));
        }
        let client = Addr::from(std::net::IpAddr::from([10, 100, 1, 5]));
        Standing {
            range: range(&tables, &service, &client),
            service,
            client,
            had,
            generation: 3,
            idle: Duration::from_secs(9),
        }
    }

    #[test]
    fn the_narrowest_range_admits_and_none_is_said_to_have_the_client() {
        let service = Service {
            id: 7,
            flags: Service::SOURCE_RANGES,
            ..Service::default()
        };
        let ranges = [("10.0.0.0", 8), ("10.100.1.0", 24), ("192.0.2.0", 24)];
        let admitted = standing(service, &ranges, None);
        assert!(admitted.is_admitted());
        assert_eq!(admitted.rows(), ["source range 7 10.100.1.0/24"]);
        let shut_out = standing(service, &ranges[2..], None);
        assert!(!shut_out.is_admitted());
        assert_eq!(shut_out.rows(), ["no source range 7 has 10.100.1.5"]);
        let open = Service {
            flags: 0,
            ..service
        };
        assert!(standing(open, &[], None).is_admitted());
    }

    #[test]
    fn an_affinity_holds_for_its_time_and_while_its_backend_is_there() {
        for (affinity_s, generation, ended) in [
            (10, 3, None),
            (9, 3, Some("that is too long ago")),
            (10, 2, Some("that has gone")),
        ] {
            let service = Service {
                id: 7,
                affinity_s,
                ..Service::default()
            };
            let had = Affinity {
                generation,
                ..Affinity::default()
            };
            let standing = standing(service, &[], Some(had));
            assert_eq!(standing.ended(), ended);
            assert_eq!(standing.backend().is_some(), ended.is_none());
            let said = standing.rows().concat();
            assert_eq!(said.contains("that "), ended.is_some(), "{said}");
        }
    }
}
