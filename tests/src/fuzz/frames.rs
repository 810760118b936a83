//! Random packets: sensible ones with right checksums, of addresses and ports that mean something to
//! the world's tables, and mutilated ones.

use std::net::IpAddr;

use orchestrator_common::{Addr, Mac, Proto, Tuple};

use crate::sim::rng::Rng;

/// Whose frames all these are.
pub const SENDER: Mac = Mac::new([2, 0x6f, 0x72, 0x63, 0x68, 2]);
const RECEIVER: Mac = Mac::new([2, 0x6f, 0x72, 0x63, 0x68, 1]);

/// What packets are made of.
pub struct Pool {
    pub v4: Vec<[u8; 4]>,
    pub v6: Vec<[u8; 16]>,
    pub ports: Vec<u16>,
}

/// A frame, and whether it is as its maker meant it.
pub struct Made {
    pub bytes: Vec<u8>,
    pub is_sound: bool,
}

impl Pool {
    pub fn of(addrs: &[&str], ports: &[u16]) -> Pool {
        let mut pool = Pool {
            v4: Vec::new(),
            v6: Vec::new(),
            ports: ports.to_vec(),
        };
        for addr in addrs {
            match addr.parse().expect("a literal") {
                IpAddr::V4(ip) => pool.v4.push(ip.octets()),
                IpAddr::V6(ip) => pool.v6.push(ip.octets()),
            }
        }
        pool
    }

    /// One packet. `from` are the addresses that it is most often from, `to` to whom it often is.
    pub fn frame(&self, rng: &mut Rng, from: &[IpAddr], to: &[IpAddr]) -> Made {
        let v6 = !self.v6.is_empty() && rng.chance(400);
        let of_family = |rng: &mut Rng, addrs: &[IpAddr], often| {
            let own: Vec<_> = addrs
                .iter()
                .filter(|addr| addr.is_ipv6() == v6)
                .copied()
                .collect();
            rng.pick(&own).copied().filter(|_| rng.chance(often))
        };
        let sender = of_family(rng, from, 900);
        let receiver = of_family(rng, to, 500);
        let mut frame = ethernet();
        if v6 {
            let [src, dst] = [sender, receiver].map(|addr| match addr {
                Some(IpAddr::V6(ip)) => ip.octets(),
                _ => *rng.pick(&self.v6).expect("not empty"),
            });
            self.v6_packet(rng, &mut frame, src, dst);
        } else {
            let [src, dst] = [sender, receiver].map(|addr| match addr {
                Some(IpAddr::V4(ip)) => ip.octets(),
                _ => *rng.pick(&self.v4).expect("not empty"),
            });
            self.v4_packet(rng, &mut frame, src, dst);
        }
        let is_sound = rng.chance(800);
        if !is_sound {
            mutilate(rng, &mut frame);
        }
        Made {
            bytes: frame,
            is_sound,
        }
    }

    fn v4_packet(&self, rng: &mut Rng, frame: &mut Vec<u8>, src: [u8; 4], dst: [u8; 4]) {
        let (proto, mut transport) = self.transport(rng, false);
        let options = if rng.chance(50) {
            4 * (1 + rng.below(3))
        } else {
            0
        };
        let field = fragment_field(rng);
        let total = 20 + options + transport.len();
        let mut header = vec![0x45 + (options / 4) as u8, 0];
        header.extend((total as u16).to_be_bytes());
        header.extend((rng.below(4) as u16).to_be_bytes());
        header.extend(field.to_be_bytes());
        header.extend([
            *rng.pick(&[64, 64, 64, 64, 255, 2, 1, 0]).expect("some"),
            proto,
            0,
            0,
        ]);
        header.extend(src);
        header.extend(dst);
        header.extend(vec![1; options]);
        let sum = complement(add(0, &header));
        header[10..12].copy_from_slice(&sum);
        let addresses: Vec<u8> = [src, dst].concat();
        fill_checksum(&mut transport, proto, &addresses);
        frame.extend([0x08, 0x00]);
        frame.extend(header);
        frame.extend(transport);
    }

    fn v6_packet(&self, rng: &mut Rng, frame: &mut Vec<u8>, src: [u8; 16], dst: [u8; 16]) {
        let (proto, mut transport) = self.transport(rng, true);
        let addresses: Vec<u8> = [src, dst].concat();
        fill_checksum(&mut transport, proto, &addresses);
        let mut next = proto;
        let mut body = transport;
        for _ in 0..(if rng.chance(80) { 1 + rng.below(8) } else { 0 }) {
            let kind = *rng.pick(&[0, 43, 60, 44]).expect("some");
            let mut header = vec![next, 0, 0, 0, 0, 0, 0, 0];
            if kind == 44 {
                let field = fragment_field(rng);
                let wire = (field & 0x1fff) << 3 | u16::from(field & 0x2000 != 0);
                header[2..4].copy_from_slice(&wire.to_be_bytes());
                header[7] = rng.below(4) as u8;
            } else if rng.chance(300) {
                header[1] = 1;
                header.extend([0; 8]);
            }
            header.extend(body);
            (next, body) = (kind, header);
        }
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((body.len() as u16).to_be_bytes());
        frame.extend([next, *rng.pick(&[64, 64, 64, 255, 2, 1, 0]).expect("some")]);
        frame.extend(addresses);
        frame.extend(body);
    }

