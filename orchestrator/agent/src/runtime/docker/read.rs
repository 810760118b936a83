//! What the Engine's answers mean: containers, sightings, images.
//!
//! INVARIANT: labels alone make no container ours, since an image gives its labels to every container that
//! somebody makes of it. The name must say the same as the labels, and the pod's uid, which becomes a path of
//! the node, must be one. Whatever does not read is left out.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::PathBuf;

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    EventMessage, HostConfig, ImageInspect, ImageSummary, SystemInfo,
};
use jiff::Timestamp;

use super::{Powers, body};
use crate::runtime::{
    Container, Exit, Identity, Image, PodRef, Resources, Role, Sighting, State, StoredImage,
    pause_image,
};
use datapath::Addrs;

/// Every pod of a listing, in the order of its uid.
pub fn sightings(summaries: &[ContainerSummary]) -> Vec<Sighting> {
    let mut pods: BTreeMap<String, Seen> = BTreeMap::new();
    for summary in summaries {
        let names = summary.names.iter().flatten();
        let owned = |labels| ours(labels, names.map(String::as_str));
        let Some((pod, identity)) = summary.labels.as_ref().and_then(owned) else {
            continue;
        };
        let seen = pods
            .entry(pod.uid.clone())
            .or_insert_with(|| Seen::new(pod));
        if let Some(addrs) = identity.addrs
            && identity.role == Role::Sandbox
            && seen
                .addrs
                .is_none_or(|(attempt, _)| attempt <= identity.attempt)
        {
            seen.addrs = Some((identity.attempt, addrs));
        }
        let id = summary.id.as_deref().unwrap_or_default();
        let state = summary
            .state
            .map(|state| state.to_string())
            .unwrap_or_default();
        seen.states.push(format!("{id}:{state}"));
    }
    pods.into_values().map(Seen::sighting).collect()
}

/// One pod of a listing, as far as it was read.
struct Seen {
    pod: PodRef,
    /// Of the newest sandbox: its attempt and the addresses that it was given.
    addrs: Option<(u32, Addrs)>,
    states: Vec<String>,
}

impl Seen {
    fn new(pod: PodRef) -> Seen {
        Seen {
            pod,
            addrs: None,
            states: Vec::new(),
        }
    }

    fn sighting(mut self) -> Sighting {
        self.states.sort();
        let addrs = self.addrs.map(|(_, addrs)| addrs);
        Sighting {
            pod: self.pod,
            addrs,
            fingerprint: self.states.join(" "),
        }
    }
}

/// An inspected container, if its labels say that it is one of a pod.
pub fn container(found: &ContainerInspectResponse) -> Option<Container> {
    let config = found.config.as_ref()?;
    let labels = config.labels.as_ref()?;
    let (_, identity) = ours(labels, found.name.as_deref().into_iter())?;
    // Agents before this label gave the Engine the name itself.
    let image = labels.get(body::IMAGE).filter(|name| !name.is_empty());
    let created_at = found
        .created
        .as_deref()
        .and_then(timestamp)
        .unwrap_or_default();
    Some(Container {
        id: found.id.clone()?,
        identity,
        image: image.or(config.image.as_ref()).cloned().unwrap_or_default(),
        image_id: found.image.clone().unwrap_or_default(),
        created_at,
        log_path: found
            .log_path
            .clone()
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
        resources: found.host_config.as_ref().map(resources),
        state: state(found.state.as_ref()?, created_at),
    })
}

/// What the Engine says of itself.
pub fn powers(info: &SystemInfo) -> Powers {
    let driver = info.cgroup_driver.map(|driver| driver.to_string());
    let options = info.security_options.iter().flatten();
    Powers {
        cgroup_driver: driver.unwrap_or_default(),
        user_namespaces: { options }.any(|it| it.split(',').any(|word| word == "name=userns")),
    }
}

/// What an archive of one file has besides it, in bytes: its header, padding, and the end.
pub const ARCHIVE_OVERHEAD: usize = 64 * 1024;

/// What the one file of an archive holds; none, where it is no file or longer than that.
pub fn archived_file(archive: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entry = archive.entries().ok()?.next()?.ok()?;
    if !entry.header().entry_type().is_file() || entry.size() > limit as u64 {
        return None;
    }
    let mut holds = Vec::new();
    entry.take(limit as u64).read_to_end(&mut holds).ok()?;
    Some(holds)
}

fn resources(host: &HostConfig) -> Resources {
    let amount = |value: Option<i64>| value.unwrap_or(0).max(0);
    Resources {
        memory_bytes: amount(host.memory),
        cpu_shares: amount(host.cpu_shares),
        cpu_quota_us: amount(host.cpu_quota),
        cpu_period_us: amount(host.cpu_period),
        oom_score_adj: host.oom_score_adj.unwrap_or(0),
    }
}

