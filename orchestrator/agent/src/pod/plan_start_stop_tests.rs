//! In which order containers start and stop: hooks, sidecars, the time between signal and kill.

use super::*;

fn stop_of(actions: &[Action], wanted: &str) -> Option<Timestamp> {
    actions.iter().find_map(|action| match action {
        Action::Stop { id, kill_at, .. } if id == wanted => Some(*kill_at),
        _ => None,
    })
}

fn starts(actions: &[Action]) -> Vec<&str> {
    let started = actions.iter().filter_map(|action| match action {
        Action::Start { container, .. } => Some(container.as_str()),
        _ => None,
    });
    started.collect()
}

/// Two containers, of which the first has a `postStart`.
fn hooked() -> Pod {
    pod(json!({ "containers": [
        { "name": "first", "image": "nginx:1",
          "lifecycle": { "postStart": { "exec": { "command": ["true"] } } } },
        { "name": "second", "image": "nginx:1" },
    ]}))
}

#[test]
fn a_container_waits_for_the_post_start_of_the_one_before_it() {
    let pod = hooked();
    assert_eq!(
        starts(&planned(&pod, &[sandbox()], &settled(), 0)),
        ["first"]
    );
    let first = [sandbox(), container(Role::Main, "first", 0, running())];
    let with = |hook: Option<PostStart>| {
        let hooks = hook.map(|hook| ("first-0".to_owned(), hook));
        let memory = Memory {
            post_starts: hooks.into_iter().collect(),
            ..settled()
        };
        planned(&pod, &first, &memory, 0)
    };
    assert_eq!(starts(&with(Some(PostStart::Running))), [""; 0]);
    assert_eq!(starts(&with(Some(PostStart::Done))), ["second"]);
    assert_eq!(starts(&with(None)), ["second"], "an earlier agent ran it");
    let failed = with(Some(PostStart::Failed("no".to_owned())));
    assert_eq!(starts(&failed), ["second"]);
    assert_eq!(
        stop_of(&failed, "first-0"),
        Some(at(30)),
        "it has its grace"
    );
}

#[test]
fn containers_start_in_order_though_the_image_of_the_first_comes_late() {
    let pod = hooked();
    let with = |image: ImageState| {
        let mut memory = settled();
        memory.images.insert("first".to_owned(), image);
        planned(&pod, &[sandbox()], &memory, 0)
    };
    assert_eq!(starts(&with(ImageState::Pulling)), [""; 0]);
    let failure = Failure {
        reason: "ErrImagePull".to_owned(),
        message: "no".to_owned(),
        at: at(0),
        count: 1,
    };
    assert_eq!(starts(&with(ImageState::Failed(failure))), ["second"]);
}

#[test]
fn a_hook_that_hangs_is_followed_by_the_stop_signal_and_two_seconds() {
    let pod = ending(true);
    let alive = [sandbox(), container(Role::Main, "main", 0, running())];
    let mut memory = settled();
    memory.drain = Some(drained(0, true, true));
    memory.pre_stops.insert("main-0".to_owned(), hook(false));
    let late = planned(&pod, &alive, &memory, 30);
    assert_eq!(stop_of(&late, "main-0"), Some(at(32)));
    memory
        .signalled
        .insert("main-0".to_owned(), signalled(30, 32));
    assert_eq!(planned(&pod, &alive, &memory, 31), [Action::WakeAt(at(32))]);
    let kill = Action::Kill {
        id: "main-0".to_owned(),
    };
    assert_eq!(planned(&pod, &alive, &memory, 32)[0], kill);
    // One that ends late leaves two seconds, too.
    let mut memory = settled();
    memory.drain = Some(drained(0, true, true));
    memory.pre_stops.insert("main-0".to_owned(), hook(true));
    let late = planned(&pod, &alive, &memory, 29);
    assert_eq!(stop_of(&late, "main-0"), Some(at(31)));
}

#[test]
fn a_hook_of_a_restart_counts_against_the_grace_of_that_restart() {
    let pod = ending(true);
    let pod = Pod {
        metadata: Default::default(),
        ..pod
    };
    let alive = [sandbox(), container(Role::Main, "main", 0, running())];
    let mut memory = settled();
    memory.probes = stuck(Some(10));
    let begun = planned(&pod, &alive, &memory, 0);
    assert!(
        matches!(&begun[0], Action::PreStop { until, .. } if *until == at(10)),
        "{begun:?}"
    );
    let until = at(10);
    let hook = PreStop {
        until,
        ended: false,
    };
    memory.pre_stops.insert("main-0".to_owned(), hook);
    assert_eq!(stop_of(&planned(&pod, &alive, &memory, 9), "main-0"), None);
    let late = planned(&pod, &alive, &memory, 10);
    assert_eq!(stop_of(&late, "main-0"), Some(at(12)));
}

