//! Objects as controllers see them: metadata plus the few fields of a kind that a plan reads. Pods,
//! nodes and leases come in the largest numbers and are kept as small rows. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Affinity, ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimTemplate, Pod, PodCondition, PodSpec, ReplicationController, Service,
    Taint, Toleration,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass, VolumeAttachment};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::autoscaling::row::Requests;
use super::daemon_set::row::DaemonRow;
use super::disruption;
use super::job::row::JobPod;
use super::node_lifecycle;
use super::replication::row::SetRow;
use super::revisions::{self, RevisionRow};
use super::root_ca;
use super::stateful_set::row::StatefulRow;
use super::volumes::AttachmentRow;
use api::annotations::{FAILOVER, FAILOVER_FAST};
use api::selector::LabelSelector;
use client::Kind;

/// Namespace (empty for cluster-wide kinds) and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// One object: what is common to all kinds, and its kind's row.
#[derive(Clone, Debug)]
pub struct Object {
    pub kind: Kind,
    pub key: Key,
    pub meta: Meta,
    pub body: Body,
}

/// The metadata that controllers read.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    pub uid: String,
    pub revision: u64,
    pub generation: i64,
    pub created: Timestamp,
    pub deleting: Option<Timestamp>,
    pub labels: BTreeMap<String, String>,
    pub owners: Vec<Owner>,
    pub finalizers: Vec<String>,
}

/// An owner reference.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub controller: bool,
    pub blocks: bool,
}

/// The row of a kind. Kinds that only ownership concerns are `Bare`.
#[derive(Clone, Debug)]
pub enum Body {
    Pod(Box<PodRow>),
    Node(NodeRow),
    Lease(LeaseRow),
    Namespace(NamespaceRow),
    Service(Arc<Service>),
    Endpoints(Arc<Endpoints>),
    Slice(Arc<EndpointSlice>),
    Set(Arc<SetRow>),
    Deployment(Arc<Deployment>),
    Job(Arc<Job>),
    Autoscaler(Arc<HorizontalPodAutoscaler>),
    CronJob(Arc<CronJob>),
    Budget(Arc<PodDisruptionBudget>),
    StatefulSet(Arc<StatefulRow>),
    DaemonSet(Arc<DaemonRow>),
    Revision(Arc<RevisionRow>),
    ClusterRole(Arc<ClusterRole>),
    /// The kind that a definition serves, once it does.
    Definition(Option<Kind>),
    Volume(Arc<PersistentVolume>),
    Claim(Arc<PersistentVolumeClaim>),
    StorageClass(Arc<StorageClass>),
    Attachment(Arc<AttachmentRow>),
    /// Whether volumes of the CSI driver are attached before they are mounted.
    Driver {
        attaches: bool,
    },
    /// A ConfigMap, and a hash of what it says.
    Config {
        hash: String,
    },
    /// What the ConfigMap with the cluster's certificates says.
    RootCa(Option<String>),
    Bare,
}

/// A pod's phase.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Phase {
    #[default]
    Pending,
    Unknown,
    Running,
    Succeeded,
    Failed,
}

/// What controllers read of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodRow {
    pub node: String,
    pub phase: Phase,
    pub ready: bool,
    /// It is replaced at once when its node is silent.
    pub fails_over_fast: bool,
    /// When it was given its node.
    pub scheduled: Option<Timestamp>,
    /// When the condition Ready last changed.
    pub ready_since: Option<Timestamp>,
    pub restarts: i32,
    pub deletion_cost: i32,
    pub ips: Vec<String>,
    pub hostname: String,
    pub subdomain: String,
    pub ports: Vec<NamedPort>,
    pub tolerations: Vec<Toleration>,
    /// The claims that its volumes name.
    pub claims: Vec<String>,
    /// Those that are made for it.
    pub own_claims: Vec<OwnClaim>,
    /// Its agent is done with it, or it was deleted by force.
    pub is_shut_down: bool,
    /// Of a pod that a Job has to do with.
    pub job: Option<Box<JobPod>>,
    pub started: Option<Timestamp>,
    /// Since when somebody but its node says that it is to be ended (KEP-3329).
    pub disrupted: Option<Timestamp>,
    /// Of each container that runs on.
    pub requests: Vec<Requests>,
    /// The only node that its affinity names; empty: none, or several.
    pub target: String,
}

