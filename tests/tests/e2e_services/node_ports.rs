//! Node ports: whose they are, which there are, and when they are free again.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::wait;

use crate::setting::{Setting, pod, service};

fn web(name: &str, node_port: u16) -> Value {
    let ports = json!([{"port": 80, "nodePort": node_port}]);
    let selector = json!({"app": "web"});
    service(
        name,
        &json!({"type": "NodePort", "selector": selector, "ports": ports}),
    )
}

fn at(setting: &Setting, node: u8, port: u16) -> SocketAddr {
    SocketAddr::from((setting.node_address(node), port))
}

fn patch_port(name: &str, node_port: u16) -> [String; 6] {
    let patch = json!([{"op": "replace", "path": "/spec/ports/0/nodePort", "value": node_port}]);
    [
        "patch",
        "service",
        name,
        "--type=json",
        "-p",
        &patch.to_string(),
    ]
    .map(str::to_owned)
}

/// Why a change to this node port is not taken.
fn patch_refusal(setting: &Setting, name: &str, node_port: u16) -> String {
    let patch = patch_port(name, node_port);
    let answer = setting.kubectl.args(&patch.each_ref().map(String::as_str));
    format!("{:#}", answer.unwrap_err())
}

pub fn collision(setting: &Setting) {
    setting.create(&web("first", 30100)).unwrap();
    setting.create(&web("second", 30101)).unwrap();
    let taken = "spec.ports[0].nodePort: Invalid value: 30100: provided port is already allocated";
    let why = setting.refusal(&web("third", 30100));
    assert!(why.contains(taken), "{why}");
    let why = patch_refusal(setting, "second", 30100);
    assert!(why.contains(taken), "{why}");
    assert_eq!(setting.spec("second")["ports"][0]["nodePort"], 30101);
    for (node, port) in [(1, 30100), (2, 30101)] {
        setting.serves("outside", at(setting, node, port));
    }
    setting.delete("service first second");
}

pub fn out_of_range(setting: &Setting) {
    let range = "provided port is not in the valid range. The range of valid ports is 30000-32767";
    for port in [80, 29999, 32768] {
        let why = setting.refusal(&web("far", port));
        assert!(why.contains(range), "{port}: {why}");
    }
    setting.create(&web("near", 32767)).unwrap();
    let why = patch_refusal(setting, "near", 32768);
    assert!(why.contains(range), "{why}");
    setting.serves("outside", at(setting, 1, 32767));
    setting.delete("service near");
}

pub fn released(setting: &Setting) {
    let to = at(setting, 1, 30110);
    setting.create(&web("former", 30110)).unwrap();
    setting.serves("outside", to);
    setting.delete("service former");
    setting.refuses("outside", to);
    setting.create(&web("latter", 30110)).unwrap();
    setting.serves("outside", to);
    setting.delete("service latter");
}

/// Answers each datagram with itself.
const ECHO: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 80))
while True: s.sendto(*s.recvfrom(2048))
";

pub fn other_protocol(setting: &Setting) {
    let container = json!({"name": "echo", "image": "django", "command": ["python3", "-c", ECHO]});
    setting.create(&pod("echo", &container)).unwrap();
    setting.create(&web("tcp", 30120)).unwrap();
    let ports = json!([{"port": 80, "nodePort": 30120, "protocol": "UDP"}]);
    let spec = json!({"type": "NodePort", "selector": {"app": "echo"}, "ports": ports});
    setting.create(&service("udp", &spec)).unwrap();
    let to = at(setting, 1, 30120);
    setting.serves("outside", to);
    wait("a datagram to the same number comes back", || {
        let outside = setting.cluster.namespace("outside");
        Ok(Some(outside.enter(|| echoed(to))?))
    });

    // One Service may have the number for both, too. Replaced, not applied: a strategic merge knows
    // the ports by their number alone.
    let both = json!([
        {"name": "tcp", "port": 80, "nodePort": 30121},
        {"name": "udp", "port": 80, "nodePort": 30121, "protocol": "UDP"},
    ]);
    setting.create(&web("both", 30121)).unwrap();
    let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": both});
    setting.given("replace", &service("both", &spec)).unwrap();
    let ports = setting.spec("both")["ports"].clone();
    let numbers = [0, 1].map(|index| ports[index]["nodePort"].as_u64());
    assert_eq!(numbers, [Some(30121); 2], "{ports}");
    setting.serves("outside", at(setting, 2, 30121));
    setting.delete("service tcp udp both");
    setting.delete("pod echo");
}

fn echoed(to: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(to)?;
    socket.send(b"hello")?;
    let mut buffer = [0; 16];
    let length = socket.recv(&mut buffer)?;
    assert_eq!(&buffer[..length], b"hello");
    Ok(())
}
