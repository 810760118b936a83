//! The connections that a pod has from outside, as the kernel lists them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// States in which the pod still has something to say or to hear, by the kernel's numbers
/// (`net/tcp_states.h`): established, SYN received, FIN not acknowledged, closed by the other side.
const LIVE: [u8; 6] = [0x01, 0x03, 0x04, 0x08, 0x09, 0x0B];
const LISTEN: u8 = 0x0A;

/// Rows that are read of one table. A pod chooses how many sockets it has, and it is looked at often.
const MAX_ROWS: usize = 8192;

/// The kernel pads rows of tcp6 to less than this.
const MAX_ROW_BYTES: u64 = 256;

/// Whether the pod in whose network namespace `pid` runs has a connection from outside. `ports`: only
/// to these ports, for a pod that shares the node's namespace. A process that is gone has none. A pod
/// with more sockets than are read has one: it is stopped when its time is up.
pub fn any_inbound(pid: u32, ports: Option<&BTreeSet<u16>>) -> bool {
    let table = |name: &str| File::open(format!("/proc/{pid}/net/{name}")).ok();
    any(&["tcp", "tcp6"], table, ports)
}

/// Looks in tables as `/proc/net/tcp` and `tcp6` are: for a live connection to a port that has a
/// listener, but for those of the pod to itself. The kernel lists the listeners of a table first
/// (`net/ipv4/tcp_ipv4.c`, `tcp_get_idx`), and one of tcp6 may be that of a connection of tcp, so the
/// listeners of all tables are read before any connection.
fn any<T: Read>(
    names: &[&str],
    open: impl Fn(&str) -> Option<T>,
    ports: Option<&BTreeSet<u16>>,
) -> bool {
    let tables = || names.iter().filter_map(|name| open(name));
    let mut listened = BTreeSet::new();
    for table in tables() {
        let listeners = rows(table).take_while(|row| row.as_ref().is_some_and(Row::listens));
        listened.extend(listeners.flatten().map(|row| row.port));
    }
    listened.retain(|port| ports.is_none_or(|ports| ports.contains(port)));
    if listened.is_empty() {
        return false;
    }
    let counts =
        |row: Row| LIVE.contains(&row.state) && !row.to_itself && listened.contains(&row.port);
    tables().any(|table| rows(table).any(|row| row.is_none_or(counts)))
}

/// The rows of a table, then `None` if there are more than are read.
fn rows(table: impl Read) -> impl Iterator<Item = Option<Row>> {
    let limit = MAX_ROW_BYTES * (MAX_ROWS as u64 + 2);
    let lines = BufReader::new(table.take(limit)).lines().skip(1);
    // A table that ends while it is read is that of a process that has gone.
    let lines = lines.map_while(Result::ok).take(MAX_ROWS + 1);
    lines.enumerate().filter_map(|(index, line)| {
        if index == MAX_ROWS {
            return Some(None);
        }
        row(&line).map(Some)
    })
}

struct Row {
    port: u16,
    state: u8,
    /// Both ends have the same address: loopback, or a pod that calls its own.
    to_itself: bool,
}

impl Row {
    fn listens(&self) -> bool {
        self.state == LISTEN
    }
}

