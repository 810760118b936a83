//! The executor: one method an action. Each is safe to do again.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use tokio::time::Instant;

use super::RETRY;
use super::Step;
use super::Worker;
use super::alarm;
use super::pod_name;
use super::start_clock::Stage;

use crate::api::events;
use crate::network::pod_net::shaping::Bandwidth;
use crate::network::wiring::PodNetwork;
use crate::node::cgroup::Hierarchies;
use crate::pod::plan::{Action, Attached};
use crate::pod::{shape, whole};
use crate::runtime::container_spec;
use crate::runtime::{Identity, Role, Runtime, RuntimeError};
use datapath::Addrs;

/// A container that was told to die is looked at again after this, if no news comes.
const DYING: Duration = Duration::from_millis(500);

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    pub(super) async fn execute(&mut self, action: Action) -> Step {
        self.clock.stage(Stage::Plan);
        match action {
            Action::EnsureImage {
                container,
                image,
                policy,
            } => self.ensure_image(container, image, &policy).await,
            Action::CreateSandbox { attempt } => self.create_sandbox(attempt).await,
            Action::Attach { sandbox, pid } => self.attach(sandbox, pid).await,
            Action::Start {
                container,
                role,
                attempt,
                generation,
                level,
            } => {
                let identity = (role, attempt, generation, level);
                self.start(&container, identity).await
            }
            Action::Resize {
                id,
                container,
                resources,
            } => self.resize(&id, &container, resources).await,
            Action::Retire => {
                self.memory.retired_at = Some(jiff::Timestamp::now());
                Step::Progress
            }
            Action::Drain => self.drain(),
            Action::PreStop {
                id,
                container,
                why,
                until,
            } => self.pre_stop(id, &container, why, until),
            Action::Stop {
                id,
                container,
                why,
                kill_at,
            } => self.stop(id, &container, why, kill_at),
            Action::Kill { id } => match self.node.runtime.signal(&id, true).await {
                Ok(()) => Step::Wait(Instant::now() + DYING),
                Err(error) => self.later("kill a container", &error),
            },
            Action::Remove { id } => self.remove(&id).await,
            Action::RemoveSandbox { id } => self.remove_sandbox(&id).await,
            Action::ReportEnd => self.report_end().await,
            Action::Release => self.release().await,
            Action::CleanUp => self.clean_up().await,
            Action::Confirm => self.confirm().await,
            Action::Finish => Step::Finished,
            wake @ Action::WakeAt(_) => alarm(&wake).map_or(Step::Settled, Step::Wait),
        }
    }

    pub(super) fn later(&self, what: &str, error: &dyn std::fmt::Display) -> Step {
        tracing::warn!(pod = pod_name(&self.update.pod), %error, "could not {what}");
        Step::Wait(Instant::now() + RETRY)
    }

    async fn create_sandbox(&mut self, attempt: u32) -> Step {
        let outcome = self.try_create_sandbox(attempt).await;
        self.clock.stage(Stage::Sandbox);
        match outcome {
            Ok(()) => Step::Progress,
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                let about = events::pod(&self.update.pod);
                self.node
                    .recorder
                    .warning(about, "FailedCreatePodSandBox", message.clone());
                self.remember_failure("", "", message);
                Step::Progress
            }
        }
    }

    async fn try_create_sandbox(&mut self, attempt: u32) -> Result<(), String> {
        let node = self.node.clone();
        let pod = self.update.pod.clone();
        let addrs = match shape::host_network(&pod) {
            true => None,
            false => Some(
                node.network
                    .allocate(self.uid())
                    .map_err(|e| e.to_string())?,
            ),
        };
        let identity = Identity {
            role: Role::Sandbox,
            name: String::new(),
            attempt,
            generation: attempt,
            level: 0,
            spec_hash: String::new(),
            addrs,
        };
        let text = |error: RuntimeError| error.to_string();
        let clock = self.clock.clone();
        let make = async {
            let image = clock.engine(node.runtime.pause_image()).await;
            let image = image.map_err(text)?;
            let started = Instant::now();
            let of_node = container_spec::Node {
                name: node.name.clone(),
                netns: node.netns.clone(),
                domain: node.dns.domain.clone(),
                handler: handler(&node.client, &pod).await?,
            };
            let spec = container_spec::sandbox(&pod, identity, image, of_node);
            let spec = spec.map_err(|error| error.to_string())?;
            let begin = async {
                let id = node.runtime.create(&spec).await?;
                node.runtime.start(&id).await
            };
            clock.engine(begin).await.map_err(text)?;
            node.metrics.sandboxes().note(started.elapsed());
            Ok(())
        };
        // What containers need from the API is read while the engine works.
        let (made, _) = tokio::join!(make, self.sources(&pod));
        made
    }

    async fn attach(&mut self, sandbox: String, pid: u32) -> Step {
        match self.try_attach(&sandbox, pid).await {
            Ok(addrs) => {
                self.memory.failures.remove("");
                self.memory.attached = Some(Attached { sandbox, addrs });
                self.memory.addrs = Some(addrs);
                self.memory.released = false;
                Step::Progress
            }
            Err(error) => {
                let about = events::pod(&self.update.pod);
                let message = format!("Failed to set up the pod's network: {error}");
                self.node
                    .recorder
                    .warning(about, "FailedCreatePodSandBox", message.clone());
                self.remember_failure("", "", message);
                Step::Progress
            }
        }
    }

    async fn try_attach(&mut self, sandbox: &str, pid: u32) -> Result<Addrs, String> {
        let (node, uid) = (self.node.clone(), self.uid().to_owned());
        limit_whole(&self.update.pod, pid).await?;
        let known = self.containers.iter().find(|it| it.id == sandbox);
        let known = known.and_then(|it| it.identity.addrs);
        let addrs = if shape::host_network(&self.update.pod) {
            node.network
                .join_node(pid)
                .await
                .map_err(|e| e.to_string())?;
            *node.addrs.borrow()
        } else {
            let addrs = known.ok_or("the sandbox carries no address")?;
            if !node.network.restore(&uid, addrs) {
                // Its address is another pod's by now: only a new sandbox helps.
                self.stale = true;
                node.runtime
                    .remove(sandbox)
                    .await
                    .map_err(|e| e.to_string())?;
                return Err(format!("address {addrs} is taken; making a new sandbox"));
            }
            // What does not read was refused before.
            let bandwidth = Bandwidth::of(&self.update.pod).unwrap_or_default();
            node.network.limit(&uid, bandwidth);
            node.network
                .attach(&uid, pid, addrs)
                .await
                .map_err(|e| e.to_string())?;
            addrs
        };
        self.clock.stage(Stage::Network);
        let mut facts = self.facts();
        facts.pod_ips = Some(addrs);
        let (dir, pod, dns) = (self.dir.clone(), self.update.pod.clone(), node.dns.clone());
        let written = tokio::task::spawn_blocking(move || dir.write_etc(&pod, &facts, &dns)).await;
        self.clock.stage(Stage::Files);
        written
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("write the pod's /etc: {e}"))?;
        Ok(addrs)
    }

    async fn remove(&mut self, id: &str) -> Step {
        match self.node.runtime.remove(id).await {
            Ok(()) => Step::Progress,
            Err(error) => self.later("remove a container", &error),
        }
    }

    async fn remove_sandbox(&mut self, id: &str) -> Step {
        if let Err(error) = self.node.network.detach(self.uid()).await {
            return self.later("take a pod off the network", &error);
        }
        self.memory.attached = None;
        self.remove(id).await
    }

    async fn report_end(&mut self) -> Step {
        match self.report().await {
            Ok(()) => {
                self.memory.reported_end = true;
                Step::Progress
            }
            Err(error) => self.later("report a pod's end", &error),
        }
    }

    async fn release(&mut self) -> Step {
        if let Err(error) = self.node.network.release(self.uid()).await {
            return self.later("release a pod's address", &error);
        }
        self.memory.attached = None;
        if let Err(error) = self.node.csi.release(self.uid()).await {
            return self.later("release a pod's volumes", &error);
        }
        let dir = self.dir.clone();
        let removed = tokio::task::spawn_blocking(move || dir.remove_volumes()).await;
        if let Ok(Err(error)) = removed {
            return self.later("remove a pod's volumes", &error);
        }
        self.memory.released = true;
        Step::Progress
    }

    async fn clean_up(&mut self) -> Step {
        // Of a pod that never had a sandbox, or that an agent before this one has left.
        if let Err(error) = self.node.csi.release(self.uid()).await {
            return self.later("release a pod's volumes", &error);
        }
        // Of a pod that the API does not have any more it is not known whether it has one.
        let cgroup = whole::cgroup_of(self.uid());
        let remove = move || Hierarchies::read()?.remove_pod(&cgroup);
        let removed = tokio::task::spawn_blocking(remove).await;
        if let Ok(Err(error)) = removed {
            return self.later("remove a pod's cgroup", &error);
        }
        let dir = self.dir.clone();
        let removed = tokio::task::spawn_blocking(move || dir.remove()).await;
        if let Ok(Err(error)) = removed {
            return self.later("remove a pod's files", &error);
        }
        self.unlink_logs().await;
        self.memory.cleaned = true;
        Step::Progress
    }

    async fn confirm(&mut self) -> Step {
        // Another pod of its name must not meet what is left of it.
        if !self.memory.released || !self.memory.cleaned {
            return Step::Settled;
        }
        let meta = &self.update.pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or("default");
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), namespace);
        let preconditions = Preconditions {
            uid: meta.uid.clone(),
            resource_version: None,
        };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..Default::default()
        };
        match api
            .delete(meta.name.as_deref().unwrap_or_default(), &params)
            .await
        {
            Ok(_) => {}
            // It is gone, or another pod has its name.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => return self.later("confirm a pod's deletion", &error),
        }
        self.memory.confirmed = true;
        Step::Progress
    }
}

