//! The table of pods. The status column is the one place where a pod's phase, its containers'
//! states and its deletion are told in one word; the words are kubectl's.

use jiff::Timestamp;
use serde_json::Value;

use crate::columns::{
    AGE, Column, NAME, Printer, age, list, name, number, since, text, text_or_none,
};

/// Pods: ready containers, status, restarts; wide shows where they run.
pub const PODS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Ready", "How many containers are ready, of how many"),
        Column::text(
            "Status",
            "The state of the pod and its containers in one word",
        ),
        Column::text(
            "Restarts",
            "How often containers were restarted, and when last",
        ),
        AGE,
        Column::wide("IP", "The pod's address"),
        Column::wide("Node", "The node that it runs on"),
        Column::wide("Nominated Node", "The node that is being made free for it"),
        Column::wide("Readiness Gates", "How many of its readiness gates are met"),
    ],
    cells: pod,
};

/// What the walk over the containers finds out.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts += number(status, "/restartCount");
        let finished = text(status, "/lastState/terminated/finishedAt")
            .parse::<Timestamp>()
            .ok();
        self.last_restart = self.last_restart.max(finished);
    }

    fn restarts(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts != 0 => {
                format!("{} ({} ago)", self.restarts, since(&last.to_string(), now))
            }
            _ => self.restarts.to_string(),
        }
    }
}

fn pod(object: &Value, now: Timestamp) -> Vec<Value> {
    let sidecars = list(object, "/spec/initContainers")
        .iter()
        .filter(|c| is_sidecar(c))
        .count();
    let total = list(object, "/spec/containers").len() + sidecars;
    let summary = summarise(object);
    let gates = list(object, "/spec/readinessGates");
    let gates_met = gates
        .iter()
        .filter(|g| is_true(object, text(g, "/conditionType")))
        .count();
    vec![
        name(object),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.as_str().into(),
        summary.restarts(now).into(),
        age(object, now),
        text_or_none(object, "/status/podIP").into(),
        text_or_none(object, "/spec/nodeName").into(),
        text_or_none(object, "/status/nominatedNodeName").into(),
        match gates.len() {
            0 => "<none>".into(),
            count => format!("{gates_met}/{count}").into(),
        },
    ]
}

fn summarise(object: &Value) -> Summary {
    let phase = text(object, "/status/phase");
    let mut summary = Summary {
        reason: match text(object, "/status/reason") {
            "" => phase.to_owned(),
            reason => reason.to_owned(),
        },
        ..Summary::default()
    };
    let scheduled = list(object, "/status/conditions")
        .iter()
        .find(|c| c["type"] == "PodScheduled");
    if scheduled.is_some_and(|condition| condition["reason"] == "SchedulingGated") {
        summary.reason = "SchedulingGated".to_owned();
    }
    let initializing = init_containers(object, &mut summary);
    if !initializing || is_true(object, "Initialized") {
        containers(object, &mut summary);
    }
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        if text(object, "/status/reason") == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

/// Walks the init containers; true while the pod is still being initialised.
fn init_containers(object: &Value, summary: &mut Summary) -> bool {
    let specs = list(object, "/spec/initContainers");
    let mut sidecars = Summary::default();
    for (index, status) in list(object, "/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        let sidecar = specs
            .iter()
            .any(|spec| spec["name"] == status["name"] && is_sidecar(spec));
        summary.count_restarts(status);
        if sidecar {
            sidecars.count_restarts(status);
        }
        if let Some(terminated) = status.pointer("/state/terminated") {
            if number(terminated, "/exitCode") == 0 {
                continue;
            }
            summary.reason = format!("Init:{}", terminated_reason(terminated));
            return true;
        }
        if sidecar && status["started"] == true {
            summary.ready += usize::from(status["ready"] == true);
            continue;
        }
        summary.reason = match text(status, "/state/waiting/reason") {
            "" | "PodInitializing" => format!("Init:{index}/{}", specs.len()),
            reason => format!("Init:{reason}"),
        };
        return true;
    }
    // Once the pod is initialised, only sidecars among the init containers still count.
    summary.restarts = sidecars.restarts;
    summary.last_restart = sidecars.last_restart;
    false
}

fn containers(object: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in list(object, "/status/containerStatuses").iter().rev() {
        summary.count_restarts(status);
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(terminated) = status.pointer("/state/terminated") {
            summary.reason = terminated_reason(terminated);
        } else if status["ready"] == true && status.pointer("/state/running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let ready = is_true(object, "Ready");
        summary.reason = if ready {
            "Running".to_owned()
        } else {
            "NotReady".to_owned()
        };
    }
}

fn terminated_reason(terminated: &Value) -> String {
    match (text(terminated, "/reason"), number(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_sidecar(spec: &Value) -> bool {
    spec["restartPolicy"] == "Always"
}

fn is_true(object: &Value, condition: &str) -> bool {
    list(object, "/status/conditions")
        .iter()
        .any(|entry| entry["type"] == condition && entry["status"] == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cells(status: Value) -> Vec<Value> {
        let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}, {"name": "j"}]});
        pod(
            &json!({"metadata": {"name": "p"}, "spec": spec, "status": status}),
            now,
        )
    }

    #[test]
    fn a_running_pod_counts_ready_containers_and_restarts() {
        let cells = cells(json!({"phase": "Running", "containerStatuses": [
            {"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
             "lastState": {"terminated": {"finishedAt": "2026-01-01T00:09:00Z"}}},
            {"name": "b", "ready": false, "restartCount": 0, "state": {"running": {}}},
        ]}));
        assert_eq!(
            cells[1..4],
            [json!("1/2"), json!("Running"), json!("2 (60s ago)")]
        );
    }

    #[test]
    fn a_crash_loop_is_named() {
        let cells = cells(json!({"phase": "Running", "containerStatuses": [
            {"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
        ]}));
        assert_eq!(cells[2], "CrashLoopBackOff");
    }

    #[test]
    fn init_containers_are_counted_until_done() {
        let waiting = cells(json!({"phase": "Pending",
            "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                {"name": "j", "state": {"running": {}}}],
            "containerStatuses": [
                {"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}}],
        }));
        assert_eq!(waiting[2], "Init:1/2");
        let failed = cells(json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 3}}}]}));
        assert_eq!(failed[2], "Init:ExitCode:3");
    }

    #[test]
    fn a_pod_that_is_going_is_terminating_unless_it_has_ended() {
        let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
        let mut object = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:09:00Z"},
            "status": {"phase": "Running"}});
        assert_eq!(pod(&object, now)[2], "Terminating");
        object["status"]["phase"] = "Succeeded".into();
        assert_eq!(pod(&object, now)[2], "Succeeded");
    }
}
