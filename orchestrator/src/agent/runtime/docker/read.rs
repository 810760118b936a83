//! What the Engine's answers mean: containers, sightings, images. A container whose labels do not
//! read is not ours and is left out.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    EventMessage, ImageInspect,
};
use jiff::Timestamp;

use super::body;
use crate::agent::runtime::{Container, Exit, Identity, Image, PodRef, Role, Sighting, State};
use crate::datapath::Addrs;

/// Every pod of a listing, in the order of its uid.
pub fn sightings(summaries: &[ContainerSummary]) -> Vec<Sighting> {
    let mut pods: BTreeMap<String, Seen> = BTreeMap::new();
    for summary in summaries {
        let Some(labels) = &summary.labels else {
            continue;
        };
        let Some(pod) = pod_ref(labels) else { continue };
        let Some(identity) = identity(labels) else {
            continue;
        };
        let seen = pods
            .entry(pod.uid.clone())
            .or_insert_with(|| Seen::new(pod));
        if let Some(addrs) = identity.addrs
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
    let created_at = found
        .created
        .as_deref()
        .and_then(timestamp)
        .unwrap_or_default();
    Some(Container {
        id: found.id.clone()?,
        identity: identity(config.labels.as_ref()?)?,
        image: config.image.clone().unwrap_or_default(),
        image_id: found.image.clone().unwrap_or_default(),
        created_at,
        state: state(found.state.as_ref()?, created_at),
    })
}

/// The pod's uid of an event, out of the container's labels.
pub fn event_uid(event: EventMessage) -> Option<String> {
    event.actor?.attributes?.remove(body::POD_UID)
}

/// An image as the agent's pull policy sees it.
pub fn image(found: &ImageInspect) -> Image {
    Image {
        id: found.id.clone().unwrap_or_default(),
        has_origin: found
            .repo_digests
            .as_ref()
            .is_some_and(|digests| !digests.is_empty()),
        user: found
            .config
            .as_ref()
            .and_then(|config| config.user.clone())
            .unwrap_or_default(),
    }
}

fn pod_ref(labels: &HashMap<String, String>) -> Option<PodRef> {
    Some(PodRef {
        namespace: labels.get(body::POD_NAMESPACE)?.clone(),
        name: labels.get(body::POD_NAME)?.clone(),
        uid: labels.get(body::POD_UID)?.clone(),
    })
}

fn identity(labels: &HashMap<String, String>) -> Option<Identity> {
    let number = |label: &str| labels.get(label)?.parse::<u32>().ok();
    let word = labels.get(body::ROLE)?;
    let roles = [Role::Sandbox, Role::Init, Role::Main];
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