#[test]
fn a_pod_that_the_api_lost_has_two_seconds() {
    let alive = [sandbox(), container(Role::Main, "main", 0, running())];
    let (pod, mut memory) = (pod(json!({})), Memory::default());
    let plan_at = |memory: &Memory, now: i64| {
        plan(&View {
            pod: &pod,
            gone: true,
            now: at(now),
            containers: &alive,
            memory,
        })
    };
    assert_eq!(stop_of(&plan_at(&memory, 0), "main-0"), Some(at(2)));
    memory
        .signalled
        .insert("main-0".to_owned(), signalled(0, 2));
    assert_eq!(plan_at(&memory, 1), [Action::WakeAt(at(2))]);
    let kill = Action::Kill {
        id: "main-0".to_owned(),
    };
    assert_eq!(plan_at(&memory, 2)[0], kill);
}

/// Two sidecars around an init container; `first` has a startup probe.
fn sidecars(policy: &str) -> Pod {
    pod(json!({ "restartPolicy": policy, "initContainers": [
        { "name": "first", "image": "nginx:1", "restartPolicy": "Always", "startupProbe": {} },
        { "name": "init", "image": "nginx:1" },
        { "name": "second", "image": "nginx:1", "restartPolicy": "Always" },
    ]}))
}

fn with_image_of_init() -> Memory {
    let mut memory = settled();
    memory.images.insert("init".to_owned(), ImageState::Ready);
    memory
}

#[test]
fn a_sidecar_lets_the_next_one_start_when_it_has_started_itself() {
    let pod = sidecars("Never");
    let init = |name: &str, state: State| container(Role::Init, name, 0, state);
    let mut memory = with_image_of_init();
    let mut there = vec![sandbox()];
    assert_eq!(starts(&planned(&pod, &there, &memory, 0)), ["first"]);
    there.push(init("first", running()));
    let mut probed = Probed {
        started: false,
        ready: false,
        failed: None,
    };
    memory.probes.insert("first-0".to_owned(), probed.clone());
    assert_eq!(starts(&planned(&pod, &there, &memory, 0)), [""; 0]);
    probed.started = true;
    memory.probes.insert("first-0".to_owned(), probed);
    assert_eq!(starts(&planned(&pod, &there, &memory, 0)), ["init"]);
    there.push(init("init", exited(0, 1)));
    assert_eq!(starts(&planned(&pod, &there, &memory, 1)), ["second"]);
    there.push(init("second", running()));
    assert_eq!(starts(&planned(&pod, &there, &memory, 1)), ["main"]);
}

#[test]
fn a_sidecar_that_ends_runs_again_whatever_the_policy_and_holds_nothing_back() {
    for (policy, code) in [("Never", 1), ("Never", 0), ("OnFailure", 0), ("Always", 1)] {
        let pod = sidecars(policy);
        let init = |name: &str, state: State| container(Role::Init, name, 0, state);
        let mut there = vec![sandbox(), init("first", exited(code, 5))];
        there.push(init("init", running()));
        let memory = with_image_of_init();
        let during = planned(&pod, &there, &memory, 5);
        assert_eq!(starts(&during), ["first"], "{policy} {code}");
        there[2] = init("init", exited(0, 5));
        there.push(init("second", running()));
        there.push(container(Role::Main, "main", 0, running()));
        let beside = planned(&pod, &there, &memory, 5);
        assert_eq!(starts(&beside), ["first"], "{policy} {code}");
    }
}

#[test]
fn sidecars_go_after_the_containers_in_reverse_order() {
    let mut pod = sidecars("Always");
    pod.metadata.deletion_timestamp = Some(crate::pod::status::seconds(at(30)));
    let init = |name: &str, state: State| container(Role::Init, name, 0, state);
    let mut memory = settled();
    memory.drain = Some(drained(0, true, true));
    let stopped = |there: &[Container], now: i64| -> Vec<String> {
        let actions = planned(&pod, there, &memory, now);
        let stopped = actions.iter().filter_map(|action| match action {
            Action::Stop { container, .. } => Some(container.clone()),
            _ => None,
        });
        stopped.collect()
    };
    let mut there = vec![
        sandbox(),
        init("first", running()),
        init("second", running()),
        container(Role::Main, "main", 0, running()),
    ];
    assert_eq!(stopped(&there, 1), ["main"]);
    let all = stopped(&there, 30);
    assert_eq!(all, ["first", "second", "main"], "the time is up for all");
    there[3] = container(Role::Main, "main", 0, exited(0, 1));
    assert_eq!(stopped(&there, 1), ["second"]);
    there[2] = init("second", exited(0, 1));
    assert_eq!(stopped(&there, 1), ["first"]);
}

#[test]
fn a_pod_whose_containers_have_ended_has_its_sidecars_stopped_and_not_started_again() {
    let pod = sidecars("Never");
    let init = |name: &str, state: State| container(Role::Init, name, 0, state);
    let there = [
        sandbox(),
        init("first", running()),
        init("init", exited(0, 1)),
        init("second", exited(1, 1)),
        container(Role::Main, "main", 0, exited(0, 5)),
    ];
    let mut memory = settled();
    assert_eq!(planned(&pod, &there, &memory, 5), [Action::Retire]);
    memory.retired_at = Some(at(5));
    let actions = planned(&pod, &there, &memory, 6);
    assert_eq!(stop_of(&actions, "first-0"), Some(at(35)));
    assert_eq!(starts(&actions), [""; 0]);
}
