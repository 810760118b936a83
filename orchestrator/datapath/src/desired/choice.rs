//! Which endpoints of a Service take new connections: one table, from KEP-1669 (terminating endpoints),
//! KEP-2433 and KEP-4444 (hints).
//!
//! Pure. Policies are lists of pools; the first pool that somebody is in takes all.

use crate::view::Hint;

/// What decides about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traits {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// It runs on the node that asks.
    pub local: bool,
    pub node: Hint,
    pub zone: Hint,
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Cluster,
    Local,
}

/// Endpoints that are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Ready and hinted for this node, while every ready endpoint has a hint for some.
    ReadyForNode,
    /// The same for this node's zone.
    ReadyForZone,
    Ready,
    ReadyHere,
    /// On their way out, but still answering.
    Leaving,
    LeavingHere,
}

impl Policy {
    /// Best first.
    const fn pools(self) -> &'static [Pool] {
        match self {
            Self::Cluster => &[
                Pool::ReadyForNode,
                Pool::ReadyForZone,
                Pool::Ready,
                Pool::Leaving,
            ],
            Self::Local => &[Pool::ReadyHere, Pool::LeavingHere],
        }
    }

    /// Who takes new connections; `None`: nobody.
    pub fn choose(self, endpoints: &[Traits]) -> Option<Pool> {
        let open = |pool: &Pool| {
            let all = endpoints.iter().all(|endpoint| pool.allowed_by(endpoint));
            all && endpoints.iter().any(|endpoint| pool.takes(endpoint))
        };
        self.pools().iter().copied().find(open)
    }
}

impl Pool {
    pub fn takes(self, endpoint: &Traits) -> bool {
        match self {
            Self::ReadyForNode => endpoint.ready && endpoint.node == Hint::Us,
            Self::ReadyForZone => endpoint.ready && endpoint.zone == Hint::Us,
            Self::Ready => endpoint.ready,
            Self::ReadyHere => endpoint.ready && endpoint.local,
            Self::Leaving => endpoint.leaving(),
            Self::LeavingHere => endpoint.leaving() && endpoint.local,
        }
    }

    /// One ready endpoint without a hint, and whoever wrote the hints is not done.
    fn allowed_by(self, endpoint: &Traits) -> bool {
        match self {
            Self::ReadyForNode => !endpoint.ready || endpoint.node != Hint::Nobody,
            Self::ReadyForZone => !endpoint.ready || endpoint.zone != Hint::Nobody,
            _ => true,
        }
    }
}

impl Traits {
    /// Somebody, if perhaps another node, could take a connection to it.
    pub fn usable(&self) -> bool {
        self.ready || self.leaving()
    }

    fn leaving(&self) -> bool {
        self.serving && self.terminating
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HINTS: [Hint; 3] = [Hint::Nobody, Hint::Us, Hint::Others];

    /// Every endpoint that there can be.
    fn all() -> Vec<Traits> {
        let mut all = Vec::new();
        for bits in 0..16_u8 {
            for node in HINTS {
                for zone in HINTS {
                    all.push(Traits {
                        ready: bits & 1 != 0,
                        serving: bits & 2 != 0,
                        terminating: bits & 4 != 0,
                        local: bits & 8 != 0,
                        node,
                        zone,
                    });
                }
            }
        }
        all
    }

    /// Kubernetes' words, as a statement about one endpoint among others.
    fn is_wanted(policy: Policy, it: &Traits, among: &[Traits]) -> bool {
        let here = |e: &Traits| policy == Policy::Cluster || e.local;
        let ready = |e: &Traits| e.ready && here(e);
        if !among.iter().any(ready) {
            // Only then do endpoints count that serve while they terminate.
            return it.serving && it.terminating && here(it);
        }
        if policy == Policy::Local {
            return ready(it);
        }
        let hinted = |hint: fn(&Traits) -> Hint| {
            let mut ready = among.iter().filter(|e| e.ready);
            let complete = ready.clone().all(|e| hint(e) != Hint::Nobody);
            complete && ready.any(|e| hint(e) == Hint::Us)
        };
        let near = match () {
            () if hinted(|e| e.node) => it.node == Hint::Us,
            () if hinted(|e| e.zone) => it.zone == Hint::Us,
            () => true,
        };
        it.ready && near
    }

    fn assert_choice(among: &[Traits]) {
        for policy in [Policy::Cluster, Policy::Local] {
            let pool = policy.choose(among);
            for it in among {
                let taken = pool.is_some_and(|pool| pool.takes(it));
                let wanted = is_wanted(policy, it, among);
                assert_eq!(taken, wanted, "{policy:?} {pool:?}: {it:?} of {among:?}");
            }
            let someone = among.iter().any(|it| is_wanted(policy, it, among));
            assert_eq!(pool.is_some(), someone);
        }
    }

    #[test]
    fn every_endpoint_alone_and_every_two_are_chosen_as_kubernetes_says() {
        let all = all();
        assert_eq!(all.len(), 144);
        assert_choice(&[]);
        for one in &all {
            assert_choice(&[*one]);
            for other in &all {
                assert_choice(&[*one, *other]);
            }
        }
    }

    #[test]
    fn a_third_endpoint_changes_nothing_about_the_rule() {
        // Those that differ in what the rule looks at.
        let mut kinds = all();
        kinds.retain(|it| it.ready || (it.serving && it.terminating && it.node == it.zone));
        kinds.retain(|it| !it.ready || (it.serving && !it.terminating));
        for one in &kinds {
            for two in &kinds {
                for three in &kinds {
                    assert_choice(&[*one, *two, *three]);
                }
            }
        }
    }

    #[test]
    fn one_ready_endpoint_without_a_hint_switches_topology_off() {
        let near = Traits {
            ready: true,
            serving: true,
            terminating: false,
            local: false,
            node: Hint::Nobody,
            zone: Hint::Us,
        };
        let far = Traits {
            zone: Hint::Others,
            ..near
        };
        let bare = Traits {
            zone: Hint::Nobody,
            ..near
        };
        assert_eq!(
            Policy::Cluster.choose(&[near, far]),
            Some(Pool::ReadyForZone)
        );
        assert_eq!(
            Policy::Cluster.choose(&[near, far, bare]),
            Some(Pool::Ready)
        );
        assert_eq!(Policy::Cluster.choose(&[far, far]), Some(Pool::Ready));
    }
}
