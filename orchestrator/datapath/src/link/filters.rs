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

use rtnetlink::packet_core::NLM_F_CREATE;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::batch::{Request, Requests};

/// One program is enough: the only filter of its side has this number.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
const PRIORITY: u16 = 1;

/// Which packets of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ingress,
    Egress,
}

/// Each program runs on its side of the device, and no other does; no packet passes without one while it
/// replaces an earlier one. The device is in the calling thread's network namespace.
pub fn set(ifindex: u32, programs: &[(Side, BorrowedFd<'_>)]) -> io::Result<()> {
    Requests::open()?.execute(requests(ifindex, programs))
}

/// What has that done. A first `clsact` on a device that is up takes it down for an RCU grace period, and on one
/// that is not takes no time (Linux 6.18, `qdisc_graft`).
pub fn requests(ifindex: u32, programs: &[(Side, BorrowedFd<'_>)]) -> Vec<Request> {
    let filters = programs.iter().map(|(side, program)| {
        RouteNetlinkMessage::NewTrafficFilter(filter(ifindex, *side, *program))
    });
    let queue = RouteNetlinkMessage::NewQueueDiscipline(queue(ifindex));
    let all = [queue].into_iter().chain(filters);
    all.map(|message| (message, NLM_F_CREATE)).collect()
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