/// `  0: 0100007F:1F90 0200007F:C001 01 …`: number, local, remote, state, all hexadecimal.
fn row(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, port) = words.next()?.split_once(':')?;
    let (remote, _) = words.next()?.split_once(':')?;
    Some(Row {
        port: u16::from_str_radix(port, 16).ok()?,
        state: u8::from_str_radix(words.next()?, 16).ok()?,
        to_itself: local == remote,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n";

    fn table(rows: &[&str]) -> String {
        let rows = rows
            .iter()
            .map(|row| format!("   0: {row} 00000000:00000000 00:0\n"));
        std::iter::once(HEAD.to_owned()).chain(rows).collect()
    }

    /// Whether a pod with these tables has a connection from outside.
    fn is_busy(tables: [&str; 2], ports: Option<&BTreeSet<u16>>) -> bool {
        let names = ["tcp", "tcp6"];
        let open = |name: &str| {
            let index = names.iter().position(|known| *known == name)?;
            Some(tables[index].as_bytes())
        };
        any(&names, open, ports)
    }

    #[test]
    fn connections_to_a_listener_count_and_those_of_a_client_do_not() {
        let idle = [
            "00000000:1F90 00000000:0000 0A",
            "0200640A:1F90 0300640A:C003 06",
            "0200640A:C004 0400640A:1538 01",
            "0100007F:1F90 0100007F:C005 01",
        ];
        assert!(!is_busy([&table(&idle), ""], None));
        for live in [
            "0200640A:1F90 0300640A:C001 01",
            "0200640A:1F90 0300640A:C002 08",
        ] {
            let rows: Vec<&str> = idle.into_iter().chain([live]).collect();
            assert!(is_busy([&table(&rows), ""], None), "{live}");
        }
    }

    #[test]
    fn a_listener_of_both_families_has_the_connections_of_both() {
        let zero = "0".repeat(32);
        let listener = format!("{zero}:0050 {zero}:0000 0A");
        let live = "0000000000000000FFFF00000200640A:0050 0000000000000000FFFF00000300640A:C001 03";
        assert!(is_busy(["", &table(&[&listener, live])], None));
        let four = table(&["0200640A:0050 0300640A:C002 04"]);
        assert!(is_busy([&four, &table(&[&listener])], None));
        assert!(!is_busy([&four, ""], None));
    }

    #[test]
    fn on_the_nodes_network_only_the_pods_own_ports_count() {
        let tcp = table(&[
            "00000000:1F90 00000000:0000 0A",
            "00000000:0016 00000000:0000 0A",
            "0200640A:0016 0300640A:C002 01",
        ]);
        assert!(is_busy([&tcp, ""], Some(&BTreeSet::from([0x16]))));
        assert!(!is_busy([&tcp, ""], Some(&BTreeSet::from([0x1F90]))));
        assert!(!is_busy([&tcp, ""], Some(&BTreeSet::new())));
    }

    /// Text without end that counts what is read of it.
    struct Endless<'a> {
        row: &'a [u8],
        read: &'a std::cell::Cell<usize>,
    }

    impl Read for Endless<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            for (index, byte) in into.iter_mut().enumerate() {
                *byte = self.row[(self.read.get() + index) % self.row.len()];
            }
            self.read.set(self.read.get() + into.len());
            Ok(into.len())
        }
    }

    #[test]
    fn a_pod_with_any_number_of_sockets_is_read_up_to_a_limit_and_no_further_than_the_first_hit() {
        let listener = table(&["00000000:1F90 00000000:0000 0A"]);
        let look = |row: &str| {
            let read = std::cell::Cell::new(0);
            let open = |name: &str| -> Option<Box<dyn Read + '_>> {
                match name {
                    "tcp" => Some(Box::new(listener.as_bytes())),
                    _ => Some(Box::new(Endless {
                        row: row.as_bytes(),
                        read: &read,
                    })),
                }
            };
            let busy = any(&["tcp", "tcp6"], open, None);
            (busy, read.get())
        };
        let (busy, read) = look("   0: 0200640A:C004 0400640A:1538 01 00000000:00000000 00:0\n");
        assert!(busy, "what was not read may be a connection");
        let limit = 2 * (MAX_ROWS + 2) * usize::try_from(MAX_ROW_BYTES).expect("small");
        assert!(read < limit, "{read} bytes were read");
        let (busy, read) = look("   0: 0200640A:1F90 0300640A:C001 01 00000000:00000000 00:0\n");
        assert!(busy);
        assert!(read < 64 * 1024, "{read} bytes were read");
        let (_, read) = look("no end of a line");
        assert!(read <= limit, "{read} bytes were read");
    }

    #[test]
    fn what_the_kernel_lists_of_this_process_is_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let port = BTreeSet::from([address.port()]);
        assert!(!any_inbound(std::process::id(), Some(&port)));
        let client = std::net::TcpStream::connect(address).expect("connected");
        // Both ends are this machine: it is the pod's own.
        assert!(!any_inbound(std::process::id(), Some(&port)));
        drop(client);
    }
}
