//! The client's side of SPDY.

use tokio::io::DuplexStream;
use tokio::time::Instant;

use crate::session::{Session, Wire};
use crate::shell::{Closer, Link, Reader, Writer};
use crate::spdy::{Role, Spdy};
use crate::table::Table;

/// A client over a pipe. Dropped, it says goodbye.
pub(super) struct Peer {
    closer: Closer,
}

pub(super) struct Stream {
    pub reader: Reader,
    pub writer: Writer,
}

impl Peer {
    pub fn new(io: DuplexStream) -> Self {
        let wire = Wire::Spdy(Box::new(Spdy::new(Role::Client)));
        let session = Session::new(wire, Table::default(), false, Instant::now());
        Self {
            closer: Closer::new(Link::start(session, io)),
        }
    }

    pub fn open(&self, headers: &[(&str, &str)]) -> Stream {
        let link = self.link();
        let id = link.session().open(headers).unwrap();
        Stream {
            reader: link.reader(id),
            writer: link.writer(id),
        }
    }

    pub fn link(&self) -> &Link {
        self.closer.link()
    }
}
