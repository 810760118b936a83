//! Tokens of ServiceAccounts for whoever may have one, and whose a token is.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::authn::service_account::claims::{Kubernetes, Named};
use crate::authn::service_account::{LONGEST_LIFE, Life, find};
use crate::authn::{Bearer, authenticate_token};
use crate::write::Part;
use crate::{State, bootstrap, reply};
use api::{ApiError, Cause, CauseKind, Resource, Subresource, meta};

/// Tokens that are mounted into pods by themselves ask for so many seconds …
const MOUNTED: i64 = 3607;
/// … and are good for so many, as clients used to read them once and for all (KEP-1205).
const EXTENDED: i64 = 365 * 24 * 3600;

/// POST of a TokenRequest.
pub async fn request(call: &Call) -> Answer {
    let kind = &*api::kinds::TOKEN_REQUEST;
    let mut request = call.decode(kind)?;
    kind.default(&mut request);
    check_place(call, kind, &request)?;
    let (namespace, name) = (call.namespace(), call.name());
    let account = named(&call.state, call.resource(), namespace, name)?;
    request["metadata"]["name"] = name.into();
    request["metadata"]["namespace"] = namespace.into();
    let now = Timestamp::now();
    if request["metadata"]["creationTimestamp"].is_null() {
        request["metadata"]["creationTimestamp"] = meta::timestamp(now).into();
    }
    let own = &call.state.authentication.audiences;
    if texts(&request["spec"]["audiences"]).is_empty() {
        request["spec"]["audiences"] = json!(own);
    }
    kind.validate(&request, None, None)?;
    let writer = call.writer(Part::Of(Subresource::Token))?;
    writer
        .review_body(kind, (namespace, name), &mut request)
        .await?;
    let audiences = texts(&request["spec"]["audiences"]);
    check_node(call, &request, &audiences)?;
    let mut seconds = request["spec"]["expirationSeconds"]
        .as_i64()
        .unwrap_or_default();
    let most = LONGEST_LIFE.as_secs();
    if seconds > most {
        call.warnings.add([format!(
            "requested expiration of {seconds} seconds shortened to {most} seconds"
        )]);
        seconds = most;
        request["spec"]["expirationSeconds"] = most.into();
    }
    let mut kubernetes = Kubernetes {
        namespace: namespace.to_owned(),
        serviceaccount: account,
        ..bound(call, &request["spec"]["boundObjectRef"])?
    };
    let mut life = Life { from: now, seconds };
    let is_own = audiences.iter().all(|audience| own.contains(audience));
    if seconds == MOUNTED && kubernetes.pod.is_some() && is_own {
        kubernetes.warnafter = Some(now.as_second() + seconds);
        life.seconds = EXTENDED;
    }
    let token = call
        .state
        .authentication
        .accounts
        .sign(audiences, kubernetes, life);
    let credential = format!("JTI={}", token.id);
    let key = "authentication.kubernetes.io/issued-credential-id";
    call.trail.annotate(key, &credential);
    request["status"] = json!({
        "token": token.text?,
        "expirationTimestamp": meta::timestamp(now + SignedDuration::from_secs(seconds)),
    });
    reply::made(&call.wanted, kind, StatusCode::CREATED, &request)
}

/// The status of a TokenReview.
pub async fn review(call: &Call, spec: &Value) -> Result<Value, ApiError> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        let why = "token is required for TokenReview in authentication";
        return Err(ApiError::BadRequest(why.to_owned()));
    }
    let mut audiences = texts(&spec["audiences"]);
    if audiences.is_empty() {
        audiences.clone_from(&call.state.authentication.audiences);
    }
    let (proof, errors) = authenticate_token(Bearer {
        state: &call.state,
        token,
        audiences: &audiences,
        now: Timestamp::now(),
    })
    .await;
    let Some(proof) = proof else {
        let why = ["invalid bearer token".to_owned()]
            .into_iter()
            .chain(errors)
            .collect::<Vec<_>>();
        let why = match &why[..] {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        return Ok(json!({"user": {}, "error": why}));
    };
    let mut status = json!({"authenticated": true, "user": proof.user.info()});
    if !proof.audiences.is_empty() {
        status["audiences"] = json!(proof.audiences);
    }
    Ok(status)
}

/// A request may say again whose token it asks for, and nothing else.
fn check_place(call: &Call, kind: &Resource, request: &Value) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    for (field, of_path) in [("name", call.name()), ("namespace", call.namespace())] {
        let said = request["metadata"][field].as_str().unwrap_or_default();
        if !said.is_empty() && said != of_path {
            causes.push(Cause {
                field: format!("metadata.{field}"),
                kind: CauseKind::Invalid,
                message: format!(
                    "Invalid value: {said:?}: must match the service account {field} if specified"
                ),
            });
        }
    }
    match causes.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid(kind, call.name(), causes)),
    }
}

