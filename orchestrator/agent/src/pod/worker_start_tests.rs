//! What is done around the start and the end of containers: images, hooks, amounts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

#[tokio::test]
async fn the_next_container_starts_when_the_post_start_of_the_one_before_has_ended() {
    let hook = json!({ "postStart": { "exec": { "command": ["wait"] } } });
    let spec = json!({ "containers": [
        { "name": "proxy", "image": "i:1", "lifecycle": hook }, { "name": "app", "image": "i:1" },
    ]});
    let runtime = runtime();
    runtime.hold_commands();
    let stage = Stage::new(runtime, spec);
    stage
        .until("in its hook", |it| it.node.runtime.commands() == ["wait"])
        .await;
    let waiting = |it: &Stage| it.status()["containerStatuses"][0]["state"]["waiting"].is_object();
    stage.until("told", waiting).await;
    assert_eq!(stage.running(Role::Main), 1);
    stage.node.runtime.end_commands(0);
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    assert_eq!(stage.running(Role::Main), 2);
}

#[tokio::test]
async fn a_pod_whose_image_is_changed_twice_in_a_row_is_restarted_once_and_nothing_is_written_between()
 {
    let runtime = runtime();
    for image in ["i:2", "i:3"] {
        runtime.add_image(image);
    }
    let stage = Stage::new(runtime, one_container());
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    for (generation, image) in [(2, "i:2"), (3, "i:3")] {
        stage.updates.send_modify(|update| {
            let mut pod = Pod::clone(&update.pod);
            pod.metadata.generation = Some(generation);
            let spec = pod.spec.as_mut().expect("a spec");
            spec.containers[0].image = Some(image.to_owned());
            update.pod = Arc::new(pod);
        });
        // The worker has its turn.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    let restarted = |it: &Stage| it.status()["containerStatuses"][0]["restartCount"] == 1;
    stage.until("restarted", restarted).await;
    let main = &stage.status()["containerStatuses"][0];
    assert_eq!(main["image"], "i:3");
    let told = stage.told.lock().expect("whole");
    let of_second = |it: &&(_, _, Value)| it.2["status"]["observedGeneration"] == 2;
    assert_eq!(told.iter().find(of_second), None);
}

#[tokio::test]
async fn a_pods_start_is_measured_once_and_not_where_an_init_container_takes_its_time() {
    let starts = |stage: &Stage| {
        let text = stage.node.metrics.text();
        let name = "orchestrator_agent_pod_own_start_seconds_count ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::to_owned)
    };
    let stage = Stage::new(runtime(), one_container());
    let is_running = |it: &Stage| it.status()["phase"] == "Running";
    stage.until("running", is_running).await;
    stage
        .until("measured", |it| starts(it).as_deref() == Some("1"))
        .await;
    stage.node.runtime.end("main", 1, Timestamp::now());
    let restarted = |it: &Stage| it.status()["containerStatuses"][0]["restartCount"] == 1;
    stage.until("restarted", restarted).await;
    assert_eq!(starts(&stage).as_deref(), Some("1"));
    let mut with_init = one_container();
    with_init["initContainers"] = json!([{ "name": "first", "image": "i:1" }]);
    let stage = Stage::new(runtime(), with_init);
    stage.until("begun", |it| it.running(Role::Init) == 1).await;
    stage.node.runtime.end("first", 0, Timestamp::now());
    stage.until("running", is_running).await;
    assert_eq!(starts(&stage).as_deref(), Some("0"));
}

#[tokio::test]
async fn a_container_whose_post_start_fails_is_stopped_and_started_again() {
    let hook = json!({ "postStart": { "exec": { "command": ["fail"] } } });
    let spec = json!({ "containers": [{ "name": "main", "image": "i:1", "lifecycle": hook }] });
    let runtime = runtime();
    runtime.hold_commands();
    let stage = Stage::new(runtime, spec);
    stage
        .until("in its hook", |it| it.node.runtime.commands() == ["fail"])
        .await;
    stage.node.runtime.end_commands(1);
    stage
        .until("restarted", |it| {
            it.status()["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    let told = events(&stage);
    let reasons: Vec<&str> = told.iter().map(|(reason, _)| reason.as_str()).collect();
    assert!(reasons.contains(&"FailedPostStartHook"), "{told:?}");
}

#[tokio::test]
async fn an_image_is_pulled_with_the_pods_secret() {
    let table = json!({ "auths": { "r.example": { "username": "joe", "password": "p" } } });
    let objects = FakeApi::default();
    let table = STANDARD.encode(table.to_string());
    objects.put(
        "secrets",
        "registry",
        json!({ "data": { ".dockerconfigjson": table } }),
    );
    let spec = json!({
        "imagePullSecrets": [{ "name": "registry" }, { "name": "absent" }],
        "containers": [{ "name": "main", "image": "r.example/x:1" }],
    });
    let runtime = FakeRuntime::default();
    runtime.add_private("r.example/x:1", "joe");
    let stage = Stage::with_objects(runtime, spec, objects);
    stage.list();
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    assert_eq!(stage.node.runtime.commands(), ["pull r.example/x:1 joe"]);
    let missing = "Unable to retrieve some image pull secrets (absent); attempting to pull the \
                   image may not succeed.";
    let expected = (
        "FailedToRetrieveImagePullSecret".to_owned(),
        missing.to_owned(),
    );
    assert!(events(&stage).contains(&expected));
}

#[tokio::test]
async fn a_running_container_is_given_other_limits_and_what_never_fits_waits() {
    let spec = |cpu: &str| {
        let resources = json!({ "requests": { "cpu": cpu }, "limits": { "cpu": cpu } });
        json!({ "containers": [{ "name": "main", "image": "i:1", "resources": resources }] })
    };
    let stage = Stage::new(runtime(), spec("500m"));
    let resize = |cpu: &str| {
        let spec = serde_json::from_value(spec(cpu)).expect("a spec");
        stage.updates.send_modify(|update| {
            let mut pod = Pod::clone(&update.pod);
            pod.spec = Some(spec);
            update.pod = Arc::new(pod);
        });
    };
    let given =
        |it: &Stage| it.status()["containerStatuses"][0]["resources"]["limits"]["cpu"].clone();
    stage.until("running", |it| given(it) == "500m").await;
    let first = stage.node.runtime.all();
    resize("250m");
    stage.until("smaller", |it| given(it) == "250m").await;
    let main = |it: &Stage| {
        let all = it.node.runtime.all();
        all.into_iter()
            .find(|it| it.identity.role == Role::Main)
            .expect("it runs")
    };
    assert_eq!(
        main(&stage).resources.map(|it| it.cpu_quota_us),
        Some(25_000)
    );
    assert_eq!(
        first.len(),
        stage.node.runtime.all().len(),
        "it was not started anew"
    );
    // The node has one CPU.
    resize("2");
    let pending = |it: &Stage| {
        let conditions = it.status()["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = conditions
            .into_iter()
            .find(|it| it["type"] == "PodResizePending");
        found.map(|it| it["reason"].clone())
    };
    let infeasible = Some(json!("Infeasible"));
    stage.until("told", |it| pending(it) == infeasible).await;
    assert_eq!(given(&stage), "250m");
    assert_eq!(
        main(&stage).resources.map(|it| it.cpu_quota_us),
        Some(25_000)
    );
    resize("750m");
    stage.until("larger", |it| given(it) == "750m").await;
    assert_eq!(pending(&stage), None);
}

#[tokio::test]
async fn the_user_of_an_image_that_was_just_pulled_is_known() {
    let spec = json!({ "containers": [{ "name": "main", "image": "r.example/x:1",
        "securityContext": { "runAsNonRoot": true } }] });
    let runtime = FakeRuntime::default();
    runtime.add_private("r.example/x:1", "");
    runtime.set_user("r.example/x:1", "1000");
    let stage = Stage::new(runtime, spec);
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
}

#[tokio::test]
async fn a_container_with_a_hook_is_asked_to_stop_after_it() {
    let hook = json!({ "preStop": { "exec": { "command": ["drain"] } } });
    let spec = json!({ "containers": [{ "name": "main", "image": "i:1", "lifecycle": hook }] });
    let stage = Stage::new(runtime(), spec);
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    stage.delete(30);
    stage.until("confirmed", Stage::confirmed).await;
    assert_eq!(stage.node.runtime.commands(), ["drain"]);
}

#[tokio::test]
async fn a_strict_pods_group_is_read_in_its_image() {
    let spec = json!({
        "securityContext": { "runAsUser": 1000, "supplementalGroupsPolicy": "Strict" },
        "containers": [{ "name": "main", "image": "i:1" }],
    });
    let runtime = runtime();
    runtime.add_link("i:1", "/etc/passwd", "/usr/lib/passwd");
    runtime.add_file("i:1", "/usr/lib/passwd", "app:x:1000:50::/:\n");
    let stage = Stage::new(runtime, spec);
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    let made = stage.node.runtime.spec("main").expect("it was made");
    assert_eq!(made.security.user.as_deref(), Some("1000:50"));
}
