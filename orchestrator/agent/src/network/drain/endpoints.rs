//! The endpoints of this node's pods in all slices, and since which revision each has left. Pure.
//!
//! An endpoint has left when its slice calls it terminating, or does not have it any more. One that
//! is only unready may come back and is waited for: the control plane says at once that it ends. A
//! slice that drops a pod without a word says nothing of its end, for its Service may have gone: the
//! next Service that selects it may still call it ready.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use datapath::ObjectKey;

/// How many endpoints that are in no slice any more are remembered: the newest.
const REMEMBERED: usize = 1024;

/// By slice. Endpoints of other nodes are not kept.
#[derive(Debug, Default)]
pub struct Endpoints {
    slices: BTreeMap<ObjectKey, BTreeMap<Who, Mark>>,
    /// Those that are in no slice any more, by the revision since which they have left.
    gone: BTreeMap<u64, Vec<(Who, Mark)>>,
    /// The newest revision that was heard of.
    newest: u64,
}

/// Whom an endpoint means: its pod, or an address where a slice names no pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Pod(String),
    Address(IpAddr),
}

/// An endpoint as a slice has it, or had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Present,
    /// It was called terminating.
    LeftAt(u64),
    /// It never was.
    DroppedAt(u64),
}

/// How a pod stands with its Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// None has ever named it.
    InNone,
    /// At least one does.
    Present,
    /// None does since this revision.
    LeftAt(u64),
    /// The same, but none has said that it ends.
    DroppedAt(u64),
}

impl Endpoints {
    /// Takes a slice as `node` sees it; None when it was deleted.
    pub fn apply(&mut self, key: ObjectKey, slice: Option<&EndpointSlice>, rev: u64, node: &str) {
        self.newest = self.newest.max(rev);
        let mut now = BTreeMap::new();
        for endpoint in slice.iter().flat_map(|slice| &slice.endpoints) {
            let own = endpoint.node_name.as_deref() == Some(node);
            if let Some(who) = who(endpoint).filter(|_| own) {
                let mark = if terminating(endpoint) {
                    Mark::LeftAt(rev)
                } else {
                    Mark::Present
                };
                now.insert(who, mark);
            }
        }
        for (who, old) in self.slices.remove(&key).unwrap_or_default() {
            match (now.get_mut(&who), old) {
                // It left earlier than this revision.
                (Some(mark @ Mark::LeftAt(_)), Mark::LeftAt(_)) => *mark = old,
                (Some(_), _) => {}
                (None, Mark::LeftAt(left)) => self.remember(left, (who, old)),
                (None, _) => {
                    let mark = match who {
                        Who::Pod(_) => Mark::DroppedAt(rev),
                        // Nothing more can be said of an address.
                        Who::Address(_) => Mark::LeftAt(rev),
                    };
                    self.remember(rev, (who, mark));
                }
            }
        }
        if !now.is_empty() {
            self.slices.insert(key, now);
        }
    }

    /// A new list does not have the slice: it went at a revision that nobody said.
    pub fn forget(&mut self, key: ObjectKey, node: &str) {
        self.apply(key, None, self.newest, node);
    }

    /// How the pod of that uid and address stands.
    pub fn standing(&self, uid: &str, address: Option<IpAddr>) -> Standing {
        let is = |who: &Who| match who {
            Who::Pod(named) => named == uid,
            Who::Address(named) => Some(*named) == address,
        };
        let here = self.slices.values().flatten();
        let here = here.map(|(who, mark)| (who, *mark));
        let gone = self.gone.values().flatten();
        let gone = gone.map(|(who, mark)| (who, *mark));
        let marks = here.chain(gone).filter(|(who, _)| is(who));
        marks.fold(Standing::InNone, |standing, (_, mark)| standing.with(mark))
    }

    fn remember(&mut self, revision: u64, gone: (Who, Mark)) {
        self.gone.entry(revision).or_default().push(gone);
        while self.gone.len() > REMEMBERED {
            self.gone.pop_first();
        }
    }
}

impl Standing {
    /// With one more endpoint of the pod. Once one is known to end, it is known of all.
    fn with(self, mark: Mark) -> Standing {
        match (self, mark) {
            (Standing::Present, _) | (_, Mark::Present) => Standing::Present,
            (Standing::InNone, Mark::LeftAt(new)) => Standing::LeftAt(new),
            (Standing::InNone, Mark::DroppedAt(new)) => Standing::DroppedAt(new),
            (Standing::DroppedAt(known), Mark::DroppedAt(new)) => {
                Standing::DroppedAt(known.max(new))
            }
            (
                Standing::LeftAt(known) | Standing::DroppedAt(known),
                Mark::LeftAt(new) | Mark::DroppedAt(new),
            ) => Standing::LeftAt(known.max(new)),
        }
    }
}

