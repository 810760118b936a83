//! What a resource is: everything that is particular to a kind, in one value.
//!
//! `kinds/<group>/<kind>.rs` makes one for each built-in kind; `registry` finds them by the words of
//! a path. Everything else in this crate and in the API server reads this value and knows no kind.

use std::{borrow::Cow, collections::BTreeMap, sync::OnceLock};

use jiff::Timestamp;
use k8s_openapi::{
    Resource as K8sResource,
    schemars::{JsonSchema, SchemaGenerator},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    apply::Shapes,
    columns::{self, Column, Printer},
    custom::Custom,
    decode::{self, Decoded, FieldValidation, Format},
    kinds, prepare,
    quota::Usage,
    schema::{self, Definition},
    status::ApiError,
    validation::{self, At, Errors, NameRule},
};

/// A name that is known at compile time or comes from an object.
pub type Name = Cow<'static, str>;

/// A resource that the API serves.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Name,
    pub version: Name,
    pub kind: Name,
    pub list_kind: Name,
    pub plural: Name,
    pub singular: Name,
    pub short_names: Vec<Name>,
    pub categories: Vec<Name>,
    pub scope: Scope,
    pub verbs: &'static [&'static str],
    /// Fields of a body that are not read, since the server alone writes them.
    pub given: &'static [&'static str],
    pub subresources: Vec<Subresource>,
    pub lifetime: Lifetime,
    /// The name of its schema: `io.k8s.api.apps.v1.Deployment`.
    pub definition: Name,
    /// The columns of its table.
    pub printer: Printer,
    /// What a client should hear of an object that is valid, as `Warning:` headers.
    pub warn: fn(&Value) -> Vec<String>,
    /// What every answer says of a version that is deprecated, as a `Warning:` header.
    pub deprecation: Option<Name>,
    /// A deletion is answered with the object, not with a Status; typed clients rely on which.
    pub answers_with_object: bool,
    /// What the API server does with it beyond storing it.
    pub behaviour: Behaviour,
    /// What an object uses of its namespace's quotas.
    pub usage: Usage,
    /// Where its objects have the template of pods that they make: a JSON pointer.
    pub pod_template: Option<&'static str>,
    /// What the type of the kind contributes; everything else works on values.
    pub(crate) codec: Codec,
    /// What the definition of a custom kind contributes.
    pub custom: Option<Custom>,
    /// What is made of its type when that is first needed.
    pub(crate) made: Made,

    /// Fills in defaults; idempotent.
    pub(crate) default: fn(&mut Value),
    /// Clears and sets what is not the client's on create.
    pub(crate) create: fn(&mut Value),
    /// Keeps what an update of the object itself may not change.
    pub(crate) update: fn(&mut Value, &Value),
    /// Keeps what an update of the status may not change.
    pub(crate) update_status: fn(&mut Value, &Value),
    pub(crate) validate: fn(&At<'_>, &mut Errors),
    pub(crate) validate_update: fn(&At<'_>, &At<'_>, &mut Errors),
    /// What is checked of a new object only.
    pub(crate) validate_create: fn(&At<'_>, &mut Errors),
    /// What is checked when the status is written.
    pub(crate) validate_status: fn(&At<'_>, &mut Errors),
    /// What is checked of a change of the status or the approval, new and old object.
    pub(crate) validate_subresource: fn(Subresource, &At<'_>, &At<'_>, &mut Errors),
    /// Which names objects may have.
    pub(crate) name_rule: NameRule,
    /// Whether a client's change counts a generation, and what counts as one.
    pub(crate) generation: Generation,
    /// Whether `status` is written only through its subresource.
    pub(crate) has_status: bool,
    /// Fields for field selectors besides name and namespace, and where they are.
    pub(crate) fields: Vec<Field>,
    /// Those of the fields whose values are found, and their watches woken, without a look at all
    /// objects and all watches.
    pub indexes: Vec<Name>,
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

/// What counts a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    None,
    Spec,
    SpecAndAnnotations,
    /// Everything but metadata, and the status where it is written through its subresource.
    Content,
}

/// What the API server does with the objects of a kind beyond storing them: how they are deleted, what
/// they claim, what their nodes may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Nothing in particular.
    Plain,
    /// Emptied before it goes; a closed one takes no new objects.
    Namespace,
    /// Claims pod ranges and addresses; shown trimmed to other nodes.
    Node,
    /// Deleted in grace; refers to Secrets and others on behalf of its node.
    Pod,
    /// Claims addresses and ports.
    Service,
    /// Written by the node of its object.
    Event,
    /// The storage drivers of a node, written by it.
    NodeDrivers,
    /// A node's heartbeat.
    Lease,
    /// Gives pods their priority; one of them is the default.
    PriorityClass,
    /// Kept while a pod uses it; gets a class if it names none.
    Claim,
    /// Kept while it is bound to a claim.
    Volume,
    /// Gets a class if it names none.
    Ingress,
    /// Makes a kind, and goes after the objects of that kind.
    Definition,
    /// Says who asks; approved, it is signed.
    CertificateRequest,
    /// Vouches for authorities in a signer's name.
    TrustBundle,
    /// Rules of what may be done; nobody writes any that they do not have.
    Role,
    /// Gives a role to somebody; nobody gives one that says more than they have.
    RoleBinding,
    /// A question that is answered and not kept.
    Review(Question),
    /// Gives the pod of its name to a node, and is not kept.
    Binding,
    /// Made when it is asked for.
    ComponentStatus,
}

/// What a review asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Who the caller is.
    OwnName,
    /// Whether the caller may do something.
    OwnAccess,
    /// What the caller may do in a namespace.
    OwnRules,
    /// Whether somebody may do something.
    Access,
    /// Whether somebody may do something in the namespace of the question.
    LocalAccess,
    /// Whose a bearer token is.
    Token,
}

