//! The table of kinds: one row a resource. Adding a kind is a row here and a strategy.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    authorization::v1::SelfSubjectAccessReview,
    autoscaling::v1::Scale,
    coordination::v1::Lease,
    core::v1::{
        Binding, ConfigMap, Endpoints, Event, Namespace, Node, Pod, ReplicationController, Secret,
        Service, ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    policy::v1::Eviction,
};
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use super::{
    decode::{self, Decoded, FieldValidation, Format},
    status::ApiError,
    strategy::{self, Strategy},
};

/// A resource that the API serves.
#[derive(Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub list_kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub scope: Scope,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    pub lifetime: Lifetime,
    /// The name of its schema: `io.k8s.api.apps.v1.Deployment`.
    pub definition: &'static str,
    pub(super) codec: Codec,
    pub(super) strategy: &'static Strategy,
}

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// Whether objects survive a restart of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    Durable,
    Volatile,
}

/// What may follow an object's name in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subresource {
    Status,
    Scale,
    Binding,
    Eviction,
    Log,
    Finalize,
}

/// What the type of a kind contributes; everything else works on values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codec {
    /// Makes the schema of the type known.
    pub schema: fn(&mut SchemaGenerator),
    /// Decodes through the type: what tests compare the schema engine with.
    #[cfg(test)]
    pub typed: fn(&Value) -> Option<Value>,
}

/// Every served resource, in the order of discovery.
pub fn resources() -> &'static [Resource] {
    &RESOURCES
}

/// By the words of a path.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// By the words of an object.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|r| r.group == group && r.version == version && r.kind == kind)
}

impl Resource {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.into()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, or `pods` for the core group.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.into()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The name of its list's schema.
    pub fn list_definition(&self) -> String {
        format!("{}List", self.definition)
    }

    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// The body of a request as a canonical object.
    pub fn decode(
        &self,
        body: &[u8],
        format: Format,
        mode: FieldValidation,
    ) -> Result<Decoded, ApiError> {
        decode::body(self, body, format, mode)
    }

    /// The same for a value that is already parsed, such as the result of a patch.
    pub fn canonical(&self, value: Value, mode: FieldValidation) -> Result<Decoded, ApiError> {
        decode::value(self, value, mode)
    }

    /// Before a create: defaults, clears what a client may not set and sets what the server owns.
    /// Metadata that needs a clock or randomness is `meta`'s.
    pub fn prepare_for_create(&self, object: &mut Value) {
        strategy::prepare_for_create(self, object);
    }

    /// Before an update: defaults, keeps of `old` what this path may not touch, and counts the generation.
    pub fn prepare_for_update(&self, new: &mut Value, old: &Value, sub: Option<Subresource>) {
        strategy::prepare_for_update(self, new, old, sub);
    }

    /// Fills in defaults; idempotent.
    pub fn default(&self, object: &mut Value) {
        (self.strategy.default)(object);
    }

    /// Checks a defaulted object; `old` is given for updates.
    pub fn validate(
        &self,
        new: &Value,
        old: Option<&Value>,
        sub: Option<Subresource>,
    ) -> Result<(), ApiError> {
        super::validation::validate(self, new, old, sub)
    }

    /// The stored bytes: apiVersion, kind and metadata first, then the rest in order.
    pub fn serialize(&self, object: &Value) -> Vec<u8> {
        decode::to_bytes(object)
    }

    /// The fields that a field selector may name, with this object's values.
    pub fn selectable_fields(&self, object: &Value) -> BTreeMap<&'static str, String> {
        strategy::selectable_fields(self, object)
    }

    /// The names of those fields, in order.
    pub fn selectable_field_names(&self) -> Vec<&'static str> {
        self.selectable_fields(&Value::Null).into_keys().collect()
    }
}

impl Subresource {
    /// The word in the path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Finalize => "finalize",
        }
    }

    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale => &["get", "patch", "update"],
            Self::Binding | Self::Eviction => &["create"],
            Self::Log => &["get"],
            Self::Finalize => &["update"],
        }
    }

    /// The kind that discovery and OpenAPI name for it on the given resource.
    pub fn object(self, of: &'static Resource) -> &'static Resource {
        match self {
            Self::Scale => &SCALE,
            Self::Binding => &BINDING,
            Self::Eviction => &EVICTION,
            Self::Status | Self::Log | Self::Finalize => of,
        }
    }
}

