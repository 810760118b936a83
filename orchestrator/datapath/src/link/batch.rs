//! Requests to the kernel's links in one system call, on the calling thread: it waits for the lock of all links
//! while others hold it, so a thread that serves others must not ask here.

use std::io;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// No answer is longer: a link's own has all its counters.
const ANSWER_BYTES: usize = 32 * 1024;

/// What is asked, with its flags besides those of every request.
pub type Request = (RouteNetlinkMessage, u16);

/// A socket of the network namespace in which its thread was when it was opened.
pub struct Requests(Socket);

impl Requests {
    pub fn open() -> io::Result<Requests> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Requests(socket))
    }

    /// Does all of them in their order; the first error. What comes after that one is done all the same.
    pub fn execute(&self, requests: Vec<Request>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let count = requests.len();
        for (message, flags) in requests {
            append(&mut bytes, message, flags | NLM_F_ACK);
        }
        self.0.send(&bytes, 0)?;
        let answers: Vec<_> = (0..count).map(|_| self.answer()).collect();
        answers.into_iter().try_for_each(|answer| match answer? {
            NetlinkPayload::Error(answer) if answer.code.is_none() => Ok(()),
            other => Err(refused(other)),
        })
    }

    /// The link of that name, if there is one.
    pub fn link(&self, name: &str) -> io::Result<Option<LinkMessage>> {
        let mut asked = LinkMessage::default();
        asked
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let mut bytes = Vec::new();
        append(&mut bytes, RouteNetlinkMessage::GetLink(asked), 0);
        self.0.send(&bytes, 0)?;
        match self.answer()? {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link)),
            other => match refused(other) {
                error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    }

    fn answer(&self) -> io::Result<NetlinkPayload<RouteNetlinkMessage>> {
        let mut bytes = Vec::with_capacity(ANSWER_BYTES);
        self.0.recv(&mut bytes, 0)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes);
        Ok(answer.map_err(io::Error::other)?.payload)
    }
}

fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let at = bytes.len();
    bytes.resize(at + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[at..]);
}

fn refused(answer: NetlinkPayload<RouteNetlinkMessage>) -> io::Error {
    match answer {
        NetlinkPayload::Error(answer) => answer.to_io(),
        _ => io::Error::other("an answer that nobody asked for"),
    }
}