impl Question {
    /// Whether it is about the caller, who may always ask.
    pub fn is_own(self) -> bool {
        matches!(self, Self::OwnName | Self::OwnAccess | Self::OwnRules)
    }
}

/// What may follow an object's name in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subresource {
    Status,
    Scale,
    Binding,
    Eviction,
    Log,
    Finalize,
    Approval,
    EphemeralContainers,
    Resize,
    Exec,
    Attach,
    PortForward,
    Proxy,
    /// Of a ServiceAccount: a new one, for whoever asks.
    Token,
}

/// A field that a field selector may name.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub name: Name,
    /// A JSON pointer.
    pub at: Name,
    /// What an object says that leaves it out.
    pub absent: Absent,
    /// Whether clients of this version may name it. The stored version has the fields of the other versions as well,
    /// since objects are judged in it.
    pub is_offered: bool,
}

/// The value of a field that an object leaves out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Absent {
    Is(&'static str),
    /// What stands elsewhere, at a JSON pointer.
    At(&'static str),
}

/// What the type of a kind contributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codec {
    /// Makes the schema of the type known.
    pub schema: fn(&mut SchemaGenerator),
    /// Decodes through the type: what tests compare the schema engine with.
    #[cfg(test)]
    pub typed: fn(&Value) -> Option<Value>,
}

/// What a kind's type has become. A copy of the kind begins anew, since it may have another type.
#[derive(Debug, Default)]
pub(crate) struct Made {
    definition: OnceLock<Option<&'static Definition>>,
    shapes: OnceLock<Shapes>,
}

impl Clone for Made {
    fn clone(&self) -> Self {
        Self::default()
    }
}

pub(crate) const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

impl Resource {
    /// A kind of version v1 with the usual scope, verbs and lifetime, and nothing particular. `package`
    /// is the group's word in the schema's name.
    pub(crate) fn of<T>(
        group: &'static str,
        package: &str,
        singular: &'static str,
        plural: &'static str,
    ) -> Self
    where
        T: K8sResource + JsonSchema + Serialize + DeserializeOwned,
    {
        Self {
            singular: singular.into(),
            definition: format!("io.k8s.api.{package}.{}.{}", T::VERSION, T::KIND).into(),
            codec: Codec {
                schema: schema_of::<T>,
                #[cfg(test)]
                typed: decode::structural::tests::typed::<T>,
            },
            ..Self::bare(
                group.into(),
                T::VERSION.into(),
                T::KIND.into(),
                plural.into(),
            )
        }
    }

