//! The programs with a log: what they tell of a packet, and that the normal ones have none of it.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use aya::programs::SchedClassifier;
use datapath::log::{self, Filter};
use datapath::syscall;
use object::{Object, ObjectSymbol};
use orchestrator_common::event::Hook;
use tests::packet::*;
use tests::prog::{self, LOOPBACK, can_load, object_path};

use crate::world::*;

/// What is logged of frames that the pod sends, without the times.
fn logged(world: &mut World, filter: &Filter, frames: &[Vec<u8>]) -> Vec<String> {
    let pinned = world.datapath.pinned().unwrap();
    let (programs, records) = log::load(&pinned.dir, filter).unwrap();
    let name = Hook::FromContainer.name();
    let pin = pinned.dir.join(name);
    syscall::pin(programs.get(name).unwrap().as_fd(), &pin).unwrap();
    let mut program = SchedClassifier::from_pin(&pin).unwrap();
    std::fs::remove_file(&pin).unwrap();
    let (mut lines, mut gathering) = records.split();
    for frame in frames {
        prog::run_program(&mut program, LOOPBACK, frame).unwrap();
    }
    gathering.flush();
    let lines = std::iter::from_fn(|| lines.try_recv().ok());
    let text = |line: String| Some(line.split_once(' ')?.1.to_owned());
    lines.filter_map(text).collect()
}

fn frames() -> Vec<Vec<u8>> {
    vec![
        udp((POD, 40000), SERVICE, b"hello"),
        udp((POD, 40000), SERVICE, b"again"),
        udp((POD6, 40000), SERVICE6, b"hello"),
        udp((POD, 40001), (NEIGHBOUR_POD, 53), b"hello"),
        udp((POD, 40002), ("10.100.9.9", 53), b"hello"),
    ]
}

#[test]
fn a_new_flow_and_a_drop_are_logged_once_and_in_words() {
    let Some(mut world) = world("log") else {
        return;
    };
    let said = logged(&mut world, &Filter::default(), &frames());
    assert_eq!(
        said,
        [
            "udp 10.100.1.5:40000 -> 10.96.0.53:53 opens a flow: Service 1 makes it \
             udp 10.100.1.5:40000 -> 10.100.2.7:5353",
            "udp [fd00:100:0:1::5]:40000 -> [fd00:96::53]:53 opens a flow: Service 11 makes it \
             udp [fd00:100:0:1::5]:40000 -> [fd00:100:0:2::7]:5353",
            "udp 10.100.1.5:40002 -> 10.100.9.9:53 from_container: dropped or refused, no_node",
        ]
    );
}

#[test]
fn with_packets_each_ones_way_is_logged() {
    let Some(mut world) = world("log packets") else {
        return;
    };
    let filter = Filter {
        packets: true,
        ..Filter::default()
    };
    let said = logged(&mut world, &filter, &frames()[1..4]);
    assert_eq!(
        said,
        [
            "udp 10.100.1.5:40000 -> 10.96.0.53:53 opens a flow: Service 1 makes it \
             udp 10.100.1.5:40000 -> 10.100.2.7:5353",
            "udp 10.100.1.5:40000 -> 10.96.0.53:53 from_container: tunnel by interface 90, \
             rule service, as udp 10.100.1.5:40000 -> 10.100.2.7:5353",
            "udp [fd00:100:0:1::5]:40000 -> [fd00:96::53]:53 opens a flow: Service 11 makes it \
             udp [fd00:100:0:1::5]:40000 -> [fd00:100:0:2::7]:5353",
            "udp [fd00:100:0:1::5]:40000 -> [fd00:96::53]:53 from_container: tunnel by interface 90, \
             rule service, as udp [fd00:100:0:1::5]:40000 -> [fd00:100:0:2::7]:5353",
            "udp 10.100.1.5:40001 -> 10.100.1.6:53 from_container: peer by interface 77, \
             rule local_endpoint",
        ]
    );
}

#[test]
fn a_filter_lets_through_what_a_pod_or_a_destination_has_to_do_with() {
    let to = |at: (&str, u16)| Some((any_ip(at.0), at.1).into());
    let to = |at, pod: &[&str]| Filter {
        to: to(at),
        ..of(pod)
    };
    let cases = [
        ("one address", of(&[POD]), vec![40000, 40001, 40002]),
        ("both", of(&[POD6, POD]), vec![40000, 40000, 40001, 40002]),
        ("what it is sent", of(&[NEIGHBOUR_POD]), vec![40001]),
        ("a stranger", of(&[OUTSIDE]), vec![]),
        ("a Service", to(SERVICE, &[]), vec![40000]),
        ("its backend", to(BACKEND, &[]), vec![40000]),
        ("another port", to((SERVICE.0, 54), &[]), vec![]),
        ("a pod's to a Service", to(SERVICE, &[POD]), vec![40000]),
        ("a stranger's to a Service", to(SERVICE, &[OUTSIDE]), vec![]),
    ];
    let Some(mut world) = world("log filter") else {
        return;
    };
    for (what, filter, expected) in cases {
        let filter = Filter {
            packets: true,
            ..filter
        };
        let said = logged(&mut world, &filter, &frames()[1..]);
        let ways = said.iter().filter(|line| !line.contains("opens a flow"));
        let port = |line: &String| {
            line.split([':', ' '])
                .find_map(|word| word.parse::<u16>().ok().filter(|port| *port >= 40000))
        };
        let ports: Vec<u16> = ways.filter_map(port).collect();
        assert_eq!(ports, expected, "{what}: {said:?}");
    }
}

fn of(pod: &[&str]) -> Filter {
    Filter {
        pod: pod.iter().map(|addr| any_ip(addr)).collect(),
        ..Filter::default()
    }
}

#[test]
fn the_normal_object_has_no_log() {
    if !can_load("the normal object") {
        return;
    }
    let normal = symbols(&object_path());
    let ours = |name: &&String| name.contains("AYA_LOG") || name.starts_with("LOG_");
    assert_eq!(normal.iter().filter(ours).count(), 0);
    let logging = symbols(&object_path().with_file_name("orchestrator-log.o"));
    let more: BTreeSet<&String> = logging.iter().filter(ours).collect();
    let expected = [
        "AYA_LOGS",
        "AYA_LOG_LEVEL",
        "LOG_IS_OF_POD",
        "LOG_POD_V4",
        "LOG_POD_V6",
        "LOG_TO",
        "LOG_TO_PORT",
    ];
    assert!(
        expected.iter().all(|name| more.contains(&name.to_string())),
        "{more:?}"
    );
}

fn symbols(object: &std::path::Path) -> BTreeSet<String> {
    let bytes = std::fs::read(object).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let names = file.symbols().filter_map(|symbol| symbol.name().ok());
    names.map(str::to_owned).collect()
}
