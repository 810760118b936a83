//! The amounts that the pod is given, and their change while it runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Step, Worker};
use crate::api::events;
use crate::network::wiring::PodNetwork;
use crate::node::cgroup::Hierarchies;
use crate::pod::resize;
use crate::pod::shape::{self, Outcome};
use crate::runtime::{Resources, Runtime, State};

/// When to look again whether there is room by now.
const DEFERRED_RETRY: Duration = Duration::from_secs(5);

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    /// Gives the pod what its spec says, if that fits; else it goes on with what it has. Gives when to look
    /// again.
    pub(super) fn allocate(&mut self) -> Option<Instant> {
        let ends = self.update.gone || shape::outcome(&self.view()) != Outcome::Active;
        let allocations = self.node.allocations.clone();
        if ends {
            allocations.note(self.uid(), Default::default());
            return None;
        }
        if self.given == self.wanted {
            self.memory.resize = None;
            allocations.note(self.uid(), resize::requests(&self.update.pod));
            return None;
        }
        let wanted = resize::with(&self.update.pod, &self.wanted);
        let requests = resize::requests(&wanted);
        let others = allocations.of_others(self.uid());
        match resize::judge(&requests, &others, &self.node.allocatable) {
            Ok(()) => {
                self.given.clone_from(&self.wanted);
                self.update.pod = Arc::new(wanted);
                self.memory.resize = None;
                allocations.note(self.uid(), requests);
                None
            }
            Err(pending) => {
                let given = resize::with(&self.update.pod, &self.given);
                allocations.note(self.uid(), resize::requests(&given));
                self.update.pod = Arc::new(given);
                self.memory.resize = Some(pending);
                Some(Instant::now() + DEFERRED_RETRY)
            }
        }
    }

    /// Changes a running container's limits.
    pub(super) async fn resize(&mut self, id: &str, name: &str, resources: Resources) -> Step {
        let key = resize::key(name);
        let runtime = &self.node.runtime;
        let outcome = match self.too_little(id, name, resources).await {
            Some(why) => Err(why),
            None => { runtime.resize_container(id, &resources).await }.map_err(|e| e.to_string()),
        };
        match outcome {
            Ok(()) => {
                self.memory.failures.remove(&key);
                Step::Progress
            }
            Err(error) => {
                let about = events::container(&self.update.pod, name);
                let message = format!("Failed to resize container {name}: {error}");
                let recorder = &self.node.recorder;
                recorder.warning(about, "ResizeFailed", message);
                self.remember_failure(&key, "Error", error);
                Step::Progress
            }
        }
    }

    async fn too_little(&self, id: &str, name: &str, wanted: Resources) -> Option<String> {
        let container = self.containers.iter().find(|it| it.id == id)?;
        let State::Running { pid, .. } = container.state else {
            return None;
        };
        let read = move || Hierarchies::read()?.of_process(pid)?.read();
        // What cannot be read is not in the way: the kernel decides.
        let used = tokio::task::spawn_blocking(read).await.ok()?.ok()?;
        resize::too_little(name, wanted, used.working_set_bytes)
    }
}
