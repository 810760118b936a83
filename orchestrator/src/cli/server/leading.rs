//! Controllers and scheduler, on the one server that leads.

use std::time::Duration;

use apiserver::ApiServer;
use controllers::ControllersConfig;
use scheduler::profile::Config as Profiles;
use store::{Leadership, StoreError};
use sys::Shutdown;
use tokio_util::sync::CancellationToken;

/// What the servers compete for.
const OFFICE: &str = "control-plane";
/// Between two tries while the store does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// What is counted of the parts, over all leaderships of this server.
#[derive(Clone, Default)]
struct Numbers {
    work: controllers::numbers::Numbers,
    decisions: scheduler::numbers::Numbers,
}

/// Runs controllers and scheduler whenever this server leads, until it stops. They are clients of the server
/// without a network in between; what a former leader still sends is refused by the store.
pub async fn run(
    server: ApiServer,
    settings: ControllersConfig,
    profiles: Profiles,
    shutdown: Shutdown,
) -> Result<(), StoreError> {
    let numbers = Numbers::default();
    server.measure(|registry| {
        numbers.work.register(registry);
        numbers.decisions.register(registry);
    });
    loop {
        let campaign = shutdown.unless(server.campaign(OFFICE)).await;
        let leadership = match campaign {
            None => return Ok(()),
            Some(Ok(leadership)) => leadership,
            Some(Err(StoreError::Closed)) => return Err(StoreError::Closed),
            Some(Err(error)) => {
                tracing::warn!(%error, "no leader can be chosen");
                shutdown.unless(tokio::time::sleep(PAUSE)).await;
                continue;
            }
        };
        let parts = (settings.clone(), profiles.clone(), numbers.clone());
        if lead(&server, parts, leadership, &shutdown).await {
            return Ok(());
        }
    }
}

/// One leadership. Whether the server stops.
async fn lead(
    server: &ApiServer,
    (settings, profiles, numbers): (ControllersConfig, Profiles, Numbers),
    mut leadership: Leadership,
    shutdown: &Shutdown,
) -> bool {
    let token = CancellationToken::new();
    let fence = leadership.fence();
    let (of_server, of_leader) = (server.clone(), fence.clone());
    let client_of = move |user: &str| of_server.component_of_leader(user, of_leader.clone());
    let scheduler = server.component_of_leader("system:kube-scheduler", fence.clone());
    if fence.is_some() {
        tracing::info!("this server leads: controllers and scheduler run here");
    }
    let parts = futures::future::join(
        controllers::run(client_of, settings, numbers.work, token.clone()),
        scheduler::run(scheduler, profiles, numbers.decisions, token.clone()),
    );
    tokio::pin!(parts);
    let stops = tokio::select! {
        _ = &mut parts => return false,
        () = leadership.lost() => false,
        () = shutdown.requested() => true,
    };
    token.cancel();
    // They end at once: nothing that they have begun is waited for.
    let _ = parts.await;
    if stops {
        leadership.resign().await;
    } else {
        tracing::warn!("this server does not lead any more");
    }
    stops
}
