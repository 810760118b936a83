//! Nobody serves: whoever asks is told at once.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use tests::netns::{Plan, Svc};
use tests::peer::{refused_tcp, refused_udp, udp_for};

use crate::pair::{CLIENT, FAR, Families, Pair, TARGET, families};

const NODE_PORT: u16 = 30080;
/// The fastest of several: no timer is waited for, whatever else runs on the machine.
const AT_ONCE: Duration = Duration::from_millis(10);

/// What the pool gave, and what its owner wrote, in each family.
const BALANCED: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const EXTERNAL: [&str; 2] = ["192.0.2.20", "2001:db8::20"];

families! {
    refused: connection_is_refused_without_endpoints_from_pod_node_and_outside
        connection_is_refused_without_endpoints_from_pod_node_and_outside_v6
        connection_is_refused_without_endpoints_from_pod_node_and_outside_dual;
}

fn refused(test: &str, families: Families) -> Result<()> {
    for plan in [Plan::nodes(2), Plan::nodes(2).per_packet()] {
        let Some(mut pair) = Pair::start_as(test, plan)? else {
            return Ok(());
        };
        let mut web = families
            .svc("web", 10)
            .port(80, TARGET)
            .node_port(NODE_PORT)
            .udp(80, TARGET)
            .node_port(NODE_PORT);
        let of = |addrs: [&str; 2]| -> Result<Vec<IpAddr>> {
            let addrs = addrs.into_iter().map(|addr| Ok(addr.parse()?));
            let addrs: Vec<IpAddr> = addrs.collect::<Result<_>>()?;
            Ok(addrs.into_iter().filter(|it| families.has(*it)).collect())
        };
        let (balanced, external) = (of(BALANCED)?, of(EXTERNAL)?);
        web = balanced.iter().fold(web, |web, ip| web.load_balancer(*ip));
        web = external.iter().fold(web, |web, ip| web.external_ip(*ip));
        pair.cluster.apply(&web)?;
        pair.cluster.route_outside("192.0.2.0/24", 0)?;
        pair.cluster.route_outside("2001:db8::/64", 0)?;
        let mut places = Vec::new();
        for ip in web.each_ip() {
            places.extend([(pair.pod(CLIENT), ip, 80), (pair.node(0), ip, 80)]);
        }
        for addr in pair.node_addrs(1, families) {
            places.extend([
                (pair.outside(), addr, NODE_PORT),
                (pair.pod(FAR), addr, NODE_PORT),
            ]);
        }
        for ip in balanced.into_iter().chain(external) {
            let askers = [pair.outside(), pair.pod(CLIENT), pair.node(0)];
            places.extend(askers.map(|asker| (asker, ip, 80)));
        }
        for (asker, addr, port) in places {
            let mut fastest = [Duration::MAX; 2];
            for _ in 0..5 {
                fastest[0] = fastest[0].min(refused_tcp(asker, (addr, port))?);
                fastest[1] = fastest[1].min(refused_udp(asker, (addr, port))?);
            }
            let at_once = fastest.iter().all(|took| *took <= AT_ONCE);
            assert!(at_once, "{addr}:{port} from {}: {fastest:?}", asker.name);
        }
    }
    Ok(())
}

/// A client whose Service loses its last endpoint hears of it with its next datagram.
#[test]
fn a_datagram_to_a_service_scaled_to_nothing_is_refused() -> Result<()> {
    let Some(mut pair) = Pair::start("a_datagram_to_a_service_scaled_to_nothing_is_refused")?
    else {
        return Ok(());
    };
    let dns = Svc::new("dns", 10).udp(53, TARGET);
    for ip in dns.each_ip() {
        let socket = udp_for(pair.pod(CLIENT), ip)?;
        socket.connect((ip, 53))?;
        let ask = |question: &str| -> std::io::Result<String> {
            socket.send(question.as_bytes())?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        for _ in 0..3 {
            pair.cluster.apply(&dns.clone().to([pair.ep(FAR)]))?;
            assert_eq!(ask("up")?, "far up");
            pair.cluster.apply(&dns)?;
            let begun = Instant::now();
            let refused = ask("down").expect_err("nobody is there").kind();
            assert_eq!(refused, ErrorKind::ConnectionRefused, "{ip}");
            assert!(
                begun.elapsed() < Duration::from_secs(1),
                "{:?}",
                begun.elapsed()
            );
        }
    }
    Ok(())
}

/// A port that a Service does not have is refused like one without endpoints.
#[test]
fn a_port_that_a_service_does_not_have_is_refused() -> Result<()> {
    let Some(mut pair) = Pair::start("a_port_that_a_service_does_not_have_is_refused")? else {
        return Ok(());
    };
    let web = Svc::new("web", 10).port(80, TARGET).to([pair.ep(FAR)]);
    pair.cluster.apply(&web)?;
    let unused: [IpAddr; 2] = ["10.96.0.99".parse()?, "fd00:96::99".parse()?];
    for ip in web.each_ip().chain(unused) {
        refused_tcp(pair.pod(CLIENT), (ip, 81))?;
        refused_udp(pair.pod(CLIENT), (ip, 81))?;
    }
    Ok(())
}