/// The pod's uid of an event, out of the container's labels.
pub fn event_uid(event: EventMessage) -> Option<String> {
    event.actor?.attributes?.remove(body::POD_UID)
}

/// An image as the agent's pull policy sees it.
pub fn image(found: &ImageInspect) -> Image {
    let config = found.config.clone().unwrap_or_default();
    Image {
        id: found.id.clone().unwrap_or_default(),
        has_origin: found
            .repo_digests
            .as_ref()
            .is_some_and(|digests| !digests.is_empty()),
        user: config.user.unwrap_or_default(),
        volumes: config.volumes.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
    }
}

/// What of a listing of images may be removed one day: not the image of sandboxes, which each node has made.
pub fn images(images: &[ImageSummary], containers: &[ContainerSummary]) -> Vec<StoredImage> {
    let used = |id: &String| containers.iter().any(|it| it.image_id.as_ref() == Some(id));
    let ours = |image: &&ImageSummary| {
        let mut tags = image.repo_tags.iter();
        tags.any(|tag| pause_image::split(tag).0 == pause_image::REPOSITORY)
    };
    // So Engines write that there is none.
    let named = |tag: &&String| *tag != "<none>:<none>";
    let pulled = |digest: &String| digest != "<none>@<none>";
    let others = images.iter().filter(|image| !ours(image));
    let others = others.map(|image| StoredImage {
        id: image.id.clone(),
        names: image.repo_tags.iter().filter(named).cloned().collect(),
        size_bytes: u64::try_from(image.size).unwrap_or(0),
        has_origin: image.repo_digests.iter().any(pulled),
        is_used: used(&image.id),
    });
    others.collect()
}

/// What a container of ours is and whose, if it is one: the Engine writes its names with a slash before.
fn ours<'a>(
    labels: &HashMap<String, String>,
    mut names: impl Iterator<Item = &'a str>,
) -> Option<(PodRef, Identity)> {
    let (pod, identity) = (pod_ref(labels)?, identity(labels)?);
    let name = body::container_name(&pod, &identity);
    names
        .any(|it| it.strip_prefix('/') == Some(&name))
        .then_some((pod, identity))
}

fn pod_ref(labels: &HashMap<String, String>) -> Option<PodRef> {
    let uid = labels.get(body::POD_UID)?;
    let canonical = uuid::Uuid::try_parse(uid).ok()?.hyphenated().to_string();
    Some(PodRef {
        namespace: labels.get(body::POD_NAMESPACE)?.clone(),
        name: labels.get(body::POD_NAME)?.clone(),
        uid: Some(canonical).filter(|canonical| canonical == uid)?,
    })
}

fn identity(labels: &HashMap<String, String>) -> Option<Identity> {
    let number = |label: &str| labels.get(label)?.parse::<u32>().ok();
    let word = labels.get(body::ROLE)?;
    let roles = [Role::Sandbox, Role::Init, Role::Main, Role::Ephemeral];
    Some(Identity {
        role: roles
            .into_iter()
            .find(|role| body::role_text(*role) == word)?,
        name: labels.get(body::CONTAINER)?.clone(),
        attempt: number(body::ATTEMPT)?,
        generation: number(body::GENERATION)?,
        level: number(body::LEVEL)?,
        spec_hash: labels.get(body::SPEC)?.clone(),
        addrs: labels.get(body::ADDRESS).and_then(|text| text.parse().ok()),
    })
}

fn state(state: &ContainerState, created_at: Timestamp) -> State {
    use ContainerStateStatusEnum as Status;
    let time = |text: &Option<String>| text.as_deref().and_then(timestamp);
    let error = state.error.clone().filter(|error| !error.is_empty());
    let exit = |start_error: Option<String>| Exit {
        code: state
            .exit_code
            .and_then(|code| i32::try_from(code).ok())
            .unwrap_or(-1),
        oom_killed: state.oom_killed.unwrap_or(false),
        start_error,
        started_at: time(&state.started_at).unwrap_or(created_at),
        finished_at: time(&state.finished_at).unwrap_or(created_at),
    };
    match state.status {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING) => State::Running {
            pid: state
                .pid
                .and_then(|pid| u32::try_from(pid).ok())
                .unwrap_or(0),
            started_at: time(&state.started_at).unwrap_or(created_at),
        },
        // The Engine leaves what it could not start in "created", with the reason.
        Some(Status::CREATED) if error.is_some() => State::Exited(exit(error)),
        Some(Status::CREATED) => State::Created,
        _ => State::Exited(exit(None)),
    }
}

/// The Engine writes year 1 for "never".
fn timestamp(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>()
        .ok()
        .filter(|time| time.as_second() > 0)
}

