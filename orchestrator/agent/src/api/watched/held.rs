//! The objects that one watch selects: one ConfigMap or Secret, or all trust bundles of a wish.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;

use super::Seen;
use crate::api::sources::{Contents, Wanted};
use crate::api::trust_bundles;
use api::selector::LabelSelector;

/// What they may take of the agent's memory. One object has little more than 1 MiB.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What is known of them.
pub struct Held {
    wanted: Wanted,
    selector: LabelSelector,
    /// By name: their sizes, and their contents as far as there was room.
    objects: BTreeMap<String, (usize, Option<Arc<Contents>>)>,
    bytes: usize,
}

impl Held {
    pub fn new(wanted: &Wanted) -> Held {
        let selector = match wanted {
            Wanted::Object(..) => LabelSelector::everything(),
            Wanted::Bundles(wish) => wish.selector(),
        };
        Held {
            wanted: wanted.clone(),
            selector,
            objects: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes an object as it is now; its labels may not fit any more.
    pub fn put(&mut self, object: impl ResourceExt + Into<Contents>) {
        let name = object.name_any();
        self.remove(&name);
        if !self.selector.matches(object.labels()) {
            return;
        }
        let contents: Contents = object.into();
        let bytes = contents.entries.values().map(Vec::len).sum();
        self.bytes += bytes;
        let contents = self.fits().then(|| Arc::new(contents));
        self.objects.insert(name, (bytes, contents));
    }

    pub fn remove(&mut self, name: &str) {
        if let Some((bytes, _)) = self.objects.remove(name) {
            self.bytes -= bytes;
        }
    }

    /// There was no room for what there would be room for now.
    pub fn lacks(&self) -> bool {
        self.fits()
            && self
                .objects
                .values()
                .any(|(_, contents)| contents.is_none())
    }

    pub fn seen(&self) -> Seen {
        let all = self.objects.values();
        let mut all = all.filter_map(|(_, contents)| contents.as_ref());
        match &self.wanted {
            _ if !self.fits() => Seen::There(Arc::new(Contents {
                problem: Some(format!("the objects have more than {MAX_BYTES} bytes")),
                ..Contents::default()
            })),
            Wanted::Object(..) => all.next().cloned().map_or(Seen::Absent, Seen::There),
            Wanted::Bundles(_) if self.objects.is_empty() => Seen::Absent,
            Wanted::Bundles(_) => {
                let merged = trust_bundles::merged(all.map(|contents| &**contents));
                Seen::There(Arc::new(merged))
            }
        }
    }

    /// The revision of the one object that there is.
    pub fn revision(&self) -> Option<u64> {
        let mut all = self.objects.values();
        let one = all.next().and_then(|(_, contents)| contents.as_ref())?;
        matches!(self.wanted, Wanted::Object(..)).then_some(one.revision)
    }

    pub fn fits(&self) -> bool {
        self.bytes <= MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
    use serde_json::json;

    use super::*;
    use crate::api::trust_bundles::BundleWish;

    fn bundle(name: &str, bytes: usize) -> ClusterTrustBundle {
        let object =
            json!({ "metadata": { "name": name }, "spec": { "trustBundle": "x".repeat(bytes) } });
        serde_json::from_value(object).expect("a bundle")
    }

    #[test]
    fn what_has_no_room_is_a_problem_until_there_is_room_again() {
        let signer = "example.com/mine".to_owned();
        let selector = "{}".to_owned();
        let mut held = Held::new(&Wanted::Bundles(BundleWish::OfSigner { signer, selector }));
        assert_eq!(held.seen(), Seen::Absent);
        held.put(bundle("a", 1));
        held.put(bundle("b", MAX_BYTES));
        let Seen::There(found) = held.seen() else {
            panic!("absent")
        };
        assert!(trust_bundles::text(&found).is_err_and(|why| why.contains("8388608 bytes")));
        assert!(!held.lacks());
        held.remove("a");
        assert!(held.lacks(), "b was not kept");
        held.put(bundle("b", 2));
        assert!(!held.lacks());
    }
}
