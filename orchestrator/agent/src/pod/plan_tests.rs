//! Plans against hand-made views: one row a situation. The pod as a whole is in `pod_life_tests`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::runtime::{Exit, Identity};

#[path = "plan_start_stop_tests.rs"]
mod start_stop;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// A pod with these additions to its spec.
fn pod(spec: serde_json::Value) -> Pod {
    let mut object = json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "u1" },
        "spec": { "containers": [{ "name": "main", "image": "nginx:1" }] },
    });
    for (key, value) in spec.as_object().expect("an object") {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).expect("a pod")
}

fn container(role: Role, name: &str, attempt: u32, state: State) -> Container {
    let generation = 0;
    Container {
        id: format!("{name}-{attempt}"),
        identity: Identity {
            role,
            name: name.to_owned(),
            attempt,
            generation,
            level: attempt,
            spec_hash: shape::spec_hash(&pod(json!({})).spec.expect("a spec").containers[0]),
            addrs: None,
        },
        image: "nginx:1".to_owned(),
        image_id: "sha256:1".to_owned(),
        created_at: at(0),
        log_path: None,
        resources: None,
        state,
    }
}

fn sandbox() -> Container {
    container(Role::Sandbox, "", 0, running())
}

fn running() -> State {
    State::Running {
        pid: 7,
        started_at: at(0),
    }
}

fn exited(code: i32, second: i64) -> State {
    let (started_at, finished_at) = (at(second - 1), at(second));
    State::Exited(Exit {
        code,
        oom_killed: false,
        start_error: None,
        started_at,
        finished_at,
    })
}

/// A memory in which the sandbox is wired and every image there.
fn settled() -> Memory {
    let attached = Attached {
        sandbox: "-0".to_owned(),
        addrs: "10.0.0.2".parse().expect("ok"),
    };
    let names = ["main", "first", "second"];
    let images = names.map(|name| (name.to_owned(), ImageState::Ready));
    Memory {
        attached: Some(attached),
        images: images.into(),
        ..Default::default()
    }
}

fn planned(pod: &Pod, containers: &[Container], memory: &Memory, now: i64) -> Vec<Action> {
    plan(&View {
        pod,
        gone: false,
        now: at(now),
        containers,
        memory,
    })
}

fn start(name: &str, role: Role, attempt: u32, level: u32) -> Action {
    Action::Start {
        container: name.to_owned(),
        role,
        attempt,
        generation: 0,
        level,
    }
}

#[test]
fn a_new_pod_gets_its_sandbox_and_asks_for_its_images_meanwhile() {
    let actions = planned(&pod(json!({})), &[], &Memory::default(), 0);
    let ensure = Action::EnsureImage {
        container: "main".to_owned(),
        image: "nginx:1".to_owned(),
        policy: "IfNotPresent".to_owned(),
    };
    assert_eq!(actions, [ensure, Action::CreateSandbox { attempt: 0 }]);
}

#[test]
fn a_sandbox_is_wired_before_anything_starts_in_it() {
    let actions = planned(&pod(json!({})), &[sandbox()], &Memory::default(), 0);
    assert_eq!(
        actions,
        [Action::Attach {
            sandbox: "-0".to_owned(),
            pid: 7
        }]
    );
}

#[test]
fn init_containers_run_one_by_one_and_before_all_others() {
    let init = json!({ "initContainers": [
        { "name": "first", "image": "nginx:1" }, { "name": "second", "image": "nginx:1" },
    ]});
    let (pod, memory) = (pod(init), settled());
    let first = |state| container(Role::Init, "first", 0, state);
    let second = |state| container(Role::Init, "second", 0, state);
    let cases: [(Vec<Container>, Vec<Action>); 5] = [
        (vec![], vec![start("first", Role::Init, 0, 0)]),
        (vec![first(running())], vec![]),
        (
            vec![first(exited(0, 5))],
            vec![start("second", Role::Init, 0, 0)],
        ),
        (
            vec![first(exited(1, 5))],
            vec![start("first", Role::Init, 1, 1)],
        ),
        (
            vec![first(exited(0, 5)), second(exited(0, 6))],
            vec![start("main", Role::Main, 0, 0)],
        ),
    ];
    for (mut containers, expected) in cases {
        containers.push(sandbox());
        assert_eq!(
            planned(&pod, &containers, &memory, 10),
            expected,
            "{containers:?}"
        );
    }
}

#[test]
fn the_restart_policy_says_what_runs_again() {
    let restart = vec![start("main", Role::Main, 1, 1)];
    let ended = vec![Action::RemoveSandbox {
        id: "-0".to_owned(),
    }];
    let cases = [
        ("Always", 0, restart.clone()),
        ("Always", 1, restart.clone()),
        ("OnFailure", 0, ended.clone()),
        ("OnFailure", 1, restart),
        ("Never", 0, ended.clone()),
        ("Never", 1, ended),
    ];
    for (policy, code, expected) in cases {
        let pod = pod(json!({ "restartPolicy": policy }));
        let containers = [sandbox(), container(Role::Main, "main", 0, exited(code, 5))];
        assert_eq!(
            planned(&pod, &containers, &settled(), 5),
            expected,
            "{policy} {code}"
        );
    }
}

