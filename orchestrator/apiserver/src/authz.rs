//! Who may do what: a short table, no policy objects.
//!
//! Administrators and the control plane do everything. A node reads and writes what the rows of
//! `NODE_RULES` say, and what it writes is looked at again by `node_writes`. A caller with a name may
//! ask what it may do. All others only ask whether the server is well and which version it is.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::State;
use super::authn::{self, MASTERS, User};
use super::cache::{self, Cached, Referent};
use super::request::{Query, Route, Target, Verb};
use api::selector::FieldSelector;
use api::{self, ApiError, Behaviour, Resource, Subresource};
use store::Revision;

/// Where nodes' leases live.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// What a request wants, as the table sees it.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    pub verb: Verb,
    pub target: &'a Target,
    /// What a list or watch is narrowed to; a review has none.
    pub query: Option<&'a Query>,
}

impl<'a> Wish<'a> {
    pub fn of(verb: Verb, target: &'a Target, query: &'a Query) -> Self {
        Self {
            verb,
            target,
            query: Some(query),
        }
    }
}

/// One thing that a node may do; what has no row is refused.
struct Rule {
    group: &'static str,
    plural: &'static str,
    subresource: Option<Subresource>,
    verbs: &'static [Verb],
    whose: Whose,
}

/// Which objects of a resource a rule is about.
#[derive(Clone, Copy)]
enum Whose {
    /// All of them.
    All,
    /// All of them, of which other nodes' are trimmed: no selector may ask for what is cut.
    Peers,
    /// The one with the node's name.
    Own,
    /// A new one: `node_writes` looks at its name.
    New,
    /// A pod that is bound to the node.
    Bound,
    /// The pods that are bound to the node, by the selector that says so.
    AllBound,
    /// The one that a bound pod refers to.
    Referred,
    /// The node's own lease.
    OwnLease,
    /// A new one in that namespace.
    NewLease,
}

const READ: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];
const CHANGE: &[Verb] = &[Verb::Update, Verb::Patch];

/// Everything that an agent asks for.
static NODE_RULES: [Rule; 17] = [
    rule("", "nodes", READ, Whose::Peers),
    rule("", "nodes", CHANGE, Whose::Own),
    status("nodes", Whose::Own),
    rule("", "pods", &[Verb::Get, Verb::Delete], Whose::Bound),
    rule("", "pods", &[Verb::List, Verb::Watch], Whose::AllBound),
    status("pods", Whose::Bound),
    rule("", "configmaps", READ, Whose::Referred),
    rule("", "secrets", READ, Whose::Referred),
    rule("", "serviceaccounts", READ, Whose::Referred),
    Rule {
        subresource: Some(Subresource::Token),
        ..rule("", "serviceaccounts", &[Verb::Create], Whose::Referred)
    },
    rule("", "services", READ, Whose::All),
    rule("discovery.k8s.io", "endpointslices", READ, Whose::All),
    rule("", "events", &[Verb::Create], Whose::New),
    rule("", "events", &[Verb::Patch], Whose::All),
    rule(LEASE_GROUP, "leases", &[Verb::Get], Whose::OwnLease),
    rule(LEASE_GROUP, "leases", &[Verb::Create], Whose::NewLease),
    rule(LEASE_GROUP, "leases", CHANGE, Whose::OwnLease),
];

const LEASE_GROUP: &str = "coordination.k8s.io";

const fn rule(
    group: &'static str,
    plural: &'static str,
    verbs: &'static [Verb],
    whose: Whose,
) -> Rule {
    Rule {
        group,
        plural,
        subresource: None,
        verbs,
        whose,
    }
}

const fn status(plural: &'static str, whose: Whose) -> Rule {
    Rule {
        subresource: Some(Subresource::Status),
        ..rule("", plural, &[Verb::Get, Verb::Update, Verb::Patch], whose)
    }
}

/// Lets a request for objects pass, or says why not.
pub fn objects(state: &State, user: &User, wish: Wish<'_>) -> Result<(), ApiError> {
    if user.is_in(MASTERS) {
        return Ok(());
    }
    holds_name(state, user)?;
    if is_own_question(wish) && !user.is_anonymous() {
        return Ok(());
    }
    if let Some(node) = user.node() {
        if let Some(pod) = absent_pod(state, wish.target) {
            return Err(ApiError::not_found(wish.target.resource(), pod));
        }
        return node_may(state, node, wish).map_err(|why| refusal(user, wish, &why));
    }
    Err(refusal(user, wish, ""))
}

/// Lets a request for something else (discovery, schemas) pass, or says why not.
pub fn path(state: &State, user: &User, path: &str) -> Result<(), ApiError> {
    // Objects are judged with their verb, by `objects`.
    let is_object = || {
        let route = Route::parse(&state.registry.snapshot(), path);
        matches!(route, Ok(Route::Objects(_)))
    };
    if is_public(path) || !user.is_anonymous() || is_object() {
        return Ok(());
    }
    Err(ApiError::Forbidden {
        target: Default::default(),
        message: format!(
            "forbidden: User \"{}\" cannot get path \"{path}\"",
            user.name
        ),
    })
}

