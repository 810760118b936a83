//! Grants by subject. A decision looks at the grants of the caller and of its groups only, and of these
//! only at roles that may be about what is wanted: a number for each grant says that, and the numbers of a
//! subject lie side by side, so that ten thousand of them are passed over in some microseconds.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use api::kinds::rbac::GROUP;
use api::rbac::{Attributes, Rule, RuleSet, mask_of};

/// Somebody who wants something.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub name: &'a str,
    pub groups: &'a [String],
    /// One more group: that of all who have shown, or have not shown, who they are.
    pub everybody: Option<&'a str>,
}

/// Roles, and who has them. Objects are named without what all keys begin with: `roles/NAMESPACE/NAME`,
/// `clusterroles/NAME`, `rolebindings/NAMESPACE/NAME`, `clusterrolebindings/NAME`.
#[derive(Default)]
pub struct Index {
    roles: Vec<Slot>,
    /// Places in it that nothing uses any more.
    free: Vec<usize>,
    places: HashMap<Box<str>, usize>,
    bindings: HashMap<Box<str>, (Arc<Binding>, usize)>,
    users: Grants,
    groups: Grants,
}

/// A role that is there, or that a binding names.
#[derive(Default)]
struct Slot {
    rules: Option<RuleSet>,
    bindings: Vec<Arc<Binding>>,
}

/// By name of the user or group, then by namespace, which is empty for all of them.
type Grants = HashMap<Box<str>, HashMap<Box<str>, Scope>>;

/// What one subject has in one namespace.
#[derive(Default)]
struct Scope {
    grants: Vec<Grant>,
    /// Of what the role of each grant may be about. Made by the first decision after a change.
    masks: OnceLock<Box<[u64]>>,
}

/// That somebody has a role.
struct Grant {
    binding: Arc<Binding>,
    /// The place of the subject in the binding.
    subject: usize,
    role: usize,
}

/// What a binding says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    metadata: Metadata,
    #[serde(default)]
    subjects: Option<Vec<BoundSubject>>,
    role_ref: RoleRef,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct BoundSubject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct Role {
    #[serde(default)]
    rules: Option<Vec<Rule>>,
}

/// By which binding somebody may do something.
#[derive(Debug)]
pub struct Granted {
    binding: Arc<Binding>,
    subject: usize,
}

