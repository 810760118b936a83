//! `from_overlay`. A test run has no tunnel, so packets come through a real VXLAN device.

use orchestrator_common::DropReason;
use orchestrator_common::event::Hook;
use tests::packet::*;

use crate::world::*;

#[test]
fn what_came_through_no_tunnel_is_dropped() {
    let Some(mut world) = world("no tunnel") else {
        return;
    };
    let frame = udp((REMOTE_POD, 1), (POD, 1), b"");
    world.must_drop(Hook::FromOverlay, &frame, DropReason::NotOurTunnel);
    world.must_drop(Hook::FromOverlay, &arp(), DropReason::NotIp);
    world.must_drop(Hook::FromOverlay, &frame[..40], DropReason::Malformed);
}
