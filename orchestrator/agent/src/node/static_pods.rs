//! Pods that this node runs by itself, from manifests in a directory, and their mirrors in the API.
//!
//! ```text
//!  directory ─▶ manifest ─▶ pod with a uid of its own ─▶ worker (as every pod)
//!      └─ every two seconds      │ status                    ▲ status of the mirror
//!                                ▼                           │
//!  API: mirror pod, owned by the Node ◀── made again when it is deleted, changed or missing
//! ```
//!
//! What the directory says decides; a mirror only shows it. Pure but for [`shell`]; limits: [`FILE_BYTES`], [`FILES`].

pub mod manifest;
pub mod shell;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

pub use manifest::Manifest;

/// How large one manifest may be.
pub const FILE_BYTES: u64 = 1024 * 1024;
/// Files of the directory that are read; those behind, by name, are not.
pub const FILES: usize = 256;

/// On a mirror pod: the hash of the manifest that it shows (as kubelets write it).
pub const MIRROR: &str = "kubernetes.io/config.mirror";
pub const HASH: &str = "kubernetes.io/config.hash";
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Its value here.
pub const FILE_SOURCE: &str = "file";

/// Namespace and name.
pub type Name = (String, String);

/// A mirror pod as the API has it.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub hash: String,
    pub pod: Arc<Pod>,
}

/// All that is known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What shall run.
    pub wanted: BTreeMap<Name, Manifest>,
    /// What was handed to workers, by name: the manifest's hash.
    pub given: BTreeMap<Name, Manifest>,
    pub mirrors: BTreeMap<Name, Mirror>,
    /// The API has listed this node's pods: a mirror that is not known is not there.
    pub is_listed: bool,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Hands a pod to its worker, with what the API says of it.
    Run(Manifest, Option<Arc<Pod>>),
    /// Ends a pod whose manifest has gone or changed.
    End(Manifest),
    MakeMirror(Manifest),
    /// By name and uid.
    DeleteMirror(Name, String),
}

impl Known {
    /// Takes in that an action was tried. What did not succeed is planned again: no watch tells of a mirror that is
    /// still there.
    pub fn tried(&mut self, action: &Action, has_succeeded: bool) {
        match action {
            Action::Run(manifest, _) => drop(self.given.insert(manifest.name(), manifest.clone())),
            Action::End(manifest) => drop(self.given.remove(&manifest.name())),
            Action::DeleteMirror(name, _) if has_succeeded => drop(self.mirrors.remove(name)),
            Action::MakeMirror(_) | Action::DeleteMirror(..) => {}
        }
    }
}

/// Whether a pod of the API is a mirror, whatever it shows.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether a pod is one of this node's manifests.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE) == Some(FILE_SOURCE) && !is_mirror(pod)
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let all = pod.metadata.annotations.as_ref()?;
    all.get(key).map(String::as_str)
}

/// What has to be done so that the node runs its manifests and the API shows them.
pub fn plan(known: &Known) -> Vec<Action> {
    let mut actions = Vec::new();
    for (name, given) in &known.given {
        let wanted = known.wanted.get(name);
        if wanted.is_none_or(|wanted| wanted.hash != given.hash) {
            actions.push(Action::End(given.clone()));
        }
    }
    for (name, wanted) in &known.wanted {
        let given = known.given.get(name);
        if given.is_none_or(|given| given.hash != wanted.hash) {
            let mirror = known.mirrors.get(name).filter(|it| it.hash == wanted.hash);
            let shown = mirror.map(|it| it.pod.clone());
            actions.push(Action::Run(wanted.clone(), shown));
        }
        if known.is_listed && !known.mirrors.contains_key(name) {
            actions.push(Action::MakeMirror(wanted.clone()));
        }
    }
    for (name, mirror) in &known.mirrors {
        let wanted = known.wanted.get(name);
        if wanted.is_none_or(|wanted| wanted.hash != mirror.hash) || is_going(&mirror.pod) {
            let uid = mirror.pod.metadata.uid.clone().unwrap_or_default();
            actions.push(Action::DeleteMirror(name.clone(), uid));
        }
    }
    actions
}

/// Deleted by somebody: it ends at once, and another one is made.
fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name() -> Name {
        ("default".to_owned(), "web-n1".to_owned())
    }

    fn manifest(hash: &str) -> Manifest {
        Manifest {
            hash: hash.to_owned(),
            pod: Arc::default(),
        }
    }

    fn mirror(hash: &str, going: bool) -> Mirror {
        let mut pod = json!({"metadata": {"uid": format!("uid-{hash}")}});
        if going {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Mirror {
            hash: hash.to_owned(),
            pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
        }
    }

    fn known(wanted: &str, given: &str, shown: Option<Mirror>) -> Known {
        let one = |hash: &str| match hash {
            "" => BTreeMap::new(),
            hash => BTreeMap::from([(name(), manifest(hash))]),
        };
        Known {
            wanted: one(wanted),
            given: one(given),
            mirrors: shown.map(|mirror| (name(), mirror)).into_iter().collect(),
            is_listed: true,
        }
    }

    fn words(known: &Known) -> Vec<String> {
        let word = |action: Action| match action {
            Action::Run(it, shown) => format!("run {} {}", it.hash, shown.is_some()),
            Action::End(it) => format!("end {}", it.hash),
            Action::MakeMirror(it) => format!("make {}", it.hash),
            Action::DeleteMirror(_, uid) => format!("delete {uid}"),
        };
        plan(known).into_iter().map(word).collect()
    }

    #[test]
    fn the_directory_decides_what_runs_and_what_is_shown() {
        // (wanted, given, mirror, what is done)
        let cases: [(&str, &str, Option<Mirror>, &[&str]); 8] = [
            ("a", "", None, &["run a false", "make a"]),
            ("a", "a", Some(mirror("a", false)), &[]),
            // The agent was restarted.
            ("a", "", Some(mirror("a", false)), &["run a true"]),
            // Somebody has deleted it, and it has gone.
            ("a", "a", Some(mirror("a", true)), &["delete uid-a"]),
            ("a", "a", None, &["make a"]),
            // The manifest has changed.
            (
                "b",
                "a",
                Some(mirror("a", false)),
                &["end a", "run b false", "delete uid-a"],
            ),
            // It has gone.
            (
                "",
                "a",
                Some(mirror("a", false)),
                &["end a", "delete uid-a"],
            ),
            ("", "", Some(mirror("a", false)), &["delete uid-a"]),
        ];
        for (wanted, given, shown, expected) in cases {
            let known = known(wanted, given, shown);
            assert_eq!(words(&known), expected, "{wanted} {given}");
        }
    }

    #[test]
    fn nothing_is_made_before_it_is_known_what_is_there() {
        let mut early = known("a", "a", None);
        early.is_listed = false;
        assert!(words(&early).is_empty());
    }
}