const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// A row with the usual scope, verbs and lifetime; `..` of it is overridden where a kind differs.
macro_rules! row {
    ($type:ident, $group:literal, $package:literal, $singular:literal, $plural:literal,
     $strategy:ident) => {
        Resource {
            group: $group,
            version: "v1",
            kind: stringify!($type),
            list_kind: concat!(stringify!($type), "List"),
            plural: $plural,
            singular: $singular,
            short_names: &[],
            categories: &[],
            scope: Scope::Namespaced,
            verbs: ALL_VERBS,
            subresources: &[],
            lifetime: Lifetime::Durable,
            definition: concat!("io.k8s.api.", $package, ".v1.", stringify!($type)),
            codec: Codec {
                schema: schema_of::<$type>,
                #[cfg(test)]
                typed: decode::structural::tests::typed::<$type>,
            },
            strategy: &strategy::$strategy,
        }
    };
}

/// autoscaling/v1 Scale: the body of the scale subresource; no resource of its own.
pub static SCALE: Resource = Resource {
    verbs: &["get", "patch", "update"],
    ..row!(
        Scale,
        "autoscaling",
        "autoscaling",
        "scale",
        "scales",
        SCALE
    )
};

/// v1 Binding: the body of pods/binding; no resource of its own.
pub static BINDING: Resource = Resource {
    verbs: &["create"],
    ..row!(Binding, "", "core", "binding", "bindings", PLAIN)
};

/// policy/v1 Eviction: the body of pods/eviction; no resource of its own.
pub static EVICTION: Resource = Resource {
    verbs: &["create"],
    ..row!(Eviction, "policy", "policy", "eviction", "evictions", PLAIN)
};

static RESOURCES: [Resource; 15] = [
    Resource {
        short_names: &["cm"],
        ..row!(ConfigMap, "", "core", "configmap", "configmaps", CONFIG_MAP)
    },
    Resource {
        short_names: &["ep"],
        ..row!(Endpoints, "", "core", "endpoints", "endpoints", ENDPOINTS)
    },
    Resource {
        short_names: &["ev"],
        ..row!(Event, "", "core", "event", "events", EVENT)
    },
    Resource {
        short_names: &["ns"],
        scope: Scope::Cluster,
        verbs: &[
            "create", "delete", "get", "list", "patch", "update", "watch",
        ],
        subresources: &[Subresource::Finalize, Subresource::Status],
        ..row!(Namespace, "", "core", "namespace", "namespaces", NAMESPACE)
    },
    Resource {
        short_names: &["no"],
        scope: Scope::Cluster,
        subresources: &[Subresource::Status],
        ..row!(Node, "", "core", "node", "nodes", NODE)
    },
    Resource {
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Subresource::Binding,
            Subresource::Eviction,
            Subresource::Log,
            Subresource::Status,
        ],
        ..row!(Pod, "", "core", "pod", "pods", POD)
    },
    Resource {
        short_names: &["rc"],
        categories: &["all"],
        subresources: &[Subresource::Scale, Subresource::Status],
        ..row!(
            ReplicationController,
            "",
            "core",
            "replicationcontroller",
            "replicationcontrollers",
            REPLICATION_CONTROLLER
        )
    },
    row!(Secret, "", "core", "secret", "secrets", SECRET),
    Resource {
        short_names: &["sa"],
        ..row!(
            ServiceAccount,
            "",
            "core",
            "serviceaccount",
            "serviceaccounts",
            PLAIN
        )
    },
    Resource {
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        ..row!(Service, "", "core", "service", "services", SERVICE)
    },
    Resource {
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[Subresource::Scale, Subresource::Status],
        ..row!(
            Deployment,
            "apps",
            "apps",
            "deployment",
            "deployments",
            DEPLOYMENT
        )
    },
    Resource {
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[Subresource::Scale, Subresource::Status],
        ..row!(
            ReplicaSet,
            "apps",
            "apps",
            "replicaset",
            "replicasets",
            REPLICA_SET
        )
    },
    // Answered and not kept.
    Resource {
        scope: Scope::Cluster,
        verbs: &["create"],
        ..row!(
            SelfSubjectAccessReview,
            "authorization.k8s.io",
            "authorization",
            "selfsubjectaccessreview",
            "selfsubjectaccessreviews",
            PLAIN
        )
    },
    Resource {
        lifetime: Lifetime::Volatile,
        ..row!(
            Lease,
            "coordination.k8s.io",
            "coordination",
            "lease",
            "leases",
            LEASE
        )
    },
    row!(
        EndpointSlice,
        "discovery.k8s.io",
        "discovery",
        "endpointslice",
        "endpointslices",
        ENDPOINT_SLICE
    ),
];

/// The resources and the bodies of subresources: all that has a schema.
pub(super) fn with_schema() -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().chain([&SCALE, &BINDING, &EVICTION])
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}
