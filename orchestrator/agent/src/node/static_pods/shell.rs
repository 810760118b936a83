//! Reads the directory and the API's mirrors, and does what the plan says.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::{Action, FILE_BYTES, FILES, Known, MIRROR, Manifest, Mirror, Name, annotation, plan};
use sys::Shutdown;

/// How often the directory is read. (A kubelet's default is twenty seconds.)
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A server that hangs must not keep the directory waiting.
const TIMEOUT: Duration = Duration::from_secs(8);

/// What the watch of the node's pods tells of mirrors.
pub enum News {
    Shown(Arc<Pod>),
    Gone(Arc<Pod>),
    /// Everything that there is has been told; what was not is not there.
    Listed,
    /// A new list begins.
    Listing,
}

/// A pod for its worker, and whether it has gone.
pub type Given = (Arc<Pod>, bool);

/// Runs the manifests of a directory.
pub struct StaticPods {
    pub client: Client,
    pub node: String,
    pub directory: PathBuf,
    pub given: mpsc::Sender<Given>,
}

impl StaticPods {
    pub async fn run(self, mut news: mpsc::Receiver<News>, shutdown: Shutdown) {
        let mut known = Known::default();
        let mut listing: BTreeMap<Name, Mirror> = BTreeMap::new();
        let mut complaints = BTreeMap::new();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = tick.tick() => self.read(&mut known, &mut complaints).await,
                heard = news.recv() => match heard {
                    None => return,
                    Some(News::Listing) => listing.clear(),
                    Some(News::Listed) => {
                        known.mirrors = std::mem::take(&mut listing);
                        known.is_listed = true;
                    }
                    Some(News::Gone(pod)) => drop(known.mirrors.remove(&name_of(&pod))),
                    Some(News::Shown(pod)) => {
                        let mirror = Mirror {
                            hash: annotation(&pod, MIRROR).unwrap_or_default().to_owned(),
                            pod,
                        };
                        let name = name_of(&mirror.pod);
                        self.show(&known, &name, &mirror).await;
                        listing.insert(name.clone(), mirror.clone());
                        known.mirrors.insert(name, mirror);
                    }
                },
            }
            for action in plan(&known) {
                self.execute(action, &mut known).await;
            }
        }
    }

    /// Reads the directory; each complaint about a file is logged once.
    async fn read(&self, known: &mut Known, complaints: &mut BTreeMap<PathBuf, String>) {
        let (directory, node) = (self.directory.clone(), self.node.clone());
        let read = tokio::task::spawn_blocking(move || read_directory(&directory, &node)).await;
        let Ok(Ok(files)) = read else {
            // A directory that cannot be read says nothing: what runs goes on.
            return tracing::debug!(directory = ?self.directory, "manifests were not read");
        };
        let mut wanted: BTreeMap<Name, Manifest> = BTreeMap::new();
        let mut wrong = BTreeMap::new();
        for (path, manifest) in files {
            match manifest {
                Ok(manifest) => match wanted.entry(manifest.name()) {
                    std::collections::btree_map::Entry::Vacant(free) => {
                        free.insert(manifest);
                    }
                    std::collections::btree_map::Entry::Occupied(_) => {
                        wrong.insert(path, "another file has a pod of that name".to_owned());
                    }
                },
                Err(why) => {
                    wrong.insert(path, why);
                }
            }
        }
        for (path, why) in &wrong {
            if complaints.get(path) != Some(why) {
                tracing::error!(?path, why, "a manifest is not run");
            }
        }
        *complaints = wrong;
        known.wanted = wanted;
    }

    /// Tells a worker what the API says of its pod, so that it writes its status anew where that is another one.
    async fn show(&self, known: &Known, name: &Name, mirror: &Mirror) {
        let given = known.given.get(name).filter(|it| it.hash == mirror.hash);
        if let Some(manifest) = given {
            let pod = manifest.with_status(Some(&mirror.pod));
            // The receiver goes with the agent.
            let _ = self.given.send((pod, false)).await;
        }
    }

    async fn execute(&self, action: Action, known: &mut Known) {
        let has_succeeded = match &action {
            // The receiver goes with the agent.
            Action::Run(manifest, shown) => {
                let pod = manifest.with_status(shown.as_deref());
                self.given.send((pod, false)).await.is_ok()
            }
            Action::End(manifest) => self.given.send((manifest.pod.clone(), true)).await.is_ok(),
            Action::MakeMirror(manifest) => {
                let made = tokio::time::timeout(TIMEOUT, self.make_mirror(manifest)).await;
                has_succeeded("made", made)
            }
            Action::DeleteMirror(name, uid) => {
                let deleted = self.delete_mirror(name, uid.clone());
                has_succeeded("deleted", tokio::time::timeout(TIMEOUT, deleted).await)
            }
        };
        known.tried(&action, has_succeeded);
    }

    async fn make_mirror(&self, manifest: &Manifest) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = nodes.get(&self.node).await?;
        let uid = node.metadata.uid.unwrap_or_default();
        let mirror = manifest.mirror(&self.node, &uid);
        let mirror: Pod = serde_json::from_value(mirror).map_err(kube::Error::SerdeError)?;
        let (namespace, _) = manifest.name();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        match pods.create(&PostParams::default(), &mirror).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete_mirror(
        &self,
        (namespace, name): &Name,
        uid: String,
    ) -> Result<(), kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match pods.delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn name_of(pod: &Pod) -> Name {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&pod.metadata.namespace), text(&pod.metadata.name))
}