    /// Protocol and header with payload, its checksum still zero.
    fn transport(&self, rng: &mut Rng, v6: bool) -> (u8, Vec<u8>) {
        let port = |rng: &mut Rng| -> [u8; 2] {
            match rng.chance(950) {
                true => rng.pick(&self.ports).expect("some ports").to_be_bytes(),
                false => (rng.number() as u16).to_be_bytes(),
            }
        };
        let mut bytes = Vec::new();
        let ports = [port(rng), port(rng)].concat();
        let payload = vec![rng.number() as u8; rng.below(64)];
        let proto = *rng
            .pick(&[6, 6, 6, 17, 17, 17, 1, 58, 132, 47, 0x59])
            .expect("some");
        match proto {
            6 => {
                bytes.extend(ports);
                bytes.extend([0, 0, 3, 0xe8, 0, 0, 7, 0xd0, 0x50]);
                let flags = [0x02, 0x02, 0x02, 0x10, 0x18, 0x12, 0x11, 0x04, 0x14, 0x00];
                bytes.extend([*rng.pick(&flags).expect("some"), 0xfa, 0xf0, 0, 0, 0, 0]);
            }
            17 => {
                bytes.extend(ports);
                bytes.extend((8 + payload.len() as u16).to_be_bytes());
                bytes.extend([0, 0]);
            }
            1 | 58 => {
                let types = if v6 {
                    [128, 129, 135, 143]
                } else {
                    [8, 0, 8, 13]
                };
                bytes.extend([*rng.pick(&types).expect("some"), 0, 0, 0]);
                bytes.extend(port(rng));
                bytes.extend([0, 1]);
            }
            132 => {
                bytes.extend(ports);
                bytes.extend([0, 0, 0, 7, 0, 0, 0, 0]);
            }
            _ => {}
        }
        bytes.extend(payload);
        (proto, bytes)
    }
}

/// A packet with that tuple, of random flags and content.
pub fn with_tuple(tuple: &Tuple, rng: &mut Rng) -> Made {
    let pool = Pool {
        v4: Vec::new(),
        v6: Vec::new(),
        ports: vec![1],
    };
    loop {
        let (proto, transport) = pool.transport(rng, !tuple.src.is_v4());
        if proto == tuple.proto.number {
            return Made {
                bytes: packet(tuple, transport),
                is_sound: true,
            };
        }
    }
}

/// An ICMP error about a packet whose answer would have that tuple, from who would have answered or
/// from a router.
pub fn error(answer: &Tuple, router: Option<Addr>, rng: &mut Rng) -> Made {
    let quoted = with_tuple(&answer.reverse(), rng).bytes;
    let v4 = answer.src.is_v4();
    let header = if v4 { 20 } else { 40 };
    let least = 14 + header + 8;
    let length = least + rng.below(quoted.len() - least + 1);
    let kind = match v4 {
        true => *rng.pick(&[[3, 3], [3, 4], [11, 0], [12, 0]]).expect("some"),
        false => *rng.pick(&[[1, 4], [2, 0], [3, 0], [4, 0]]).expect("some"),
    };
    let mut transport = vec![kind[0], kind[1], 0, 0, 0, 0, 5, 0];
    transport.extend(&quoted[14..length]);
    let outer = Tuple {
        src: router.unwrap_or(answer.src),
        dst: answer.dst,
        proto: if v4 { Proto::ICMP } else { Proto::ICMPV6 },
        ..Tuple::default()
    };
    Made {
        bytes: packet(&outer, transport),
        is_sound: true,
    }
}

/// A plain packet of TCP or UDP, a connection's first or an answer.
pub fn plain(tuple: &Tuple, first: bool) -> Vec<u8> {
    let transport = match tuple.proto.number {
        6 => vec![
            0,
            0,
            0,
            0,
            0,
            0,
            3,
            0xe8,
            0,
            0,
            7,
            0xd0,
            0x50,
            if first { 2 } else { 0x12 },
            1,
            0,
            0,
            0,
            0,
            0,
        ],
        _ => vec![0, 0, 0, 0, 0, 9, 0, 0, b'x'],
    };
    packet(tuple, transport)
}

