//! Every field of a pod's spec, and what becomes of it on this node. Data only.

use super::checks::{self, Check};
use super::mount_points;

/// The rules of one type's fields, by their names in the API.
pub type Rows = &'static [(&'static str, Rule)];

/// What becomes of a field.
#[expect(
    dead_code,
    reason = "the part that acts on a field, and why none need, is named for readers"
)]
pub enum Rule {
    /// The part that acts on it. Its text has no control characters.
    Done(&'static str),
    /// The same for what only the container reads: any text will do.
    Text(&'static str),
    /// Nothing acts on it, and nothing is missed: why.
    Idle(&'static str),
    /// The pod runs without it and an event says so: why.
    Unmet(&'static str),
    /// A pod that sets it does not run: why.
    Refused(&'static str),
    /// Some values are honoured.
    Only(Check),
    /// The same, where that depends on fields beside it: the check is given the object that they are in.
    Beside(Check),
    /// An object, or a list of objects, with fields of its own.
    In(Rows),
    /// The same, where what one field means depends on another.
    Whole(Check, Rows),
}

use Rule::{Beside, Done, Idle, In, Only, Refused, Text, Whole};

pub const POD_SPEC: Rows = &[
    ("activeDeadlineSeconds", Done("shape::outcome")),
    ("affinity", In(AFFINITY)),
    ("automountServiceAccountToken", Done("apiserver::admission")),
    ("containers", Whole(checks::container, CONTAINER)),
    ("dnsConfig", Done("volumes, resolv.conf")),
    ("dnsPolicy", Only(checks::dns_policy)),
    ("enableServiceLinks", Done("sources")),
    (
        "ephemeralContainers",
        Text("worker::start, which judges each when it begins"),
    ),
    ("hostAliases", Done("volumes, hosts")),
    ("hostIPC", Done("container_spec")),
    ("hostNetwork", Done("shape::host_network")),
    ("hostPID", Done("container_spec")),
    ("hostUsers", Only(checks::host_users)),
    ("hostname", Only(checks::hostname)),
    ("imagePullSecrets", Done("worker::images")),
    ("initContainers", Whole(checks::container, CONTAINER)),
    ("nodeName", Done("the watch of this node's pods")),
    ("nodeSelector", Done("scheduler::plugins::node_affinity")),
    ("os", In(OS)),
    ("overhead", Done("scheduler::resources, as a request")),
    ("preemptionPolicy", Done("scheduler::preempt")),
    ("priority", Done("scheduler::queue")),
    ("priorityClassName", Done("apiserver::admission")),
    ("readinessGates", Done("pod_status")),
    (
        "resourceClaims",
        Refused("resource claims are not supported"),
    ),
    ("resources", Whole(checks::whole, RESOURCES)),
    ("restartPolicy", Done("shape::policy")),
    ("runtimeClassName", Done("worker::execute::handler")),
    ("schedulerName", Done("scheduler::pod")),
    ("schedulingGates", Done("scheduler::pod")),
    ("securityContext", In(POD_SECURITY_CONTEXT)),
    ("serviceAccount", Idle("the old name of serviceAccountName")),
    ("serviceAccountName", Done("apiserver::admission")),
    ("setHostnameAsFQDN", Done("container_spec::sandbox")),
    ("shareProcessNamespace", Done("container_spec")),
    ("subdomain", Done("controllers::service::selection")),
    ("terminationGracePeriodSeconds", Done("shape::grace_period")),
    ("tolerations", Done("scheduler::plugins::taints")),
    ("topologySpreadConstraints", Done("scheduler::cross")),
    ("volumes", In(VOLUME)),
];

const AFFINITY: Rows = &[
    ("nodeAffinity", Done("scheduler::plugins::node_affinity")),
    ("podAffinity", In(POD_AFFINITY)),
    ("podAntiAffinity", In(POD_AFFINITY)),
];

const POD_AFFINITY: Rows = &[
    (
        "preferredDuringSchedulingIgnoredDuringExecution",
        Done("scheduler::cross"),
    ),
    (
        "requiredDuringSchedulingIgnoredDuringExecution",
        Done("scheduler::cross"),
    ),
];

const OS: Rows = &[("name", Only(checks::os))];

const POD_SECURITY_CONTEXT: Rows = &[
    ("appArmorProfile", In(APP_ARMOR)),
    ("fsGroup", Done("volumes, container_spec")),
    ("fsGroupChangePolicy", Done("volumes")),
    ("runAsGroup", Done("container_spec")),
    ("runAsNonRoot", Done("container_spec")),
    ("runAsUser", Done("container_spec")),
    (
        "seLinuxChangePolicy",
        Idle("there are no SELinux labels to change"),
    ),
    ("seLinuxOptions", Only(checks::selinux)),
    ("seccompProfile", In(SECCOMP)),
    ("supplementalGroups", Done("container_spec")),
    (
        "supplementalGroupsPolicy",
        Only(checks::supplemental_groups_policy),
    ),
    ("sysctls", In(SYSCTL)),
    ("windowsOptions", Refused("this is not a Windows node")),
];

const APP_ARMOR: Rows = &[
    ("localhostProfile", Done("container_spec")),
    ("type", Only(checks::app_armor)),
];

const SECCOMP: Rows = &[
    ("localhostProfile", Only(checks::inner_path)),
    ("type", Only(checks::seccomp)),
];

const SYSCTL: Rows = &[
    ("name", Only(checks::sysctl)),
    ("value", Done("container_spec::sandbox")),
];

const CONTAINER: Rows = &[
    ("args", Text("container_spec")),
    ("command", Text("container_spec")),
    ("env", In(ENV)),
    ("envFrom", Done("env")),
    ("image", Done("worker::execute")),
    ("imagePullPolicy", Done("shape::pull_policy")),
    ("lifecycle", In(LIFECYCLE)),
    ("livenessProbe", In(PROBE)),
    ("name", Only(checks::label)),
    ("ports", In(PORT)),
    ("readinessProbe", In(PROBE)),
    ("resizePolicy", Done("pod::resize")),
    ("resources", In(RESOURCES)),
    ("restartPolicy", Done("shape::is_sidecar")),
    ("securityContext", In(SECURITY_CONTEXT)),
    ("startupProbe", In(PROBE)),
    ("stdin", Done("container_spec")),
    ("stdinOnce", Done("container_spec")),
    ("terminationMessagePath", Only(mount_points::message_path)),
    ("terminationMessagePolicy", Done("worker::hooks")),
    ("tty", Done("container_spec")),
    ("volumeDevices", Done("container_spec")),
    ("volumeMounts", In(VOLUME_MOUNT)),
    ("workingDir", Only(mount_points::working_dir)),
];

const ENV: Rows = &[
    ("name", Done("env")),
    ("value", Text("env")),
    ("valueFrom", Done("env")),
];

const LIFECYCLE: Rows = &[
    ("postStart", In(HOOK)),
    ("preStop", In(HOOK)),
    ("stopSignal", Done("container_spec")),
];

const HOOK: Rows = &[
    ("exec", Text("worker::hooks")),
    ("httpGet", In(HTTP_GET)),
    ("sleep", Done("worker::hooks")),
    ("tcpSocket", Refused("hooks of this type are not supported")),
];

const PROBE: Rows = &[
    ("exec", Text("prober")),
    ("failureThreshold", Done("probes")),
    ("grpc", Done("prober::grpc")),
    ("httpGet", In(HTTP_GET)),
    ("initialDelaySeconds", Done("probes")),
    ("periodSeconds", Done("probes")),
    ("successThreshold", Done("probes")),
    ("tcpSocket", In(TCP_SOCKET)),
    ("terminationGracePeriodSeconds", Done("plan::watch")),
    ("timeoutSeconds", Done("prober")),
];

const HTTP_GET: Rows = &[
    ("host", Only(checks::probe_host)),
    ("httpHeaders", Done("prober::http_get")),
    ("path", Done("prober::http_get")),
    ("port", Done("prober::http_get")),
    ("scheme", Only(checks::scheme)),
];

const TCP_SOCKET: Rows = &[("host", Only(checks::probe_host)), ("port", Done("prober"))];

const PORT: Rows = &[
    ("containerPort", Done("prober, drain")),
    (
        "hostIP",
        Done("datapath::view, scheduler::plugins::host_ports"),
    ),
    ("hostPort", Done("datapath::view, pod::pods")),
    ("name", Done("prober, controllers::service")),
    ("protocol", Done("drain, controllers::service")),
];

const RESOURCES: Rows = &[
    ("claims", Refused("resource claims are not supported")),
    ("limits", Only(checks::resources)),
    ("requests", Only(checks::resources)),
];

const SECURITY_CONTEXT: Rows = &[
    ("allowPrivilegeEscalation", Done("container_spec")),
    ("appArmorProfile", In(APP_ARMOR)),
    ("capabilities", Done("container_spec")),
    ("privileged", Done("container_spec")),
    ("procMount", Only(checks::proc_mount)),
    ("readOnlyRootFilesystem", Done("container_spec")),
    ("runAsGroup", Done("container_spec")),
    ("runAsNonRoot", Done("container_spec")),
    ("runAsUser", Done("container_spec")),
    ("seLinuxOptions", Only(checks::selinux)),
    ("seccompProfile", In(SECCOMP)),
    ("windowsOptions", Refused("this is not a Windows node")),
];

const VOLUME_MOUNT: Rows = &[
    ("mountPath", Beside(mount_points::mount_path)),
    ("mountPropagation", Done("container_spec")),
    ("name", Done("container_spec")),
    ("readOnly", Done("container_spec")),
    ("recursiveReadOnly", Only(checks::recursive_read_only)),
    ("subPath", Only(checks::inner_path)),
    ("subPathExpr", Only(checks::inner_path)),
];

const VOLUME: Rows = &[
    ("awsElasticBlockStore", Only(checks::volume)),
    ("azureDisk", Only(checks::volume)),
    ("azureFile", Only(checks::volume)),
    ("cephfs", Only(checks::volume)),
    ("cinder", Only(checks::volume)),
    ("configMap", In(CONFIG_MAP)),
    ("csi", Done("volumes::csi")),
    ("downwardAPI", In(DOWNWARD_API)),
    ("emptyDir", In(EMPTY_DIR)),
    ("ephemeral", Done("controllers::volumes, volumes::claimed")),
    ("fc", Only(checks::volume)),
    ("flexVolume", Only(checks::volume)),
    ("flocker", Only(checks::volume)),
    ("gcePersistentDisk", Only(checks::volume)),
    (
        "gitRepo",
        Refused(
            "gitRepo volumes run git as root on the node: clone in an init container into an \
             emptyDir instead, as manifests/git-clone.yaml does",
        ),
    ),
    ("glusterfs", Only(checks::volume)),
    ("hostPath", In(HOST_PATH)),
    ("image", Done("worker::image_volumes, volumes::image_trees")),
    ("iscsi", Only(checks::volume)),
    ("name", Only(checks::label)),
    ("nfs", Done("volumes::nfs")),
    ("persistentVolumeClaim", Done("volumes::claimed")),
    ("photonPersistentDisk", Only(checks::volume)),
    ("portworxVolume", Only(checks::volume)),
    ("projected", In(PROJECTED)),
    ("quobyte", Only(checks::volume)),
    ("rbd", Only(checks::volume)),
    ("scaleIO", Only(checks::volume)),
    ("secret", In(SECRET)),
    ("storageos", Only(checks::volume)),
    ("vsphereVolume", Only(checks::volume)),
];

const CONFIG_MAP: Rows = &[
    ("defaultMode", Done("volumes")),
    ("items", In(KEY_TO_PATH)),
    ("name", Done("sources")),
    ("optional", Done("volumes")),
];

const SECRET: Rows = &[
    ("defaultMode", Done("volumes")),
    ("items", In(KEY_TO_PATH)),
    ("optional", Done("volumes")),
    ("secretName", Done("sources")),
];

const KEY_TO_PATH: Rows = &[
    ("key", Done("volumes")),
    ("mode", Done("volumes")),
    ("path", Only(checks::inner_path)),
];

const DOWNWARD_API: Rows = &[
    ("defaultMode", Done("volumes")),
    ("items", In(DOWNWARD_API_FILE)),
];

const DOWNWARD_API_FILE: Rows = &[
    ("fieldRef", Done("downward")),
    ("mode", Done("volumes")),
    ("path", Only(checks::inner_path)),
    ("resourceFieldRef", Done("downward")),
];

const EMPTY_DIR: Rows = &[
    ("medium", Only(checks::empty_dir_medium)),
    ("sizeLimit", Done("worker::usage, volumes")),
];

const HOST_PATH: Rows = &[
    ("path", Only(checks::outer_path)),
    ("type", Done("volumes")),
];

const PROJECTED: Rows = &[
    ("defaultMode", Done("volumes")),
    ("sources", In(PROJECTION)),
];

const PROJECTION: Rows = &[
    ("clusterTrustBundle", In(TRUST_BUNDLE)),
    ("configMap", In(PROJECTED_CONFIG_MAP)),
    ("downwardAPI", In(PROJECTED_DOWNWARD_API)),
    ("secret", In(PROJECTED_CONFIG_MAP)),
    ("serviceAccountToken", In(TOKEN)),
];

const TRUST_BUNDLE: Rows = &[
    ("labelSelector", Done("api::watched")),
    ("name", Done("api::watched")),
    ("optional", Done("volumes")),
    ("path", Only(checks::inner_path)),
    ("signerName", Done("api::watched")),
];

const TOKEN: Rows = &[
    ("audience", Done("worker::tokens")),
    ("expirationSeconds", Done("worker::tokens")),
    ("path", Only(checks::inner_path)),
];

const PROJECTED_CONFIG_MAP: Rows = &[
    ("items", In(KEY_TO_PATH)),
    ("name", Done("sources")),
    ("optional", Done("volumes")),
];

const PROJECTED_DOWNWARD_API: Rows = &[("items", In(DOWNWARD_API_FILE))];
