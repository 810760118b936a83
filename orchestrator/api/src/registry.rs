//! Which resources there are, by the words of a path or of an object.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use crate::{kinds, resource::Resource, served::Served};

/// Every built-in resource, in the order of discovery.
pub fn resources() -> &'static [Arc<Resource>] {
    static RESOURCES: LazyLock<Vec<Arc<Resource>>> =
        LazyLock::new(|| kinds::all().into_iter().map(Arc::new).collect());
    &RESOURCES
}

/// Old versions of built-in kinds, which are served and not stored.
pub fn views() -> &'static [Arc<Served>] {
    static VIEWS: LazyLock<Vec<Arc<Served>>> =
        LazyLock::new(|| kinds::views().into_iter().map(Arc::new).collect());
    &VIEWS
}

/// By the words of a path.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    // Every request asks for some.
    static BY_PLURAL: LazyLock<BTreeMap<&str, Vec<&Arc<Resource>>>> = LazyLock::new(|| {
        let mut all: BTreeMap<&str, Vec<&Arc<Resource>>> = BTreeMap::new();
        for resource in resources() {
            all.entry(&resource.plural).or_default().push(resource);
        }
        all
    });
    let mut named = BY_PLURAL.get(plural)?.iter();
    let found = named.find(|r| r.group == group && r.version == version);
    found.copied()
}

/// By the words of an object.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Arc<Resource>> {
    resources()
        .iter()
        .find(|r| r.group == group && r.version == version && r.kind == kind)
}

/// The resources, their old versions and the bodies of subresources: all that has a schema.
pub(crate) fn with_schema() -> impl Iterator<Item = &'static Resource> {
    let views = views().iter().map(|view| &*view.resource);
    resources()
        .iter()
        .map(|r| &**r)
        .chain(views)
        .chain(bodies())
}

/// The bodies of subresources.
pub(crate) fn bodies() -> [&'static Resource; 3] {
    [&kinds::SCALE, &kinds::EVICTION, &kinds::TOKEN_REQUEST]
}