/// What the token is to be bound to.
fn bound(call: &Call, reference: &Value) -> Result<Kubernetes, ApiError> {
    let mut to = Kubernetes::default();
    if !reference.is_object() {
        return Ok(to);
    }
    let word = |field: &str| reference[field].as_str().unwrap_or_default();
    let (version, kind, name) = (word("apiVersion"), word("kind"), word("name"));
    let state = &call.state;
    let (plural, namespace) = match (version, kind) {
        ("" | "v1", "Pod") => ("pods", call.namespace()),
        ("" | "v1", "Secret") => ("secrets", call.namespace()),
        ("" | "v1", "Node") => ("nodes", ""),
        _ => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            return Err(ApiError::BadRequest(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let resource = bootstrap::find("", plural)?;
    let object = named(state, resource, namespace, name)?;
    let uid = word("uid");
    if !uid.is_empty() && uid != object.uid {
        return Err(ApiError::Conflict {
            target: api::status::Target {
                kind: kind.to_owned(),
                name: name.to_owned(),
                ..Default::default()
            },
            message: format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The \
                 object might have been deleted and then recreated"
            ),
        });
    }
    match kind {
        "Secret" => to.secret = Some(object),
        "Node" => to.node = Some(object),
        _ => {
            let spec = find(state, "pods", namespace, name).map(|pod| pod.spec);
            let spec = spec.unwrap_or_default();
            if spec.service_account_name != call.name() {
                return Err(ApiError::BadRequest(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different \
                     serviceaccount name.",
                    call.name()
                )));
            }
            to.pod = Some(object);
            to.node = node_of(state, spec.node_name);
        }
    }
    Ok(to)
}

/// The node of a pod; only its name if there is none.
fn node_of(state: &State, name: String) -> Option<Named> {
    if name.is_empty() {
        return None;
    }
    let uid = find(state, "nodes", "", &name).map(|node| node.metadata.uid);
    Some(Named {
        uid: uid.unwrap_or_default(),
        name,
    })
}

fn named(
    state: &State,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Named, ApiError> {
    let found = find(state, &resource.plural, namespace, name);
    let found = found.ok_or_else(|| ApiError::not_found(resource, name))?;
    Ok(Named {
        name: name.to_owned(),
        uid: found.metadata.uid,
    })
}

/// A node has tokens for the pods that are bound to it, and only such as they ask for.
fn check_node(call: &Call, request: &Value, audiences: &[String]) -> Result<(), ApiError> {
    let Some(node) = call.user.node() else {
        return Ok(());
    };
    let refused = |why: String| Err(ApiError::forbidden(call.resource(), call.name(), why));
    let reference = &request["spec"]["boundObjectRef"];
    let word = |field: &str| reference[field].as_str().unwrap_or_default();
    let name = word("name");
    if word("apiVersion") != "v1" || word("kind") != "Pod" || name.is_empty() {
        return refused("node requested token not bound to a pod".to_owned());
    }
    if word("uid").is_empty() {
        return refused("node requested token with a pod binding without a uid".to_owned());
    }
    let pods = bootstrap::find("", "pods")?;
    let pod = call.state.objects.get(pods, call.namespace(), name)?;
    let pod = reply::parse(&pod.bytes())?;
    if meta::uid(&pod) != word("uid") {
        return refused(format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object \
             might have been deleted and then recreated",
            word("uid")
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return refused(
            "node requested token bound to a pod scheduled on a different node".to_owned(),
        );
    }
    let own = &call.state.authentication.audiences;
    let of_drivers = driver_audiences(call, &pod);
    let mut wanted = wanted_audiences(&pod);
    wanted.extend(of_drivers.iter().map(String::as_str));
    // A projection without an audience is for the API server.
    let is_wanted = |audience: &String| match own.contains(audience) {
        true => wanted.contains(&"") || wanted.contains(&audience.as_str()),
        false => wanted.contains(&audience.as_str()),
    };
    match audiences.iter().find(|audience| !is_wanted(audience)) {
        Some(audience) => refused(format!(
            "audience {audience:?} not found in pod spec volume"
        )),
        None => Ok(()),
    }
}

/// The audiences of the tokens that the CSI drivers of a pod's volumes are given (KEP-1855).
fn driver_audiences(call: &Call, pod: &Value) -> Vec<String> {
    let read = |group: &str, plural: &str, namespace: &str, name: &str| {
        let kind = api::find(group, "v1", plural)?;
        let found = call.state.objects.cache.get(kind, namespace, name)?;
        reply::parse(&found.bytes()).ok()
    };
    let driver_of = |volume: &Value| {
        if let Some(driver) = volume["csi"]["driver"].as_str() {
            return Some(driver.to_owned());
        }
        let own = format!(
            "{}-{}",
            meta::name(pod),
            volume["name"].as_str().unwrap_or_default()
        );
        let claim = match volume["ephemeral"].is_null() {
            true => volume["persistentVolumeClaim"]["claimName"].as_str()?,
            false => &own,
        };
        let claim = read("", "persistentvolumeclaims", call.namespace(), claim)?;
        let volume = read(
            "",
            "persistentvolumes",
            "",
            claim["spec"]["volumeName"].as_str()?,
        )?;
        let is_bound = volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"];
        let driver = volume["spec"]["csi"]["driver"]
            .as_str()
            .filter(|_| is_bound);
        driver.map(str::to_owned)
    };
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let drivers: BTreeSet<String> = volumes.filter_map(driver_of).collect();
    let audiences = drivers.iter().filter_map(|driver| {
        let driver = read("storage.k8s.io", "csidrivers", "", driver)?;
        let requests = driver["spec"]["tokenRequests"].as_array()?.iter();
        let texts = requests.filter_map(|it| Some(it["audience"].as_str()?.to_owned()));
        Some(texts.collect::<Vec<_>>())
    });
    audiences.flatten().collect()
}

/// The audiences of the tokens that are projected into a pod; an empty one is the API server's.
fn wanted_audiences(pod: &Value) -> Vec<&str> {
    fn list(value: &Value) -> impl Iterator<Item = &Value> {
        value.as_array().into_iter().flatten()
    }
    let volumes = list(&pod["spec"]["volumes"]);
    let sources = volumes.flat_map(|volume| list(&volume["projected"]["sources"]));
    let tokens = sources.map(|source| &source["serviceAccountToken"]);
    tokens
        .filter(|token| token.is_object())
        .map(|token| token["audience"].as_str().unwrap_or_default())
        .collect()
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}
