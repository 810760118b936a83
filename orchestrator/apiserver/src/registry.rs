//! What this server serves now: built-in kinds, their old versions, and custom kinds.
//!
//! Readers take a snapshot and keep it for their request; the one who writes (custom kinds come and go)
//! puts a new one in its place. Everything that is made of it (discovery, OpenAPI) asks by generation
//! whether it is still true.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use api::resource::Name;
use api::version::Priority;
use api::{Resource, Served};

/// The present snapshot, and who waits for the next.
pub struct Registry {
    /// Built-in kinds and their old versions.
    built_in: Vec<(Class, Arc<Served>)>,
    now: RwLock<Arc<Snapshot>>,
    changes: watch::Sender<u64>,
}

/// What is served at one moment.
pub struct Snapshot {
    /// In the order of discovery.
    versions: Vec<GroupVersion>,
    by_plural: HashMap<Name, Vec<Arc<Served>>>,
    /// Counts the snapshots.
    pub generation: u64,
}

/// A version of a group.
pub struct GroupVersion {
    /// Empty for the core group.
    pub group: Name,
    pub version: Name,
    pub served: Vec<Arc<Served>>,
    /// The generation of the snapshot in which it became what it is.
    pub since: u64,
}

impl Registry {
    /// The built-in kinds and their old versions.
    pub fn new() -> Self {
        let kinds = api::resources().iter();
        let kinds = kinds.map(|kind| (Class::BuiltIn, Arc::new(Served::stored(kind))));
        let views = api::views().iter();
        let built_in = kinds.chain(views.map(|view| (Class::Old, view.clone())));
        let built_in: Vec<_> = built_in.collect();
        let first = Snapshot::of(None, built_in.iter().cloned());
        let changes = watch::Sender::new(first.generation);
        Self {
            built_in,
            now: RwLock::new(Arc::new(first)),
            changes,
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        let now = self.now.read();
        now.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves these custom kinds from now on, and no others.
    pub fn serve_custom(&self, custom: &[Arc<Served>]) {
        let custom = custom.iter().map(|served| (Class::Custom, served.clone()));
        let all = self.built_in.iter().cloned().chain(custom);
        let generation = {
            let now = self.now.write();
            let mut now = now.unwrap_or_else(PoisonError::into_inner);
            *now = Arc::new(Snapshot::of(Some(&now), all));
            now.generation
        };
        self.changes.send_replace(generation);
    }

    /// Hears of each new snapshot.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Snapshot {
    fn of(before: Option<&Self>, all: impl Iterator<Item = (Class, Arc<Served>)>) -> Self {
        let generation = before.map_or(0, |before| before.generation + 1);
        let mut versions: BTreeMap<Rank, GroupVersion> = BTreeMap::new();
        let mut by_plural: HashMap<Name, Vec<Arc<Served>>> = HashMap::new();
        let mut classes: HashMap<Name, Class> = HashMap::new();
        for (class, served) in all {
            let of = &served.resource;
            // The versions of a group stand together, whoever brought the group.
            let class = *classes.entry(of.group.clone()).or_insert(class);
            let rank = Rank::of(class, of);
            let version = versions.entry(rank).or_insert_with(|| GroupVersion {
                group: of.group.clone(),
                version: of.version.clone(),
                served: Vec::new(),
                since: generation,
            });
            version.served.push(served.clone());
            by_plural.entry(of.plural.clone()).or_default().push(served);
        }
        let mut versions: Vec<GroupVersion> = versions.into_values().collect();
        for version in &mut versions {
            let same = before.and_then(|before| before.version(&version.group, &version.version));
            if let Some(same) = same.filter(|same| version.is_as(same)) {
                version.since = same.since;
            }
        }
        Self {
            versions,
            by_plural,
            generation,
        }
    }

    /// By the words of a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        let mut found = self.by_plural.get(plural)?.iter();
        found.find(|served| served.resource.group == group && served.resource.version == version)
    }

    /// The resource in whatever version comes first.
    pub fn find_any(&self, group: &str, plural: &str) -> Option<&Arc<Served>> {
        let all = self.of_group(group).flat_map(|version| &version.served);
        all.into_iter()
            .find(|served| served.resource.plural == plural)
    }

    /// Every version of every group, in the order of discovery: a group's preferred version first.
    pub fn versions(&self) -> &[GroupVersion] {
        &self.versions
    }

    /// The versions of a group.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = &GroupVersion> {
        self.versions
            .iter()
            .filter(move |version| version.group == group)
    }

    /// The names of the groups but for the core group, in the order of discovery.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = self
            .versions
            .iter()
            .map(|version| &*version.group)
            .collect();
        groups.retain(|group| !group.is_empty());
        groups.dedup();
        groups
    }

    pub fn version(&self, group: &str, version: &str) -> Option<&GroupVersion> {
        let mut versions = self.of_group(group);
        versions.find(|found| found.version == version)
    }

    /// Whether this very version of a kind is still served.
    pub fn serves(&self, served: &Arc<Served>) -> bool {
        let Resource {
            group,
            version,
            plural,
            ..
        } = &*served.resource;
        let found = self.find(group, version, plural);
        found.is_some_and(|found| {
            let custom = found
                .resource
                .custom
                .as_ref()
                .zip(served.resource.custom.as_ref());
            // One that goes is served with other verbs, and the same otherwise.
            Arc::ptr_eq(found, served) || custom.is_some_and(|(now, then)| now.is_of(then))
        })
    }
}

impl GroupVersion {
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.served.iter().map(|served| &*served.resource)
    }

    fn is_as(&self, other: &Self) -> bool {
        self.served.len() == other.served.len()
            && self
                .served
                .iter()
                .zip(&other.served)
                .all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// Where a kind comes from. Groups that hold nothing but old versions come last: a short name must not
/// find them first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    BuiltIn,
    Custom,
    Old,
}

/// The place of a version in discovery. The core group, which has no name, comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    class: Class,
    group: Name,
    version: Reverse<Priority>,
}

impl Rank {
    fn of(class: Class, resource: &Resource) -> Self {
        Self {
            class,
            group: resource.group.clone(),
            version: Reverse(Priority::of(resource.version.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_a_group_is_preferred() {
        let snapshot = Registry::new().snapshot();
        let versions: Vec<&str> = snapshot
            .of_group("autoscaling")
            .map(|version| &*version.version)
            .collect();
        assert_eq!(versions, ["v2", "v1", "v2beta2"]);
        assert_eq!(snapshot.versions()[0].group, "");
        let found = snapshot.find_any("autoscaling", "horizontalpodautoscalers");
        assert_eq!(found.expect("served").resource.version, "v2");
    }

    #[test]
    fn a_custom_kind_changes_its_own_group_alone() {
        let registry = Registry::new();
        let before = registry.snapshot();
        // Any resource of a group of its own will do.
        let deployments = api::find("apps", "v1", "deployments").expect("served");
        let custom = Arc::new(Served {
            conversion: api::Conversion::Renamed,
            ..Served::stored(deployments)
        });
        registry.serve_custom(std::slice::from_ref(&custom));
        let after = registry.snapshot();
        let since = |snapshot: &Snapshot, group: &str| {
            let mut versions = snapshot.versions.iter();
            versions.find(|v| v.group == *group).expect("a group").since
        };
        assert_eq!(since(&after, "batch"), since(&before, "batch"));
        assert!(after.generation > before.generation);
        assert!(after.serves(before.find("", "v1", "pods").expect("served")));
        assert!(!before.serves(&custom));
    }
}
