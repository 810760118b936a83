//! The one shell of all controllers: watches feed the engine, its plans go to the executor, the
//! answers come back. One task owns the engine; nothing is shared and nothing polls.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ReplicationController, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass, VolumeAttachment};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ControllersConfig;
use super::engine::{Ending, Engine};
use super::execute::{Answer, Executor};
use super::numbers::Numbers;
use super::object::Object;
use super::task::Task;
use super::world::Change;
use client::list_watch::Versioned;
use client::{Bare, Delivery, Kind, Recorder, Verbs, list_watch};

/// Who watches, for all controllers.
const MANAGER: &str = "system:kube-controller-manager";

/// Plans carried out at a time.
const CONCURRENT: usize = 32;
/// Changes taken in at a time before plans are made, at most.
const DRAIN: usize = 256;

/// Runs until `shutdown`. What watches and tells events is `MANAGER`; what a controller writes, its own
/// account.
pub async fn run(
    client_of: impl Fn(&str) -> kube::Client,
    config: ControllersConfig,
    numbers: Numbers,
    shutdown: CancellationToken,
) {
    let client = client_of(MANAGER);
    let (changes, mut delivered) = mpsc::channel(DRAIN);
    let (answers, mut answered) = mpsc::unbounded_channel();
    let recorder = Recorder::start(client.clone(), "controller-manager");
    let watches = start_watches(&client, &changes);
    let mut custom = CustomWatches::default();
    for range in &config.pod_ranges {
        tracing::info!("the pod range {range}; more nodes than that get no pods");
    }
    let clock = Clock::start();
    let mut engine = Engine::new(config, clock.now());
    engine.count(numbers.clone());
    let accounts = engine.accounts().map(|account| {
        let user = format!("system:serviceaccount:kube-system:{account}");
        (account, Verbs::new(client_of(&user)))
    });
    let executor = Executor::new(accounts.collect(), recorder, answers);
    let mut running: JoinSet<(Task, Ending)> = JoinSet::new();
    loop {
        while running.len() < CONCURRENT
            && let Some((task, plan)) = engine.next(clock.now())
        {
            let (executor, numbers) = (executor.clone(), numbers.clone());
            running.spawn(async move {
                let began = Instant::now();
                let ending = executor.run(&task, plan).await;
                numbers.worked(&task, began.elapsed());
                (task, ending)
            });
        }
        let wait = wait(&engine, &clock, running.len());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(answer) = answered.recv() => take_in(&mut engine, answer, clock.now()),
            Some(change) = delivered.recv() => {
                engine.apply(change, clock.now());
                for _ in 1..DRAIN {
                    let Ok(change) = delivered.try_recv() else { break };
                    engine.apply(change, clock.now());
                }
                custom.follow(&mut engine, &client, &changes, clock.now());
            }
            Some(ended) = running.join_next() => {
                while let Ok(answer) = answered.try_recv() {
                    take_in(&mut engine, answer, clock.now());
                }
                end(&mut engine, ended, clock.now());
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
    drop((watches, custom));
}

/// The watches of custom kinds, which come and go with their definitions.
#[derive(Default)]
struct CustomWatches(BTreeMap<Kind, JoinSet<()>>);

impl CustomWatches {
    fn follow(
        &mut self,
        engine: &mut Engine,
        client: &kube::Client,
        changes: &mpsc::Sender<Change>,
        now: Timestamp,
    ) {
        let wanted = engine.world().custom();
        if self.0.keys().eq(wanted) {
            return;
        }
        let wanted = wanted.clone();
        let mut gone = Vec::new();
        self.0.retain(|kind, _| {
            let stays = wanted.contains(kind);
            gone.extend((!stays).then_some(*kind));
            stays
        });
        for kind in gone {
            engine.forget(kind, now);
        }
        for kind in wanted {
            self.0.entry(kind).or_insert_with(|| {
                let mut watch = JoinSet::new();
                watch_bare(&mut watch, client.clone(), kind, changes.clone());
                watch
            });
        }
    }
}

/// A task's answers are always taken in before its end, so its next plan knows what it did.
fn take_in(engine: &mut Engine, answer: Answer, now: Timestamp) {
    match answer {
        Answer::Object(object) => engine.answered(*object, now),
        Answer::Gone { kind, key, uid } => engine.gone(kind, &key, &uid, now),
        Answer::Read(task, ask, reply) => engine.told(&task, &ask, &reply, now),
    }
}

fn end(engine: &mut Engine, ended: Result<(Task, Ending), tokio::task::JoinError>, now: Timestamp) {
    match ended {
        Ok((task, ending)) => {
            engine.finished(&task, ending, now);
        }
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => {}
    }
}

/// How long nothing falls due by itself. At most an hour, so that a clock's leap does no harm.
fn wait(engine: &Engine, clock: &Clock, running: usize) -> Duration {
    const LONGEST: Duration = Duration::from_secs(3600);
    if running >= CONCURRENT {
        return LONGEST;
    }
    let due = engine
        .next_deadline()
        .map(|at| clock.now().duration_until(at));
    match due {
        None => LONGEST,
        Some(wait) => Duration::try_from(wait.max(SignedDuration::ZERO))
            .unwrap_or(LONGEST)
            .min(LONGEST),
    }
}

/// Wall time that only moves forward at the monotonic clock's pace.
struct Clock {
    wall: Timestamp,
    since: Instant,
}

impl Clock {
    fn start() -> Self {
        Self {
            wall: Timestamp::now(),
            since: Instant::now(),
        }
    }

    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.since.elapsed());
        elapsed
            .ok()
            .and_then(|elapsed| self.wall.checked_add(elapsed).ok())
            .unwrap_or(self.wall)
    }
}