#[test]
fn a_container_that_keeps_failing_waits_longer_each_time() {
    let pod = pod(json!({}));
    let cases = [
        (0, 0),
        (1, 10),
        (2, 20),
        (3, 40),
        (4, 80),
        (5, 160),
        (6, 300),
        (20, 300),
    ];
    for (attempt, wait) in cases {
        let containers = [
            sandbox(),
            container(Role::Main, "main", attempt, exited(1, 100)),
        ];
        let again = vec![start("main", Role::Main, attempt + 1, attempt + 1)];
        assert_eq!(
            planned(&pod, &containers, &settled(), 100 + wait),
            again,
            "{attempt}"
        );
        if wait > 0 {
            let early = planned(&pod, &containers, &settled(), 99 + wait);
            assert_eq!(early, [Action::WakeAt(at(100 + wait))], "{attempt}");
        }
    }
}

#[test]
fn a_container_that_lived_long_starts_over_at_once() {
    let mut old = container(Role::Main, "main", 8, exited(1, 1000));
    if let State::Exited(exit) = &mut old.state {
        exit.started_at = at(100);
    }
    let actions = planned(&pod(json!({})), &[sandbox(), old], &settled(), 1000);
    assert_eq!(actions, [start("main", Role::Main, 9, 1)]);
}

#[test]
fn a_changed_image_stops_the_container_and_starts_it_without_back_off() {
    let pod = pod(json!({ "containers": [{ "name": "main", "image": "nginx:2" }] }));
    let old = |state| container(Role::Main, "main", 3, state);
    let actions = planned(&pod, &[sandbox(), old(running())], &settled(), 5);
    assert!(
        matches!(&actions[0], Action::Stop { id, .. } if id == "main-3"),
        "{actions:?}"
    );
    let actions = planned(&pod, &[sandbox(), old(exited(0, 5))], &settled(), 5);
    assert_eq!(actions, [start("main", Role::Main, 4, 4)]);
}

#[test]
fn a_dead_sandbox_takes_its_containers_with_it_before_a_new_one_is_made() {
    let pod = pod(json!({}));
    let dead = container(Role::Sandbox, "", 0, exited(137, 5));
    let alive = container(Role::Main, "main", 0, running());
    let memory = Memory {
        attached: None,
        ..settled()
    };
    let actions = planned(&pod, &[dead.clone(), alive], &memory, 5);
    assert_eq!(
        actions,
        [Action::Kill {
            id: "main-0".to_owned()
        }]
    );
    let killed = container(Role::Main, "main", 0, exited(137, 6));
    let actions = planned(&pod, &[dead, killed], &memory, 6);
    let remove = Action::RemoveSandbox {
        id: "-0".to_owned(),
    };
    assert_eq!(actions, [remove, Action::CreateSandbox { attempt: 1 }]);
}

#[test]
fn a_container_left_between_create_and_start_is_made_anew() {
    let left = container(Role::Main, "main", 0, State::Created);
    let actions = planned(&pod(json!({})), &[sandbox(), left], &settled(), 5);
    assert_eq!(
        actions,
        [Action::Remove {
            id: "main-0".to_owned()
        }]
    );
}

#[test]
fn only_the_last_two_attempts_are_kept() {
    let mut containers = vec![sandbox()];
    containers.extend((0..3).map(|it| container(Role::Main, "main", it, exited(1, 5))));
    containers.push(container(Role::Main, "main", 3, running()));
    let actions = planned(&pod(json!({})), &containers, &settled(), 5);
    let removed = ["main-1", "main-0"].map(|id| Action::Remove { id: id.to_owned() });
    assert_eq!(actions, removed);
}

