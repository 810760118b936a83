//! Statuses of hand-made views, in the words that `kubectl` shows.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::node::running::Eviction;
use crate::pod::plan::{Attached, Failure, Memory, Probed};
use crate::runtime::Identity;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn container(role: Role, name: &str, attempt: u32, state: State) -> Container {
    Container {
        id: format!("{name}-{attempt}"),
        identity: Identity {
            role,
            name: name.to_owned(),
            attempt,
            generation: 0,
            level: attempt,
            spec_hash: String::new(),
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

fn running() -> State {
    State::Running {
        pid: 7,
        started_at: at(1),
    }
}

fn exited(code: i32) -> State {
    let (started_at, finished_at) = (at(1), at(2));
    State::Exited(Exit {
        code,
        oom_killed: false,
        start_error: None,
        started_at,
        finished_at,
    })
}

fn wired() -> Memory {
    let addrs = "10.0.0.2".parse().expect("an address");
    let attached = Attached {
        sandbox: "-0".to_owned(),
        addrs,
    };
    Memory {
        attached: Some(attached),
        addrs: Some(addrs),
        ..Default::default()
    }
}

/// The status of a pod with one container, of which these attempts exist.
fn status_of(policy: &str, mut containers: Vec<Container>, memory: &Memory, now: i64) -> Value {
    let pod = json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "u1" },
        "spec": {
            "restartPolicy": policy,
            "containers": [{ "name": "main", "image": "nginx:1" }],
        },
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    containers.push(container(Role::Sandbox, "", 0, running()));
    let view = View {
        pod: &pod,
        gone: false,
        now: at(now),
        containers: &containers,
        memory,
    };
    let place = Place {
        node_ips: "172.31.0.11".parse().expect("ok"),
        accepted_at: at(0),
    };
    serde_json::to_value(status(&view, &place)).expect("serialises")
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a str {
    let conditions = status["conditions"].as_array().expect("conditions");
    let found = conditions
        .iter()
        .find(|it| it["type"] == kind)
        .expect("the condition");
    found["status"].as_str().expect("a status")
}

#[test]
fn a_pod_that_is_being_made_is_pending() {
    let status = status_of("Always", vec![], &Memory::default(), 0);
    assert_eq!(status["phase"], "Pending");
    let main = &status["containerStatuses"][0];
    assert_eq!(main["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(condition(&status, "Initialized"), "True");
    assert_eq!(condition(&status, "Ready"), "False");
    assert_eq!(condition(&status, "PodReadyToStartContainers"), "False");
}

#[test]
fn a_running_pod_is_ready_and_has_its_addresses() {
    let status = status_of(
        "Always",
        vec![container(Role::Main, "main", 0, running())],
        &wired(),
        3,
    );
    assert_eq!(status["phase"], "Running");
    assert_eq!(
        (&status["podIP"], &status["hostIP"]),
        (&json!("10.0.0.2"), &json!("172.31.0.11"))
    );
    assert_eq!(status["podIPs"], json!([{ "ip": "10.0.0.2" }]));
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
    ] {
        assert_eq!(condition(&status, kind), "True", "{kind}");
    }
    let main = &status["containerStatuses"][0];
    assert_eq!(
        (&main["ready"], &main["started"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(main["containerID"], "docker://main-0");
}

#[test]
fn a_container_whose_image_was_changed_has_the_one_that_it_runs_until_it_is_replaced() {
    let mut older = container(Role::Main, "main", 0, running());
    older.image = "nginx:0".to_owned();
    let status = |containers| status_of("Always", containers, &wired(), 3);
    let image = |status: Value| status["containerStatuses"][0]["image"].clone();
    assert_eq!(image(status(vec![])), "nginx:1");
    assert_eq!(image(status(vec![older.clone()])), "nginx:0");
    let newer = container(Role::Main, "main", 1, running());
    older.state = exited(0);
    assert_eq!(image(status(vec![older, newer])), "nginx:1");
}

#[test]
fn a_failing_probe_makes_a_running_pod_unready() {
    let mut memory = wired();
    let probed = Probed {
        started: true,
        ready: false,
        failed: None,
    };
    memory.probes.insert("main-0".to_owned(), probed);
    let status = status_of(
        "Always",
        vec![container(Role::Main, "main", 0, running())],
        &memory,
        3,
    );
    assert_eq!(status["phase"], "Running");
    assert_eq!(condition(&status, "Ready"), "False");
    let message = "containers with unready status: [main]";
    assert_eq!(status["conditions"][2]["message"], message);
}

#[test]
fn a_container_in_back_off_says_for_how_long_and_how_it_ended() {
    let containers = vec![container(Role::Main, "main", 1, exited(3))];
    let status = status_of("Always", containers, &wired(), 3);
    let main = &status["containerStatuses"][0];
    assert_eq!(main["state"]["waiting"]["reason"], "CrashLoopBackOff");
    let message = "back-off 10s restarting failed container=main pod=web_default(u1)";
    assert_eq!(main["state"]["waiting"]["message"], message);
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(main["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(main["restartCount"], 1);
    assert_eq!(status["phase"], "Running");
}

#[test]
fn the_ways_to_end_have_their_reasons() {
    let exit = |code, oom_killed, start_error: Option<&str>| {
        let start_error = start_error.map(str::to_owned);
        let (started_at, finished_at) = (at(1), at(2));
        State::Exited(Exit {
            code,
            oom_killed,
            start_error,
            started_at,
            finished_at,
        })
    };
    let cases = [
        (exit(0, false, None), "Completed", "Succeeded"),
        (exit(1, false, None), "Error", "Failed"),
        (exit(137, true, None), "OOMKilled", "Failed"),
        (
            exit(127, false, Some("no such file")),
            "ContainerCannotRun",
            "Failed",
        ),
    ];
    for (state, reason, phase) in cases {
        let status = status_of(
            "Never",
            vec![container(Role::Main, "main", 0, state)],
            &wired(),
            3,
        );
        let terminated = &status["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(terminated["reason"], reason);
        assert_eq!(status["phase"], phase, "{reason}");
    }
}

#[test]
fn a_failed_pull_is_an_error_first_and_a_back_off_then() {
    let failure = Failure {
        reason: "ErrImagePull".to_owned(),
        message: "no such image".to_owned(),
        at: at(10),
        count: 1,
    };
    let mut memory = wired();
    memory
        .images
        .insert("main".to_owned(), ImageState::Failed(failure));
    for (now, reason) in [(10, "ErrImagePull"), (15, "ImagePullBackOff")] {
        let status = status_of("Always", vec![], &memory, now);
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        assert_eq!(waiting["reason"], reason);
        assert_eq!(status["phase"], "Pending");
    }
}

#[test]
fn conditions_of_others_and_times_of_transition_stay() {
    let first = status_of("Always", vec![], &Memory::default(), 5);
    let mut pod = json!({
        "metadata": { "name": "web", "uid": "u1" },
        "spec": { "containers": [{ "name": "main", "image": "nginx:1" }] },
        "status": first,
    });
    let scheduled = json!({ "type": "PodScheduled", "status": "True" });
    pod["status"]["conditions"]
        .as_array_mut()
        .expect("conditions")
        .push(scheduled);
    let pod = serde_json::from_value(pod).expect("a pod");
    let memory = Memory::default();
    let view = View {
        pod: &pod,
        gone: false,
        now: at(9),
        containers: &[],
        memory: &memory,
    };
    let place = Place {
        node_ips: "172.31.0.11".parse().expect("ok"),
        accepted_at: at(0),
    };
    let status = serde_json::to_value(status(&view, &place)).expect("serialises");
    assert_eq!(condition(&status, "PodScheduled"), "True");
    assert_eq!(
        status["conditions"][0]["lastTransitionTime"],
        "1970-01-01T00:00:05Z"
    );
}

#[test]
fn a_pod_that_has_ended_keeps_its_address() {
    let memory = Memory {
        attached: None,
        ..wired()
    };
    let status = status_of(
        "Never",
        vec![container(Role::Main, "main", 0, exited(0))],
        &memory,
        3,
    );
    assert_eq!(
        (&status["phase"], &status["podIP"]),
        (&json!("Succeeded"), &json!("10.0.0.2"))
    );
}

#[test]
fn an_ephemeral_container_is_told_apart_and_changes_nothing_of_the_pod() {
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
        "spec": {
            "containers": [{"name": "main", "image": "nginx:1"}],
            "ephemeralContainers": [{"name": "debug", "image": "busybox"}],
        },
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    let told = |state: State| {
        let containers = [
            container(Role::Sandbox, "", 0, running()),
            container(Role::Main, "main", 0, running()),
            container(Role::Ephemeral, "debug", 0, state),
        ];
        let view = View {
            pod: &pod,
            gone: false,
            now: at(5),
            containers: &containers,
            memory: &wired(),
        };
        let place = Place {
            node_ips: "172.31.0.11".parse().expect("ok"),
            accepted_at: at(0),
        };
        serde_json::to_value(status(&view, &place)).expect("serialises")
    };
    let running = told(running());
    let own = &running["ephemeralContainerStatuses"][0];
    assert_eq!(
        (&own["name"], &own["ready"]),
        (&json!("debug"), &json!(false))
    );
    assert!(own["state"]["running"].is_object());
    assert_eq!(condition(&running, "Ready"), "True");
    let ended = told(exited(1));
    let own = &ended["ephemeralContainerStatuses"][0];
    assert_eq!(own["state"]["terminated"]["exitCode"], 1);
    assert_eq!(
        (&ended["phase"], condition(&ended, "Ready")),
        (&json!("Running"), "True")
    );
}

/// The status of a pod with a sidecar, an init container after it and a main one.
fn with_sidecar(policy: &str, of: [Option<State>; 3], memory: &Memory) -> Value {
    let pod = json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "u1" },
        "spec": {
            "restartPolicy": policy,
            "initContainers": [{"name": "proxy", "image": "nginx:1", "restartPolicy": "Always"},
                {"name": "init", "image": "nginx:1"}],
            "containers": [{"name": "main", "image": "nginx:1"}],
        },
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    let names = [
        ("proxy", Role::Init),
        ("init", Role::Init),
        ("main", Role::Main),
    ];
    let made = names.into_iter().zip(of);
    let made = made.filter_map(|((name, role), state)| Some(container(role, name, 0, state?)));
    let mut containers: Vec<Container> = made.collect();
    containers.push(container(Role::Sandbox, "", 0, running()));
    let view = View {
        pod: &pod,
        gone: false,
        now: at(2),
        containers: &containers,
        memory,
    };
    let place = Place {
        node_ips: "172.31.0.11".parse().expect("ok"),
        accepted_at: at(0),
    };
    serde_json::to_value(status(&view, &place)).expect("serialises")
}

#[test]
fn a_sidecar_counts_for_readiness_but_not_for_the_end_of_its_pod() {
    let (on, off) = (|| Some(running()), |code| Some(exited(code)));
    // States of the sidecar, the init container and the main one; phase, Initialized, Ready.
    let cases = [
        ([None, None, None], "Pending", "False", "False"),
        ([on(), None, None], "Pending", "False", "False"),
        ([on(), off(0), None], "Pending", "True", "False"),
        ([on(), off(0), on()], "Running", "True", "True"),
        ([off(1), off(0), on()], "Running", "True", "False"),
        // It is asked to stop now: the pod has not ended yet.
        ([on(), off(0), off(0)], "Running", "True", "False"),
        ([off(137), off(0), off(0)], "Succeeded", "True", "False"),
        ([off(0), off(0), off(1)], "Failed", "True", "False"),
    ];
    for (of, phase, initialized, ready) in cases {
        let status = with_sidecar("Never", of.clone(), &wired());
        assert_eq!(status["phase"], phase, "{of:?}");
        assert_eq!(condition(&status, "Initialized"), initialized, "{of:?}");
        assert_eq!(condition(&status, "Ready"), ready, "{of:?}");
    }
}

#[test]
fn a_sidecar_is_started_and_ready_as_its_probes_say() {
    let mut memory = wired();
    let probed = |started, ready| Probed {
        started,
        ready,
        failed: None,
    };
    for (started, ready, initialized) in [
        (false, false, "False"),
        (true, false, "True"),
        (true, true, "True"),
    ] {
        memory
            .probes
            .insert("proxy-0".to_owned(), probed(started, ready));
        let of = [Some(running()), Some(exited(0)), None];
        let status = with_sidecar("Always", of, &memory);
        let own = &status["initContainerStatuses"][0];
        assert_eq!(
            (&own["started"], &own["ready"]),
            (&json!(started), &json!(ready))
        );
        assert_eq!(condition(&status, "Initialized"), initialized);
    }
}

#[test]
fn a_container_is_not_said_to_run_before_its_post_start_has_ended() {
    let told = |hook: PostStart| {
        let mut memory = wired();
        memory.post_starts.insert("main-0".to_owned(), hook);
        let main = vec![container(Role::Main, "main", 0, running())];
        status_of("Always", main, &memory, 3)
    };
    let reason =
        |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    let status = told(PostStart::Running);
    assert_eq!(reason(&status), "ContainerCreating");
    assert_eq!(status["phase"], "Pending");
    assert_eq!(condition(&status, "Ready"), "False");
    let status = told(PostStart::Failed("exit 1".to_owned()));
    assert_eq!(reason(&status), "PostStartHookError");
    let status = told(PostStart::Done);
    assert_eq!(condition(&status, "Ready"), "True");
}

#[test]
fn a_pod_that_leaves_under_pressure_says_so_and_one_that_took_too_much_does_not() {
    let status = |eviction: Eviction, containers| {
        let memory = Memory {
            evicted: Some(eviction),
            ..wired()
        };
        status_of("Always", containers, &memory, 3)
    };
    let main = |state| vec![container(Role::Main, "main", 0, state)];
    let target = |status: &Value| {
        let conditions = status["conditions"].as_array().expect("conditions");
        let found = conditions
            .iter()
            .find(|it| it["type"] == "DisruptionTarget");
        found.map(|it| (it["reason"].clone(), it["message"].clone()))
    };
    let why = "The node was low on resource: memory. ";
    let said = Some(("TerminationByKubelet".into(), why.into()));
    let ending = status(Eviction::under_pressure(why.to_owned()), main(running()));
    assert_eq!(
        (&ending["phase"], target(&ending)),
        (&"Running".into(), said.clone())
    );
    let ended = status(Eviction::under_pressure(why.to_owned()), main(exited(137)));
    assert_eq!((&ended["phase"], target(&ended)), (&"Failed".into(), said));
    assert_eq!(
        (&ended["reason"], &ended["message"]),
        (&"Evicted".into(), &why.into())
    );
    let greedy = status(
        Eviction::over_limit("too much".to_owned()),
        main(exited(137)),
    );
    assert_eq!(
        (&greedy["reason"], target(&greedy)),
        (&"Evicted".into(), None)
    );
    let grace = SignedDuration::from_secs(9);
    let down = status(
        Eviction::shut_down("down".to_owned(), grace),
        main(exited(0)),
    );
    assert_eq!(down["reason"], "Terminated");
    assert!(target(&down).is_some());
}

#[test]
fn a_container_whose_end_nobody_saw_is_unknown_once_its_pod_has_ended() {
    let memory = Memory {
        evicted: Some(Eviction::under_pressure("low".to_owned())),
        ..wired()
    };
    let status = status_of("Always", vec![], &memory, 3);
    assert_eq!(status["phase"], "Failed");
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    let expected = json!({"exitCode": 137, "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated"});
    assert_eq!(*ended, expected);
}
