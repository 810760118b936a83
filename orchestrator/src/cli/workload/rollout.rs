//! `orchestrator rollout`

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use futures::{AsyncBufReadExt, TryStreamExt};
use http::Method;
use serde_json::{Value, json};

use super::{
    ClusterArgs,
    cluster::{self, Cluster, MERGE_PATCH, Payload},
    get::full_name,
    output,
};

/// Follow, list, undo or restart the rollouts of a deployment
///
/// Examples:
///   orchestrator rollout status deployment/web
///   orchestrator rollout history deployment/web
///   orchestrator rollout undo deployment/web --to-revision=2
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Rollout {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Wait until the newest template runs everywhere
    Status(Workload),
    /// The revisions that can be gone back to
    History(Workload),
    /// Go back to the revision before, or to one by number
    Undo {
        #[command(flatten)]
        workload: Workload,
        #[arg(long, default_value_t = 0)]
        to_revision: u64,
    },
    /// Replace every pod with a new one
    Restart(Workload),
    /// Stop rolling out changes
    Pause(Workload),
    /// Go on rolling out changes
    Resume(Workload),
}

#[derive(Args)]
struct Workload {
    /// deployment NAME or deployment/NAME
    #[arg(required = true)]
    words: Vec<String>,
}

const REVISION: &str = "deployment.kubernetes.io/revision";

impl Rollout {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        match self.action {
            Action::Status(workload) => {
                Deployment::find(&cluster, &workload.words)
                    .await?
                    .status()
                    .await
            }
            Action::History(workload) => {
                Deployment::find(&cluster, &workload.words)
                    .await?
                    .history()
                    .await
            }
            Action::Undo {
                workload,
                to_revision,
            } => {
                Deployment::find(&cluster, &workload.words)
                    .await?
                    .undo(to_revision)
                    .await
            }
            Action::Restart(workload) => {
                let now = jiff::Timestamp::now().to_string();
                let stamp = json!({"kubectl.kubernetes.io/restartedAt": now});
                let patch = json!({"spec": {"template": {"metadata": {"annotations": stamp}}}});
                Deployment::find(&cluster, &workload.words)
                    .await?
                    .patch(&patch, "restarted")
                    .await
            }
            Action::Pause(workload) => {
                let patch = json!({"spec": {"paused": true}});
                Deployment::find(&cluster, &workload.words)
                    .await?
                    .patch(&patch, "paused")
                    .await
            }
            Action::Resume(workload) => {
                let patch = json!({"spec": {"paused": null}});
                Deployment::find(&cluster, &workload.words)
                    .await?
                    .patch(&patch, "resumed")
                    .await
            }
        }
    }
}

struct Deployment<'a> {
    cluster: &'a Cluster,
    path: String,
    name: String,
    object: Value,
}

impl<'a> Deployment<'a> {
    async fn find(cluster: &'a Cluster, words: &[String]) -> Result<Self> {
        let targets = cluster::targets(words)?;
        let [(resource, Some(name))] = &targets[..] else {
            bail!("say one deployment: deployment NAME or deployment/NAME");
        };
        if resource.kind != "Deployment" {
            bail!("{} have no rollouts; deployments do", resource.plural);
        }
        let path = cluster.path(resource, Some(name));
        let object = cluster.get(&path).await?;
        Ok(Self {
            cluster,
            path,
            name: name.clone(),
            object,
        })
    }

    async fn patch(&self, patch: &Value, done: &str) -> Result<()> {
        self.cluster
            .call(
                Method::PATCH,
                &self.path,
                Payload::Typed(MERGE_PATCH, patch),
            )
            .await?;
        println!("{} {done}", full_name(&self.object)?);
        Ok(())
    }

    async fn status(self) -> Result<()> {
        let deployments = cluster::resource("deployments")?;
        let by_name = cluster::query(&format!("metadata.name={}", self.name));
        let path = self.cluster.path(deployments, None);
        let path = format!("{path}?watch=true&fieldSelector={by_name}");
        let mut events = self.cluster.lines(&path, "application/json").await?.lines();
        let mut said = String::new();
        while let Some(line) = events.try_next().await? {
            let event: Value = serde_json::from_str(&line)?;
            match event["type"].as_str() {
                Some("DELETED") => bail!("{} was deleted", self.name),
                Some("ADDED" | "MODIFIED") => {}
                _ => continue,
            }
            let (text, done) = progress(&self.name, &event["object"])?;
            if text != said {
                output::print(&format!("{text}\n"));
                said = text;
            }
            if done {
                return Ok(());
            }
        }
        bail!("the server ended the watch; run the command again")
    }

