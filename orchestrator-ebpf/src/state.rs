//! What a flow's row remembers of its packets. Pure.

use orchestrator_common::maps::flows::Flow;

use crate::packet::{Headers, TCP_FIN, TCP_RST, TCP_SYN};

/// `Flow::seen` after one more packet in the row's direction.
#[inline(always)]
pub fn seen_after(seen: u16, headers: &Headers) -> u16 {
    if !headers.is_tcp() {
        return seen | Flow::USED;
    }
    let flags = headers.tcp_flags;
    // A new connection with the old one's ports is not closed.
    let mut seen = if flags & TCP_SYN != 0 {
        Flow::USED | Flow::SYN
    } else {
        (seen | Flow::USED) & !Flow::SYN
    };
    if flags & TCP_FIN != 0 {
        seen |= Flow::FIN;
    }
    if flags & TCP_RST != 0 {
        seen |= Flow::RST;
    }
    seen
}

#[cfg(test)]
mod tests {
    use orchestrator_common::Proto;

    use super::*;
    use crate::packet::TCP_ACK;

    fn segment(tcp_flags: u8) -> Headers {
        let mut headers = Headers {
            tcp_flags,
            ..Headers::EMPTY
        };
        headers.tuple.proto = Proto::TCP;
        headers
    }

    #[test]
    fn the_first_packet_of_a_direction_is_remembered_at_once() {
        assert_eq!(seen_after(0, &segment(TCP_ACK)), Flow::USED);
        let mut datagram = Headers::EMPTY;
        datagram.tuple.proto = Proto::UDP;
        assert_eq!(seen_after(0, &datagram), Flow::USED);
    }

    #[test]
    fn a_closed_connection_stays_closed_until_its_ports_are_used_anew() {
        let closed = seen_after(Flow::USED, &segment(TCP_FIN | TCP_ACK));
        assert_eq!(closed, Flow::USED | Flow::FIN);
        assert_eq!(seen_after(closed, &segment(TCP_ACK)), closed);
        assert_eq!(seen_after(closed, &segment(TCP_RST)), closed | Flow::RST);
        assert_eq!(
            seen_after(closed, &segment(TCP_SYN)),
            Flow::USED | Flow::SYN
        );
    }

    #[test]
    fn a_client_proves_to_be_there_by_speaking_again() {
        let asked = seen_after(0, &segment(TCP_SYN));
        assert_eq!(seen_after(asked, &segment(TCP_SYN)), asked);
        assert_eq!(seen_after(asked, &segment(TCP_ACK)), Flow::USED);
    }
}
