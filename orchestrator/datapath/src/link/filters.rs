//! Programs on a device the classic way, as filters of its `clsact` queue.
//!
//! What they do they do at once. A first tcx link on a device waits for an RCU grace period instead,
//! 5 to 20 ms, and holds the lock of all links meanwhile (Linux 6.6, commit e420bed02507,
//! `tcx_entry_sync`). Filters cost each packet more, so `attach` has tcx links take over later: those run
//! first, and a filter sees only what they leave to the next program.
//!
//! A filter goes with its device: there is nothing to pin and nothing to prune.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// One program is enough: the only filter of its side has this number.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
const PRIORITY: u16 = 1;
/// No acknowledgement is longer.
const ANSWER_BYTES: usize = 4096;

/// Which packets of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ingress,
    Egress,
}

/// Each program runs on its side of the device, and no other does; no packet passes without one while it
/// replaces an earlier one. The device is in the calling thread's network namespace.
pub fn set(ifindex: u32, programs: &[(Side, BorrowedFd<'_>)]) -> io::Result<()> {
    let filters = programs.iter().map(|(side, program)| {
        RouteNetlinkMessage::NewTrafficFilter(filter(ifindex, *side, *program))
    });
    let queue = RouteNetlinkMessage::NewQueueDiscipline(queue(ifindex));
    execute([queue].into_iter().chain(filters).collect())
}

/// All in one system call; the first error.
fn execute(messages: Vec<RouteNetlinkMessage>) -> io::Result<()> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut bytes = Vec::new();
    let count = messages.len();
    for message in messages {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
        message.finalize();
        let at = bytes.len();
        bytes.resize(at + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[at..]);
    }
    socket.send(&bytes, 0)?;
    // In their order; the socket goes with what is not read.
    (0..count).try_for_each(|_| answer(&socket))
}

fn answer(socket: &Socket) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(ANSWER_BYTES);
    socket.recv(&mut bytes, 0)?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes);
    match answer.map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(answer) if answer.code.is_none() => Ok(()),
        NetlinkPayload::Error(answer) => Err(answer.to_io()),
        _ => Err(io::Error::other("an answer that nobody asked for")),
    }
}

fn queue(ifindex: u32) -> TcMessage {
    let mut message = message(ifindex, "clsact");
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: 0,
    };
    message
}

fn filter(ifindex: u32, side: Side, program: BorrowedFd<'_>) -> TcMessage {
    let mut message = message(ifindex, "bpf");
    message.header.parent = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: match side {
            Side::Ingress => TcHandle::MIN_INGRESS,
            Side::Egress => TcHandle::MIN_EGRESS,
        },
    };
    message.header.handle = HANDLE;
    let all_protocols = TcHandle {
        major: PRIORITY,
        minor: (libc::ETH_P_ALL as u16).to_be(),
    };
    message.header.info = all_protocols.into();
    let options = [
        TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32),
        TcFilterBpfOption::ProgName("orchestrator".into()),
        // The program's answer is the verdict.
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    let options = options.into_iter().map(TcOption::Bpf).collect();
    message.attributes.push(TcAttribute::Options(options));
    message
}

fn message(ifindex: u32, kind: &str) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message
}