/// Limits the cgroup around a pod that asks for something as a whole.
async fn limit_whole(pod: &Pod, sandbox: u32) -> Result<(), String> {
    let (Some(whole), Some(cgroup)) = (whole::of(pod), whole::cgroup(pod)) else {
        return Ok(());
    };
    let limit = move || Hierarchies::read()?.limit_pod(sandbox, &cgroup, &whole);
    let limited = tokio::task::spawn_blocking(limit).await;
    let limited = limited.map_err(|error| error.to_string())?;
    limited.map_err(|error| format!("limit the pod as a whole: {error}"))
}

/// The engine's runtime that a pod's class names; none for a pod without a class.
pub(super) async fn handler(client: &Client, pod: &Pod) -> Result<Option<String>, String> {
    let spec = pod.spec.as_ref();
    let class = spec.and_then(|spec| spec.runtime_class_name.as_deref());
    let Some(class) = class.filter(|class| !class.is_empty()) else {
        return Ok(None);
    };
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    let found = classes.get_opt(class).await;
    let found = found.map_err(|error| format!("read RuntimeClass {class:?}: {error}"))?;
    let unknown = || format!("failed to get sandbox runtime: RuntimeClass {class:?} not found");
    let handler = found.ok_or_else(unknown)?.handler;
    Ok(Some(handler).filter(|handler| !handler.is_empty()))
}
