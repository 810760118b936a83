//! What a value consists of for its owners: the schema, made ready for walking beside a value.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, OnceLock},
};

use serde_json::{Map, Value};

use crate::{
    resource::{Resource, Subresource},
    schema::{self, Definition, Rules, Topology, Type},
};

/// Fields that Kubernetes holds by value: where one is absent, it is an empty object. So nobody
/// becomes the owner of the object itself by writing into it.
const BY_VALUE: [&str; 12] = [
    "daemonEndpoints",
    "jobTemplate",
    "loadBalancer",
    "metadata",
    "nodeInfo",
    "resources",
    "source",
    "spec",
    "status",
    "strategy",
    "template",
    "updateStrategy",
];

/// The same of lists: an absent one is null.
const NULL_LISTS: [&str; 1] = ["containers"];

/// Metadata that nobody owns: it says which object this is, or is the server's.
const NEVER_OWNED: [&str; 11] = [
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static NULL: Value = Value::Null;

/// The shape of one value.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    all: &'a Shapes,
    at: usize,
}

/// The shapes of all values of some kinds.
#[derive(Debug)]
pub struct Shapes {
    forms: Vec<Form>,
    kinds: BTreeMap<Box<str>, Roots>,
}

/// What a value consists of; numbers are places in [`Shapes`].
#[derive(Debug)]
pub enum Form {
    /// One field with one owner.
    Leaf,
    /// No schema: the keys of an object each their own, anything else whole.
    Free,
    Struct {
        /// Sorted by name.
        members: Vec<Member>,
        /// Other fields stay, each its own.
        open: bool,
    },
    Map(usize),
    /// Scalars.
    Set,
    List {
        keys: Vec<Key>,
        item: usize,
    },
}

/// A field of a struct.
#[derive(Debug)]
pub struct Member {
    name: Box<str>,
    /// `f:replicas`
    pub element: Box<str>,
    at: usize,
    /// What stands for it where it is absent.
    pub absent: Option<&'static Value>,
}

/// A field by which the items of a list are known.
#[derive(Debug)]
pub struct Key {
    pub name: Box<str>,
    /// Stands for it where an item leaves it out.
    pub default: Option<Value>,
}

/// Where the shapes of a kind begin.
#[derive(Debug)]
struct Roots {
    whole: usize,
    /// What is written through the object itself, without what nobody owns.
    main: usize,
    /// What is written through its status, likewise.
    status: usize,
}

/// The whole object.
pub fn whole(resource: &Resource) -> Shape<'_> {
    root(resource, |roots| roots.whole)
}

/// What can be owned by writing through this path.
pub fn tracked(resource: &Resource, subresource: Option<Subresource>) -> Shape<'_> {
    match subresource {
        Some(Subresource::Status) => root(resource, |roots| roots.status),
        _ => root(resource, |roots| roots.main),
    }
}

/// Names of fields at the top that are written through this path; what else a client sends is
/// not looked at.
pub fn is_written(resource: &Resource, subresource: Option<Subresource>, field: &str) -> bool {
    match subresource {
        Some(Subresource::Status) => ["apiVersion", "kind", "metadata", "status"].contains(&field),
        _ => field != "status" || !resource.has(Subresource::Status),
    }
}

/// The paths of what nobody owns, as a field set has them.
pub fn never_owned() -> &'static Value {
    static PATHS: OnceLock<Value> = OnceLock::new();
    PATHS.get_or_init(|| {
        let leaf = |name: &&str| (format!("f:{name}"), EMPTY.clone());
        let mut metadata: Map<String, Value> = NEVER_OWNED.iter().map(leaf).collect();
        metadata.insert(".".into(), EMPTY.clone());
        let mut paths: Map<String, Value> = ["apiVersion", "kind"].iter().map(leaf).collect();
        paths.insert("f:metadata".into(), Value::Object(metadata));
        Value::Object(paths)
    })
}

impl<'a> Shape<'a> {
    pub fn form(self) -> &'a Form {
        &self.all.forms[self.at]
    }

    /// The shape at a place that a form names.
    pub fn at(self, at: usize) -> Self {
        Self { at, ..self }
    }

    /// The shape of a key of an object; none if the schema has no such field.
    pub fn key(self, name: &str) -> Option<Self> {
        match self.form() {
            Form::Struct { members, open } => {
                let member = find(members, name).map(|member| self.at(member.at));
                member.or(open.then(|| self.free()))
            }
            Form::Map(item) => Some(self.at(*item)),
            Form::Free => Some(self),
            Form::Leaf | Form::Set | Form::List { .. } => None,
        }
    }

    /// What no schema says anything about.
    pub fn free(self) -> Self {
        self.at(FREE)
    }

    pub fn is_struct(self) -> bool {
        matches!(self.form(), Form::Struct { .. })
    }

    /// The shape below an element of a path (`f:…`, `k:…`, `v:…`).
    pub fn below(self, element: &str) -> Option<Self> {
        match (element.split_once(':'), self.form()) {
            (Some(("f", name)), _) => self.key(name),
            (Some(("k", _)), Form::List { item, .. }) => Some(self.at(*item)),
            _ => None,
        }
    }
}

impl Member {
    pub fn is(&self, name: &str) -> bool {
        *self.name == *name
    }

    pub fn shape<'a>(&self, of: Shape<'a>) -> Shape<'a> {
        of.at(self.at)
    }
}

/// The fields from this name on; few are before it.
pub fn from<'a>(members: &'a [Member], name: &str) -> &'a [Member] {
    let before = members.iter().take_while(|member| *member.name < *name);
    &members[before.count()..]
}

