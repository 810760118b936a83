use super::threshold::{parse_amounts, parse_graces};
use super::*;

const MI: u64 = 1 << 20;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn policy(hard: &str, soft: &str, graces: &str, reclaims: &str) -> Policy {
    Policy {
        thresholds: thresholds(hard, soft, graces, reclaims).expect("thresholds"),
        transition: SignedDuration::from_secs(300),
    }
}

fn pod(name: &str, priority: i64, memory_mi: u64, request_mi: u64) -> Candidate {
    Candidate {
        uid: name.to_owned(),
        name: name.to_owned(),
        priority,
        containers: vec![ContainerUse {
            name: "c".to_owned(),
            memory_bytes: memory_mi * MI,
            memory_request: request_mi * MI,
            ..ContainerUse::default()
        }],
        ..Candidate::default()
    }
}

fn observed(signal: Signal, available: u64, capacity: u64, pods: Vec<Candidate>) -> Observation {
    let level = Level {
        available,
        capacity,
    };
    Observation {
        levels: BTreeMap::from([(signal, level)]),
        pods,
    }
}

fn evicted(decision: &Decision) -> Option<&str> {
    match &decision.action {
        Some(Action::Evict { uid, .. }) => Some(uid),
        _ => None,
    }
}

#[test]
fn flags_are_those_of_a_kubelet() {
    let default = parse_thresholds(HARD_DEFAULT).expect("the default");
    assert_eq!(default.len(), 5);
    assert_eq!(default[0].at, Amount::Count(100 * MI));
    assert_eq!(default[1].at.of(1000), 100);
    let graces = parse_graces("memory.available=1m30s").expect("graces");
    let soft = graces[&Signal::MemoryAvailable];
    assert_eq!(soft, SignedDuration::from_secs(90));
    assert!(parse_thresholds("").expect("none").is_empty());
    for wrong in [
        "memory<1",
        "memory.available",
        "memory.available<x",
        "nodefs.available<101%",
    ] {
        assert!(parse_thresholds(wrong).is_err(), "{wrong}");
    }
    let ungraced = thresholds("", "memory.available<1Gi", "", "").expect_err("no grace");
    assert!(ungraced.contains("no grace"), "{ungraced}");
    assert!(parse_amounts("memory.available=500Mi").is_ok());
}

#[test]
fn the_pod_leaves_that_uses_more_than_it_asked_for_then_the_least_important_then_the_greediest() {
    // (pods, who leaves)
    let critical = Candidate {
        is_critical: true,
        ..pod("critical", 0, 900, 0)
    };
    let cases: [(Vec<Candidate>, Option<&str>); 6] = [
        (
            vec![pod("within", 0, 90, 100), pod("over", 1000, 20, 10)],
            Some("over"),
        ),
        (
            vec![pod("low", 0, 20, 10), pod("high", 5, 90, 10)],
            Some("low"),
        ),
        (
            vec![pod("some", 0, 50, 10), pod("most", 0, 90, 10)],
            Some("most"),
        ),
        // Both are within: by priority, then by what is the least below.
        (
            vec![pod("half", 0, 50, 100), pod("nearly", 0, 99, 100)],
            Some("nearly"),
        ),
        (
            vec![critical.clone(), pod("other", 1000, 1, 10)],
            Some("other"),
        ),
        (vec![critical], None),
    ];
    let policy = policy("memory.available<100Mi", "", "", "");
    for (pods, leaves) in cases {
        let observed = observed(Signal::MemoryAvailable, 50 * MI, 1000 * MI, pods);
        let decision = decide(&policy, &observed, &mut Memory::default(), at(0));
        assert_eq!(evicted(&decision), leaves, "{:?}", observed.pods);
        assert_eq!(decision.conditions, BTreeSet::from([Pressure::Memory]));
    }
}

#[test]
fn the_message_is_a_kubelets() {
    let policy = policy("memory.available<100Mi", "", "", "");
    let observed = observed(
        Signal::MemoryAvailable,
        50 * MI,
        1000 * MI,
        vec![pod("a", 0, 30, 10)],
    );
    let decision = decide(&policy, &observed, &mut Memory::default(), at(0));
    let Some(Action::Evict { message, .. }) = decision.action else {
        panic!("nobody leaves: {decision:?}");
    };
    assert_eq!(
        message,
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
         Container c was using 30Mi, request is 10Mi, has larger consumption of memory. "
    );
}

#[test]
fn one_pod_leaves_at_a_time_and_is_waited_for() {
    let policy = policy("memory.available<100Mi", "", "", "");
    let mut memory = Memory::default();
    let both = vec![pod("a", 0, 90, 0), pod("b", 0, 50, 0)];
    let short = |pods: &[Candidate]| observed(Signal::MemoryAvailable, 1, 1000 * MI, pods.to_vec());
    let mut who = |pods: &[Candidate], now: i64| {
        let decision = decide(&policy, &short(pods), &mut memory, at(now));
        evicted(&decision).map(str::to_owned)
    };
    assert_eq!(who(&both, 0).as_deref(), Some("a"));
    assert_eq!(who(&both, 10), None, "it ends");
    assert_eq!(
        who(&both[1..], 11).as_deref(),
        Some("b"),
        "it has ended, and that was not enough"
    );
    assert_eq!(
        who(&both[1..], 41).as_deref(),
        Some("b"),
        "it does not end in time"
    );
}