type Files = Vec<(PathBuf, Result<Manifest, String>)>;

/// Whether it worked; what did not is said in the log.
fn has_succeeded(
    what: &str,
    outcome: Result<Result<(), kube::Error>, tokio::time::error::Elapsed>,
) -> bool {
    match outcome {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::debug!(%error, "a mirror pod was not {what}"),
        Err(_) => tracing::debug!("a mirror pod was not {what} in time"),
    }
    false
}

/// Every file that ends in .yaml, .yml or .json, in the order of their names. Links are not followed.
fn read_directory(directory: &Path, node: &str) -> std::io::Result<Files> {
    let mut names: Vec<_> = std::fs::read_dir(directory)?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.file_name())
        .filter(|name| {
            let name = name.to_string_lossy();
            let ends = [".yaml", ".yml", ".json"];
            !name.starts_with('.') && ends.iter().any(|end| name.ends_with(end))
        })
        .collect();
    names.sort();
    let files = names.into_iter().take(FILES).map(|name| {
        let path = directory.join(&name);
        let manifest =
            read_file(&path).and_then(|text| Manifest::read(node, &name.to_string_lossy(), &text));
        (path, manifest)
    });
    Ok(files.collect())
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    let read = file.take(FILE_BYTES + 1).read_to_end(&mut text);
    read.map_err(|error| error.to_string())?;
    match text.len() as u64 > FILE_BYTES {
        true => Err(format!("it is larger than {FILE_BYTES} bytes")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_manifests_are_read_and_each_says_what_is_wrong_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).expect("written");
        };
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n\
                   spec: {containers: [{name: c, image: i}]}\n";
        write("a.yaml", pod);
        write(".hidden.yaml", pod);
        write("note.txt", pod);
        write("wrong.yml", "a: [");
        let large = usize::try_from(FILE_BYTES).expect("small") + 1;
        write("large.json", &" ".repeat(large));
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link.yaml"))
            .expect("a link");
        let files = read_directory(directory.path(), "n1").expect("read");
        let said: Vec<_> = files
            .iter()
            .map(|(path, manifest)| {
                let name = path
                    .file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned();
                (name, manifest.is_ok())
            })
            .collect();
        let expected = [
            ("a.yaml", true),
            ("large.json", false),
            ("wrong.yml", false),
        ];
        assert_eq!(
            said,
            expected.map(|(name, is_good)| (name.to_owned(), is_good))
        );
    }
}
