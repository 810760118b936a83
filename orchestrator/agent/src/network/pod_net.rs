//! One pod's wire: a veth pair between its network namespace and the node's, its addresses,
//! its routes. No bridge, no rule, no ARP.
//!
//! Owns the links called `orch` and eleven hex digits. Every step finds what is right already and
//! leaves it alone, so a restarted agent may attach again at any time. What a packet does on the
//! wire is the datapath's, whose guard is set before the link is up.
//!
//! ```text
//!  thread of its own: pair, one queue each ─▶ guard ─▶ up ─▶ enter the pod ─▶ up, addresses, gateway
//! ```
//!
//! The kernel has one lock for all links of the machine, and starting containers take it as well: whoever waits for
//! it must not be the thread that all of the agent runs on, and nothing here waits for an RCU grace period under it.

pub mod shaping;
pub mod uplink;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use sha2::{Digest, Sha256};

use datapath::link::batch::Requests;
use datapath::{Addrs, Guard, LocalPod, syscall};
use shaping::Bandwidth;

const PREFIX: &str = "orch";
const POD_SIDE: &str = "eth0";
const LOOPBACK: u32 = 1;

/// How long a sandbox may take to enter the node's namespace.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// What a pod's wire is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    pub uid: String,
    /// A process in the pod's network namespace.
    pub pid: u32,
    pub addrs: Addrs,
    /// The node inside the overlay.
    pub gateways: Addrs,
    pub mtu: u32,
}

/// What can go wrong between the agent and the node's links.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{what}: {source}")]
    Netlink {
        what: String,
        source: Box<rtnetlink::Error>,
    },
    #[error("{0}")]
    Unexpected(String),
}

/// The node's end of all wires. Made in the node's network namespace.
pub struct PodLinks {
    netlink: Netlink,
}

/// The name of a pod's link on the node.
pub fn host_link_name(uid: &str) -> String {
    format!("{PREFIX}{}", &hex::encode(Sha256::digest(uid))[..11])
}

impl PodLinks {
    pub fn new() -> Result<PodLinks, NetError> {
        Ok(PodLinks {
            netlink: Netlink::connect()?,
        })
    }

    /// Wires a pod, or finds it wired.
    pub async fn attach(&self, wire: &Wire, guard: &Arc<Guard>) -> Result<LocalPod, NetError> {
        let attach = || {
            let (wire, guard) = (wire.clone(), guard.clone());
            on_thread(move || attach_once(&wire, &guard))
        };
        let adopted = attach().await?;
        let (ifindex, netns_cookie) = match adopted {
            Some(done) => done,
            None => {
                // A link that leads elsewhere is left from an earlier sandbox.
                self.detach(&wire.uid).await?;
                let name = host_link_name(&wire.uid);
                let lost = || NetError::Unexpected(format!("{name} lost its peer at once"));
                attach().await?.ok_or_else(lost)?
            }
        };
        let (host_mac, mac) = macs(&wire.uid);
        Ok(LocalPod {
            addrs: wire.addrs,
            ifindex,
            ifname: host_link_name(&wire.uid),
            mac,
            host_mac,
            netns_cookie,
            host_network: false,
            is_queued: false,
        })
    }

    /// Holds a pod to its bandwidth, at both ends of its wire.
    pub async fn shape(&self, wire: &Wire, ifindex: u32, limit: Bandwidth) -> Result<(), NetError> {
        if limit.ingress.is_some() {
            shaping::shape(&self.netlink.handle, ifindex, limit.ingress).await?;
        }
        if limit.egress.is_none() {
            return Ok(());
        }
        let path = format!("/proc/{}/ns/net", wire.pid);
        let namespace = File::open(&path).map_err(|source| NetError::Io {
            what: format!("open {path}"),
            source,
        })?;
        let inside = async move || {
            let netlink = Netlink::connect()?;
            let link = netlink.find(POD_SIDE).await?;
            let link = link.ok_or_else(|| NetError::Unexpected("a pod lost its link".into()))?;
            shaping::shape(&netlink.handle, link.header.index, limit.egress).await
        };
        in_namespace(&namespace, inside).await
    }

