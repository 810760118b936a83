//! What is behind the uplink, as far as XDP asks.
//!
//! Read from the link's own attributes: `/sys/class/net` is that of the namespace that it was mounted
//! in, which need not be the agent's.

use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

use super::is_veth;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A card, or what passes for one.
    Card,
    /// The machine's host plays the card.
    Virtio,
    Veth,
    /// Any other link that is made of software.
    Software,
}

impl Driver {
    pub(super) fn of(link: &LinkMessage) -> Self {
        let bus = link.attributes.iter().find_map(|it| match it {
            LinkAttribute::ParentDevBusName(bus) => Some(bus.as_str()),
            _ => None,
        });
        match bus {
            Some("virtio") => Self::Virtio,
            Some(_) => Self::Card,
            None if is_veth(link) => Self::Veth,
            None => Self::Software,
        }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{InfoKind, LinkInfo};

    use super::*;

    fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.attributes = attributes;
        link
    }

    #[test]
    fn a_link_shows_what_is_behind_it() {
        let kind = |kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
        let bus = |name: &str| LinkAttribute::ParentDevBusName(name.to_owned());
        assert_eq!(Driver::of(&link(vec![bus("pci")])), Driver::Card);
        assert_eq!(Driver::of(&link(vec![bus("virtio")])), Driver::Virtio);
        assert_eq!(Driver::of(&link(vec![kind(InfoKind::Veth)])), Driver::Veth);
        let bridge = link(vec![kind(InfoKind::Bridge)]);
        assert_eq!(Driver::of(&bridge), Driver::Software);
        assert_eq!(Driver::of(&link(Vec::new())), Driver::Software);
    }
}