#[test]
fn a_deleted_pod_stops_reports_cleans_up_and_confirms_in_this_order() {
    let mut pod = pod(json!({}));
    pod.metadata.deletion_timestamp = Some(crate::pod::status::seconds(at(30)));
    let mut memory = settled();
    let alive = [sandbox(), container(Role::Main, "main", 0, running())];
    assert_eq!(planned(&pod, &alive, &memory, 0)[0], Action::Drain);
    memory.drain = Some(drained(0, true, true));
    let actions = planned(&pod, &alive, &memory, 0);
    assert!(matches!(&actions[0], Action::Stop { kill_at, .. } if *kill_at == at(30)));

    memory.signalled = BTreeMap::from([("main-0".to_owned(), signalled(0, 30))]);
    assert_eq!(planned(&pod, &alive, &memory, 1), [Action::WakeAt(at(30))]);
    let kill = Action::Kill {
        id: "main-0".to_owned(),
    };
    assert_eq!(planned(&pod, &alive, &memory, 30)[0], kill);

    let dead = [sandbox(), container(Role::Main, "main", 0, exited(0, 2))];
    assert_eq!(planned(&pod, &dead, &memory, 2), [Action::ReportEnd]);
    memory.reported_end = true;
    let cleanup = [
        Action::Remove {
            id: "main-0".to_owned(),
        },
        Action::RemoveSandbox {
            id: "-0".to_owned(),
        },
        Action::Release,
        Action::CleanUp,
        Action::Confirm,
    ];
    assert_eq!(planned(&pod, &dead, &memory, 2), cleanup);
    memory.released = true;
    memory.cleaned = true;
    memory.confirmed = true;
    assert_eq!(planned(&pod, &[], &memory, 2), []);
    let gone = View {
        pod: &pod,
        gone: true,
        now: at(3),
        containers: &[],
        memory: &memory,
    };
    assert_eq!(plan(&gone), [Action::Finish]);
}

fn drained(since: i64, left: bool, idle: bool) -> Drain {
    Drain {
        since: at(since),
        seen: Progress { left, idle },
    }
}

fn signalled(second: i64, kill: i64) -> Signalled {
    Signalled {
        at: at(second),
        kill_at: at(kill),
    }
}

/// A hook that may run until second 30.
fn hook(ended: bool) -> PreStop {
    PreStop {
        until: at(30),
        ended,
    }
}

/// A pod told at second 0 to end until second 30, with or without a hook.
fn ending(hook: bool) -> Pod {
    let mut pod = pod(json!({}));
    if hook {
        let lifecycle = json!({ "preStop": { "sleep": { "seconds": 5 } } });
        let spec = pod.spec.as_mut().expect("a spec");
        spec.containers[0].lifecycle = serde_json::from_value(lifecycle).expect("a lifecycle");
    }
    pod.metadata.deletion_timestamp = Some(crate::pod::status::seconds(at(30)));
    pod
}

/// The first of the steps that are more than waiting.
fn step(pod: &Pod, memory: &Memory, now: i64) -> Option<&'static str> {
    let alive = [sandbox(), container(Role::Main, "main", 0, running())];
    let actions = planned(pod, &alive, memory, now);
    actions.iter().find_map(|action| match action {
        Action::WakeAt(_) => None,
        Action::Drain => Some("drain"),
        Action::PreStop { .. } => Some("hook"),
        Action::Stop { .. } => Some("stop"),
        Action::Kill { .. } => Some("kill"),
        other => panic!("{other:?} while the pod runs"),
    })
}

#[test]
fn a_pod_is_asked_to_stop_when_no_node_sends_it_connections_and_its_last_one_has_ended() {
    let pod = ending(false);
    // (left, idle, second, what is done)
    let cases = [
        (false, false, 0, None),
        (false, false, 1, None),
        (true, false, 1, None),
        (true, true, 1, Some("stop")),
        // Two seconds are all that anybody waits.
        (false, false, 2, Some("stop")),
        (true, false, 2, Some("stop")),
    ];
    for (left, idle, now, expected) in cases {
        let mut memory = settled();
        memory.drain = Some(drained(0, left, idle));
        assert_eq!(step(&pod, &memory, now), expected, "{left} {idle} at {now}");
    }
    let mut memory = settled();
    memory.drain = Some(drained(0, false, false));
    let alive = [sandbox(), container(Role::Main, "main", 0, running())];
    let waits = planned(&pod, &alive, &memory, 1);
    assert_eq!(
        waits[0],
        Action::WakeAt(at(2)),
        "the plan looks again in time"
    );
}

#[test]
fn a_hook_runs_when_the_pod_has_left_and_the_signal_follows_it_without_another_wait() {
    let pod = ending(true);
    let mut memory = settled();
    memory.drain = Some(drained(0, false, false));
    assert_eq!(step(&pod, &memory, 1), None);
    memory.drain = Some(drained(0, true, false));
    assert_eq!(step(&pod, &memory, 1), Some("hook"));
    memory.pre_stops.insert("main-0".to_owned(), hook(false));
    assert_eq!(step(&pod, &memory, 1), None, "the hook runs");
    assert_eq!(step(&pod, &memory, 20), None, "the hook still runs");
    memory.pre_stops.insert("main-0".to_owned(), hook(true));
    assert_eq!(
        step(&pod, &memory, 1),
        None,
        "a quick hook leaves connections"
    );
    assert_eq!(step(&pod, &memory, 6), Some("stop"));
    memory.drain = Some(drained(0, true, true));
    assert_eq!(step(&pod, &memory, 1), Some("stop"));
    memory.pre_stops.insert("main-0".to_owned(), hook(false));
    assert_eq!(
        step(&pod, &memory, 30),
        Some("stop"),
        "a hook may not outlast the grace"
    );
}

