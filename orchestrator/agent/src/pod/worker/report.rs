//! What the API is told: the pod's status when it differs, and events that follow from it.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::Worker;
use super::pod_name;
use super::start_clock::Stage;

use crate::api::events;
use crate::network::wiring::PodNetwork;
use crate::node::static_pods::is_static;
use crate::pod::plan::Probed;
use crate::pod::prober::Verdict;
use crate::pod::refuse::Refusal;
use crate::pod::shape;
use crate::pod::status;
use crate::runtime::Runtime;

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    /// Writes the status if it is not what was written last.
    pub(super) async fn report(&mut self) -> Result<(), kube::Error> {
        let status = status::status(&self.view(), &self.place);
        let pod = self.update.pod.clone();
        // What a static pod's mirror says may be of another mirror than the last one.
        let is_static = is_static(&pod);
        let written = self.reported.as_ref().filter(|_| !is_static);
        let known = written.or(pod.status.as_ref());
        if known.is_some_and(|known| same(known, &status)) {
            return Ok(());
        }
        self.clock.stage(Stage::Plan);
        self.tell_admission(&pod);
        self.tell_back_off(&pod, &status);
        let meta = &pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or("default");
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), namespace);
        let name = meta.name.as_deref().unwrap_or_default();
        let mut patch = json!({ "status": patch_of(&status) });
        if !is_static {
            patch["metadata"] = json!({ "uid": meta.uid });
        }
        let patched = api
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match patched {
            Ok(_) => {
                if let Some(own) = self.clock.ended(&status) {
                    self.node.metrics.started(own.all, &own.stages);
                }
            }
            // It is gone, or another pod has its name: the watch will say so.
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {}
            Err(error) => return Err(error),
        }
        // Planned on until the watch brings what the server made of it.
        let written = Pod {
            status: Some(status.clone()),
            ..Pod::clone(&pod)
        };
        self.update.pod = std::sync::Arc::new(written);
        self.reported = Some(status);
        Ok(())
    }

    /// Says that the pod is not ready any more before anything is done about it: who asks it must be sent
    /// elsewhere, and a new start takes its time. Clients of a pod that is deleted are elsewhere already. What
    /// is not written now is when all is done.
    pub(super) async fn report_loss(&mut self) {
        let known = self.reported.as_ref().or(self.update.pod.status.as_ref());
        let deleted = self.update.pod.metadata.deletion_timestamp.is_some();
        let ended = self.update.gone || self.memory.reported_end;
        if deleted || ended || !known.is_some_and(is_ready) {
            return;
        }
        if is_ready(&status::status(&self.view(), &self.place)) {
            return;
        }
        if let Err(error) = self.report().await {
            tracing::debug!(%error, "a pod's status was not written");
        }
    }

    /// The events of the first look at a pod: why it is refused, or what it runs without.
    fn tell_admission(&mut self, pod: &Pod) {
        let known = self.reported.as_ref().or(pod.status.as_ref());
        let unmet = std::mem::take(&mut self.unmet);
        if known.is_some_and(|status| status.start_time.is_some()) {
            return;
        }
        let about = events::pod(pod);
        if let Some(refusal) = shape::refusal(&self.view()) {
            let Refusal { reason, message } = refusal.clone();
            return self.node.recorder.warning(about, reason, message);
        }
        for what in unmet {
            let recorder = &self.node.recorder;
            recorder.warning(about.clone(), "Unsupported", what);
        }
    }

    /// The events of containers that have to wait since this status.
    fn tell_back_off(&self, pod: &Pod, status: &PodStatus) {
        let before = self.reported.as_ref().or(pod.status.as_ref());
        for container in all(status) {
            let Some(reason) = waiting_reason(container) else {
                continue;
            };
            let earlier = before
                .into_iter()
                .flat_map(all)
                .find(|it| it.name == container.name);
            if earlier.and_then(waiting_reason) == Some(reason) {
                continue;
            }
            let about = events::container(pod, &container.name);
            match reason {
                "CrashLoopBackOff" => {
                    let message = format!(
                        "Back-off restarting failed container {} in pod {}",
                        container.name,
                        pod_name(pod)
                    );
                    self.node.recorder.warning(about, "BackOff", message);
                }
                "ImagePullBackOff" => {
                    let image = shape::image_of(pod, &container.name);
                    let message = format!("Back-off pulling image \"{image}\"");
                    let recorder = &self.node.recorder;
                    recorder.normal(about.clone(), "BackOff", message);
                    recorder.warning(about, "Failed", "Error: ImagePullBackOff");
                }
                _ => {}
            }
        }
    }

    pub(super) fn probed(&mut self, id: String, verdict: Verdict) {
        let Some(container) = self.containers.iter().find(|it| it.id == id) else {
            return;
        };
        if let Some(message) = &verdict.unhealthy {
            let about = events::container(&self.update.pod, &container.identity.name);
            self.node
                .recorder
                .warning(about, "Unhealthy", message.clone());
        }
        let probed = Probed {
            started: verdict.started,
            ready: verdict.ready,
            failed: verdict.restart,
        };
        self.memory.probes.insert(id, probed);
    }
}

fn all(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    let main = status.container_statuses.iter().flatten();
    let ephemeral = status.ephemeral_container_statuses.iter().flatten();
    init.chain(main).chain(ephemeral)
}

fn is_ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|it| it.type_ == "Ready" && it.status == "True")
}

fn waiting_reason(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

/// Whether a status says what we would write. Fields that others own do not count.
fn same(known: &PodStatus, ours: &PodStatus) -> bool {
    let conditions = |status: &PodStatus| {
        let mut conditions = status.conditions.clone().unwrap_or_default();
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        conditions
    };
    let key = |status: &PodStatus| {
        (
            status.phase.clone(),
            status.reason.clone(),
            status.message.clone(),
            status.host_ip.clone(),
            status.pod_ip.clone(),
            status.start_time.clone(),
            status.observed_generation,
        )
    };
    key(known) == key(ours)
        && known.container_statuses == ours.container_statuses
        && known.init_container_statuses == ours.init_container_statuses
        && known.ephemeral_container_statuses == ours.ephemeral_container_statuses
        && conditions(known) == conditions(ours)
}

/// A merge patch: what is not said must be cleared.
fn patch_of(status: &PodStatus) -> Value {
    let mut patch = serde_json::to_value(status).unwrap_or_default();
    for field in ["reason", "message"] {
        if patch.get(field).is_none() {
            patch[field] = Value::Null;
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_container_is_told() {
        for list in [
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        ] {
            let status = |started: bool| -> PodStatus {
                let own = json!([{"name": "c", "image": "i", "imageID": "", "ready": false,
                    "restartCount": 0, "started": started}]);
                serde_json::from_value(json!({ list: own })).expect("a status")
            };
            assert!(same(&status(true), &status(true)));
            assert!(!same(&status(true), &status(false)), "{list}");
            assert!(!same(&PodStatus::default(), &status(false)), "{list}");
        }
    }
}
