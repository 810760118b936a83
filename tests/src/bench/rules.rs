//! kube-proxy's rules as text: iptables chains and the nftables mode. Pure.
//!
//! Of the Services that no case asks, only the first endpoint has a chain: no packet walks those, and
//! a hundred thousand of them take the tools minutes to load.

use std::fmt::Write as _;

use datapath::view::Protocol;

use super::service::{Size, server_addr, service_addr};

/// One port of a Service.
struct Port {
    index: u32,
    name: &'static str,
    number: u16,
    protocol: &'static str,
    node_port: Option<u16>,
    endpoints: u8,
}

fn ports(size: Size) -> impl Iterator<Item = Port> {
    (0..size.services).flat_map(move |index| {
        let ports = size.ports(index).iter().zip(0..);
        ports.map(move |(&(name, number, protocol), nth)| Port {
            index,
            name,
            number,
            protocol: if protocol == Protocol::Udp {
                "udp"
            } else {
                "tcp"
            },
            node_port: size.node_port(index).filter(|_| nth == 0),
            endpoints: if size.tests(index) { size.endpoints } else { 1 },
        })
    })
}

/// Flannel's masquerade and kube-proxy's chains: one rule a Service port in KUBE-SERVICES, a chain
/// a Service port that chooses by chance, a chain an endpoint that translates; node ports at the end.
pub fn iptables(size: Size) -> String {
    let (mut chains, mut services, mut rules) = (String::new(), String::new(), String::new());
    for port in ports(size) {
        let Port {
            index,
            name,
            number,
            protocol,
            ..
        } = port;
        let tag = format!("{index:06}{}", name.replace('-', "").to_uppercase());
        let svc = format!("KUBE-SVC-{tag}");
        let vip = service_addr(index);
        let _ = writeln!(chains, ":{svc} - [0:0]");
        let _ = writeln!(
            services,
            "-A KUBE-SERVICES -d {vip}/32 -p {protocol} -m comment --comment \"bench/s{index}:{name} \
             cluster IP\" -m {protocol} --dport {number} -j {svc}"
        );
        let _ = writeln!(
            rules,
            "-A {svc} ! -s 10.100.0.0/16 -d {vip}/32 -p {protocol} -m {protocol} --dport {number} -j \
             KUBE-MARK-MASQ"
        );
        if let Some(node_port) = port.node_port {
            let _ = writeln!(chains, ":KUBE-EXT-{tag} - [0:0]");
            let _ = writeln!(
                rules,
                "-A KUBE-NODEPORTS -p {protocol} -m {protocol} --dport {node_port} -j KUBE-EXT-{tag}\n\
                 -A KUBE-EXT-{tag} -j KUBE-MARK-MASQ\n-A KUBE-EXT-{tag} -j {svc}"
            );
        }
        for nth in 0..port.endpoints {
            let sep = format!("KUBE-SEP-{tag}{nth}");
            let addr = server_addr(nth);
            let chance = match port.endpoints - nth {
                1 => String::new(),
                left => format!(
                    "-m statistic --mode random --probability {:.11} ",
                    1.0 / f64::from(left)
                ),
            };
            let _ = writeln!(chains, ":{sep} - [0:0]");
            let _ = writeln!(
                rules,
                "-A {svc} {chance}-j {sep}\n-A {sep} -s {addr}/32 -j KUBE-MARK-MASQ\n\
                 -A {sep} -p {protocol} -m {protocol} -j DNAT --to-destination {addr}:{number}"
            );
        }
    }
    format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
         :KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:FLANNEL-POSTRTG - [0:0]\n{chains}\
         -A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n\
         -A POSTROUTING -j KUBE-POSTROUTING\n-A POSTROUTING -j FLANNEL-POSTRTG\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN\n\
         -A FLANNEL-POSTRTG -s 10.100.0.0/16 -d 10.100.0.0/16 -j RETURN\n\
         -A FLANNEL-POSTRTG -s 10.100.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully\n\
         {services}-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n{rules}COMMIT\n"
    )
}

/// kube-proxy's nftables mode: one look-up in a verdict map, a chain a Service port with numgen; node
/// ports by a second map.
pub fn nftables(size: Size) -> String {
    let (mut chains, mut services, mut node_ports) = (String::new(), Vec::new(), Vec::new());
    for port in ports(size) {
        let Port {
            index,
            name,
            number,
            protocol,
            ..
        } = port;
        let vip = service_addr(index);
        let chain = format!("service-{index}-{name}");
        services.push(format!("{vip} . {protocol} . {number} : goto {chain}"));
        if let Some(node_port) = port.node_port {
            let _ = writeln!(
                chains,
                "chain external-{index}-{name} {{ jump mark-for-masquerade; goto {chain}; }}"
            );
            node_ports.push(format!(
                "{protocol} . {node_port} : goto external-{index}-{name}"
            ));
        }
        let choices: Vec<_> = (0..port.endpoints)
            .map(|nth| {
                let endpoint = format!("endpoint-{index}-{name}-{nth}");
                let addr = server_addr(nth);
                let _ = writeln!(
                    chains,
                    "chain {endpoint} {{ ip saddr {addr} jump mark-for-masquerade; meta l4proto \
                     {protocol} dnat to {addr}:{number}; }}"
                );
                format!("{nth} : goto {endpoint}")
            })
            .collect();
        let _ = writeln!(
            chains,
            "chain {chain} {{ ip daddr {vip} {protocol} dport {number} ip saddr != 10.100.0.0/16 jump \
             mark-for-masquerade; numgen random mod {} vmap {{ {} }}; }}",
            port.endpoints,
            choices.join(", ")
        );
    }
    let elements = |list: &[String]| match list {
        [] => String::new(),
        list => format!("elements = {{ {} }}", list.join(",\n")),
    };
    let (services, node_ports) = (elements(&services), elements(&node_ports));
    format!(
        "table ip kube-proxy {{ }}\ndelete table ip kube-proxy\ntable ip kube-proxy {{\n\
         chain mark-for-masquerade {{ mark set mark or 0x4000; }}\n{chains}\
         map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; {services} }}\n\
         map service-nodeports {{ type inet_proto . inet_service : verdict; {node_ports} }}\n\
         chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips\n\
         fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap \
         @service-nodeports; }}\n\
         chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n\
         chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
         chain nat-postrouting {{ type nat hook postrouting priority srcnat;\n\
         mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random\n\
         ip saddr 10.100.0.0/16 ip daddr 10.100.0.0/16 return\n\
         ip saddr 10.100.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random; }}\n}}\n"
    )
}