fn packet(tuple: &Tuple, mut transport: Vec<u8>) -> Vec<u8> {
    let (src, dst) = (tuple.src.octets(), tuple.dst.octets());
    let proto = tuple.proto.number;
    if matches!(proto, 6 | 17 | 132) {
        transport[0..2].copy_from_slice(&tuple.src_port.host().to_be_bytes());
        transport[2..4].copy_from_slice(&tuple.dst_port.host().to_be_bytes());
    } else if transport[4..8] != [0, 0, 5, 0] {
        let id = tuple.src_port.wire | tuple.dst_port.wire;
        let is_reply = tuple.src_port.wire == 0;
        transport[0] = match (tuple.src.is_v4(), is_reply) {
            (true, false) => 8,
            (true, true) => 0,
            (false, false) => 128,
            (false, true) => 129,
        };
        transport[4..6].copy_from_slice(&id.to_ne_bytes());
    }
    let mut bytes = ethernet();
    if tuple.src.is_v4() {
        let mut header = vec![0x45, 0];
        header.extend((20 + transport.len() as u16).to_be_bytes());
        header.extend([0, 0, 0, 0, 64, proto, 0, 0]);
        header.extend(&src[12..]);
        header.extend(&dst[12..]);
        let sum = complement(add(0, &header));
        header[10..12].copy_from_slice(&sum);
        fill_checksum(&mut transport, proto, &[&src[12..], &dst[12..]].concat());
        bytes.extend([0x08, 0x00]);
        bytes.extend(header);
    } else {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        bytes.extend((transport.len() as u16).to_be_bytes());
        bytes.extend([proto, 64]);
        bytes.extend(src);
        bytes.extend(dst);
        fill_checksum(&mut transport, proto, &[src, dst].concat());
    }
    bytes.extend(transport);
    bytes
}

/// The addresses of a frame.
fn ethernet() -> Vec<u8> {
    [RECEIVER.octets, SENDER.octets].concat()
}

/// Mostly whole.
fn fragment_field(rng: &mut Rng) -> u16 {
    match rng.below(20) {
        0 => 0x2000,
        1 => 0x2005,
        2 => 5,
        3..8 => 0x4000,
        _ => 0,
    }
}

fn mutilate(rng: &mut Rng, frame: &mut Vec<u8>) {
    match rng.below(5) {
        4 => frame[6 + rng.below(6)] ^= 1 << rng.below(8),
        0 => frame.truncate(15 + rng.below(frame.len())),
        1 => frame.extend(vec![0; rng.below(64)]),
        _ => {
            for _ in 0..=rng.below(4) {
                let at = 12 + rng.below(frame.len() - 12);
                frame[at] = rng.number() as u8;
            }
        }
    }
}

/// Where a transport's checksum is.
fn place(proto: u8) -> Option<usize> {
    match proto {
        6 => Some(16),
        17 => Some(6),
        1 | 58 => Some(2),
        _ => None,
    }
}

fn pseudo(proto: u8, length: usize, addresses: &[u8]) -> u32 {
    // IPv4's own ICMP has none.
    if proto == 1 {
        return 0;
    }
    add(u32::from(proto) + length as u32, addresses)
}

fn fill_checksum(transport: &mut [u8], proto: u8, addresses: &[u8]) {
    if let Some(at) = place(proto).filter(|at| at + 2 <= transport.len()) {
        let sum = complement(add(pseudo(proto, transport.len(), addresses), transport));
        let sum = if proto == 17 && sum == [0, 0] {
            [0xff, 0xff]
        } else {
            sum
        };
        transport[at..at + 2].copy_from_slice(&sum);
    }
}

/// What is wrong with the checksums of a frame whose transport begins at `transport` and that is no
/// fragment.
pub fn wrong_checksum(frame: &[u8], transport: usize, proto: u8) -> Option<&'static str> {
    let v6 = frame[12] == 0x86;
    if !v6 && add(0, &frame[14..14 + usize::from(frame[14] & 0xf) * 4]) != 0xffff {
        return Some("IPv4 checksum");
    }
    let addresses = if v6 { &frame[22..54] } else { &frame[26..34] };
    let at = place(proto)?;
    let body = &frame[transport..];
    if body.len() < at + 2 || proto == if v6 { 1 } else { 58 } {
        return None;
    }
    if proto == 17 && body[at..at + 2] == [0, 0] {
        return None;
    }
    let sum = add(pseudo(proto, body.len(), addresses), body);
    (sum != 0xffff).then_some("transport checksum")
}

/// The folded sum of 16-bit words.
fn add(start: u32, bytes: &[u8]) -> u32 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u32
}

fn complement(sum: u32) -> [u8; 2] {
    (!(sum as u16)).to_be_bytes()
}