fn start_watches(client: &kube::Client, changes: &mpsc::Sender<Change>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    for &kind in Kind::watched() {
        let (client, changes) = (client.clone(), changes.clone());
        match kind {
            Kind::POD => watch::<Pod>(&mut watches, client, kind, changes),
            Kind::NODE => watch::<Node>(&mut watches, client, kind, changes),
            Kind::LEASE => watch::<Lease>(&mut watches, client, kind, changes),
            Kind::NAMESPACE => watch::<Namespace>(&mut watches, client, kind, changes),
            Kind::SERVICE => watch::<Service>(&mut watches, client, kind, changes),
            Kind::ENDPOINTS => watch::<Endpoints>(&mut watches, client, kind, changes),
            Kind::ENDPOINT_SLICE => watch::<EndpointSlice>(&mut watches, client, kind, changes),
            Kind::REPLICATION_CONTROLLER => {
                watch::<ReplicationController>(&mut watches, client, kind, changes);
            }
            Kind::REPLICA_SET => watch::<ReplicaSet>(&mut watches, client, kind, changes),
            Kind::DEPLOYMENT => watch::<Deployment>(&mut watches, client, kind, changes),
            Kind::DISRUPTION_BUDGET => {
                watch::<PodDisruptionBudget>(&mut watches, client, kind, changes);
            }
            Kind::CRON_JOB => watch::<CronJob>(&mut watches, client, kind, changes),
            Kind::AUTOSCALER => {
                watch::<HorizontalPodAutoscaler>(&mut watches, client, kind, changes);
            }
            Kind::JOB => watch::<Job>(&mut watches, client, kind, changes),
            Kind::STATEFUL_SET => watch::<StatefulSet>(&mut watches, client, kind, changes),
            Kind::DAEMON_SET => watch::<DaemonSet>(&mut watches, client, kind, changes),
            Kind::CONTROLLER_REVISION => {
                watch::<ControllerRevision>(&mut watches, client, kind, changes);
            }
            Kind::CONFIG_MAP => watch::<ConfigMap>(&mut watches, client, kind, changes),
            Kind::CLUSTER_ROLE => watch::<ClusterRole>(&mut watches, client, kind, changes),
            Kind::DEFINITION => {
                watch::<CustomResourceDefinition>(&mut watches, client, kind, changes);
            }
            Kind::PERSISTENT_VOLUME => {
                watch::<PersistentVolume>(&mut watches, client, kind, changes);
            }
            Kind::PERSISTENT_VOLUME_CLAIM => {
                watch::<PersistentVolumeClaim>(&mut watches, client, kind, changes);
            }
            Kind::STORAGE_CLASS => watch::<StorageClass>(&mut watches, client, kind, changes),
            Kind::VOLUME_ATTACHMENT => {
                watch::<VolumeAttachment>(&mut watches, client, kind, changes);
            }
            Kind::CSI_DRIVER => watch::<CSIDriver>(&mut watches, client, kind, changes),
            _ => watch_bare(&mut watches, client, kind, changes),
        }
    }
    watches
}

/// Of the objects only metadata is read.
fn watch_bare(
    watches: &mut JoinSet<()>,
    client: kube::Client,
    kind: Kind,
    changes: mpsc::Sender<Change>,
) {
    let convert = move |bare: Bare| Object::bare(kind, bare.metadata);
    let deliver = move |delivery| change(kind, delivery, convert);
    watches.spawn(list_watch::<Bare, Change>(
        client, kind, "", changes, deliver,
    ));
}

fn watch<T>(
    watches: &mut JoinSet<()>,
    client: kube::Client,
    kind: Kind,
    changes: mpsc::Sender<Change>,
) where
    T: DeserializeOwned + Versioned + Clone + Send + 'static,
    Object: From<T>,
{
    let deliver = move |delivery| change(kind, delivery, Object::from);
    watches.spawn(list_watch::<T, Change>(client, kind, "", changes, deliver));
}

fn change<T>(kind: Kind, delivery: Delivery<T>, convert: impl Fn(T) -> Object) -> Change {
    match delivery {
        Delivery::Snapshot { items, revision } => Change::Snapshot {
            kind,
            objects: items.into_iter().map(convert).collect(),
            revision,
        },
        Delivery::Upsert(object) => Change::Upsert(convert(object)),
        Delivery::Delete(object) => Change::Delete(convert(object)),
    }
}
