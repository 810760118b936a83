//! Which pods a namespace has that its new policy would not let in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::is_exempt_class;
use crate::admission::Attributes;
use crate::cache::Cached;
use crate::reply;
use api::pod_security::{Pod, Standard, reasons, violations};

/// Pods that are looked at for one answer, as in Kubernetes.
const MAX_PODS: usize = 3_000;
/// How long they are looked at; not longer than half of what is left of the request's time.
const TIME: Duration = Duration::from_secs(1);

/// What the client should hear of the pods that are there. Of the pods of one controller the first one
/// is looked at before the others: they are mostly alike.
pub fn warnings(attributes: &Attributes<'_>, standard: Standard) -> Vec<String> {
    let Some(kind) = api::find("", "v1", "pods") else {
        return Vec::new();
    };
    let namespace = attributes.name;
    let (_, pods) = attributes.state.objects.cache.list(kind, Some(namespace));
    let now = Instant::now();
    let left = attributes.asked.deadline.saturating_duration_since(now) / 2;
    let mut search = Search {
        attributes,
        standard,
        until: now + left.min(TIME),
        checked: 0,
        exempt: 0,
        found: BTreeMap::new(),
    };
    let mut controllers = BTreeSet::new();
    let mut others = Vec::new();
    for pod in &pods {
        let Some(object) = search.next(pod) else {
            break;
        };
        match controller(&object) {
            Some(uid) if !controllers.insert(uid.clone()) => others.push(pod),
            _ => search.check(pod.name(), &object),
        }
    }
    for pod in others {
        let Some(object) = search.next(pod) else {
            break;
        };
        search.check(pod.name(), &object);
    }
    search.told(namespace, pods.len())
}

struct Search<'a> {
    attributes: &'a Attributes<'a>,
    standard: Standard,
    until: Instant,
    checked: usize,
    exempt: usize,
    /// By what is wrong: the first of the pods, and how many there are.
    found: BTreeMap<String, (String, usize)>,
}

impl Search<'_> {
    /// None: enough has been looked at.
    fn next(&self, pod: &Arc<Cached>) -> Option<Value> {
        let is_over = self.checked >= MAX_PODS || Instant::now() >= self.until;
        // Stored bytes are JSON; a damaged pod has nothing that a control forbids.
        (!is_over).then(|| reply::parse(&pod.bytes()).unwrap_or_default())
    }

    fn check(&mut self, name: &str, pod: &Value) {
        if is_exempt_class(self.attributes, &pod["spec"]) {
            self.exempt += 1;
            return;
        }
        self.checked += 1;
        let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
        let violations = violations(self.standard, Pod { metadata, spec });
        if violations.is_empty() {
            return;
        }
        let known = self.found.entry(reasons(&violations));
        let (first, count) = known.or_insert_with(|| (name.to_owned(), 0));
        *count += 1;
        if name < first.as_str() {
            *first = name.to_owned();
        }
    }

    fn told(self, namespace: &str, all: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        let (checked, all) = (self.checked, all - self.exempt);
        if checked < all {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {all} \
                 existing pods"
            ));
        }
        if !self.found.is_empty() {
            let standard = self.standard.to_string();
            warnings.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \
                 {standard:?}"
            ));
        }
        let pods = self
            .found
            .into_iter()
            .map(|(why, (first, count))| match count {
                1 => format!("{first}: {why}"),
                2 => format!("{first} (and 1 other pod): {why}"),
                _ => format!("{first} (and {} other pods): {why}", count - 1),
            });
        let mut pods: Vec<String> = pods.collect();
        pods.sort();
        warnings.extend(pods);
        warnings
    }
}

fn controller(pod: &Value) -> Option<String> {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let mut owners = owners.into_iter().flatten();
    let owner = owners.find(|owner| owner["controller"] == true)?;
    Some(owner["uid"].as_str()?.to_owned())
}
