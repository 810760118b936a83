//! What a controller is, and which ones there are. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::action::{Ask, Plan, Reply};
use super::object::Key;
use super::world::{Address, Diff, World};
use super::{
    ControllersConfig, aggregation, autoscaling, config_rollout, cron_job, daemon_set, deployment,
    disruption, garbage, job, namespace, node_lifecycle, pod_cidr, pod_gc, protection, replication,
    root_ca, service, stateful_set, taint_eviction, ttl, volumes,
};
use client::Kind;

/// One controller: what it hears of, what is then to be looked at, and what it wants done about it.
///
/// A unit of its work is named by the object that it is about; work on all of a kind by a key without a
/// name ([`all_of`]). A unit never runs twice at a time.
pub trait Controller: Send {
    /// What it is called in logs.
    fn name(&self) -> &'static str;

    /// The ServiceAccount in kube-system as which it writes; Kubernetes' name where it has such a
    /// controller, since that is whom its default roles are for.
    fn account(&self) -> &'static str;

    /// The kinds whose changes it hears of.
    fn watches(&self) -> Watches;

    /// Notes what no object carries.
    fn hear(&mut self, _diff: &Diff, _now: Timestamp) {}

    /// Adds the work that a change makes due, given the world after it.
    fn due(&self, world: &World, diff: &Diff, due: &mut Due);

    /// Adds the work that is due when the world is known for the first time.
    fn due_at_start(&self, _world: &World, _due: &mut Due) {}

    /// What is to be done about a unit of work. None: it is nothing any more.
    fn plan(&mut self, world: &World, about: &Address, now: Timestamp) -> Option<Plan>;

    /// What was read because a plan asked for it. The unit is planned again after that.
    fn told(&mut self, _about: &Address, _ask: &Ask, _reply: &Reply, _now: Timestamp) {}

    /// How a plan ended that asked for something.
    fn ended(&mut self, _about: &Address, _ending: &Ending) {}
}

/// Which kinds a controller hears of.
pub enum Watches {
    Only(&'static [Kind]),
    All,
}

/// Units of a controller's work.
pub type Due = BTreeSet<Address>;

/// How a plan ended.
#[derive(Clone, Debug)]
pub enum Ending {
    Done,
    /// An action failed; what it was and why.
    Failed {
        creating: bool,
        /// The object had changed: what was planned was for another state of it.
        conflict: bool,
        message: String,
    },
}

/// All controllers. What one change makes due is done in this order: clients wait for endpoints.
pub fn all(config: &ControllersConfig, started: Timestamp) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(service::slices::SliceController),
        Box::new(replication::SetController::of(Kind::REPLICA_SET)),
        Box::new(replication::SetController::of(Kind::REPLICATION_CONTROLLER)),
        Box::new(deployment::DeploymentController::default()),
        Box::new(job::JobController::default()),
        Box::new(disruption::DisruptionController::default()),
        Box::new(cron_job::CronJobController),
        Box::new(ttl::TtlController),
        Box::new(autoscaling::AutoscalingController::default()),
        Box::new(stateful_set::StatefulSetController::default()),
        Box::new(daemon_set::DaemonSetController::default()),
        Box::new(config_rollout::ConfigRolloutController::default()),
        Box::new(service::endpoints::EndpointsController),
        Box::new(service::mirror::MirrorController),
        Box::new(service::sctp::SctpController),
        Box::new(service::load_balancer::LoadBalancerController::new(
            config.load_balancer_pool.clone(),
        )),
        Box::new(pod_cidr::PodCidrController::new(&config.pod_ranges)),
        Box::new(node_lifecycle::NodeController::new(started)),
        Box::new(taint_eviction::TaintEvictionController::default()),
        Box::new(namespace::NamespaceController),
        Box::new(root_ca::RootCaController::new(&config.root_ca)),
        Box::new(garbage::GarbageController),
        Box::new(aggregation::AggregationController),
        Box::new(protection::ProtectionController),
        Box::new(volumes::BinderController),
        Box::new(volumes::EphemeralController),
        Box::new(volumes::AttachController::default()),
        Box::new(pod_gc::PodGcController::keeping(config.finished_pods_kept)),
    ]
}

/// The work that is about all objects of a kind.
pub fn all_of(kind: Kind) -> Address {
    (kind, Key::default())
}

impl Watches {
    pub fn has(&self, kind: Kind) -> bool {
        match self {
            Self::Only(kinds) => kinds.contains(&kind),
            Self::All => true,
        }
    }
}
