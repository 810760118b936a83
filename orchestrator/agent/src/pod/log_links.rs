//! Where log shippers look for the logs of containers: links in the layout of a kubelet.
//!
//! ```text
//! LOGS/containers/POD_NAMESPACE_CONTAINER-ID.log ─▶ LOGS/pods/NAMESPACE_POD_UID/CONTAINER/RESTARTS.log
//!                                                                      └─▶ the engine's own file
//! ```
//!
//! A link is there as long as its container is. Several nodes may share one directory: each removes the links
//! of its own pods, and what leads nowhere.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::runtime::{Container, PodRef, Role};
use sys::files;

const CONTAINERS: &str = "containers";
const PODS: &str = "pods";
const SUFFIX: &str = ".log";

/// The longest name of a file (`NAME_MAX`).
const NAME_LIMIT: usize = 255;

/// The links of one pod: what each is called, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links(BTreeMap<PathBuf, PathBuf>);

/// The links that a pod's containers have below `logs`.
pub fn wanted(logs: &Path, pod: &PodRef, containers: &[Container]) -> Links {
    let mut links = Links::default();
    if !is_plain(pod) {
        return links;
    }
    for container in containers {
        let identity = &container.identity;
        let file = container.log_path.as_ref();
        let Some(file) = file.filter(|_| identity.role != Role::Sandbox) else {
            continue;
        };
        let own = pod_dir(logs, pod).join(&identity.name);
        let own = own.join(format!("{}{SUFFIX}", identity.attempt));
        let PodRef {
            namespace, name, ..
        } = pod;
        let mut text = format!("{name}_{namespace}_{}-{}", identity.name, container.id);
        text.truncate(NAME_LIMIT - SUFFIX.len());
        let outer = logs.join(CONTAINERS).join(text + SUFFIX);
        links.0.insert(own.clone(), file.clone());
        links.0.insert(outer, own);
    }
    links
}

/// Makes the links of `wanted`, and removes those of `there` that are not in it.
pub fn apply(there: &Links, wanted: &Links) -> io::Result<()> {
    for (link, target) in &wanted.0 {
        if there.0.get(link) == Some(target) || fs::read_link(link).is_ok_and(|to| to == *target) {
            continue;
        }
        if let Some(above) = link.parent() {
            // Collectors of logs need not be root.
            files::create_dir(above, 0o755)?;
        }
        absent_is_fine(fs::remove_file(link))?;
        symlink(target, link)?;
    }
    for link in there.0.keys().filter(|link| !wanted.0.contains_key(*link)) {
        absent_is_fine(fs::remove_file(link))?;
    }
    Ok(())
}

/// Removes everything of a pod that is gone.
pub fn clear(logs: &Path, pod: &PodRef, there: &Links) -> io::Result<()> {
    apply(there, &Links::default())?;
    if !is_plain(pod) {
        return Ok(());
    }
    absent_is_fine(fs::remove_dir_all(pod_dir(logs, pod)))
}