/// A field by its name.
fn find<'a>(members: &'a [Member], name: &str) -> Option<&'a Member> {
    let at = members.binary_search_by(|member| (*member.name).cmp(name));
    at.ok().map(|at| &members[at])
}

fn root(resource: &Resource, which: fn(&Roots) -> usize) -> Shape<'_> {
    let all = resource.shapes();
    // Forms begin with the free one: what is a kind without a schema.
    let at = all.kinds.get(&*resource.definition).map_or(FREE, which);
    Shape { all, at }
}

const FREE: usize = 0;
const LEAF: usize = 1;

/// Makes shapes; a type that is met again gets the place that it has.
struct Builder<'a> {
    forms: Vec<Form>,
    places: BTreeMap<&'a str, usize>,
}

impl Shapes {
    /// Those of some kinds, by the names of their definitions.
    pub fn of<'a>(kinds: impl Iterator<Item = (&'a Resource, &'a Definition)>) -> Self {
        let mut builder = Builder {
            forms: vec![Form::Free, Form::Leaf],
            places: BTreeMap::new(),
        };
        let kinds = kinds.map(|(resource, definition)| {
            let roots = builder.roots(resource, definition);
            ((&*resource.definition).into(), roots)
        });
        let kinds = kinds.collect();
        Self {
            forms: builder.forms,
            kinds,
        }
    }
}

impl<'a> Builder<'a> {
    fn roots(&mut self, resource: &Resource, definition: &'a Definition) -> Roots {
        let whole = self.definition(definition);
        let metadata = schema::definition(OBJECT_META).map_or(FREE, |of| {
            let members = self.members(of, |name| !NEVER_OWNED.contains(&name));
            let open = false;
            self.add(Form::Struct { members, open })
        });
        let mut tracked = |sub: Option<Subresource>| {
            let mut members = self.members(definition, |name| {
                !["apiVersion", "kind"].contains(&name) && is_written(resource, sub, name)
            });
            for member in &mut members {
                if &*member.name == "metadata" {
                    member.at = metadata;
                }
            }
            let open = is_open(definition);
            self.add(Form::Struct { members, open })
        };
        Roots {
            whole,
            main: tracked(None),
            status: tracked(Some(Subresource::Status)),
        }
    }

    fn add(&mut self, form: Form) -> usize {
        self.forms.push(form);
        self.forms.len() - 1
    }

    fn definition(&mut self, definition: &'a Definition) -> usize {
        if definition.atomic {
            return LEAF;
        }
        if let Some(at) = self.places.get(&*definition.name) {
            return *at;
        }
        // The place is taken before the fields are looked at, since a type may contain itself.
        let at = self.add(Form::Leaf);
        // Objects inside the schema of a custom kind have no names, and contain no others of their kind.
        if !definition.name.is_empty() {
            self.places.insert(&definition.name, at);
        }
        self.forms[at] = Form::Struct {
            members: self.members(definition, |_| true),
            open: is_open(definition),
        };
        at
    }

    fn members(
        &mut self,
        definition: &'a Definition,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<Member> {
        let mut members: Vec<Member> = Vec::new();
        for (name, field) in definition.fields.iter().filter(|(name, _)| wanted(name)) {
            let at = self.field(&field.ty, &field.topology);
            members.push(Member {
                name: name.clone(),
                element: format!("f:{name}").into(),
                at,
                absent: match definition.rules {
                    Rules::Go => absent(name, &self.forms[at]),
                    Rules::Structural => None,
                },
            });
        }
        members
    }

    fn field(&mut self, ty: &'a Type, topology: &Topology) -> usize {
        match (topology, ty.not_null()) {
            (Topology::Atomic, _) => LEAF,
            (Topology::Set, _) => self.add(Form::Set),
            (Topology::Map(keys), Type::List(item)) => {
                let definition = item.definition();
                let keys = keys.iter().map(|name| Key {
                    name: name.clone(),
                    default: key_default(definition, name),
                });
                let keys = keys.collect();
                let item = self.plain(item);
                self.add(Form::List { keys, item })
            }
            _ => self.plain(ty),
        }
    }

    /// A value that no field says anything about.
    fn plain(&mut self, ty: &'a Type) -> usize {
        match ty.not_null() {
            Type::Any => FREE,
            Type::Map(item) => {
                let item = self.plain(item);
                self.add(Form::Map(item))
            }
            Type::Ref(name) => schema::definition(name).map_or(FREE, |of| self.definition(of)),
            Type::Inline(definition) => self.definition(definition),
            _ => LEAF,
        }
    }
}

fn absent(name: &str, form: &Form) -> Option<&'static Value> {
    match form {
        Form::Struct { .. } if BY_VALUE.contains(&name) => Some(&EMPTY),
        Form::List { .. } if NULL_LISTS.contains(&name) => Some(&NULL),
        _ => None,
    }
}

/// Whether fields that the schema of a custom kind does not name stay.
fn is_open(definition: &Definition) -> bool {
    definition.rules == Rules::Structural && definition.keeps_unknown
}

/// The keys that have a default: of built-in kinds, the protocol of a port.
fn key_default(of: Option<&Definition>, key: &str) -> Option<Value> {
    if let Some(default) = of?.fields.get(key).and_then(|field| field.default.clone()) {
        return Some(default);
    }
    let port = ["ContainerPort", "ServicePort"].contains(&of?.short_name());
    (port && key == "protocol").then(|| "TCP".into())
}
