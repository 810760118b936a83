//! The log of the programs' decisions: the object that has its statements, who is logged, and what a record
//! says in words.
//!
//! ```text
//! orchestrator-ebpf/log ─▶ AYA_LOGS (ring buffer) ─▶ aya-log ─▶ describe ─▶ lines
//! ```
//!
//! The ring buffer is the second object's own: no pin, and it goes with the last of its programs. A full
//! buffer loses records, never packets.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya_log::{EbpfLogger, Level};
use jiff::Timestamp;
use log::{Log, Metadata, Record};
use orchestrator_common::event::Hook;
use orchestrator_common::{Addr, DropReason, Port, Rule, Tuple, Verdict};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::object::{self, LogConstants, Programs};
use super::{DatapathError, events};

/// How many lines wait for a slow reader; more are counted and dropped.
const WAITING_LINES: usize = 8192;
/// How soon a reader that has gone is noticed where nothing is logged.
const CLOSED_CHECK: Duration = Duration::from_millis(200);

/// Whose packets are logged, and how much of them. The default is every decision of every packet's sender.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The addresses of one pod, one of each family at most: what it sends and what it is sent. None: all.
    pub pod: Vec<IpAddr>,
    /// What goes there, before or after a Service's translation, and what is answered from there.
    pub to: Option<SocketAddr>,
    /// Where each packet goes as well, and not only what is decided once a connection or flow.
    pub packets: bool,
}

impl Filter {
    fn constants(&self) -> LogConstants {
        let pod = |v4: bool| {
            let addr = self.pod.iter().find(|addr| addr.is_ipv4() == v4);
            addr.map_or(Addr::UNSPECIFIED, |addr| Addr::from(*addr))
        };
        let level = if self.packets {
            Level::Debug
        } else {
            Level::Info
        };
        LogConstants {
            level: level as u8,
            is_of_pod: u32::from(!self.pod.is_empty()),
            pod_v4: pod(true),
            pod_v6: pod(false),
            to: self.to.map_or(Addr::UNSPECIFIED, |to| to.ip().into()),
            to_port: self.to.map_or(0, |to| Port::new(to.port()).wire.into()),
        }
    }
}

/// Reads what the programs log.
pub struct Records {
    logger: EbpfLogger<Lines>,
    lines: Sender<String>,
    waiting: Receiver<String>,
}

/// Loads the programs that log over the maps that are pinned in `maps`.
pub fn load(maps: &Path, filter: &Filter) -> Result<(Programs, Records), DatapathError> {
    let (mut object, programs) = object::load_log(maps, &filter.constants())?;
    let (lines, waiting) = mpsc::channel(WAITING_LINES);
    let sink = Lines {
        lines: lines.clone(),
        lost: AtomicU64::new(0),
    };
    let logger = EbpfLogger::init_with_logger(&mut object, sink)
        .map_err(|error| DatapathError::kernel("open the log's buffer", error))?;
    let records = Records {
        logger,
        lines,
        waiting,
    };
    Ok((programs, records))
}

/// Turns records into lines until nobody takes them any more.
pub struct Gathering {
    logger: EbpfLogger<Lines>,
    lines: Sender<String>,
}

impl Records {
    /// The two ends: who takes the lines, and the work that makes them.
    pub fn split(self) -> (Receiver<String>, Gathering) {
        let Self {
            logger,
            lines,
            waiting,
        } = self;
        (waiting, Gathering { logger, lines })
    }
}

impl Gathering {
    /// Blocks until the lines' receiver is gone.
    pub fn run(mut self) -> io::Result<()> {
        while !self.lines.is_closed() {
            if events::wait(self.logger.as_fd(), CLOSED_CHECK)? {
                self.flush();
            }
        }
        Ok(())
    }

    /// Makes lines of the records that there are.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}

/// Where aya-log puts the records.
struct Lines {
    lines: Sender<String>,
    /// Lines without room since the last that had some.
    lost: AtomicU64,
}

impl Lines {
    fn send(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Log for Lines {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let now = Timestamp::now();
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => self.send(format!("{now:.3} {lost} lines before this found no room")),
        }
        let text = record.args().to_string();
        let said = describe(record.target(), &text);
        self.send(format!("{now:.3} {}", said.unwrap_or(text)));
    }