/// Removes links to containers that lead nowhere any more: their containers went while no agent looked.
pub fn sweep(logs: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(logs.join(CONTAINERS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let inside = logs.join(PODS);
    for entry in entries {
        let path = entry?.path();
        let Ok(target) = fs::read_link(&path) else {
            continue;
        };
        let is_lost = fs::metadata(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        if is_lost && target.starts_with(&inside) {
            absent_is_fine(fs::remove_file(&path))?;
            absent_is_fine(fs::remove_file(&target))?;
        }
    }
    Ok(())
}

/// Whether the pod's names are parts of paths. One whose names are none is refused, but ends as others do.
fn is_plain(pod: &PodRef) -> bool {
    let names = [&pod.namespace, &pod.name, &pod.uid];
    names
        .iter()
        .all(|name| !name.is_empty() && !name.contains('/'))
}

/// A pod's directory.
fn pod_dir(logs: &Path, pod: &PodRef) -> PathBuf {
    let PodRef {
        namespace,
        name,
        uid,
    } = pod;
    let mut text = format!("{namespace}_{name}_{uid}");
    // The uid tells pods apart: a name that is too long loses its own end.
    if text.len() > NAME_LIMIT {
        let kept = NAME_LIMIT - uid.len() - 1;
        text = format!("{}_{uid}", &text[..kept]);
    }
    logs.join(PODS).join(text)
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::runtime::{Identity, State};

    fn pod(name: &str) -> PodRef {
        PodRef {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            uid: "0dbb31e4-11b1-4e4c-a01c-8a0ff5f5d3b7".to_owned(),
        }
    }

    fn container(role: Role, attempt: u32, file: &Path) -> Container {
        Container {
            id: format!("id{attempt}"),
            identity: Identity {
                role,
                name: "main".to_owned(),
                attempt,
                generation: 0,
                level: 0,
                spec_hash: String::new(),
                addrs: None,
            },
            image: String::new(),
            image_id: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            log_path: Some(file.to_owned()),
            resources: None,
            state: State::Created,
        }
    }

    #[test]
    fn the_logs_of_containers_are_found_by_their_pods_and_go_with_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let (logs, file) = (dir.path().join("log"), dir.path().join("engine.log"));
        fs::write(&file, "text").expect("written");
        let pod = pod("web");
        let all = |attempts: &[u32]| -> Vec<Container> {
            let sandbox = container(Role::Sandbox, 0, &file);
            let mains = attempts.iter().map(|it| container(Role::Main, *it, &file));
            mains.chain([sandbox]).collect()
        };
        let first = wanted(&logs, &pod, &all(&[0]));
        apply(&Links::default(), &first).expect("made");
        let outer = |attempt: u32| logs.join(format!("containers/web_ns_main-id{attempt}.log"));
        let inner = logs.join(format!("pods/ns_web_{}/main", pod.uid));
        assert_eq!(
            fs::read_link(outer(0)).expect("a link"),
            inner.join("0.log")
        );
        assert_eq!(fs::read_to_string(outer(0)).expect("it reads"), "text");
        assert_eq!(
            fs::read_dir(logs.join("containers")).expect("one").count(),
            1
        );
        // A restart: the older one goes.
        let second = wanted(&logs, &pod, &all(&[1]));
        apply(&first, &second).expect("made");
        assert!(fs::read_link(outer(0)).is_err() && fs::read_link(outer(1)).is_ok());
        // What a stranger put in the way is replaced, and nothing is written through it.
        fs::remove_file(outer(1)).expect("removed");
        symlink("/etc/passwd", outer(1)).expect("a link");
        apply(&Links::default(), &second).expect("made");
        assert_eq!(
            fs::read_link(outer(1)).expect("a link"),
            inner.join("1.log")
        );
        clear(&logs, &pod, &second).expect("cleared");
        assert_eq!(
            fs::read_dir(logs.join("containers")).expect("one").count(),
            0
        );
        assert_eq!(fs::read_dir(logs.join("pods")).expect("one").count(), 0);
        clear(&logs, &pod, &second).expect("again");
    }

    #[test]
    fn links_that_lead_nowhere_are_swept_and_others_are_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let (logs, file) = (dir.path().join("log"), dir.path().join("engine.log"));
        sweep(&logs).expect("nothing is there");
        fs::write(&file, "text").expect("written");
        let links = wanted(&logs, &pod("web"), &[container(Role::Main, 0, &file)]);
        apply(&Links::default(), &links).expect("made");
        let foreign = logs.join("containers/foreign.log");
        symlink("/nowhere", &foreign).expect("a link");
        sweep(&logs).expect("swept");
        let count = || fs::read_dir(logs.join("containers")).expect("one").count();
        assert_eq!(count(), 2);
        fs::remove_file(&file).expect("removed");
        sweep(&logs).expect("swept");
        assert_eq!(count(), 1);
        assert!(fs::read_link(&foreign).is_ok());
    }

    #[test]
    fn names_that_lead_elsewhere_have_no_links_and_remove_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let victim = dir
            .path()
            .join("victim_0dbb31e4-11b1-4e4c-a01c-8a0ff5f5d3b7");
        fs::create_dir_all(&victim).expect("made");
        fs::create_dir_all(dir.path().join("log/pods/ns_")).expect("made");
        let (logs, evil) = (dir.path().join("log"), pod("/../../../victim"));
        let file = Path::new("/f");
        let links = wanted(&logs, &evil, &[container(Role::Main, 0, file)]);
        assert_eq!(links, Links::default());
        clear(&logs, &evil, &links).expect("nothing to do");
        assert!(victim.exists());
    }

    #[test]
    fn the_longest_names_fit() {
        let links = wanted(
            Path::new("/l"),
            &pod(&"a".repeat(253)),
            &[container(Role::Main, 0, Path::new("/f"))],
        );
        for path in links.0.keys() {
            let mut parts = path.components();
            assert!(
                parts.all(|it| it.as_os_str().len() <= NAME_LIMIT),
                "{path:?}"
            );
        }
    }
}