/// A claim that is made for a pod.
#[derive(Clone, Debug)]
pub struct OwnClaim {
    pub name: String,
    pub template: PersistentVolumeClaimTemplate,
}

/// A container port that Services can name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedPort {
    pub name: String,
    pub protocol: String,
    pub port: i32,
}

/// What controllers read of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeRow {
    pub pod_cidrs: Vec<String>,
    pub taints: Vec<Taint>,
    /// The status of the condition Ready; empty before the agent first posts it.
    pub ready: String,
    /// The types of the conditions that there are.
    pub conditions: Vec<String>,
    /// The keys of the taints that keep new pods away while its conditions are so, or it is cordoned.
    pub closed_by: Vec<&'static str>,
    pub volumes: Option<Box<NodeVolumes>>,
}

/// The volumes that a node's status names; most nodes have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeVolumes {
    /// What its agent has mounted or is about to.
    pub used: BTreeSet<String>,
    pub attached: BTreeSet<String>,
}

/// What controllers read of a node's lease.
#[derive(Clone, Debug, Default)]
pub struct LeaseRow {
    pub renewed: Option<Timestamp>,
    /// How long it lasts.
    pub seconds: Option<i32>,
}

/// What controllers read of a namespace.
#[derive(Clone, Debug, Default)]
pub struct NamespaceRow {
    pub spec_finalizers: Vec<String>,
    /// Type, status and message of each condition.
    pub conditions: Vec<[String; 3]>,
}

impl Object {
    /// From an object's JSON, such as the answer to a write. None if it is not of `kind`'s type.
    pub fn from_json(kind: Kind, value: Value) -> Option<Self> {
        fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Option<T> {
            serde_json::from_value(value).ok()
        }
        Some(match kind {
            Kind::POD => Self::from(typed::<Pod>(value)?),
            Kind::NODE => Self::from(typed::<Node>(value)?),
            Kind::LEASE => Self::from(typed::<Lease>(value)?),
            Kind::NAMESPACE => Self::from(typed::<Namespace>(value)?),
            Kind::SERVICE => Self::from(typed::<Service>(value)?),
            Kind::ENDPOINTS => Self::from(typed::<Endpoints>(value)?),
            Kind::ENDPOINT_SLICE => Self::from(typed::<EndpointSlice>(value)?),
            Kind::REPLICATION_CONTROLLER => Self::from(typed::<ReplicationController>(value)?),
            Kind::REPLICA_SET => Self::from(typed::<ReplicaSet>(value)?),
            Kind::DEPLOYMENT => Self::from(typed::<Deployment>(value)?),
            Kind::JOB => Self::from(typed::<Job>(value)?),
            Kind::AUTOSCALER => Self::from(typed::<HorizontalPodAutoscaler>(value)?),
            Kind::CRON_JOB => Self::from(typed::<CronJob>(value)?),
            Kind::DISRUPTION_BUDGET => Self::from(typed::<PodDisruptionBudget>(value)?),
            Kind::STATEFUL_SET => Self::from(typed::<StatefulSet>(value)?),
            Kind::DAEMON_SET => Self::from(typed::<DaemonSet>(value)?),
            Kind::CONTROLLER_REVISION => Self::from(typed::<ControllerRevision>(value)?),
            Kind::CONFIG_MAP => Self::from(typed::<ConfigMap>(value)?),
            Kind::CLUSTER_ROLE => Self::from(typed::<ClusterRole>(value)?),
            Kind::DEFINITION => Self::from(typed::<CustomResourceDefinition>(value)?),
            Kind::PERSISTENT_VOLUME => Self::from(typed::<PersistentVolume>(value)?),
            Kind::PERSISTENT_VOLUME_CLAIM => Self::from(typed::<PersistentVolumeClaim>(value)?),
            Kind::STORAGE_CLASS => Self::from(typed::<StorageClass>(value)?),
            Kind::VOLUME_ATTACHMENT => Self::from(typed::<VolumeAttachment>(value)?),
            Kind::CSI_DRIVER => Self::from(typed::<CSIDriver>(value)?),
            other => Self::bare(other, typed(value["metadata"].clone())?),
        })
    }

    /// An object of which only the metadata is kept.
    pub fn bare(kind: Kind, metadata: ObjectMeta) -> Self {
        Self::new(kind, metadata, Body::Bare)
    }