    fn flush(&self) {}
}

/// A record in words: the event, and the fields as `orchestrator-ebpf/log` writes them. `None` if it is not
/// one of those.
pub fn describe(event: &str, text: &str) -> Option<String> {
    let fields = Fields(text.split(' ').filter_map(|f| f.split_once('=')).collect());
    let tuple = fields.tuple("tuple")?;
    let hook = || Hook::from_number(fields.number("hook")?).map(Hook::name);
    let becomes = || fields.tuple("becomes");
    Some(match event {
        "connect" => {
            let addr = Addr::from_octets(fields.bytes("addr")?.try_into().ok()?);
            let port = Port::from_wire(u16::try_from(fields.number("port")?).ok()?);
            let backend = SocketAddr::new(addr.into(), port.host());
            let (service, number) = (fields.number("service")?, fields.number("backend")?);
            format!("{tuple} connect: Service {service} gives backend {number}, {backend}")
        }
        "open" => {
            let (service, becomes) = (fields.number("service")?, becomes()?);
            format!("{tuple} opens a flow: Service {service} makes it {becomes}")
        }
        "drop" => {
            let reason = DropReason::from_number(fields.number("reason")?)?;
            let service = match fields.number("service")? {
                0 => String::new(),
                number => format!(", Service {number}"),
            };
            format!("{tuple} {}: dropped or refused, {reason}{service}", hook()?)
        }
        "packet" => {
            let verdict = Verdict::from_number(fields.number("verdict")?)?;
            let rule = Rule::from_number(fields.number("rule")?)?;
            let becomes = becomes().filter(|becomes| !becomes.same_packet(&tuple));
            let becomes = becomes.map_or(String::new(), |becomes| format!(", as {becomes}"));
            let target = match fields.number("target")? {
                0 => String::new(),
                target => format!(" by interface {target}"),
            };
            format!(
                "{tuple} {}: {verdict}{target}, rule {rule}{becomes}",
                hook()?
            )
        }
        _ => return None,
    })
}

/// What stands after each name.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl Fields<'_> {
    fn number(&self, name: &str) -> Option<u32> {
        self.0.get(name)?.parse().ok()
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        hex::decode(self.0.get(name)?).ok()
    }

    fn tuple(&self, name: &str) -> Option<Tuple> {
        events::parse_tuple(&self.bytes(name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAME: &str = "00000000000000000000ffff0a640105\
                        00000000000000000000ffff0a60000a\
                        c350005006000000";
    const BECOMES: &str = "00000000000000000000ffff0a640105\
                           00000000000000000000ffff0a640106\
                           c3501f9006000000";

    #[test]
    fn records_are_read_with_names_for_numbers() {
        let cases = [
            (
                "connect",
                format!(
                    "tuple={CAME} service=7 backend=3 \
                     addr=00000000000000000000ffff0a640106 port=36895"
                ),
                "tcp 10.100.1.5:50000 -> 10.96.0.10:80 connect: \
                 Service 7 gives backend 3, 10.100.1.6:8080",
            ),
            (
                "open",
                format!("tuple={CAME} becomes={BECOMES} service=7"),
                "tcp 10.100.1.5:50000 -> 10.96.0.10:80 opens a flow: \
                 Service 7 makes it tcp 10.100.1.5:50000 -> 10.100.1.6:8080",
            ),
            (
                "drop",
                format!("tuple={CAME} hook=1 reason=6 service=7"),
                "tcp 10.100.1.5:50000 -> 10.96.0.10:80 from_container: \
                 dropped or refused, no_backend, Service 7",
            ),
            (
                "packet",
                format!("tuple={CAME} becomes={BECOMES} hook=1 rule=4 verdict=2 target=12"),
                "tcp 10.100.1.5:50000 -> 10.96.0.10:80 from_container: peer by interface 12, \
                 rule service, as tcp 10.100.1.5:50000 -> 10.100.1.6:8080",
            ),
            (
                "packet",
                format!("tuple={CAME} becomes={CAME} hook=5 rule=8 verdict=1 target=0"),
                "tcp 10.100.1.5:50000 -> 10.96.0.10:80 to_netdev: pass, rule not_ours",
            ),
        ];
        for (event, text, expected) in cases {
            assert_eq!(describe(event, &text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_no_record_of_ours_is_left_as_it_is() {
        for (event, text) in [
            ("open", ""),
            ("open", "tuple=00 becomes=00 service=7"),
            ("drop", "tuple hook reason"),
            ("another", &format!("tuple={CAME}")),
        ] {
            assert_eq!(describe(event, text), None);
        }
    }

    #[test]
    fn a_filter_names_one_address_of_each_family() {
        let filter = Filter {
            pod: vec![
                "fd00:100::5".parse().unwrap(),
                "10.100.1.5".parse().unwrap(),
            ],
            to: Some("10.96.0.10:80".parse().unwrap()),
            packets: true,
        };
        let constants = filter.constants();
        assert_eq!(constants.pod_v4.to_string(), "10.100.1.5");
        assert_eq!(constants.pod_v6.to_string(), "fd00:100::5");
        assert_eq!(constants.is_of_pod, 1);
        assert_eq!(constants.to_port, u32::from(80_u16.to_be()));
        let all = Filter::default().constants();
        assert_eq!((all.is_of_pod, all.to_port), (0, 0));
        assert!(all.level < constants.level);
    }
}