/// Whom an endpoint means; nobody, if its address does not read.
pub fn who(endpoint: &Endpoint) -> Option<Who> {
    let target = endpoint.target_ref.as_ref();
    let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    match pod.and_then(|pod| pod.uid.clone()) {
        Some(uid) => Some(Who::Pod(uid)),
        None => address(endpoint).map(Who::Address),
    }
}

fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

fn terminating(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|it| it.terminating).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    fn slice(endpoints: Value) -> EndpointSlice {
        let slice = json!({
            "metadata": {"name": "web-1", "namespace": "default"},
            "addressType": "IPv4",
            "endpoints": endpoints,
        });
        serde_json::from_value(slice).expect("a slice")
    }

    fn endpoint(uid: &str, terminating: bool) -> Value {
        json!({
            "addresses": ["10.100.1.2"],
            "nodeName": "n1",
            "conditions": {"ready": !terminating, "terminating": terminating},
            "targetRef": {"kind": "Pod", "uid": uid},
        })
    }

    fn standing(endpoints: &Endpoints) -> Standing {
        endpoints.standing("u1", "10.100.1.2".parse().ok())
    }

    fn stays(node: &str) -> Endpoints {
        let mut endpoints = Endpoints::default();
        let slice = slice(json!([endpoint("u1", false)]));
        endpoints.apply(key("web-1"), Some(&slice), 5, node);
        endpoints
    }

    #[test]
    fn a_pod_has_left_at_the_revision_that_first_calls_it_terminating() {
        let mut endpoints = stays("n1");
        assert_eq!(standing(&endpoints), Standing::Present);
        let leaving = slice(json!([endpoint("u1", true)]));
        endpoints.apply(key("web-1"), Some(&leaving), 7, "n1");
        assert_eq!(standing(&endpoints), Standing::LeftAt(7));
        endpoints.apply(key("web-1"), Some(&leaving), 9, "n1");
        assert_eq!(standing(&endpoints), Standing::LeftAt(7));
        endpoints.apply(key("web-1"), Some(&slice(json!([]))), 11, "n1");
        assert_eq!(standing(&endpoints), Standing::LeftAt(7));
    }

    #[test]
    fn a_slice_that_drops_a_pod_does_not_say_that_it_ends() {
        let mut endpoints = stays("n1");
        endpoints.apply(key("web-1"), Some(&slice(json!([]))), 8, "n1");
        assert_eq!(standing(&endpoints), Standing::DroppedAt(8));
        let mut endpoints = stays("n1");
        endpoints.apply(key("web-1"), None, 9, "n1");
        assert_eq!(standing(&endpoints), Standing::DroppedAt(9));
    }

    #[test]
    fn who_is_called_terminating_by_one_slice_has_left_the_others_too() {
        let mut endpoints = stays("n1");
        let leaving = slice(json!([endpoint("u1", true)]));
        endpoints.apply(key("web-2"), Some(&leaving), 6, "n1");
        endpoints.apply(key("web-1"), None, 9, "n1");
        assert_eq!(standing(&endpoints), Standing::LeftAt(9));
        endpoints.apply(key("web-2"), None, 11, "n1");
        assert_eq!(standing(&endpoints), Standing::LeftAt(9));
    }

    #[test]
    fn the_last_of_several_slices_counts() {
        let mut endpoints = stays("n1");
        let leaving = slice(json!([endpoint("u1", true)]));
        endpoints.apply(key("web-2"), Some(&leaving), 6, "n1");
        assert_eq!(standing(&endpoints), Standing::Present);
        endpoints.apply(key("web-1"), Some(&leaving), 8, "n1");
        assert_eq!(standing(&endpoints), Standing::LeftAt(8));
    }

    #[test]
    fn a_slice_that_names_no_pod_means_an_address() {
        let mut endpoints = Endpoints::default();
        let mut bare = endpoint("u1", false);
        bare["targetRef"] = Value::Null;
        endpoints.apply(key("own-1"), Some(&slice(json!([bare]))), 5, "n1");
        assert_eq!(standing(&endpoints), Standing::Present);
        assert_eq!(endpoints.standing("u1", None), Standing::InNone);
        endpoints.apply(key("own-1"), None, 7, "n1");
        assert_eq!(standing(&endpoints), Standing::LeftAt(7));
    }

    #[test]
    fn pods_of_other_nodes_are_not_kept() {
        assert_eq!(standing(&stays("n2")), Standing::InNone);
    }

    #[test]
    fn what_a_new_list_lacks_went_by_its_newest_revision() {
        let mut endpoints = stays("n1");
        endpoints.apply(key("other"), Some(&slice(json!([]))), 30, "n1");
        endpoints.forget(key("web-1"), "n1");
        assert_eq!(standing(&endpoints), Standing::DroppedAt(30));
    }
}