#[test]
fn a_forced_deletion_waits_for_nobody() {
    let mut pod = ending(true);
    pod.metadata.deletion_timestamp = Some(crate::pod::status::seconds(at(0)));
    assert_eq!(step(&pod, &settled(), 0), Some("stop"));
}

#[test]
fn a_short_grace_leaves_the_pod_half_of_it() {
    let mut pod = ending(false);
    pod.metadata.deletion_timestamp = Some(crate::pod::status::seconds(at(2)));
    let mut memory = settled();
    memory.drain = Some(drained(0, false, false));
    assert_eq!(step(&pod, &memory, 1), Some("stop"));
}

#[test]
fn a_container_that_is_restarted_in_place_is_not_waited_for() {
    let mut memory = settled();
    memory.probes = stuck(None);
    assert_eq!(step(&pod(json!({})), &memory, 0), Some("stop"));
}

#[test]
fn a_container_whose_probe_failed_has_the_grace_of_the_probe_or_of_its_pod() {
    let alive = [sandbox(), container(Role::Main, "main", 0, running())];
    for (own, expected) in [(None, 30), (Some(5), 5)] {
        let mut memory = settled();
        memory.probes = stuck(own);
        let actions = planned(&pod(json!({})), &alive, &memory, 0);
        let stop = actions.iter().find_map(|action| match action {
            Action::Stop { kill_at, .. } => Some(*kill_at),
            _ => None,
        });
        assert_eq!(stop, Some(at(expected)), "{own:?}");
    }
}

fn stuck(grace_seconds: Option<i64>) -> BTreeMap<String, Probed> {
    let failed = FailedProbe {
        why: "it is stuck".to_owned(),
        grace_seconds,
    };
    let probed = Probed {
        started: true,
        ready: true,
        failed: Some(failed),
    };
    BTreeMap::from([("main-0".to_owned(), probed)])
}

#[test]
fn a_refused_pod_has_failed_unless_it_has_begun() {
    let memory = Memory {
        refused: Some(Refusal {
            reason: "Unsupported",
            message: "no".to_owned(),
        }),
        ..Default::default()
    };
    assert_eq!(planned(&pod(json!({})), &[], &memory, 0), [Action::Release]);
    let begun = [sandbox()];
    let plan = planned(&pod(json!({})), &begun, &settled(), 0);
    let memory = Memory {
        refused: memory.refused,
        ..settled()
    };
    assert!(!plan.is_empty(), "it goes on");
    assert_eq!(planned(&pod(json!({})), &begun, &memory, 0), plan);
}

#[test]
fn a_pod_past_its_active_deadline_is_stopped() {
    let mut pod = pod(json!({ "activeDeadlineSeconds": 10 }));
    let status = json!({ "startTime": "1970-01-01T00:00:00Z" });
    pod.status = serde_json::from_value(status).expect("a status");
    let alive = [sandbox(), container(Role::Main, "main", 0, running())];
    assert_eq!(
        planned(&pod, &alive, &settled(), 9),
        [Action::WakeAt(at(10))]
    );
    assert_eq!(planned(&pod, &alive, &settled(), 10), [Action::Retire]);
    let memory = Memory {
        retired_at: Some(at(10)),
        ..settled()
    };
    let stopped = planned(&pod, &alive, &memory, 10);
    assert!(matches!(stopped[0], Action::Stop { .. }), "{stopped:?}");
}

#[test]
fn an_ephemeral_container_is_started_once_whatever_becomes_of_it() {
    let debugged = |status: serde_json::Value| {
        let mut pod = pod(json!({"ephemeralContainers": [
            {"name": "second", "image": "busybox", "targetContainerName": "main"}]}));
        pod.status = serde_json::from_value(status).expect("a status");
        pod
    };
    let pod = debugged(json!({}));
    let main = container(Role::Main, "main", 0, running());
    let own = |state| container(Role::Ephemeral, "second", 0, state);
    let first = planned(&pod, &[sandbox(), main.clone()], &settled(), 5);
    assert_eq!(first, [start("second", Role::Ephemeral, 0, 0)]);
    for state in [running(), exited(1, 2), exited(0, 2)] {
        let containers = [sandbox(), main.clone(), own(state)];
        assert_eq!(planned(&pod, &containers, &settled(), 500), []);
    }
    // It was removed behind the agent's back.
    let known = debugged(
        json!({"ephemeralContainerStatuses": [{"name": "second", "image": "",
        "imageID": "", "ready": false, "restartCount": 0, "containerID": "docker://x"}]}),
    );
    assert_eq!(planned(&known, &[sandbox(), main], &settled(), 5), []);
}