/// Paths that everybody may ask for; the join endpoint checks its own token.
fn is_public(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/version" | super::join::PATH)
}

/// What a caller asks about itself.
fn is_own_question(wish: Wish<'_>) -> bool {
    let behaviour = wish.target.resource().behaviour;
    matches!(behaviour, Behaviour::Review(question) if question.is_own())
}

/// What a caller may do in any namespace, as rows for a review of rules; and whether that is all.
pub fn rules(user: &User) -> (Vec<RuleShown>, bool) {
    let shown = |group: &str, resource: String, verbs: &[Verb]| RuleShown {
        group: group.to_owned(),
        resource,
        verbs: verbs.iter().map(|verb| verb.as_str().to_owned()).collect(),
    };
    if user.is_in(MASTERS) {
        let everything = RuleShown {
            group: "*".to_owned(),
            resource: "*".to_owned(),
            verbs: vec!["*".to_owned()],
        };
        return (vec![everything], true);
    }
    let own = api::resources().iter().filter(|kind| {
        let behaviour = kind.behaviour;
        matches!(behaviour, Behaviour::Review(question) if question.is_own())
    });
    let mut rules: Vec<RuleShown> = own
        .map(|kind| shown(&kind.group, kind.plural.to_string(), &[Verb::Create]))
        .collect();
    if user.is_anonymous() {
        rules.clear();
    }
    if user.node().is_none() {
        return (rules, true);
    }
    // Rows for single objects are left out: a review has no place for them.
    let all = |rule: &&Rule| matches!(rule.whose, Whose::All | Whose::Peers | Whose::New);
    rules.extend(NODE_RULES.iter().filter(all).map(|rule| {
        let resource = match rule.subresource {
            Some(sub) => format!("{}/{}", rule.plural, sub.name()),
            None => rule.plural.to_owned(),
        };
        shown(rule.group, resource, rule.verbs)
    }));
    (rules, false)
}

/// A row of a review of rules.
pub struct RuleShown {
    pub group: String,
    pub resource: String,
    pub verbs: Vec<String>,
}

/// The reason of a refusal is empty where no rule is about such a request.
fn node_may(state: &State, node: &str, wish: Wish<'_>) -> Result<(), String> {
    let Wish { verb, target, .. } = wish;
    let is_about = |rule: &&Rule| {
        rule.group == target.resource().group
            && rule.plural == target.resource().plural
            && rule.subresource == target.subresource
            && rule.verbs.contains(&verb)
    };
    let rule = NODE_RULES.iter().find(is_about).ok_or_else(String::new)?;
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let name = target.name.as_deref();
    let unrelated = || format!("no relationship found between node '{node}' and this object");
    let (allowed, why) = match rule.whose {
        Whose::All | Whose::New => (true, String::new()),
        Whose::Peers => (
            !selects_by_content(wish),
            "nodes can only select nodes by name".to_owned(),
        ),
        Whose::Own => (
            name == Some(node),
            format!("node '{node}' cannot access other nodes, only its own Node object"),
        ),
        Whose::Bound => (own_pod(state, node, target), unrelated()),
        Whose::AllBound => (
            name.is_none() && required(wish, "spec.nodeName").as_deref() == Some(node),
            "can only list/watch pods with spec.nodeName field selector".to_owned(),
        ),
        Whose::Referred => {
            let only = match name {
                Some(name) => Some(name.to_owned()),
                None => required(wish, "metadata.name"),
            };
            let kind = Referent::of(&target.resource().plural);
            let found = kind.zip(only).filter(|_| !namespace.is_empty());
            let cache = &state.objects.cache;
            let referred = |(kind, name): (_, String)| cache.refers(node, kind, namespace, &name);
            (found.is_some_and(referred), unrelated())
        }
        Whose::NewLease => (
            namespace == LEASE_NAMESPACE,
            format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"),
        ),
        Whose::OwnLease => (
            namespace == LEASE_NAMESPACE && name == Some(node),
            "can only access node lease with the same name as the requesting node".to_owned(),
        ),
    };
    if allowed { Ok(()) } else { Err(why) }
}

/// By labels, or by fields other than the name.
fn selects_by_content(wish: Wish<'_>) -> bool {
    let given = |name: &str| {
        let selector = wish.query.and_then(|query| query.get(name));
        selector.unwrap_or_default()
    };
    !given("labelSelector").trim().is_empty() || given("fieldSelector").contains("spec.")
}

/// The one value of a field that the request is narrowed to.
fn required(wish: Wish<'_>, field: &str) -> Option<String> {
    let fields = FieldSelector::parse(wish.query?.get("fieldSelector")?).ok()?;
    fields.required(field).map(str::to_owned)
}

