//! The bugs: each a text that stands once in its file, and what it becomes.

pub struct Bug {
    /// What would go wrong.
    pub name: &'static str,
    /// Below the workspace.
    pub file: &'static str,
    pub from: &'static str,
    pub to: &'static str,
}

pub const BUGS: &[Bug] = &[
    Bug {
        name: "a pod may use any pod's address",
        file: "orchestrator-ebpf/src/forward.rs",
        from: "source.ifindex == packet.ifindex() && packet.is_from",
        to: "packet.is_from",
    },
    Bug {
        name: "a pod may use any link address",
        file: "orchestrator-ebpf/src/forward.rs",
        from: " && packet.is_from(&source.mac);",
        to: ";",
    },
    Bug {
        name: "a pod tells of what others were sent",
        file: "orchestrator-ebpf/src/icmp.rs",
        from: "to.same(&packet.headers.tuple.src))",
        to: "!to.same(&Addr::UNSPECIFIED))",
    },
    Bug {
        name: "the uplink hears of what pods sent",
        file: "orchestrator-ebpf/src/icmp.rs",
        from: "range.contains(&from) || range.contains(&to))",
        to: "range.contains(&from))",
    },
    Bug {
        name: "the overlay carries foreign sources",
        file: "orchestrator-ebpf/src/forward.rs",
        from: "if is_direct && !dsr::may_send(config, rule) {",
        to: "if false {",
    },
    Bug {
        name: "any node may send for any pod",
        file: "orchestrator-ebpf/src/hooks/overlay.rs",
        from: "Some(node) if node.vtep.same(&packet.headers.sender) => {}",
        to: "Some(_) => {}",
    },
    Bug {
        name: "the least of IPv6 is refused at a narrow hop",
        file: "orchestrator-ebpf/src/path.rs",
        from: "if packet.longest() <= LEAST {",
        to: "if false {",
    },
    Bug {
        name: "where answers come from is not noted",
        file: "orchestrator-ebpf/src/conntrack.rs",
        from: "if opening.key.scope.number == Scope::SERVICE.number {",
        to: "if false {",
    },
    Bug {
        name: "any tunnel is ours",
        file: "orchestrator-ebpf/src/hooks/overlay.rs",
        from: "if packet.headers.vni != config.vni {",
        to: "if false {",
    },
    Bug {
        name: "flows stay with a backend that went",
        file: "orchestrator-ebpf/src/lb.rs",
        from: "maps::generation(flow.backend) == flow.generation\n",
        to: "true\n",
    },
    Bug {
        name: "who reaches itself answers itself",
        file: "orchestrator-ebpf/src/lb.rs",
        from: "Some(_) => backend.same(client),",
        to: "Some(_) => false,",
    },
    Bug {
        name: "remote backends answer clients outside directly",
        file: "orchestrator-ebpf/src/lb.rs",
        from: "None => scope == ServiceKey::OUTSIDE || !config.family(client).pods.contains(client),",
        to: "None => false,",
    },
    Bug {
        name: "a Service with endpoints elsewhere refuses",
        file: "orchestrator-ebpf/src/choice.rs",
        from: "service.flags & Service::ELSEWHERE != 0",
        to: "service.flags & Service::ELSEWHERE == 0",
    },
    Bug {
        name: "masquerade takes node ports",
        file: "orchestrator-ebpf/src/nat.rs",
        from: "!self.config.is_node_port(translated.src_port) && !held",
        to: "!held",
    },
    Bug {
        name: "two flows share their answers",
        file: "orchestrator-ebpf/src/conntrack.rs",
        from: "Some(there) if there.translated.same_packet(&row.translated) => {",
        to: "Some(there) => {",
    },
    Bug {
        name: "the answer's row is written second as the question's",
        file: "orchestrator-ebpf/src/conntrack.rs",
        from: "row.direction = Flow::REPLY;",
        to: "row.direction = Flow::FORWARD;",
    },
    Bug {
        name: "time to live is not looked at",
        file: "orchestrator-ebpf/src/forward.rs",
        from: "if packet.headers.ttl <= 1 {",
        to: "if packet.headers.ttl == 255 {",
    },
    Bug {
        name: "addresses are not in the transport's checksum",
        file: "orchestrator-ebpf/src/skb.rs",
        from: "self.has_checksum() && (self.headers.is_v6() || !self.headers.is_icmp())",
        to: "self.has_checksum() && self.headers.is_v6()",
    },
    Bug {
        name: "pods' addresses come in by the uplink",
        file: "orchestrator-ebpf/src/hooks/netdev.rs",
        from: "if pods.contains(&tuple.src) || pods.contains(&tuple.dst) {",
        to: "if pods.contains(&tuple.dst) {",
    },
    Bug {
        name: "XDP takes answers from any node",
        file: "orchestrator-ebpf/src/hooks/xdp.rs",
        from: "if !node.vtep.same(&sender) || !tuple.dst.same(&family.translation) {",
        to: "if !tuple.dst.same(&family.translation) {",
    },
    Bug {
        name: "XDP sends by whatever link leads there",
        file: "orchestrator-ebpf/src/frame.rs",
        from: " && fib.ifindex == config.uplink;",
        to: ";",
    },
    Bug {
        name: "later fragments have the wrong port",
        file: "orchestrator-ebpf/src/fragments.rs",
        from: "headers.tuple.dst_port = ports.dst_port;",
        to: "headers.tuple.dst_port = ports.src_port;",
    },
    Bug {
        name: "an ICMP error reaches the wrong host",
        file: "orchestrator-ebpf/src/icmp.rs",
        from: "    outer.dst = to.dst;",
        to: "    outer.dst = packet.headers.tuple.dst;",
    },
    Bug {
        name: "a client is answered by nobody it asked",
        file: "orchestrator-ebpf/src/dsr.rs",
        from: "asked.dst, asked.dst_port);",
        to: "asked.src, asked.dst_port);",
    },
    Bug {
        name: "nodes are answered directly as if they were outside",
        file: "orchestrator-ebpf/src/lb.rs",
        from: "        && maps::node(&opening.key.src).is_none()\n",
        to: "",
    },
    Bug {
        name: "a pod sees what its client asked",
        file: "orchestrator-ebpf/src/dsr.rs",
        from: "    make_room(packet, -(ROOM as i32))?;\n",
        to: "",
    },
    Bug {
        name: "endpoints that stopped serving are used",
        file: "orchestrator/datapath/src/desired/choice.rs",
        from: "self.serving && self.terminating",
        to: "self.terminating",
    },
    Bug {
        name: "nobody hears that another node has endpoints",
        file: "orchestrator/datapath/src/desired/services.rs",
        from: "elsewhere: outside && usable && backends.is_empty(),",
        to: "elsewhere: false,",
    },
    Bug {
        name: "the external policy binds those inside",
        file: "orchestrator/datapath/src/desired/services.rs",
        from: "_ => outside && external.is_some_and(|it| it.local),",
        to: "_ => external.is_some_and(|it| it.local),",
    },
    Bug {
        name: "a Service counts backends that are not there yet",
        file: "orchestrator/datapath/src/delta.rs",
        from: "    Phase::Put(Map::Backends),\n    Phase::Put(Map::Maglev),\n    Phase::Put(Map::SourceRanges),\n    Phase::Put(Map::Services),\n",
        to: "    Phase::Put(Map::Maglev),\n    Phase::Put(Map::SourceRanges),\n    Phase::Put(Map::Services),\n    Phase::Put(Map::Backends),\n",
    },
    Bug {
        name: "rows are deleted before the view is complete",
        file: "orchestrator/datapath/src/delta.rs",
        from: "Phase::Delete(_) | Phase::RaiseGenerations if !prune => {}",
        to: "Phase::RaiseGenerations if !prune => {}",
    },
    Bug {
        name: "source ranges hold for every address of a Service",
        file: "orchestrator/datapath/src/desired/services.rs",
        from: "external.filter(|_| port.via == Via::LoadBalancer)",
        to: "external",
    },
];