#[test]
fn a_soft_threshold_waits_for_its_grace_and_starts_anew_when_it_was_left() {
    let policy = policy("", "memory.available<1Gi", "memory.available=60s", "");
    let mut memory = Memory::default();
    let mut at_level = |available: u64, now: i64| {
        let pods = vec![pod("a", 0, 90, 0)];
        let observed = observed(Signal::MemoryAvailable, available, 4096 * MI, pods);
        let decision = decide(&policy, &observed, &mut memory, at(now));
        (decision.conditions.len(), evicted(&decision).is_some())
    };
    assert_eq!(
        at_level(500 * MI, 0),
        (1, false),
        "the condition comes at once"
    );
    assert_eq!(at_level(500 * MI, 59), (1, false));
    assert_eq!(at_level(2048 * MI, 60), (1, false), "left");
    assert_eq!(at_level(500 * MI, 61), (1, false));
    assert_eq!(at_level(500 * MI, 121), (1, true));
}

#[test]
fn a_condition_stays_for_the_transition_period() {
    let policy = policy("pid.available<100", "", "", "");
    let mut memory = Memory::default();
    let mut conditions = |available: u64, now: i64| {
        let observed = observed(Signal::PidAvailable, available, 1000, vec![]);
        let decision = decide(&policy, &observed, &mut memory, at(now));
        decision.conditions.contains(&Pressure::Pid)
    };
    assert!(!conditions(100, 0));
    assert!(conditions(99, 1) && conditions(500, 2) && conditions(500, 300));
    assert!(!conditions(500, 301));
}

#[test]
fn images_go_before_pods_when_the_disk_is_full() {
    let policy = policy("nodefs.available<10%", "", "", "");
    let mut memory = Memory::default();
    let mut pod = pod("a", 0, 0, 0);
    pod.volume_bytes = 7 * MI;
    let full = observed(Signal::NodefsAvailable, 5, 100, vec![pod]);
    let mut next = |now: i64| decide(&policy, &full, &mut memory, at(now)).action;
    assert_eq!(next(0), Some(Action::RemoveImages));
    assert!(matches!(next(1), Some(Action::Evict { uid, .. }) if uid == "a"));
}

#[test]
fn more_is_reclaimed_than_the_threshold_asks_for() {
    let policy = policy("memory.available<100Mi", "", "", "memory.available=100Mi");
    let mut memory = Memory::default();
    let mut who = |available_mi: u64, pods: Vec<Candidate>| {
        let observed = observed(Signal::MemoryAvailable, available_mi * MI, 1000 * MI, pods);
        let decision = decide(&policy, &observed, &mut memory, at(0));
        evicted(&decision).map(str::to_owned)
    };
    assert_eq!(who(150, vec![pod("a", 0, 9, 0)]), None);
    assert_eq!(who(50, vec![pod("a", 0, 9, 0)]).as_deref(), Some("a"));
    assert_eq!(
        who(150, vec![pod("b", 0, 9, 0)]).as_deref(),
        Some("b"),
        "not enough yet"
    );
    assert_eq!(who(200, vec![pod("c", 0, 9, 0)]), None);
}

#[test]
fn what_runs_out_is_ranked_by_its_own_use() {
    let inodes = Candidate {
        inodes: 1000,
        ..pod("inodes", 0, 1, 0)
    };
    let processes = Candidate {
        processes: 1000,
        ..pod("processes", 0, 2, 0)
    };
    let pods = [inodes, processes, pod("memory", 0, 500, 0)];
    for (signal, leaves) in [
        (Signal::NodefsInodesFree, "inodes"),
        (Signal::PidAvailable, "processes"),
        (Signal::MemoryAvailable, "memory"),
    ] {
        let victim = rank::victim(&pods, signal).expect("a victim");
        assert_eq!(victim.name, leaves);
    }
}

#[test]
fn under_pressure_only_some_pods_may_begin() {
    let best_effort = Newcomer {
        is_best_effort: true,
        ..Newcomer::default()
    };
    let tolerant = Newcomer {
        tolerates_memory_pressure: true,
        ..best_effort
    };
    let critical = Newcomer {
        is_critical: true,
        ..best_effort
    };
    let (memory, disk) = (
        BTreeSet::from([Pressure::Memory]),
        BTreeSet::from([Pressure::Disk]),
    );
    // (newcomer, begins under memory pressure, begins under disk pressure)
    let cases = [
        (best_effort, false, false),
        (tolerant, true, false),
        (Newcomer::default(), true, false),
        (critical, true, true),
    ];
    for (pod, under_memory, under_disk) in cases {
        assert_eq!(refusal(&memory, &pod).is_none(), under_memory, "{pod:?}");
        assert_eq!(refusal(&disk, &pod).is_none(), under_disk, "{pod:?}");
        assert_eq!(refusal(&BTreeSet::new(), &pod), None);
    }
    let why = refusal(&disk, &best_effort);
    assert_eq!(
        why.as_deref(),
        Some("The node had condition: [DiskPressure]. ")
    );
}