    /// The owner that controls this object.
    pub fn controller(&self) -> Option<&Owner> {
        self.meta.owners.iter().find(|owner| owner.controller)
    }

    /// The kind that a definition serves.
    pub fn as_definition(&self) -> Option<Kind> {
        match self.body {
            Body::Definition(kind) => kind,
            _ => None,
        }
    }

    /// The certificates in ConfigMap `kube-root-ca.crt`.
    pub fn as_root_ca(&self) -> Option<&String> {
        match &self.body {
            Body::RootCa(bundle) => bundle.as_ref(),
            _ => None,
        }
    }

    pub fn as_pod(&self) -> Option<&PodRow> {
        if let Body::Pod(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_node(&self) -> Option<&NodeRow> {
        if let Body::Node(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_lease(&self) -> Option<&LeaseRow> {
        if let Body::Lease(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_namespace(&self) -> Option<&NamespaceRow> {
        if let Body::Namespace(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_service(&self) -> Option<&Arc<Service>> {
        if let Body::Service(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_endpoints(&self) -> Option<&Arc<Endpoints>> {
        if let Body::Endpoints(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_slice(&self) -> Option<&Arc<EndpointSlice>> {
        if let Body::Slice(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_set(&self) -> Option<&Arc<SetRow>> {
        if let Body::Set(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_deployment(&self) -> Option<&Arc<Deployment>> {
        if let Body::Deployment(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_stateful_set(&self) -> Option<&Arc<StatefulRow>> {
        if let Body::StatefulSet(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_daemon_set(&self) -> Option<&Arc<DaemonRow>> {
        if let Body::DaemonSet(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_revision(&self) -> Option<&Arc<RevisionRow>> {
        if let Body::Revision(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    pub fn as_cluster_role(&self) -> Option<&Arc<ClusterRole>> {
        if let Body::ClusterRole(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    /// What the object selects others by, if it does.
    pub fn selector(&self) -> Option<LabelSelector> {
        match &self.body {
            Body::Service(service) => selector(service),
            Body::Set(row) => Some(row.selector.clone()),
            Body::StatefulSet(row) => Some(row.selector.clone()),
            Body::DaemonSet(row) => Some(row.selector.clone()),
            Body::Deployment(deployment) => {
                let spec = deployment.spec.as_ref()?;
                LabelSelector::from_object(Some(&spec.selector)).ok()
            }
            Body::Budget(budget) => {
                let selector = budget.spec.as_ref()?.selector.as_ref()?;
                LabelSelector::from_object(Some(selector)).ok()
            }
            Body::Job(job) => {
                let selector = job.spec.as_ref()?.selector.as_ref();
                let selector = LabelSelector::from_object(selector).ok();
                selector.filter(|selector| !selector.is_everything())
            }
            _ => None,
        }
    }

    pub(crate) fn new(kind: Kind, metadata: ObjectMeta, body: Body) -> Self {
        let key = Key {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        };
        Self {
            kind,
            key,
            meta: Meta::from(metadata),
            body,
        }
    }
}

/// The selector of a Service whose endpoints follow from pods.
pub fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    (!external).then(|| LabelSelector::from_map(labels))
}

impl PodRow {
    /// Succeeded or failed: it will not run again.
    pub fn finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// All claims that it may use.
    pub fn claim_names(&self) -> impl Iterator<Item = &String> {
        let own = self.own_claims.iter().map(|own| &own.name);
        self.claims.iter().chain(own)
    }
}

impl From<ConfigMap> for Object {
    fn from(map: ConfigMap) -> Self {
        let body = match map.metadata.name.as_deref() {
            Some(root_ca::NAME) => {
                let bundle = map.data.and_then(|mut data| data.remove("ca.crt"));
                Body::RootCa(bundle)
            }
            _ => {
                let says = serde_json::json!([map.data, map.binary_data]);
                let hash = revisions::hash(&says, 0);
                Body::Config { hash }
            }
        };
        Self::new(Kind::CONFIG_MAP, map.metadata, body)
    }
}

impl From<ObjectMeta> for Meta {
    fn from(meta: ObjectMeta) -> Self {
        let owner =
            |reference: k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| Owner {
                api_version: reference.api_version,
                kind: reference.kind,
                name: reference.name,
                uid: reference.uid,
                controller: reference.controller.unwrap_or(false),
                blocks: reference.block_owner_deletion.unwrap_or(false),
            };
        Self {
            uid: meta.uid.unwrap_or_default(),
            revision: meta
                .resource_version
                .and_then(|r| r.parse().ok())
                .unwrap_or(0),
            generation: meta.generation.unwrap_or(0),
            created: meta.creation_timestamp.map(|t| t.0).unwrap_or_default(),
            deleting: meta.deletion_timestamp.map(|t| t.0),
            labels: meta.labels.unwrap_or_default(),
            owners: meta
                .owner_references
                .into_iter()
                .flatten()
                .map(owner)
                .collect(),
            finalizers: meta.finalizers.unwrap_or_default(),
        }
    }
}

impl From<Pod> for Object {
    fn from(pod: Pod) -> Self {
        let job = JobPod::of(&pod);
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let ready = status
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == "Ready");
        let mut conditions = status.conditions.iter().flatten();
        let scheduled = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "True");
        let disrupted = disruption::announced(&status);
        let mut annotations = pod.metadata.annotations.iter().flatten();
        let fails_over_fast = annotations.any(|(k, v)| k == FAILOVER && v == FAILOVER_FAST);
        let cost = pod.metadata.annotations.iter().flatten();
        let cost = cost.filter(|(k, _)| k.as_str() == "controller.kubernetes.io/pod-deletion-cost");
        let mut ips: Vec<String> = status
            .pod_ips
            .into_iter()
            .flatten()
            .map(|ip| ip.ip)
            .collect();
        if ips.is_empty() {
            ips.extend(status.pod_ip);
        }
        let volumes = || spec.volumes.iter().flatten();
        let claims = volumes().filter_map(|volume| volume.persistent_volume_claim.as_ref());
        let claims = claims.map(|claim| claim.claim_name.clone()).collect();
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        let own_claims = volumes().filter_map(|volume| {
            let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref();
            Some(OwnClaim {
                name: format!("{pod_name}-{}", volume.name),
                template: template.cloned().unwrap_or_default(),
            })
        });
        let own_claims = own_claims.collect();
        let is_shut_down = pod.metadata.deletion_timestamp.is_some()
            && pod.metadata.deletion_grace_period_seconds == Some(0);
        let row = PodRow {
            target: target(spec.affinity.as_ref()),
            claims,
            own_claims,
            is_shut_down,
            job,
            started: status.start_time.as_ref().map(|at| at.0),
            disrupted,
            requests: super::autoscaling::row::requests(&spec),
            phase: phase(status.phase.as_deref()),
            ready: ready.is_some_and(|c| c.status == "True"),
            fails_over_fast,
            scheduled: since(scheduled),
            ready_since: since(ready),
            restarts: status
                .container_statuses
                .iter()
                .flatten()
                .map(|c| c.restart_count)
                .sum(),
            deletion_cost: cost.map(|(_, v)| v.parse().unwrap_or(0)).sum(),
            ips,
            ports: named_ports(&spec),
            node: spec.node_name.unwrap_or_default(),
            hostname: spec.hostname.unwrap_or_default(),
            subdomain: spec.subdomain.unwrap_or_default(),
            tolerations: spec.tolerations.unwrap_or_default(),
        };
        Self::new(Kind::POD, pod.metadata, Body::Pod(Box::new(row)))
    }
}

fn phase(text: Option<&str>) -> Phase {
    match text {
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        Some("Unknown") => Phase::Unknown,
        _ => Phase::Pending,
    }
}

fn since(condition: Option<&PodCondition>) -> Option<Timestamp> {
    let time = condition?.last_transition_time.as_ref()?;
    Some(time.0)
}

fn named_ports(spec: &PodSpec) -> Vec<NamedPort> {
    // Init containers that go on running serve as well (KEP-753).
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.map(|port| NamedPort {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        port: port.container_port,
    });
    named.collect()
}

/// The node whose name each term of the required affinity demands, which is how pods of DaemonSets are led.
fn target(affinity: Option<&Affinity>) -> String {
    let required = affinity
        .and_then(|it| it.node_affinity.as_ref())
        .and_then(|it| {
            it.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let terms = required.into_iter().flat_map(|it| &it.node_selector_terms);
    let fields = terms.flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter_map(|field| {
        let one = field.key == "metadata.name" && field.operator == "In";
        match field.values.as_deref() {
            Some([name]) if one => Some(name.clone()),
            _ => None,
        }
    });
    names.next().unwrap_or_default()
}

impl From<Node> for Object {
    fn from(node: Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let attached = status.volumes_attached.into_iter().flatten();
        let volumes = NodeVolumes {
            used: status.volumes_in_use.into_iter().flatten().collect(),
            attached: attached.map(|volume| volume.name).collect(),
        };
        let conditions = status.conditions.unwrap_or_default();
        let row = NodeRow {
            volumes: (volumes != NodeVolumes::default()).then(|| Box::new(volumes)),
            pod_cidrs: match spec.pod_cidrs {
                Some(ranges) if !ranges.is_empty() => ranges,
                _ => spec.pod_cidr.into_iter().collect(),
            },
            taints: spec.taints.unwrap_or_default(),
            ready: conditions
                .iter()
                .find(|c| c.type_ == "Ready")
                .map(|c| c.status.clone())
                .unwrap_or_default(),
            closed_by: node_lifecycle::closed_by(spec.unschedulable, &conditions),
            conditions: conditions.into_iter().map(|c| c.type_).collect(),
        };
        Self::new(Kind::NODE, node.metadata, Body::Node(row))
    }
}

impl From<Lease> for Object {
    fn from(lease: Lease) -> Self {
        let spec = lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
        let renewed = spec.and_then(|spec| spec.renew_time.as_ref()).map(|t| t.0);
        Self::new(
            Kind::LEASE,
            lease.metadata,
            Body::Lease(LeaseRow { renewed, seconds }),
        )
    }
}

impl From<Namespace> for Object {
    fn from(namespace: Namespace) -> Self {
        let spec_finalizers = namespace
            .spec
            .and_then(|spec| spec.finalizers)
            .unwrap_or_default();
        let conditions = namespace.status.and_then(|status| status.conditions);
        let conditions = conditions.unwrap_or_default().into_iter();
        let row = NamespaceRow {
            spec_finalizers,
            conditions: conditions
                .map(|it| [it.type_, it.status, it.message.unwrap_or_default()])
                .collect(),
        };
        Self::new(Kind::NAMESPACE, namespace.metadata, Body::Namespace(row))
    }
}

impl From<Service> for Object {
    fn from(mut service: Service) -> Self {
        let metadata = slim(&mut service.metadata);
        Self::new(Kind::SERVICE, metadata, Body::Service(Arc::new(service)))
    }
}

impl From<Endpoints> for Object {
    fn from(mut endpoints: Endpoints) -> Self {
        let metadata = slim(&mut endpoints.metadata);
        Self::new(
            Kind::ENDPOINTS,
            metadata,
            Body::Endpoints(Arc::new(endpoints)),
        )
    }
}

impl From<EndpointSlice> for Object {
    fn from(mut slice: EndpointSlice) -> Self {
        let metadata = slim(&mut slice.metadata);
        Self::new(Kind::ENDPOINT_SLICE, metadata, Body::Slice(Arc::new(slice)))
    }
}

impl From<ClusterRole> for Object {
    fn from(mut role: ClusterRole) -> Self {
        let metadata = std::mem::take(&mut role.metadata);
        Self::new(
            Kind::CLUSTER_ROLE,
            metadata,
            Body::ClusterRole(Arc::new(role)),
        )
    }
}

impl From<Deployment> for Object {
    fn from(mut deployment: Deployment) -> Self {
        let metadata = slim(&mut deployment.metadata);
        Self::new(
            Kind::DEPLOYMENT,
            metadata,
            Body::Deployment(Arc::new(deployment)),
        )
    }
}

/// A set with an unreadable or empty selector manages nothing.
pub(crate) fn selector_or_nothing(selector: Option<LabelSelector>) -> LabelSelector {
    selector
        .filter(|s| !s.is_everything())
        .unwrap_or_else(LabelSelector::nothing)
}

/// The metadata for the common part; managed fields are dropped everywhere.
pub(crate) fn slim(metadata: &mut ObjectMeta) -> ObjectMeta {
    metadata.managed_fields = None;
    metadata.clone()
}
