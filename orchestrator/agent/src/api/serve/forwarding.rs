//! Port-forward: connections of a client of the API server to ports of a pod, from inside the pod's network.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use streams::{Connection, Connections};
use sys::front::Takeover;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Meant, Served, full, not_an_upgrade};
use crate::network::loopback;
use crate::runtime::{Role, Runtime, State as ContainerState};

/// Connections of one client at once; further ones wait.
const CONNECTIONS: usize = 512;

/// Forwards to ports of a pod.
pub async fn port_forward<R: Runtime>(
    State(served): State<Served<R>>,
    Path((namespace, pod)): Path<(String, String)>,
    Query(pairs): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let meant = Meant::of(&namespace, &pod, request.headers());
    let (uid, pid) = match sandbox(&*served.runtime, &meant).await {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let ports = pairs.iter().filter(|(key, _)| key == "port");
    let ports: Result<Vec<u16>, _> = ports.map(|(_, port)| port.parse()).collect();
    let Ok(ports) = ports else {
        return (StatusCode::BAD_REQUEST, "unable to parse port").into_response();
    };
    let Some(takeover) = request.extensions().get::<Takeover>().cloned() else {
        return not_an_upgrade();
    };
    let Ok(room) = served.streams.clone().try_acquire_owned() else {
        return full();
    };
    let (answer, starting) =
        match streams::forward_over(request.method(), request.headers(), &ports) {
            Ok(accepted) => accepted,
            Err(refused) => return refused.into_response().map(Body::from),
        };
    let target = Arc::new(Target {
        pid,
        name: format!("{namespace}/{pod}, uid {uid}"),
    });
    takeover.then(async move |connection| {
        forward(starting.start(connection), target).await;
        drop(room);
    });
    answer.map(|()| Body::empty())
}

/// The pod that is meant.
struct Target {
    /// A process in its network namespace.
    pid: u32,
    name: String,
}

/// The uid of the pod, and a process in its network.
async fn sandbox<R: Runtime>(runtime: &R, meant: &Meant<'_>) -> Result<(String, u32), Response> {
    let failed = |error: crate::runtime::RuntimeError| {
        (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
    };
    let pods = runtime.pods().await.map_err(failed)?;
    let named = pods.into_iter().map(|sighting| sighting.pod);
    let named = named.filter(|it| meant.is(it));
    let mut newest = None;
    for pod in named {
        for container in runtime.containers(&pod.uid).await.map_err(failed)? {
            if let (Role::Sandbox, ContainerState::Running { pid, started_at }) =
                (container.identity.role, &container.state)
            {
                newest = newest.max(Some((*started_at, pod.uid.clone(), *pid)));
            }
        }
    }
    let (_, uid, pid) = newest.ok_or_else(|| {
        let why = format!("pod not found ({:?})", meant.name);
        (StatusCode::NOT_FOUND, why).into_response()
    })?;
    Ok((uid, pid))
}

/// Serves a client's connections until it is gone.
async fn forward(mut client: Connections, target: Arc<Target>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    while let Some(connection) = client.next().await {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        let target = target.clone();
        open.spawn(async move {
            carry(connection, &target).await;
            drop(place);
        });
        // Those that have ended are forgotten.
        while open.try_join_next().is_some() {}
    }
}

async fn carry(connection: Connection, target: &Target) {
    let port = connection.port;
    match loopback::dial(target.pid, port).await {
        Ok(stream) => {
            if let Err(error) = connection.relay(stream).await {
                tracing::debug!(%error, port, "a forwarded connection broke");
            }
        }
        Err(error) => {
            let name = &target.name;
            let why = format!("error forwarding port {port} to pod {name}: {error}");
            connection.error.fail(&why);
        }
    }
}