/// A node's name is the key's with which it joined, until its Node is deleted: from then on its
/// certificates are worth nothing, whether or not another machine has the name.
pub fn holds_name(state: &State, user: &User) -> Result<(), ApiError> {
    let (Some(node), Some(shown)) = (user.node(), &user.certificate) else {
        return Ok(());
    };
    let nodes = api::find("", "v1", "nodes").ok_or(ApiError::NoSuchResource)?;
    let Some(found) = state.objects.cache.get(nodes, "", node) else {
        return Err(no_such_node(node));
    };
    // One that was made before keys were noted, or by hand: the certificate is enough.
    if found.node_key().is_none_or(|held| *held == *shown.key) {
        return Ok(());
    }
    Err(ApiError::Unauthorized(format!(
        "node \"{node}\" has joined with another key since this certificate was made"
    )))
}

/// What the holder of a certificate hears whose Node was deleted.
pub fn no_such_node(node: &str) -> ApiError {
    ApiError::Unauthorized(format!(
        "node \"{node}\" was deleted, and with it the right of this certificate: to join again, make a \
         token (orchestrator token create) and start the agent with --token"
    ))
}

/// The name of a pod that is meant and not there. A node hears so, whoever's it was: its agent waits
/// for that, and a pod of the name that comes a moment later is not taken for its own.
fn absent_pod<'a>(state: &State, target: &'a Target) -> Option<&'a str> {
    let is_pod = target.storage().behaviour == Behaviour::Pod;
    let (namespace, name) = (target.namespace.as_ref()?, target.name.as_deref()?);
    let found = state.objects.cache.get(target.storage(), namespace, name);
    (is_pod && found.is_none()).then_some(name)
}

fn own_pod(state: &State, node: &str, target: &Target) -> bool {
    let (Some(namespace), Some(name)) = (&target.namespace, &target.name) else {
        return false;
    };
    let found = state.objects.cache.get(target.storage(), namespace, name);
    found.is_some_and(|pod| is_bound(node, &pod))
}

fn is_bound(node: &str, pod: &Cached) -> bool {
    let bound = pod.fields().get("spec.nodeName");
    bound.is_some_and(|bound| bound == node)
}

fn refusal(user: &User, wish: Wish<'_>, why: &str) -> ApiError {
    let Wish { verb, target, .. } = wish;
    let place = match &target.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    let colon = if why.is_empty() { "" } else { ": " };
    let why = format!(
        "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}{colon}{why}",
        user.name,
        verb.as_str(),
        target.resource_name(),
        target.resource().group,
    );
    ApiError::forbidden(
        target.resource(),
        target.name.as_deref().unwrap_or_default(),
        why,
    )
}

/// How much of a resource's objects a caller sees.
#[derive(Clone)]
pub enum Sight {
    Whole,
    /// This node whole, of all others what concerns their peers.
    Peers(Arc<str>),
}

impl Sight {
    pub fn of(user: &User, resource: &Resource) -> Self {
        match user.node() {
            Some(node) if cache::is_trimmed(resource) => Self::Peers(node.into()),
            _ => Self::Whole,
        }
    }

    /// The object as the caller sees it.
    pub fn bytes(&self, object: &Cached) -> Bytes {
        match self {
            Self::Peers(own) if **own != *object.name() => object.trimmed(object.revision),
            _ => object.bytes(),
        }
    }

    /// Whether the caller sees a change of what was there before: most of what a node says of itself does
    /// not concern its peers.
    pub fn shows_change(&self, before: &Cached, now: &Cached) -> bool {
        match self {
            Self::Peers(own) if **own != *now.name() => !before.is_trimmed_to(now),
            _ => true,
        }
    }

    /// The same saying another resourceVersion.
    pub fn at_revision(&self, object: &Cached, revision: Revision) -> Bytes {
        match self {
            Self::Peers(own) if **own != *object.name() => object.trimmed(revision),
            _ => object.at_revision(revision),
        }
    }
}

/// A right to an event of a watch, which may end while the watch goes on: a node's with the name's key,
/// or with the last reference of a pod to the object; a token's with what it is bound to.
pub struct Standing {
    state: Arc<State>,
    user: User,
    referent: Option<Referent>,
    namespace: Box<str>,
}

impl Standing {
    /// None for callers whose rights do not end.
    pub fn of(state: &Arc<State>, user: &User, target: &Target) -> Option<Self> {
        if user.node().is_none() && user.token.is_none() {
            return None;
        }
        let referent = Referent::of(&target.resource().plural);
        Some(Self {
            state: state.clone(),
            user: user.clone(),
            referent: referent.filter(|_| target.resource().group.is_empty()),
            namespace: target.namespace.as_deref().unwrap_or_default().into(),
        })
    }

    /// Whether the caller may still hear of the object.
    pub fn holds(&self, name: &str) -> bool {
        let cache = &self.state.objects.cache;
        let refers = |(node, kind)| cache.refers(node, kind, &self.namespace, name);
        self.user.node().zip(self.referent).is_none_or(refers)
            && authn::still_holds(&self.state, &self.user, Timestamp::now()).is_ok()
    }
}