#[cfg(test)]
mod tests {
    use bollard::models::SystemInfoCgroupDriverEnum;

    use super::*;

    const UID: &str = "2f0a6a54-6f0c-4b3e-9a54-0b5cf1b1a001";

    fn summary(name: &str, labels: &[(&str, &str)]) -> ContainerSummary {
        let rest = [
            (body::POD_NAMESPACE, "default"),
            (body::POD_NAME, "web"),
            (body::POD_UID, UID),
            (body::ROLE, "main"),
            (body::CONTAINER, "c"),
            (body::ATTEMPT, "3"),
            (body::GENERATION, "0"),
            (body::LEVEL, "0"),
            (body::SPEC, "x"),
        ];
        let labels = rest.iter().chain(labels);
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        ContainerSummary {
            id: Some("1".to_owned()),
            names: Some(vec![format!("/{name}")]),
            labels: Some(labels.map(owned).collect()),
            ..Default::default()
        }
    }

    #[test]
    fn what_an_engine_can_is_read_of_its_own_words() {
        let info = SystemInfo {
            cgroup_driver: Some(SystemInfoCgroupDriverEnum::CGROUPFS),
            security_options: Some(vec![
                "name=seccomp,profile=default".into(),
                "name=userns".into(),
            ]),
            ..Default::default()
        };
        let able = Powers {
            cgroup_driver: "cgroupfs".to_owned(),
            user_namespaces: true,
        };
        assert_eq!(powers(&info), able);
        assert_eq!(powers(&SystemInfo::default()), Powers::default());
    }

    #[test]
    fn of_an_archive_only_a_file_that_is_not_too_long_is_read() {
        let archive = |kind: tar::EntryType| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(5);
            builder
                .append_data(&mut header, "passwd", &b"a:x:1"[..])
                .expect("added");
            builder.into_inner().expect("an archive")
        };
        let file = archive(tar::EntryType::Regular);
        assert_eq!(archived_file(&file, 5).as_deref(), Some(&b"a:x:1"[..]));
        assert_eq!(archived_file(&file, 4), None);
        assert_eq!(archived_file(&archive(tar::EntryType::Symlink), 5), None);
        assert_eq!(archived_file(&file[..100], 5), None);
    }

    #[test]
    fn images_of_sandboxes_are_not_listed_and_those_that_containers_are_made_of_are_used() {
        let image = |id: &str, tag: &str, digest: Option<&str>| ImageSummary {
            id: id.to_owned(),
            repo_tags: vec![tag.to_owned()],
            repo_digests: digest.into_iter().map(str::to_owned).collect(),
            size: 5,
            ..Default::default()
        };
        let all = [
            image("1", "orchestrator/pause:abc", None),
            image("2", "nginx:1", Some("nginx@sha256:00")),
            image("3", "<none>:<none>", Some("x@sha256:00")),
            // Of a name that another image has now, such as another node's sandboxes.
            image("4", "<none>:<none>", Some("<none>@<none>")),
        ];
        let mut container = summary("happy_turing", &[]);
        container.image_id = Some("2".to_owned());
        let found = images(&all, &[container]);
        let told = |it: &StoredImage| (it.names.len(), it.has_origin, it.is_used);
        let told: Vec<_> = found.iter().map(told).collect();
        assert_eq!(told, [(1, true, true), (0, true, false), (0, false, false)]);
    }

    #[test]
    fn an_image_with_our_labels_makes_no_container_ours() {
        let name = format!("orch_c_web_default_{UID}_3");
        assert_eq!(sightings(&[summary(&name, &[])]).len(), 1);
        assert_eq!(sightings(&[summary("happy_turing", &[])]), []);
    }

    #[test]
    fn a_uid_that_leads_elsewhere_is_no_pods() {
        for uid in [
            "/etc",
            "",
            "..",
            "../..",
            "2f0a6a546f0c4b3e9a540b5cf1b1a001",
        ] {
            let name = format!("orch_c_web_default_{uid}_3");
            assert_eq!(
                sightings(&[summary(&name, &[(body::POD_UID, uid)])]),
                [],
                "{uid}"
            );
        }
    }

    #[test]
    fn only_a_sandbox_says_which_addresses_its_pod_has() {
        let forged = [(body::ADDRESS, "10.100.1.7")];
        let name = format!("orch_c_web_default_{UID}_3");
        let found = sightings(&[summary(&name, &forged)]);
        assert_eq!(found.first().map(|it| it.addrs), Some(None));
        let sandbox = [(body::ADDRESS, "10.100.1.7"), (body::ROLE, "sandbox")];
        let name = format!("orch_POD_web_default_{UID}_3");
        let found = sightings(&[summary(&name, &sandbox)]);
        assert!(found.first().is_some_and(|it| it.addrs.is_some()));
    }
}
