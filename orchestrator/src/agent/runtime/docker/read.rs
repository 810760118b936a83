//! What the Engine's answers mean: containers, sightings, images. A container whose labels do not
//! read is not ours and is left out; so is one that has another name than an agent would have given it,
//! because labels are also what an image says.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    EventMessage, ImageInspect,
};
use jiff::Timestamp;

use super::body;
use crate::agent::runtime::{
    Container, Exit, Identity, Image, PodRef, Role, Sighting, State, is_uid,
};
use crate::datapath::Addrs;

/// Every pod of a listing, in the order of its uid.
pub fn sightings(summaries: &[ContainerSummary]) -> Vec<Sighting> {
    let mut pods: BTreeMap<String, Seen> = BTreeMap::new();
    for summary in summaries {
        let Some(labels) = &summary.labels else {
            continue;
        };
        let mut names = summary.names.iter().flatten();
        let own = names.find_map(|name| recognize(name, labels));
        let Some((pod, identity)) = own else { continue };
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
    let (_, identity) = recognize(found.name.as_deref()?, config.labels.as_ref()?)?;
    Some(Container {
        id: found.id.clone()?,
        identity,
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

/// The pod and the place in it of a container with that name and these labels, if it is an agent's.
fn recognize(name: &str, labels: &HashMap<String, String>) -> Option<(PodRef, Identity)> {
    let (pod, identity) = (pod_ref(labels)?, identity(labels)?);
    let ours = body::container_name(&pod, &identity);
    let is_ours = name.strip_prefix('/').unwrap_or(name) == ours && is_uid(&pod.uid);
    is_ours.then_some((pod, identity))
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
    let role = roles
        .into_iter()
        .find(|role| body::role_text(*role) == word)?;
    let addrs = labels.get(body::ADDRESS).and_then(|text| text.parse().ok());
    Some(Identity {
        role,
        name: labels.get(body::CONTAINER)?.clone(),
        attempt: number(body::ATTEMPT)?,
        generation: number(body::GENERATION)?,
        level: number(body::LEVEL)?,
        spec_hash: labels.get(body::SPEC)?.clone(),
        addrs: addrs.filter(|_| role == Role::Sandbox),
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
    use super::*;

    const UID: &str = "0dbb31e4-11b1-4e4c-a01c-8a0ff5f5d3b7";

    fn labels(role: &str, uid: &str) -> HashMap<String, String> {
        let address = (body::ADDRESS, "10.0.0.2");
        let words = [
            (body::POD_NAMESPACE, "default"),
            (body::POD_NAME, "web"),
            (body::POD_UID, uid),
            (body::ROLE, role),
            (body::CONTAINER, "main"),
            (body::ATTEMPT, "0"),
            (body::GENERATION, "0"),
            (body::LEVEL, "0"),
            (body::SPEC, "x"),
            address,
        ];
        words
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    fn seen(name: &str, labels: HashMap<String, String>) -> Vec<Sighting> {
        sightings(&[ContainerSummary {
            names: Some(vec![format!("/{name}")]),
            labels: Some(labels),
            ..Default::default()
        }])
    }

    #[test]
    fn labels_of_an_image_make_no_container_of_ours() {
        let name = format!("orch_main_web_default_{UID}_0");
        assert_eq!(seen(&name, labels("main", UID)).len(), 1);
        assert_eq!(seen("hopeful_hopper", labels("main", UID)), []);
        for uid in ["/etc", "", "../.."] {
            let name = format!("orch_main_web_default_{uid}_0");
            assert_eq!(seen(&name, labels("main", uid)), [], "{uid}");
        }
    }

    #[test]
    fn only_a_sandbox_tells_the_address_of_a_pod() {
        let name = format!("orch_main_web_default_{UID}_0");
        assert_eq!(seen(&name, labels("main", UID))[0].addrs, None);
        let name = format!("orch_POD_web_default_{UID}_0");
        assert!(seen(&name, labels("sandbox", UID))[0].addrs.is_some());
    }
}