impl Index {
    /// Takes in an object of the group, or forgets one.
    pub fn note(&mut self, name: &str, stored: Option<&[u8]>) -> Result<(), serde_json::Error> {
        let kind = name.split('/').next().unwrap_or_default();
        match kind {
            "roles" | "clusterroles" => {
                let role = stored.map(serde_json::from_slice::<Role>).transpose();
                // What does not read allows nothing.
                let rules = role.as_ref().ok().and_then(|role| role.as_ref());
                let rules = rules.map(|role| RuleSet::new(role.rules.clone().unwrap_or_default()));
                self.set_role(name, rules);
                role.map(|_| ())
            }
            "rolebindings" | "clusterrolebindings" => {
                self.unbind(name);
                if let Some(stored) = stored {
                    self.bind(name, serde_json::from_slice(stored)?);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn set_role(&mut self, name: &str, rules: Option<RuleSet>) {
        let place = self.place(name);
        self.roles[place].rules = rules;
        for binding in self.roles[place].bindings.clone() {
            for (kind, subject) in binding.subjects() {
                let scopes = subject.and_then(|subject| self.grants_of(kind).get_mut(&*subject));
                if let Some(scope) = scopes.and_then(|it| it.get_mut(&*binding.metadata.namespace))
                {
                    scope.masks.take();
                }
            }
        }
        self.free_if_unused(name, place);
    }

    /// Where subjects of a kind are.
    fn grants_of(&mut self, kind: &str) -> &mut Grants {
        match kind {
            "Group" => &mut self.groups,
            _ => &mut self.users,
        }
    }

    fn bind(&mut self, name: &str, binding: Binding) {
        let binding = Arc::new(binding);
        let place = self.place(&binding.role());
        self.roles[place].bindings.push(binding.clone());
        for (number, (kind, subject)) in binding.subjects().enumerate() {
            let Some(subject) = subject else {
                continue;
            };
            let scopes = self.grants_of(kind).entry(subject.into()).or_default();
            let namespace = binding.metadata.namespace.as_str();
            let scope = scopes.entry(namespace.into()).or_default();
            scope.masks.take();
            scope.grants.push(Grant {
                binding: binding.clone(),
                subject: number,
                role: place,
            });
        }
        self.bindings.insert(name.into(), (binding, place));
    }

    fn unbind(&mut self, name: &str) {
        let Some((binding, place)) = self.bindings.remove(name) else {
            return;
        };
        let namespace = binding.metadata.namespace.as_str();
        for (kind, subject) in binding.subjects() {
            let grants = self.grants_of(kind);
            let Some(subject) = subject else {
                continue;
            };
            let Some(scopes) = grants.get_mut(&*subject) else {
                continue;
            };
            if let Some(scope) = scopes.get_mut(namespace) {
                scope.masks.take();
                let is_other = |grant: &Grant| !Arc::ptr_eq(&grant.binding, &binding);
                scope.grants.retain(is_other);
                if scope.grants.is_empty() {
                    scopes.remove(namespace);
                }
            }
            if scopes.is_empty() {
                grants.remove(&*subject);
            }
        }
        let bindings = &mut self.roles[place].bindings;
        bindings.retain(|other| !Arc::ptr_eq(other, &binding));
        self.free_if_unused(&binding.role(), place);
    }

    /// The place of a role, which is made if there is none.
    fn place(&mut self, role: &str) -> usize {
        if let Some(place) = self.places.get(role) {
            return *place;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.roles.push(Slot::default());
            self.roles.len() - 1
        });
        self.places.insert(role.into(), place);
        place
    }

    fn free_if_unused(&mut self, role: &str, place: usize) {
        let slot = &self.roles[place];
        if slot.rules.is_none() && slot.bindings.is_empty() {
            self.places.remove(role);
            self.free.push(place);
        }
    }

    /// The first grant by which this is allowed.
    pub fn allows(&self, subject: Subject<'_>, wanted: &Attributes<'_>) -> Option<Granted> {
        let mask = mask_of(wanted);
        // A role of a namespace allows no paths.
        let mut scopes = self.scopes(subject, wanted.namespace);
        let found = scopes.find_map(|scope| {
            let masks = scope.masks.get_or_init(|| self.masks(scope));
            let grants = masks.iter().zip(&scope.grants);
            let mut concerned = grants.filter(|(of_role, _)| *of_role & mask != 0);
            let allows = |grant: &Grant| {
                let rules = self.roles[grant.role].rules.as_ref();
                rules.is_some_and(|rules| rules.allows(wanted))
            };
            let (_, grant) = concerned.find(|(_, grant)| allows(grant))?;
            Some(grant)
        })?;
        Some(Granted {
            binding: found.binding.clone(),
            subject: found.subject,
        })
    }

    /// Every rule that the subject has there.
    pub fn rules(&self, subject: Subject<'_>, namespace: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut seen: Vec<*const Binding> = Vec::new();
        for grant in self.grants(subject, namespace) {
            // A binding that names the caller and its group gives its role once.
            let binding = Arc::as_ptr(&grant.binding);
            let of_role = self.roles[grant.role].rules.as_ref();
            if let Some(of_role) = of_role.filter(|_| !seen.contains(&binding)) {
                seen.push(binding);
                rules.extend_from_slice(of_role.rules());
            }
        }
        rules
    }

    /// What is wrong with the subject's grants there: roles that are not there.
    pub fn missing(&self, subject: Subject<'_>, namespace: &str) -> Vec<String> {
        let grants = self.scopes(subject, namespace).flat_map(|scope| {
            let masks = scope.masks.get_or_init(|| self.masks(scope)).iter();
            // A role that is not there is about nothing, as is one without rules.
            let empty = masks.zip(&scope.grants).filter(|(mask, _)| **mask == 0);
            empty.map(|(_, grant)| grant)
        });
        let dangling = grants.filter(|grant| self.roles[grant.role].rules.is_none());
        let mut missing: Vec<String> = dangling
            .map(|grant| {
                let role = &grant.binding.role_ref;
                let kind = role.kind.to_lowercase();
                format!("{kind}.{GROUP} {:?} not found", role.name)
            })
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Of what the role of each grant may be about; nothing where there is no such role.
    fn masks(&self, scope: &Scope) -> Box<[u64]> {
        let rules = |grant: &Grant| self.roles[grant.role].rules.as_ref();
        let grants = scope.grants.iter();
        grants
            .map(|grant| rules(grant).map_or(0, RuleSet::mask))
            .collect()
    }

    /// The grants of a subject: those of the cluster first.
    fn grants<'a>(
        &'a self,
        subject: Subject<'a>,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Grant> {
        self.scopes(subject, namespace)
            .flat_map(|scope| &scope.grants)
    }

    /// Where they are.
    fn scopes<'a>(
        &'a self,
        subject: Subject<'a>,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Scope> {
        let scopes = [Some(""), Some(namespace).filter(|name| !name.is_empty())];
        let groups = subject.groups.iter().map(String::as_str);
        let of = move |scope: &'a str| {
            let groups = groups.clone().chain(subject.everybody);
            let of_groups = groups.filter_map(|name| self.groups.get(name));
            let subjects = self.users.get(subject.name).into_iter().chain(of_groups);
            subjects.filter_map(move |scopes| scopes.get(scope))
        };
        scopes.into_iter().flatten().flat_map(of)
    }
}

impl Binding {
    /// The name of its role here.
    fn role(&self) -> String {
        let RoleRef { kind, name } = &self.role_ref;
        match kind.as_str() {
            "Role" => format!("roles/{}/{name}", self.metadata.namespace),
            _ => format!("clusterroles/{name}"),
        }
    }

