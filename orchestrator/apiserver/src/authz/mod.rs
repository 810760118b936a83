//! Who may do what: who of these is asked first and allows it, has decided.
//!
//! ```text
//! system:masters ──▶ nodes (NODE_RULES, by what is bound to them) ──▶ roles (rbac) ──▶ 403
//!  everything          agents only                                    users, groups, ServiceAccounts
//! ```
//!
//! Everything is answered from memory. A decision costs what the roles of the caller cost, however many
//! others there are.

mod asked;
mod nodes;
mod sight;

use super::State;
use super::authn::{MASTERS, User};
use super::rbac::{Granted, Subject};
use super::request::{Query, Target, Verb};
use api::rbac::Rule;
use api::selector::FieldSelector;
use api::{ApiError, Subresource};

pub use api::rbac::Attributes;
pub use asked::{is_for_resource, unserved};
pub use nodes::{holds_name, no_such_node};
pub use sight::{Sight, Standing};

/// Whether something is allowed, and why or why not.
#[derive(Debug)]
pub enum Decision {
    /// By which grant, where it was one.
    Allowed(Option<Granted>),
    /// What there is to say of it; often nothing.
    Refused(String),
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }

    /// In the words of Kubernetes; empty where there is nothing to say.
    pub fn reason(&self) -> String {
        match self {
            Self::Allowed(granted) => granted.as_ref().map_or_else(String::new, Granted::reason),
            Self::Refused(why) => why.clone(),
        }
    }
}

/// What a request wants to do to objects that are served here.
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

    /// What else its caller must be allowed to do. A stream to a container begins with the GET of a WebSocket or the
    /// POST of SPDY: whoever may only read must not run commands by the former (Kubernetes 1.35, KEP-4006).
    pub fn also(self) -> Option<Self> {
        let is_stream = matches!(
            self.target.subresource,
            Some(Subresource::Exec | Subresource::Attach | Subresource::PortForward)
        );
        let verb = Verb::Create;
        (is_stream && self.verb != verb).then_some(Self { verb, ..self })
    }

    /// As roles see it. `named` is the one object that a list or watch is narrowed to.
    fn attributes(self, named: Option<&'a str>) -> Attributes<'a> {
        let target = self.target;
        let resource = target.resource();
        let name = target.name.as_deref().or(named).unwrap_or_default();
        // A namespace lies in itself, for roles.
        let own =
            Some(name).filter(|_| resource.group.is_empty() && resource.plural == "namespaces");
        let own = own.filter(|_| target.name.is_some());
        Attributes {
            verb: self.verb.as_str(),
            group: &resource.group,
            resource: &resource.plural,
            subresource: target.subresource.map_or("", |sub| sub.name()),
            namespace: target.namespace.as_deref().or(own).unwrap_or_default(),
            name,
            path: None,
        }
    }

    /// The one object that a list or watch is narrowed to, by its name.
    fn only(self) -> Option<String> {
        if self.target.name.is_some() || !matches!(self.verb, Verb::List | Verb::Watch) {
            return None;
        }
        let is_name =
            |name: &String| !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '%']);
        self.required("metadata.name").filter(is_name)
    }

    /// The one value of a field that the request is narrowed to.
    fn required(self, field: &str) -> Option<String> {
        let fields = FieldSelector::parse(self.query?.get("fieldSelector")?).ok()?;
        fields.required(field).map(str::to_owned)
    }
}

/// Whether a caller may do something: any verb on any resource, or on a path.
pub fn allows(state: &State, user: &User, wanted: &Attributes<'_>) -> Decision {
    decide(state, user, Some(user.everybody()), wanted)
}

/// The same of somebody who is not the caller, and has the groups that are said and no others.
pub fn allows_exactly(state: &State, user: &User, wanted: &Attributes<'_>) -> Decision {
    decide(state, user, None, wanted)
}

fn decide(
    state: &State,
    user: &User,
    everybody: Option<&str>,
    wanted: &Attributes<'_>,
) -> Decision {
    if user.is_in(MASTERS) {
        return Decision::Allowed(None);
    }
    let mut of_node = String::new();
    if let Some(node) = user.node() {
        let held = holds_name(state, user).map_err(|error| error.to_string());
        match held.and_then(|()| nodes::allows(state, node, wanted)) {
            Ok(()) => return Decision::Allowed(None),
            Err(why) => of_node = why,
        }
    }
    by_roles(state, user, everybody, wanted, of_node)
}

