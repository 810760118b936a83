//! Whole frames out of a link, past the node's stack.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

use crate::DatapathError;

/// A link of the calling thread's network namespace, to send on.
pub struct Sender {
    link: String,
    socket: OwnedFd,
}

impl Sender {
    pub fn open(link: &str) -> Result<Self, DatapathError> {
        let socket = bound(link).map_err(failed(link))?;
        let link = link.to_owned();
        Ok(Self { link, socket })
    }

    pub fn send(&self, frame: &[u8]) -> Result<(), DatapathError> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT);
        sent.map(drop)
            .map_err(|errno| failed(&self.link)(errno.into()))
    }
}

/// Of no protocol: nothing is received.
fn bound(link: &str) -> io::Result<OwnedFd> {
    let family = AddressFamily::Packet;
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let mut named = getifaddrs()?.filter(|it| it.interface_name == link);
    let addr = named.find_map(|it| it.address?.as_link_addr().copied());
    let addr = addr.ok_or(io::ErrorKind::NotFound)?;
    bind(socket.as_raw_fd(), &addr)?;
    Ok(socket)
}

fn failed(link: &str) -> impl FnOnce(io::Error) -> DatapathError {
    let what = format!("send a frame on {link}");
    move |error| DatapathError::io(what, error)
}
