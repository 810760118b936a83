//! A pod as the scheduler sees it. Pure.

use k8s_openapi::api::core::v1::{Container, NodeAffinity, Pod, PodSpec, Toleration};

use super::resources::Resources;

/// Namespace and name.
pub type PodKey = (String, String);

/// What placing a pod depends on.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PodRow {
    pub key: PodKey,
    pub uid: String,
    pub revision: u64,
    /// Empty while it has no node.
    pub node: String,
    pub priority: i32,
    /// Nobody else's, not held by a gate, not on its way out.
    pub wants_node: bool,
    /// It holds nothing on its node any more.
    pub finished: bool,
    pub requests: Resources,
    pub ports: Vec<HostPort>,
    pub node_selector: Vec<(String, String)>,
    pub affinity: Option<Box<NodeAffinity>>,
    pub tolerations: Vec<Toleration>,
    /// Fields with demands that this scheduler cannot meet yet: no node will do.
    pub unplaceable: Vec<String>,
    /// Pods of one family are spread over nodes: those of one controller, else of equal labels.
    pub family: String,
    /// The message of the condition PodScheduled, if it is false.
    pub told: Option<String>,
}

/// A port of the node that a pod claims.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostPort {
    pub protocol: String,
    pub port: i32,
    /// `0.0.0.0` for every address of the node.
    pub address: String,
}

impl PodRow {
    /// It has a node, or will not get one from us.
    pub fn is_settled(&self) -> bool {
        !self.node.is_empty() || !self.wants_node
    }

    /// Whether a decision for `other` may differ from one for this.
    pub fn asks_the_same(&self, other: &PodRow) -> bool {
        let asked = |pod: &PodRow| PodRow {
            revision: 0,
            told: None,
            ..pod.clone()
        };
        asked(self) == asked(other)
    }
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let same_address =
            self.address == other.address || self.address == ANY || other.address == ANY;
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

const ANY: &str = "0.0.0.0";
const SCHEDULER: &str = "default-scheduler";

impl From<Pod> for PodRow {
    fn from(pod: Pod) -> Self {
        let metadata = pod.metadata;
        let mut spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let ours = spec
            .scheduler_name
            .as_deref()
            .is_none_or(|name| name == SCHEDULER);
        let gated = spec
            .scheduling_gates
            .as_ref()
            .is_some_and(|gates| !gates.is_empty());
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let namespace = metadata.namespace.unwrap_or_default();
        let mut owners = metadata.owner_references.into_iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true));
        let family = match owner {
            Some(owner) => owner.uid,
            None => match metadata.labels {
                Some(labels) if !labels.is_empty() => format!("{namespace} {labels:?}"),
                _ => String::new(),
            },
        };
        let mut conditions = status.conditions.into_iter().flatten();
        let refused = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False");
        Self {
            requests: requests(&spec),
            ports: host_ports(&spec),
            unplaceable: unplaceable(&spec),
            uid: metadata.uid.unwrap_or_default(),
            revision: metadata
                .resource_version
                .and_then(|r| r.parse().ok())
                .unwrap_or(0),
            priority: spec.priority.unwrap_or(0),
            wants_node: ours && !gated && !finished && metadata.deletion_timestamp.is_none(),
            finished,
            node_selector: spec
                .node_selector
                .take()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            affinity: spec
                .affinity
                .take()
                .and_then(|a| a.node_affinity)
                .map(Box::new),
            tolerations: spec.tolerations.take().unwrap_or_default(),
            node: spec.node_name.take().unwrap_or_default(),
            family,
            told: refused.map(|c| c.message.unwrap_or_default()),
            key: (namespace, metadata.name.unwrap_or_default()),
        }
    }
}

/// What the pod needs at its busiest: all containers together, or one init container on top of the
/// sidecars that started before it.
fn requests(spec: &PodSpec) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of_container(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container);
        let stays = container.restart_policy.as_deref() == Some("Always");
        let mut at_start = sidecars.clone();
        at_start.add(&own);
        starting.raise_to(&at_start);
        if stays {
            running.add(&own);
            sidecars.add(&own);
        }
    }
    running.raise_to(&starting);
    if let Some(overhead) = &spec.overhead {
        running.add(&Resources::from_quantities(overhead));
    }
    running
}

/// Requests; where only a limit is given, that is the request.
fn of_container(container: &Container) -> Resources {
    let Some(resources) = &container.resources else {
        return Resources::default();
    };
    let mut quantities = resources.limits.clone().unwrap_or_default();
    quantities.extend(resources.requests.clone().unwrap_or_default());
    Resources::from_quantities(&quantities)
}

/// What Kubernetes' scheduler would look at and this one does not. Preferences are not among it: a pod is
/// placed without, which its agent says.
fn unplaceable(spec: &PodSpec) -> Vec<String> {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let mut fields = Vec::new();
    if let Some(affinity) = &spec.affinity {
        let near = affinity.pod_affinity.as_ref();
        let near = near.and_then(|it| {
            it.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let far = affinity.pod_anti_affinity.as_ref();
        let far = far.and_then(|it| {
            it.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        for (kind, terms) in [("podAffinity", near), ("podAntiAffinity", far)] {
            if terms.is_some_and(|terms| !terms.is_empty()) {
                fields.push(format!("spec.affinity.{kind}.{REQUIRED}"));
            }
        }
    }
    let constraints = spec.topology_spread_constraints.iter().flatten();
    for (index, constraint) in constraints.enumerate() {
        if constraint.when_unsatisfiable != "ScheduleAnyway" {
            fields.push(format!("spec.topologySpreadConstraints[{index}]"));
        }
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let claims = [
            (
                "persistentVolumeClaim",
                volume.persistent_volume_claim.is_some(),
            ),
            ("ephemeral", volume.ephemeral.is_some()),
        ];
        let claims = claims.into_iter().filter(|(_, is_one)| *is_one);
        fields.extend(claims.map(|(kind, _)| format!("spec.volumes[{index}].{kind}")));
    }
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        fields.push("spec.resourceClaims".to_owned());
    }
    fields
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let host_network = spec.host_network == Some(true);
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = match port.host_port {
                Some(number) if number > 0 => number,
                _ if host_network => port.container_port,
                _ => return None,
            };
            let address = port.host_ip.clone().filter(|ip| !ip.is_empty());
            Some(HostPort {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: number,
                address: address.unwrap_or_else(|| ANY.to_owned()),
            })
        })
        .collect()
}