    async fn history(self) -> Result<()> {
        let mut table = output::aligned();
        table.set_header(["REVISION", "CHANGE-CAUSE"]);
        for (revision, set) in self.revisions().await? {
            let cause = &set["metadata"]["annotations"]["kubernetes.io/change-cause"];
            table.add_row([
                revision.to_string(),
                output::one_line(cause.as_str().unwrap_or("<none>")),
            ]);
        }
        println!("{}\n{}", full_name(&self.object)?, output::finish(&table));
        Ok(())
    }

    async fn undo(self, to: u64) -> Result<()> {
        let revisions = self.revisions().await?;
        let target = match to {
            0 => revisions
                .len()
                .checked_sub(2)
                .and_then(|i| revisions.get(i)),
            to => revisions.iter().find(|(revision, _)| *revision == to),
        };
        let (_, set) = target.with_context(|| {
            let all: Vec<_> = revisions.iter().map(|(r, _)| r.to_string()).collect();
            format!(
                "no such revision to go back to; there are {}",
                all.join(", ")
            )
        })?;
        let mut template = set["spec"]["template"].clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        // A JSON patch replaces the template whole, which a merge could not.
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
        let payload = Payload::Typed("application/json-patch+json", &patch);
        self.cluster
            .call(Method::PATCH, &self.path, payload)
            .await?;
        println!("{} rolled back", full_name(&self.object)?);
        Ok(())
    }

    /// The deployment's ReplicaSets by revision, oldest first.
    async fn revisions(&self) -> Result<Vec<(u64, Value)>> {
        let sets = self.cluster.path(cluster::resource("replicasets")?, None);
        let list = self.cluster.get(&sets).await?;
        let uid = &self.object["metadata"]["uid"];
        let mut found: Vec<(u64, Value)> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|set| {
                let owners = set["metadata"]["ownerReferences"].as_array();
                owners
                    .into_iter()
                    .flatten()
                    .any(|owner| owner["uid"] == *uid)
            })
            .filter_map(|set| {
                let revision = set["metadata"]["annotations"][REVISION]
                    .as_str()?
                    .parse()
                    .ok()?;
                Some((revision, set.clone()))
            })
            .collect();
        found.sort_by_key(|(revision, _)| *revision);
        Ok(found)
    }
}

/// One line about the rollout and whether it is over.
fn progress(name: &str, object: &Value) -> Result<(String, bool)> {
    let status = &object["status"];
    let count = |field: &str| status[field].as_u64().unwrap_or(0);
    let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
    let conditions = status["conditions"].as_array();
    let stuck = conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded");
    if stuck {
        bail!("deployment {name:?} exceeded its progress deadline");
    }
    let seen = status["observedGeneration"].as_u64() >= object["metadata"]["generation"].as_u64();
    let (total, updated, available) = (
        count("replicas"),
        count("updatedReplicas"),
        count("availableReplicas"),
    );
    let waiting = |what: String| {
        (
            format!("Waiting for deployment {name:?} rollout to finish: {what}..."),
            false,
        )
    };
    Ok(if !seen {
        (
            "Waiting for deployment spec update to be observed...".into(),
            false,
        )
    } else if updated < wanted {
        waiting(format!(
            "{updated} out of {wanted} new replicas have been updated"
        ))
    } else if total > updated {
        waiting(format!(
            "{} old replicas are pending termination",
            total - updated
        ))
    } else if available < updated {
        waiting(format!(
            "{available} of {updated} updated replicas are available"
        ))
    } else {
        (format!("deployment {name:?} successfully rolled out"), true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_over_only_when_every_new_replica_is_available() {
        let deployment = |updated: u32, total: u32, available: u32| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 3},
                   "status": {"observedGeneration": 2, "replicas": total,
                              "updatedReplicas": updated, "availableReplicas": available}})
        };
        let text = |d: Value| progress("web", &d).unwrap();
        assert!(
            text(deployment(1, 4, 3))
                .0
                .contains("1 out of 3 new replicas")
        );
        assert!(
            text(deployment(3, 4, 3))
                .0
                .contains("1 old replicas are pending")
        );
        assert!(
            text(deployment(3, 3, 2))
                .0
                .contains("2 of 3 updated replicas")
        );
        assert!(text(deployment(3, 3, 3)).1);
        let mut unseen = deployment(3, 3, 3);
        unseen["status"]["observedGeneration"] = json!(1);
        assert!(!text(unseen).1);
    }
}
