//! Agents that die, and pods that are deleted, in the middle of a change of a container.

use super::*;

/// More steps than the engine takes for the pod of these tests.
const MANY: usize = 60;

/// A pod with an init container, a sidecar and two containers.
fn whole_pod() -> Value {
    json!({
        "initContainers": [{ "name": "side", "image": "i:1", "restartPolicy": "Always" }],
        "containers": [{ "name": "a", "image": "i:1" }, { "name": "b", "image": "i:1" }],
    })
}

impl Stage {
    /// The agent dies, and another one takes over.
    async fn restart(&mut self) {
        self.worker.abort();
        assert!(
            (&mut self.worker).await.is_err(),
            "it did not end by itself"
        );
        let (node, updates) = (self.node.clone(), self.updates.subscribe());
        self.worker = tokio::spawn(run(node, updates, self.wake.clone()));
    }

    fn runs(&self) -> bool {
        self.status()["phase"] == "Running" && self.running(Role::Main) == 2
    }

    /// Everything runs once, and nothing is left that never ran.
    fn check_that_each_runs_once(&self) {
        let counts = [Role::Sandbox, Role::Init, Role::Main].map(|role| self.running(role));
        assert_eq!(counts, [1, 1, 2]);
        let all = self.node.runtime.all();
        let never: Vec<_> = all.iter().filter(|it| it.state == State::Created).collect();
        assert!(never.is_empty(), "{never:?}");
    }

    fn check_that_nothing_is_left(&self) {
        assert_eq!(self.node.runtime.all(), Vec::new());
        assert!(self.node.network.attached.lock().expect("whole").is_empty());
        assert!(!self.node.data_dir.join("pods/u1").exists());
    }
}

#[tokio::test]
async fn an_agent_that_dies_at_any_step_of_a_start_is_followed_by_one_that_finishes_it() {
    let mut died = 0;
    for steps in 0..MANY {
        let runtime = runtime();
        runtime.hang_after(steps);
        let mut stage = Stage::new(runtime, whole_pod());
        let stuck = |it: &Stage| it.node.runtime.hangs() || it.runs();
        stage.until("stuck", stuck).await;
        if stage.runs() {
            break;
        }
        died += 1;
        stage.restart().await;
        stage.node.runtime.go_on();
        stage.until("running", Stage::runs).await;
        stage.check_that_each_runs_once();
    }
    // Two steps each to make and to start the sandbox and three containers.
    assert_eq!(died, 16);
}

#[tokio::test]
async fn an_agent_that_dies_at_any_step_of_an_end_is_followed_by_one_that_finishes_it() {
    let mut died = 0;
    for steps in 0..MANY {
        let mut stage = Stage::new(runtime(), whole_pod());
        stage.until("running", Stage::runs).await;
        stage.node.runtime.hang_after(steps);
        stage.delete(30);
        let stuck = |it: &Stage| it.node.runtime.hangs() || it.confirmed();
        stage.until("stuck", stuck).await;
        if !stage.node.runtime.hangs() {
            break;
        }
        died += 1;
        stage.restart().await;
        stage.node.runtime.go_on();
        stage.until("confirmed", Stage::confirmed).await;
        stage.check_that_nothing_is_left();
    }
    // Signals and removals have two steps each; those of two containers may be on their way together.
    assert!(died >= 8, "{died}");
}

#[tokio::test]
async fn a_pod_that_is_deleted_at_any_step_of_its_start_starts_no_more_and_leaves_nothing() {
    for steps in 0..16 {
        let runtime = runtime();
        runtime.hang_after(steps);
        let stage = Stage::new(runtime, whole_pod());
        stage.until("stuck", |it| it.node.runtime.hangs()).await;
        let before = stage.node.runtime.all().len();
        stage.delete(30);
        stage.node.runtime.go_on();
        stage.until("confirmed", Stage::confirmed).await;
        stage.check_that_nothing_is_left();
        let made = stage.node.runtime.made();
        // What was being made then is made; what comes after it in the same plan is not.
        assert!(made <= before + 1, "{steps}: {made} after {before}");
    }
}

#[tokio::test]
async fn of_two_quick_changes_the_last_one_counts() {
    let runtime = runtime();
    runtime.add_image("i:2");
    runtime.add_image("i:3");
    let spec = |image: &str| json!({ "containers": [{ "name": "main", "image": image }] });
    let stage = Stage::new(runtime, spec("i:1"));
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    for image in ["i:2", "i:3"] {
        let spec = serde_json::from_value(spec(image)).expect("a spec");
        stage.updates.send_modify(|update| {
            let mut pod = Pod::clone(&update.pod);
            pod.spec = Some(spec);
            update.pod = Arc::new(pod);
        });
        stage.wake.notify_one();
        tokio::task::yield_now().await;
    }
    let runs = |it: &Stage| {
        let all = it.node.runtime.all();
        let mut running = all.iter().filter(|it| it.is_running());
        running.any(|it| it.identity.role == Role::Main && it.image == "i:3")
    };
    stage.until("the last one", runs).await;
    assert_eq!(stage.running(Role::Main), 1);
}