    /// A kind of which nothing is known but its names.
    pub(crate) fn bare(group: Name, version: Name, kind: Name, plural: Name) -> Self {
        Self {
            group,
            version,
            list_kind: format!("{kind}List").into(),
            definition: kind.clone(),
            kind,
            plural,
            singular: "".into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope: Scope::Namespaced,
            verbs: ALL_VERBS,
            subresources: Vec::new(),
            lifetime: Lifetime::Durable,
            printer: columns::OTHERS,
            warn: |_| Vec::new(),
            deprecation: None,
            answers_with_object: false,
            behaviour: Behaviour::Plain,
            usage: Usage::Count,
            pod_template: None,
            codec: Codec {
                schema: |_| {},
                #[cfg(test)]
                typed: |_| None,
            },
            custom: None,
            made: Made::default(),
            default: |_| {},
            create: |_| {},
            update: |_, _| {},
            update_status: |_, _| {},
            validate: |_, _| {},
            validate_update: |_, _, _| {},
            validate_create: |_, _| {},
            validate_status: |_, _| {},
            validate_subresource: |_, _, _, _| {},
            name_rule: NameRule::Subdomain,
            given: &[],
            generation: Generation::None,
            has_status: false,
            fields: Vec::new(),
            indexes: Vec::new(),
        }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, or `pods` for the core group.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The name of its list's schema.
    pub fn list_definition(&self) -> String {
        let package = self.definition.rsplit_once('.');
        package.map_or(self.list_kind.to_string(), |(package, _)| {
            format!("{package}.{}", self.list_kind)
        })
    }

    /// What shapes its objects.
    pub(crate) fn shape(&self) -> Result<&Definition, String> {
        if let Some(custom) = &self.custom {
            return Ok(custom.definition());
        }
        let found = || schema::definition(&self.definition);
        let found = *self.made.definition.get_or_init(found);
        found.ok_or_else(|| format!("no schema of {}", self.definition))
    }

    /// How its objects are merged.
    pub(crate) fn shapes(&self) -> &Shapes {
        if let Some(custom) = &self.custom {
            return custom.shapes(self);
        }
        let kind = || self.shape().ok().map(|definition| (self, definition));
        let shapes = || Shapes::of(kind().into_iter());
        self.made.shapes.get_or_init(shapes)
    }

    /// The columns of its table, as `meta.k8s.io/v1` describes them.
    pub fn column_definitions(&self) -> Vec<Value> {
        match &self.custom {
            Some(custom) => custom.column_definitions(),
            None => self
                .printer
                .columns
                .iter()
                .map(Column::definition)
                .collect(),
        }
    }

    /// The row of an object, one cell a column.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match &self.custom {
            Some(custom) => custom.cells(object, now),
            None => (self.printer.cells)(object, now),
        }
    }

    /// A stored object as it is read. That of a custom kind may be older than the present schema.
    pub fn read<'a>(&self, stored: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.custom {
            Some(custom) => custom.read(stored),
            None => Cow::Borrowed(stored),
        }
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
        prepare::for_create(self, object);
    }

    /// Before an update: defaults, keeps of `old` what this path may not touch, and counts the generation.
    pub fn prepare_for_update(&self, new: &mut Value, old: &Value, sub: Option<Subresource>) {
        prepare::for_update(self, new, old, sub);
    }

    /// Fills in defaults; idempotent.
    pub fn default(&self, object: &mut Value) {
        (self.default)(object);
        if let Some(custom) = &self.custom {
            // What is wrong with it is said by validation.
            let _ = decode::structural::canonicalize(custom.definition(), object);
        }
    }

    /// Checks a defaulted object; `old` is given for updates.
    pub fn validate(
        &self,
        new: &Value,
        old: Option<&Value>,
        sub: Option<Subresource>,
    ) -> Result<(), ApiError> {
        validation::validate(self, new, old, sub)
    }

    /// The stored bytes: apiVersion, kind and metadata first, then the rest in order.
    pub fn serialize(&self, object: &Value) -> Vec<u8> {
        decode::to_bytes(object)
    }

    /// The fields that a field selector may name, with this object's values.
    pub fn selectable_fields(&self, object: &Value) -> BTreeMap<Name, String> {
        prepare::selectable_fields(self, object)
    }

    /// The name by which `storage` knows the selectable field that this version calls `name`; its
    /// places in the object are those of the stored version.
    pub fn stored_field<'a>(&self, name: &str, storage: &'a Resource) -> Option<&'a Name> {
        let own = self.fields.iter().find(|field| field.name == name)?;
        let mut fields = storage.fields.iter();
        fields
            .find(|field| field.at == own.at)
            .map(|field| &field.name)
    }

    /// How deep in the object those fields are.
    pub fn selectable_depth(&self) -> usize {
        let depths = self
            .fields
            .iter()
            .map(|field| field.at.matches('/').count());
        depths.max().unwrap_or_default()
    }

    /// The names of those fields that clients of this version may name, in order.
    pub fn selectable_field_names(&self) -> Vec<Name> {
        let of_others = |name: &Name| {
            let mut fields = self.fields.iter();
            fields.any(|field| field.name == *name && !field.is_offered)
        };
        let names = self.selectable_fields(&Value::Null).into_keys();
        names.filter(|name| !of_others(name)).collect()
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
            Self::Approval => "approval",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
            Self::Token => "token",
        }
    }

    /// Whether a request opens a stream to what the object stands for; its method means nothing then but who
    /// may do it.
    pub fn connects(self) -> bool {
        matches!(
            self,
            Self::Exec | Self::Attach | Self::PortForward | Self::Proxy
        )
    }

    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status
            | Self::Scale
            | Self::Approval
            | Self::EphemeralContainers
            | Self::Resize => &["get", "patch", "update"],
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Log => &["get"],
            Self::Finalize => &["update"],
            Self::Exec | Self::Attach | Self::PortForward => &["create", "get"],
            Self::Proxy => &["create", "delete", "get", "patch", "update"],
        }
    }

    /// The kind that discovery and OpenAPI name for it on the given resource.
    pub fn object(self, of: &Resource) -> &Resource {
        match self {
            Self::Scale => &kinds::SCALE,
            Self::Binding => &kinds::BINDING,
            Self::Eviction => &kinds::EVICTION,
            Self::Token => &kinds::TOKEN_REQUEST,
            Self::Exec => &kinds::POD_EXEC_OPTIONS,
            Self::Attach => &kinds::POD_ATTACH_OPTIONS,
            Self::PortForward => &kinds::POD_PORT_FORWARD_OPTIONS,
            Self::Proxy => match of.behaviour {
                Behaviour::Node => &kinds::NODE_PROXY_OPTIONS,
                Behaviour::Pod => &kinds::POD_PROXY_OPTIONS,
                _ => &kinds::SERVICE_PROXY_OPTIONS,
            },
            Self::Status
            | Self::Log
            | Self::Finalize
            | Self::Approval
            | Self::EphemeralContainers
            | Self::Resize => of,
        }
    }
}

impl Field {
    /// The field `a.b` stands at `/a/b` and is empty where it is left out.
    pub(crate) fn of(name: &'static str) -> Self {
        Self::at(name, format!("/{}", name.replace('.', "/")))
    }

    /// A field of another name than its place has.
    pub(crate) fn at(name: impl Into<Name>, at: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            at: at.into(),
            absent: Absent::Is(""),
            is_offered: true,
        }
    }

    pub(crate) fn or(self, absent: Absent) -> Self {
        Self { absent, ..self }
    }
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}
