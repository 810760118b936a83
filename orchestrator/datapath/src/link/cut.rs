//! The veth pair in which packets become single ones with finished checksums, and are cut.

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::LinkAttribute;

use super::{CUT, Netlink, PIECES, quiet, veth};
use crate::{DatapathError, NodeConfig, syscall};

/// Indexes of `orch-cut` and `orch-pieces`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub cut: u32,
    pub pieces: u32,
}

/// There as it should be, or gone where nothing is to be cut.
pub(super) async fn ensure(
    netlink: &Netlink,
    config: &NodeConfig,
) -> Result<Option<Cut>, DatapathError> {
    if !config.cuts() {
        if let Some(left) = netlink.find(CUT).await? {
            netlink.delete(CUT, &left).await?;
        }
        return Ok(None);
    }
    let (cut, pieces) = veth(netlink, CUT, PIECES).await?;
    let [cut, pieces] = [cut, pieces].map(|link| link.header.index);
    syscall::finish_checksums(CUT)
        .map_err(|error| DatapathError::io(format!("turn checksum offload of {CUT} off"), error))?;
    for (name, index) in [(CUT, cut), (PIECES, pieces)] {
        quiet(name)?;
        let message = LinkUnspec::new_with_index(index)
            .arp(false)
            .multicast(false)
            // Nothing is left to a card to segment.
            .append_extra_attribute(LinkAttribute::GsoMaxSegs(1))
            .up();
        netlink.set(name, message.build()).await?;
    }
    Ok(Some(Cut { cut, pieces }))
}
