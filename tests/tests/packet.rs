//! Every tcx hook's verdicts and drop reasons, with the bytes that leave, by BPF_PROG_TEST_RUN.

#[path = "packet/announce.rs"]
mod announce;
#[path = "packet/container.rs"]
mod container;
#[path = "packet/direct.rs"]
mod direct;
#[path = "packet/fragments.rs"]
mod fragments;
#[path = "packet/icmp.rs"]
mod icmp;
#[path = "packet/ipv6.rs"]
mod ipv6;
#[path = "packet/log.rs"]
mod log;
#[path = "packet/netdev.rs"]
mod netdev;
#[path = "packet/overlay.rs"]
mod overlay;
#[path = "packet/repliers.rs"]
mod repliers;
#[path = "packet/sctp.rs"]
mod sctp;
#[path = "packet/service.rs"]
mod service;
#[path = "packet/world.rs"]
mod world;
#[path = "packet/xdp.rs"]
mod xdp;

use tests::prog::{Datapath, can_load};

#[test]
fn every_program_passes_the_verifier() {
    if !can_load("every_program_passes_the_verifier") {
        return;
    }
    let datapath = Datapath::load().unwrap();
    let mut names = datapath.names();
    names.sort();
    assert_eq!(
        names,
        [
            "connect4",
            "connect6",
            "from_container",
            "from_cut",
            "from_netdev",
            "from_overlay",
            "getpeername4",
            "getpeername6",
            "post_bind4",
            "post_bind6",
            "recvmsg4",
            "recvmsg6",
            "sendmsg4",
            "sendmsg6",
            "sock_release",
            "to_container",
            "to_netdev",
            "xdp_uplink"
        ]
    );
}
