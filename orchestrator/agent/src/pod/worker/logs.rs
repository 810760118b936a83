//! Links to the logs of the pod's containers, kept as the containers are.

use super::{Worker, pod_name};
use crate::network::wiring::PodNetwork;
use crate::pod::log_links;
use crate::runtime::Runtime;
use crate::runtime::container_spec::pod_ref;

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    /// Makes the links of new containers, and removes those of containers that are gone.
    pub(super) async fn link_logs(&mut self) {
        let pod = pod_ref(&self.update.pod);
        let wanted = log_links::wanted(&self.node.logs_dir, &pod, &self.containers);
        if wanted == self.log_links || self.update.gone {
            return;
        }
        let (there, links) = (self.log_links.clone(), wanted.clone());
        let apply = move || log_links::apply(&there, &links);
        match tokio::task::spawn_blocking(apply).await {
            Ok(Ok(())) => self.log_links = wanted,
            Ok(Err(error)) => {
                let pod = pod_name(&self.update.pod);
                tracing::warn!(%error, pod, "log shippers will not find the logs of a pod");
            }
            Err(error) => tracing::warn!(%error, "links to logs were not made"),
        }
    }

    /// The pod is gone, and its containers with it.
    pub(super) async fn unlink_logs(&mut self) {
        let pod = pod_ref(&self.update.pod);
        let (logs, there) = (
            self.node.logs_dir.clone(),
            std::mem::take(&mut self.log_links),
        );
        let clear = move || log_links::clear(&logs, &pod, &there);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(clear).await {
            let pod = pod_name(&self.update.pod);
            tracing::warn!(%error, pod, "links to the logs of a pod are left");
        }
    }
}
