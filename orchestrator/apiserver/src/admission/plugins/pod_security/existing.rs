//! Which pods a namespace has that its new policy would not let in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::is_exempt_class;
use crate::admission::Attributes;
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
    let search = Search {
        is_exempt: &|spec| is_exempt_class(attributes, spec),
        standard,
        until: now + left.min(TIME),
        most: MAX_PODS,
        checked: 0,
        exempt: 0,
        found: BTreeMap::new(),
    };
    // Stored bytes are JSON; a damaged pod has nothing that a control forbids.
    search.among(namespace, &pods, |pod| {
        let object = reply::parse(&pod.bytes()).unwrap_or_default();
        (pod.name().to_owned(), object)
    })
}

struct Search<'a> {
    /// Whether a pod with this spec is exempt.
    is_exempt: &'a dyn Fn(&Value) -> bool,
    standard: Standard,
    until: Instant,
    /// Pods that are looked at.
    most: usize,
    checked: usize,
    exempt: usize,
    /// By what is wrong: the first of the pods, and how many there are.
    found: BTreeMap<String, (String, usize)>,
}

impl Search<'_> {
    /// `read` gives a pod's name and the pod.
    fn among<P>(
        mut self,
        namespace: &str,
        pods: &[P],
        read: impl Fn(&P) -> (String, Value),
    ) -> Vec<String> {
        let mut controllers = BTreeSet::new();
        let mut others = Vec::new();
        for pod in pods {
            if self.is_over() {
                break;
            }
            let (name, object) = read(pod);
            match controller(&object) {
                Some(uid) if !controllers.insert(uid.clone()) => others.push(pod),
                _ => self.check(name, &object),
            }
        }
        for pod in others {
            if self.is_over() {
                break;
            }
            let (name, object) = read(pod);
            self.check(name, &object);
        }
        self.told(namespace, pods.len())
    }

    fn is_over(&self) -> bool {
        self.checked >= self.most || Instant::now() >= self.until
    }

    fn check(&mut self, name: String, pod: &Value) {
        if (self.is_exempt)(&pod["spec"]) {
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
        let (first, count) = known.or_insert_with(|| (name.clone(), 0));
        *count += 1;
        if name < *first {
            *first = name;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use api::pod_security::{Level, Version};

    fn told(most: usize, time: Duration, pods: &[Value]) -> Vec<String> {
        let search = Search {
            is_exempt: &|spec| spec["runtimeClassName"] == "vm",
            standard: Standard {
                level: Level::Baseline,
                version: Version::Latest,
            },
            until: Instant::now() + time,
            most,
            checked: 0,
            exempt: 0,
            found: BTreeMap::new(),
        };
        let name = |pod: &Value| {
            pod["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        search.among("n", pods, |pod| (name(pod), pod.clone()))
    }

    fn pod(name: &str, set: &str, class: &str) -> Value {
        let owners = json!([{"uid": set, "controller": true}]);
        json!({"metadata": {"name": name, "ownerReferences": owners},
            "spec": {"hostPID": true, "runtimeClassName": class, "containers": []}})
    }

    #[test]
    fn no_more_pods_are_looked_at_than_kubernetes_does_the_first_of_each_controller_before_others()
    {
        let long = Duration::from_secs(60);
        let pods = [
            pod("a-1", "a", ""),
            pod("a-2", "a", ""),
            pod("v-1", "v", "vm"),
            pod("b-1", "b", ""),
        ];
        let head = "existing pods in namespace \"n\" violate the new PodSecurity enforce level \
                    \"baseline:latest\"";
        let all = told(100, long, &pods);
        assert_eq!(all, [head, "a-1 (and 2 other pods): host namespaces"]);
        let some = told(2, long, &pods);
        let bound =
            "new PodSecurity enforce level only checked against the first 2 of 3 existing pods";
        assert_eq!(
            some,
            [bound, head, "a-1 (and 1 other pod): host namespaces"]
        );
        let none = told(100, Duration::ZERO, &pods);
        let bound =
            "new PodSecurity enforce level only checked against the first 0 of 4 existing pods";
        assert_eq!(none, [bound]);
        assert!(told(100, long, &[]).is_empty());
    }
}