/// What roles say; `before` is why those who were asked first have not allowed it.
fn by_roles(
    state: &State,
    user: &User,
    everybody: Option<&str>,
    wanted: &Attributes<'_>,
    before: String,
) -> Decision {
    let rbac = state.objects.cache.rbac();
    match rbac.allows(subject(user, everybody), wanted) {
        Ok(granted) => Decision::Allowed(Some(granted)),
        Err(missing) => {
            let of_roles = match missing.as_slice() {
                [] => String::new(),
                [one] => format!("RBAC: {one}"),
                more => format!("RBAC: [{}]", more.join(", ")),
            };
            let all = [before, of_roles].into_iter().filter(|why| !why.is_empty());
            Decision::Refused(all.collect::<Vec<_>>().join("\n"))
        }
    }
}

/// What a caller may do in a namespace by its roles, and which of them are missing.
pub fn rules(state: &State, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
    let rbac = state.objects.cache.rbac();
    rbac.rules(subject(user, Some(user.everybody())), namespace)
}

fn subject<'a>(user: &'a User, everybody: Option<&'a str>) -> Subject<'a> {
    Subject {
        name: &user.name,
        groups: &user.groups,
        everybody,
    }
}

/// What lets a request pass: by which grant, where it was one.
pub type Allowed = Result<Option<Granted>, ApiError>;

/// Lets a request for objects pass, or says why not.
pub fn objects(state: &State, user: &User, wish: Wish<'_>) -> Allowed {
    if user.is_in(MASTERS) {
        return Ok(None);
    }
    holds_name(state, user)?;
    let mut of_node = String::new();
    if let Some(node) = user.node() {
        if let Some(pod) = nodes::absent_pod(state, wish.target) {
            return Err(ApiError::not_found(wish.target.resource(), pod));
        }
        match nodes::may(state, node, wish) {
            Ok(()) => return Ok(None),
            Err(why) => of_node = why,
        }
    }
    let named = wish.only();
    let wanted = wish.attributes(named.as_deref());
    match by_roles(state, user, Some(user.everybody()), &wanted, of_node) {
        Decision::Allowed(granted) => Ok(granted),
        Decision::Refused(why) => Err(refusal(user, &wanted, &why)),
    }
}

/// Lets a request for something else (discovery, schemas, health) pass, or says why not. Requests for
/// objects pass here: they are judged when it is known what they are.
pub fn path(state: &State, user: &User, method: &str, path: &str) -> Allowed {
    if user.is_in(MASTERS) || super::dispatch::joins(path) || is_for_resource(path) {
        return Ok(None);
    }
    if user.node().is_some() && nodes::is_own_path(path) {
        return holds_name(state, user).map(|()| None);
    }
    let verb = match method {
        // The head of what may be got may be got.
        "GET" | "HEAD" => "get".to_owned(),
        other => other.to_ascii_lowercase(),
    };
    let wanted = Attributes {
        verb: &verb,
        path: Some(path),
        ..Attributes::default()
    };
    match allows(state, user, &wanted) {
        Decision::Allowed(granted) => Ok(granted),
        Decision::Refused(why) => Err(refusal(user, &wanted, &why)),
    }
}

/// What a caller hears who may not do something.
pub fn refusal(user: &User, wanted: &Attributes<'_>, why: &str) -> ApiError {
    let colon = if why.is_empty() { "" } else { ": " };
    let (name, verb) = (&*user.name, wanted.verb);
    if let Some(path) = wanted.path {
        return ApiError::Forbidden {
            target: Default::default(),
            message: format!("forbidden: User {name:?} cannot {verb} path {path:?}{colon}{why}"),
        };
    }
    let slash = if wanted.subresource.is_empty() {
        ""
    } else {
        "/"
    };
    let place = match wanted.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let target = api::status::Target {
        group: wanted.group.to_owned(),
        kind: wanted.resource.to_owned(),
        name: wanted.name.to_owned(),
        uid: String::new(),
    };
    let text = format!(
        "User {name:?} cannot {verb} resource \"{}{slash}{}\" in API group {:?} {place}{colon}{why}",
        wanted.resource, wanted.subresource, wanted.group,
    );
    ApiError::forbidden_target(target, text)
}
