//! SCTP: a protocol that is neither TCP nor UDP, of which addresses are translated. Its packets are made
//! by hand, for the kernel of this machine need not speak it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recvfrom,
    sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde_json::json;
use tests::cluster::wait;

use crate::setting::{Setting, service};

const PORT: u16 = 5060;
const CLIENT_PORT: u16 = 40_000;

/// What a pod may have received that nobody waits for any more.
const OLD: usize = 1000;

pub fn addresses(setting: &Setting) {
    told(setting);
    translated(setting);
}

/// The API's part, down to what nodes are told.
fn told(setting: &Setting) {
    let ports = json!([{"port": 5060, "targetPort": 5061, "protocol": "SCTP", "nodePort": 30130}]);
    let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports});
    setting.create(&service("sctp", &spec)).unwrap();
    let port = setting.spec("sctp")["ports"][0].clone();
    assert_eq!(
        (&port["protocol"], &port["nodePort"]),
        (&json!("SCTP"), &json!(30130))
    );
    let table = setting.kubectl.run("get service sctp").unwrap();
    assert!(table.contains("5060:30130/SCTP"), "{table}");
    wait("two pods are its endpoints", || {
        let slices = setting.slices("sctp")?;
        let Some(slice) = slices.first() else {
            return Ok(None);
        };
        let port = (&slice["ports"][0]["port"], &slice["ports"][0]["protocol"]);
        let endpoints = slice["endpoints"].as_array().map(Vec::len);
        Ok((port == (&json!(5061), &json!("SCTP")) && endpoints == Some(2)).then_some(()))
    });
    setting.delete("service sctp");
}

/// What a pod sends to the Service comes to one of its pods as it was sent, under that pod's own
/// address; what that one answers comes from the Service.
fn translated(setting: &Setting) {
    let ports = json!([{"port": PORT, "protocol": "SCTP"}]);
    let spec = json!({
        "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "web"}, "ports": ports,
    });
    setting.create(&service("sctp-spoken", &spec)).unwrap();
    let addresses = setting.spec("sctp-spoken")["clusterIPs"].clone();
    let addresses: Vec<IpAddr> = serde_json::from_value(addresses).unwrap();
    assert_eq!(addresses.len(), 2, "one a family: {addresses:?}");
    for service in addresses {
        let client = Raw::in_pods(setting, "app=client", "client", service).unwrap();
        let [client] = &client[..] else {
            panic!("one pod asks")
        };
        let pods = Raw::in_pods(setting, "app=web", "nginx", service).unwrap();
        // The tag is not of an association yet.
        let init = packet(CLIENT_PORT, PORT, 0, 1);
        let pod = wait("an INIT comes to a pod of the Service", || {
            client.send(&init, service)?;
            for pod in &pods {
                if let Some(from) = pod.receive(&init)? {
                    ensure!(from == client.address, "it is from {from}");
                    return Ok(Some(pod));
                }
            }
            Ok(None)
        });
        let answer = packet(PORT, CLIENT_PORT, 7, 2);
        pod.send(&answer, client.address).unwrap();
        let from = client.receive(&answer).unwrap();
        assert_eq!(from, Some(service), "the answer to {}", client.address);
    }
    setting.delete("service sctp-spoken");
}

/// A pod's socket for SCTP as it is, which hears only what is for the pod's own address.
struct Raw {
    address: IpAddr,
    socket: OwnedFd,
}

impl Raw {
    /// In each pod with this selector, on its address of the same family as `like`.
    fn in_pods(
        setting: &Setting,
        selector: &str,
        container: &str,
        like: IpAddr,
    ) -> Result<Vec<Self>> {
        let pods = setting.kubectl.json(&format!("get pods -l {selector}"))?;
        let mut found = Vec::new();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
            let mut addresses = addresses.filter_map(|it| it["ip"].as_str()?.parse().ok());
            let address = addresses.find(|address: &IpAddr| address.is_ipv4() == like.is_ipv4());
            let address = address.context("the pod has no address of that family")?;
            let name = pod["metadata"]["name"].as_str().context("no name")?;
            let enter = setting.cluster.enter_pod(name, container)?;
            let open = move || -> Result<OwnedFd> {
                enter();
                let family = match address {
                    IpAddr::V4(_) => AddressFamily::Inet,
                    IpAddr::V6(_) => AddressFamily::Inet6,
                };
                let flags = SockFlag::SOCK_CLOEXEC;
                let socket = socket(family, SockType::Raw, flags, SockProtocol::Sctp)?;
                let at = SockaddrStorage::from(SocketAddr::new(address, 0));
                bind(socket.as_raw_fd(), &at)?;
                setsockopt(
                    &socket,
                    sockopt::ReceiveTimeout,
                    &TimeVal::milliseconds(500),
                )?;
                Ok(socket)
            };
            let socket = thread::spawn(open).join().expect("it does not panic")?;
            found.push(Self { address, socket });
        }
        Ok(found)
    }

    fn send(&self, packet: &[u8], to: IpAddr) -> Result<()> {
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        let sent = sendto(self.socket.as_raw_fd(), packet, &to, MsgFlags::empty())?;
        ensure!(sent == packet.len(), "{sent} bytes left");
        Ok(())
    }

    /// Who sent that packet; `None` if it does not come.
    fn receive(&self, wanted: &[u8]) -> Result<Option<IpAddr>> {
        let mut buffer = [0; 2048];
        for _ in 0..OLD {
            let (length, from) =
                match recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut buffer) {
                    Ok(came) => came,
                    Err(Errno::EAGAIN) => return Ok(None),
                    Err(errno) => return Err(errno.into()),
                };
            let from = from.context("a packet is from somebody")?;
            let v4 = from.as_sockaddr_in().map(|it| it.ip().into());
            let v6 = from.as_sockaddr_in6().map(|it| it.ip().into());
            // Packets of IPv4 come with their header.
            let header = v4.map_or(0, |_: IpAddr| usize::from(buffer[0] & 15) * 4);
            if buffer.get(header..length) == Some(wanted) {
                return Ok(v4.or(v6));
            }
        }
        Ok(None)
    }
}

/// A chunk INIT (1) or INIT ACK (2) in a packet for an association of that tag.
fn packet(from: u16, to: u16, tag: u32, chunk: u8) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]); // the checksum
    packet.extend([chunk, 0, 0, 20]);
    packet.extend(7u32.to_be_bytes()); // the sender's tag
    packet.extend(65_536u32.to_be_bytes()); // its window
    packet.extend([0, 1, 0, 1]); // a stream each way
    packet.extend(1u32.to_be_bytes()); // its first number
    let checksum = crc32c(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum))
    });
    !sum
}