    /// Removes a pod's wire; an absent one is a success.
    pub async fn detach(&self, uid: &str) -> Result<(), NetError> {
        self.remove(&host_link_name(uid)).await
    }

    /// Removes every wire but those of these pods; gives their names.
    pub async fn remove_others(&self, keep: &[String]) -> Result<Vec<String>, NetError> {
        let keep: Vec<String> = keep.iter().map(|uid| host_link_name(uid)).collect();
        let links: Vec<LinkMessage> = {
            let links = self.netlink.handle.link().get().execute();
            links.try_collect().await.map_err(failed("list links"))?
        };
        let names = links.into_iter().filter_map(|link| {
            link.attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                })
        });
        let ours = |name: &String| {
            let digits = name.strip_prefix(PREFIX);
            digits.is_some_and(|it| it.len() == 11 && it.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        let old: Vec<String> = names
            .filter(|name| ours(name) && !keep.contains(name))
            .collect();
        for name in &old {
            self.remove(name).await?;
        }
        Ok(old)
    }

    async fn remove(&self, name: &str) -> Result<(), NetError> {
        let name = name.to_owned();
        on_thread(move || {
            let mut link = LinkMessage::default();
            link.attributes.push(LinkAttribute::IfName(name.clone()));
            let delete = (RouteNetlinkMessage::DelLink(link), 0);
            match Requests::open().and_then(|node| node.execute(vec![delete])) {
                // Its namespace went first, and it with it.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
                outcome => outcome.map_err(during(format!("remove link {name}"))),
            }
        })
        .await
    }
}

/// Does both ends, and ends in the pod's namespace; gives the host side's index and the namespace's cookie. None
/// when there is a link of that name whose peer is not in the pod's namespace.
fn attach_once(wire: &Wire, guard: &Guard) -> Result<Option<(u32, u64)>, NetError> {
    let name = host_link_name(&wire.uid);
    let path = format!("/proc/{}/ns/net", wire.pid);
    let namespace = File::open(&path).map_err(during(format!("open {path}")))?;
    let node = Requests::open().map_err(during("open a netlink socket"))?;
    match node.execute(vec![pair(wire, &name, &namespace)]) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        made => made.map_err(during(format!("create link {name}")))?,
    }
    let link = node
        .link(&name)
        .map_err(during(format!("look for link {name}")))?;
    let link = link.ok_or_else(|| NetError::Unexpected(format!("link {name} vanished")))?;
    let ifindex = link.header.index;
    set_ipv6(&name, "disable_ipv6", "1")?;
    let mut requests = guard.requests(ifindex);
    let up = LinkUnspec::new_with_index(ifindex).mtu(wire.mtu).up();
    requests.push((RouteNetlinkMessage::SetLink(up.build()), 0));
    let guarded = node.execute(requests);
    guarded.map_err(during(format!("guard link {name} and set it up")))?;
    setns(&namespace, CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .map_err(during("enter a pod's network"))?;
    let cookie = configure_pod_side(wire)?;
    Ok(cookie.map(|cookie| (ifindex, cookie)))
}

