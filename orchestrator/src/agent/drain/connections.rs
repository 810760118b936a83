//! The connections that a pod has from outside, as the kernel lists them.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// States in which the pod still has something to say or to hear, by the kernel's numbers
/// (`net/tcp_states.h`): established, SYN received, FIN not acknowledged, closed by the other side.
const LIVE: [u8; 6] = [0x01, 0x03, 0x04, 0x08, 0x09, 0x0B];
const LISTEN: u8 = 0x0A;

/// Counts the connections to the pod in whose network namespace `pid` runs. `ports`: only those of
/// these ports, for a pod that shares the node's namespace. A process that is gone has none.
pub fn inbound(pid: u32, ports: Option<&BTreeSet<u16>>) -> usize {
    let table = |name: &str| {
        let path = PathBuf::from(format!("/proc/{pid}/net/{name}"));
        std::fs::read_to_string(path).unwrap_or_default()
    };
    count(&[&table("tcp"), &table("tcp6")], ports)
}

/// Counts in the text of `/proc/net/tcp` and `tcp6`: live connections to a port that somebody listens
/// on, but for those of the pod to itself.
fn count(tables: &[&str], ports: Option<&BTreeSet<u16>>) -> usize {
    let rows: Vec<Row> = tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(row)
        .collect();
    let listened: BTreeSet<u16> = rows
        .iter()
        .filter(|row| row.state == LISTEN)
        .map(|row| row.port)
        .filter(|port| ports.is_none_or(|ports| ports.contains(port)))
        .collect();
    rows.iter()
        .filter(|row| LIVE.contains(&row.state) && !row.to_itself)
        .filter(|row| listened.contains(&row.port))
        .count()
}

struct Row {
    port: u16,
    state: u8,
    /// Both ends have the same address: loopback, or a pod that calls its own.
    to_itself: bool,
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

    #[test]
    fn connections_to_a_listener_count_and_those_of_a_client_do_not() {
        let tcp = table(&[
            "00000000:1F90 00000000:0000 0A",
            "0200640A:1F90 0300640A:C001 01",
            "0200640A:1F90 0300640A:C002 08",
            "0200640A:1F90 0300640A:C003 06",
            "0200640A:C004 0400640A:1538 01",
            "0100007F:1F90 0100007F:C005 01",
        ]);
        assert_eq!(count(&[&tcp], None), 2);
    }

    #[test]
    fn a_listener_of_both_families_has_the_connections_of_both() {
        let zero = "0".repeat(32);
        let six = table(&[
            &format!("{zero}:0050 {zero}:0000 0A"),
            "0000000000000000FFFF00000200640A:0050 0000000000000000FFFF00000300640A:C001 03",
        ]);
        let four = table(&["0200640A:0050 0300640A:C002 04"]);
        assert_eq!(count(&[&four, &six], None), 2);
    }

    #[test]
    fn on_the_nodes_network_only_the_pods_own_ports_count() {
        let tcp = table(&[
            "00000000:1F90 00000000:0000 0A",
            "00000000:0016 00000000:0000 0A",
            "0200640A:1F90 0300640A:C001 01",
            "0200640A:0016 0300640A:C002 01",
        ]);
        assert_eq!(count(&[&tcp], Some(&BTreeSet::from([0x1F90]))), 1);
        assert_eq!(count(&[&tcp], Some(&BTreeSet::new())), 0);
    }

    #[test]
    fn what_the_kernel_lists_of_this_process_is_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let port = BTreeSet::from([address.port()]);
        assert_eq!(inbound(std::process::id(), Some(&port)), 0);
        let client = std::net::TcpStream::connect(address).expect("connected");
        // Both ends are this machine: it is the pod's own.
        assert_eq!(inbound(std::process::id(), Some(&port)), 0);
        drop(client);
    }
}