    /// What kind each subject is of, and its name as a caller's; None where no caller is meant.
    fn subjects(&self) -> impl Iterator<Item = (&str, Option<String>)> {
        let subjects = self.subjects.iter().flatten();
        subjects.map(|subject| {
            let name = match subject.kind.as_str() {
                "User" | "Group" => Some(subject.name.clone()),
                "ServiceAccount" => {
                    let namespace = self.namespace_of(subject);
                    let of =
                        |namespace| format!("system:serviceaccount:{namespace}:{}", subject.name);
                    Some(namespace).filter(|name| !name.is_empty()).map(of)
                }
                _ => None,
            };
            (subject.kind.as_str(), name)
        })
    }

    /// A service account without a namespace is of the binding's own.
    fn namespace_of<'a>(&'a self, subject: &'a BoundSubject) -> &'a str {
        let said = subject.namespace.as_deref().unwrap_or_default();
        if said.is_empty() {
            &self.metadata.namespace
        } else {
            said
        }
    }
}

impl Granted {
    /// Why it is allowed, in the words of Kubernetes.
    pub fn reason(&self) -> String {
        let Binding {
            metadata, role_ref, ..
        } = &*self.binding;
        let (kind, name) = match metadata.namespace.as_str() {
            "" => ("ClusterRoleBinding", metadata.name.clone()),
            namespace => ("RoleBinding", format!("{}/{namespace}", metadata.name)),
        };
        let mut subjects = self.binding.subjects.iter().flatten();
        let to = subjects
            .nth(self.subject)
            .map_or_else(String::new, |subject| {
                let name = match subject.kind.as_str() {
                    "ServiceAccount" => {
                        format!("{}/{}", subject.name, self.binding.namespace_of(subject))
                    }
                    _ => subject.name.clone(),
                };
                format!("{} {name:?}", subject.kind)
            });
        let RoleRef {
            kind: of_kind,
            name: role,
        } = role_ref;
        format!("RBAC: allowed by {kind} {name:?} of {of_kind} {role:?} to {to}")
    }
}

#[cfg(test)]
mod tests;