/// The pair with both ends where they belong. Each is made with one queue: of more, which are the default, the kernel
/// would take the others away at once, and wait for an RCU grace period for each end (Linux 6.18, `veth_init_queues`).
fn pair(wire: &Wire, name: &str, namespace: &File) -> (RouteNetlinkMessage, u16) {
    let (host_mac, mac) = macs(&wire.uid);
    let queues = || [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
    let mut peer = LinkUnspec::new_with_name(POD_SIDE)
        .address(mac.to_vec())
        .mtu(wire.mtu)
        .setns_by_fd(namespace.as_raw_fd())
        .build();
    peer.attributes.extend(queues());
    let mut pair = LinkVeth::new(name, POD_SIDE)
        .address(host_mac.to_vec())
        .mtu(wire.mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    pair.attributes.extend(queues());
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    (RouteNetlinkMessage::NewLink(pair), flags)
}

/// Waits until a sandbox has entered the namespace that this process is in.
pub async fn joined_node(pid: u32) -> Result<(), NetError> {
    let inode = |path: String| {
        let read = std::fs::metadata(&path).map(|found| found.ino());
        read.map_err(|source| NetError::Io {
            what: format!("read {path}"),
            source,
        })
    };
    let own = inode("/proc/self/ns/net".to_owned())?;
    let deadline = tokio::time::Instant::now() + JOIN_PATIENCE;
    while inode(format!("/proc/{pid}/ns/net"))? != own {
        if tokio::time::Instant::now() > deadline {
            let message = "the sandbox did not enter the node's network namespace";
            return Err(NetError::Unexpected(message.to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Runs in the pod's namespace; none when the pod's end is not there.
fn configure_pod_side(wire: &Wire) -> Result<Option<u64>, NetError> {
    let inside = Requests::open().map_err(during("open a netlink socket"))?;
    let (host_mac, mac) = macs(&wire.uid);
    let link = inside
        .link(POD_SIDE)
        .map_err(during("look for a pod's link"))?;
    let ours = LinkAttribute::Address(mac.to_vec());
    let Some(link) = link.filter(|link| link.attributes.contains(&ours)) else {
        return Ok(None);
    };
    let index = link.header.index;
    match wire.addrs.v6 {
        Some(_) => plain_ipv6(POD_SIDE)?,
        None => set_ipv6(POD_SIDE, "disable_ipv6", "1")?,
    }
    let up = |index| LinkUnspec::new_with_index(index).up().build();
    let links = [LOOPBACK, index].map(|link| (RouteNetlinkMessage::SetLink(up(link)), 0));
    let mut requests = Vec::from(links);
    for address in wire.addrs.iter() {
        let gateway = wire.gateways.like(address).ok_or_else(|| {
            NetError::Unexpected(format!(
                "the node has no address beside the pod's {address}"
            ))
        })?;
        let given = addressed(index, address, gateway, host_mac);
        requests.extend(given.map(|request| (request, NLM_F_CREATE | NLM_F_REPLACE)));
    }
    let done = inside.execute(requests);
    done.map_err(during("give a pod its addresses and routes"))?;
    let cookie = syscall::own_netns_cookie();
    cookie.map(Some).map_err(during("read a netns cookie"))
}

/// One address and no neighbourhood: everything, the next pod too, is behind the gateway.
fn addressed(
    index: u32,
    address: IpAddr,
    gateway: IpAddr,
    gateway_mac: [u8; 6],
) -> [RouteNetlinkMessage; 3] {
    let mut own = match address {
        IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(address, 32)
            .build(),
        IpAddr::V6(address) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(address, 128)
            .build(),
    };
    let attributes = &mut own.attributes;
    attributes.retain(|it| !matches!(it, AddressAttribute::Broadcast(_)));
    // Nobody else can have it, and its routes are made here.
    let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
    attributes.push(AddressAttribute::Flags(flags));
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = own.header.family;
    neighbour.header.ifindex = index;
    neighbour.header.state = NeighbourState::Permanent;
    neighbour.header.kind = RouteType::Unspec;
    neighbour.attributes = vec![
        NeighbourAttribute::Destination(gateway.into()),
        NeighbourAttribute::LinkLayerAddress(gateway_mac.to_vec()),
    ];
    let route = match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(index)
            .onlink()
            .build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(gateway)
            .output_interface(index)
            .onlink()
            .build(),
    };
    [
        RouteNetlinkMessage::NewAddress(own),
        RouteNetlinkMessage::NewNeighbour(neighbour),
        RouteNetlinkMessage::NewRoute(route),
    ]
}

/// Runs a future on a thread of its own inside a network namespace.
async fn in_namespace<T, F>(namespace: &File, work: F) -> Result<T, NetError>
where
    T: Send + 'static,
    F: AsyncFnOnce() -> Result<T, NetError> + Send + 'static,
{
    let namespace = namespace.try_clone();
    let namespace = namespace.map_err(during("enter a pod's network"))?;
    on_thread(move || {
        let entered = setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        let runtime = entered.and_then(|()| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_io().build()
        });
        let runtime = runtime.map_err(during("enter a pod's network"))?;
        runtime.block_on(work())
    })
    .await
}

/// Runs on a thread of its own, which begins in the caller's network namespace. A thread that has changed its
/// namespace must never serve anything else: it ends with the work.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
) -> Result<T, NetError> {
    let (done, result) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("pod-net".into())
        .stack_size(256 * 1024);
    // The other side may have been cancelled; then nobody waits for the answer.
    let spawned = thread.spawn(move || drop(done.send(work())));
    spawned.map_err(during("start a thread"))?;
    let lost = |_| NetError::Unexpected("the thread in a pod's network died".to_owned());
    result.await.map_err(lost)?
}

/// Two addresses that are the same at every start: locally administered, unicast.
fn macs(uid: &str) -> ([u8; 6], [u8; 6]) {
    let mac = |side: &str| {
        let digest = Sha256::digest(format!("{side} of {uid}"));
        [0x02, digest[0], digest[1], digest[2], digest[3], digest[4]]
    };
    (mac("host"), mac("pod"))
}

/// IPv6 with the addresses and neighbours that are given to it, and none that it finds itself.
fn plain_ipv6(name: &str) -> Result<(), NetError> {
    for (setting, value) in [
        ("addr_gen_mode", "1"),
        ("accept_ra", "0"),
        ("accept_dad", "0"),
        ("dad_transmits", "0"),
        ("router_solicitations", "0"),
        ("disable_ipv6", "0"),
    ] {
        set_ipv6(name, setting, value)?;
    }
    // Its own loopback address, which engines without IPv6 take away.
    set_ipv6("lo", "disable_ipv6", "0")
}

/// A setting of a link, written if it is another. A kernel without IPv6 has none to write.
fn set_ipv6(name: &str, setting: &str, value: &str) -> Result<(), NetError> {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/{setting}");
    let failed = |what: &str, source| NetError::Io {
        what: format!("{what} {path}"),
        source,
    };
    match std::fs::read_to_string(&path) {
        Ok(held) if held.trim() == value => Ok(()),
        Ok(_) => std::fs::write(&path, value).map_err(|error| failed("write", error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("read", error)),
    }
}

fn during(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetError {
    let what = what.into();
    move |source| NetError::Io { what, source }
}

fn failed(what: &str) -> impl FnOnce(rtnetlink::Error) -> NetError {
    let what = what.to_owned();
    move |source| NetError::Netlink {
        what,
        source: Box::new(source),
    }
}

/// One netlink connection, of the namespace of the thread that made it; its task ends with it.
struct Netlink {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Netlink {
    fn connect() -> Result<Netlink, NetError> {
        let opened = rtnetlink::new_connection();
        let (connection, handle, _) = opened.map_err(|source| NetError::Io {
            what: "open a netlink socket".into(),
            source,
        })?;
        Ok(Netlink {
            handle,
            task: tokio::spawn(connection),
        })
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, NetError> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match links.try_next().await {
            Ok(link) => Ok(link),
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => Ok(None),
            Err(error) => Err(failed(&format!("look for link {name}"))(error)),
        }
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_name_fits_the_kernel_and_follows_from_the_pod() {
        let name = host_link_name("0f1e2d3c-0000-4000-8000-000000000000");
        assert_eq!(name.len(), 15);
        assert_eq!(name, host_link_name("0f1e2d3c-0000-4000-8000-000000000000"));
        assert_ne!(name, host_link_name("1f1e2d3c-0000-4000-8000-000000000000"));
    }

    #[test]
    fn both_ends_have_their_own_local_unicast_address() {
        let (host, pod) = macs("a");
        assert_ne!(host, pod);
        assert_eq!((host[0] & 3, pod[0] & 3), (2, 2));
    }
}
