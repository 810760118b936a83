//! Which groups, versions and resources there are, in every form that clients ask for.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::negotiate::accepted;
use super::registry::{GroupVersion, Snapshot};
use super::request::Route;
use super::rest::Answer;
use super::{State, reply};
use api::{self, ApiError, Resource, Scope, Subresource};

/// `/`: where one may go from here.
pub fn paths(served: &Snapshot) -> Response<Body> {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for version in served.versions() {
        paths.push(
            prefix(&version.group, &version.version)
                .trim_start_matches('/')
                .to_owned(),
        );
    }
    let fixed = [
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ];
    paths.extend(fixed.map(str::to_owned));
    let paths: Vec<String> = paths
        .into_iter()
        .map(|p| {
            if p.starts_with('/') {
                p
            } else {
                format!("/{p}")
            }
        })
        .collect();
    reply::json(StatusCode::OK, &json!({"paths": paths}))
}

/// One of the discovery documents.
pub fn answer(state: &State, route: &Route, headers: &HeaderMap) -> Answer {
    let served = &state.registry.snapshot();
    let document = match route {
        Route::CoreVersions => match aggregated_version(headers) {
            Some(version) => {
                let items = vec![aggregated_group(served, "")];
                return Ok(aggregated(version, items, headers));
            }
            None => json!({
                "kind": "APIVersions",
                "versions": ["v1"],
                "serverAddressByClientCIDRs": [
                    {"clientCIDR": "0.0.0.0/0", "serverAddress": state.config.advertise.to_string()}
                ],
            }),
        },
        Route::Groups => match aggregated_version(headers) {
            Some(version) => {
                let names = served.groups().into_iter();
                let mut items = names.map(|name| aggregated_group(served, name)).collect();
                state.aggregated.add_discovered(state, served, &mut items)?;
                return Ok(aggregated(version, items, headers));
            }
            None => json!({
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": groups(state, served)?,
            }),
        },
        Route::Group(name) => {
            let mut groups = groups(state, served)?.into_iter();
            let found = groups.find(|group| group["name"] == name.as_str());
            let mut document = found.ok_or(ApiError::NoSuchResource)?;
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            document
        }
        Route::Resources { group, version } => resource_list(served, group, version)?,
        Route::Objects(_) => return Err(ApiError::NoSuchResource),
    };
    Ok(reply::json(StatusCode::OK, &document))
}

/// `api/v1` or `apis/<group>/<version>`.
pub fn prefix(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

/// The groups of this server, then those of others.
fn groups(state: &State, served: &Snapshot) -> Result<Vec<Value>, ApiError> {
    let names = served.groups().into_iter();
    let mut groups = names.map(|name| group(served, name)).collect();
    state.aggregated.add_groups(state, served, &mut groups)?;
    Ok(groups)
}

fn group(served: &Snapshot, name: &str) -> Value {
    let versions = served.of_group(name).map(|GroupVersion { group, version, .. }| {
        json!({"groupVersion": format!("{group}/{version}"), "version": version})
    });
    let versions: Vec<Value> = versions.collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn resource_list(served: &Snapshot, group: &str, version: &str) -> Result<Value, ApiError> {
    let found = served.version(group, version);
    let mut resources = Vec::new();
    for resource in found.ok_or(ApiError::NoSuchResource)?.resources() {
        resources.push(without_empty(json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced(),
            "kind": resource.kind,
            "verbs": resource.verbs,
            "shortNames": resource.short_names,
            "categories": resource.categories,
        })));
        for sub in &resource.subresources {
            resources.push(subresource(resource, *sub));
        }
    }
    let version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": resources,
    }))
}

fn subresource(of: &Resource, sub: Subresource) -> Value {
    let object = sub.object(of);
    let mut entry = json!({
        "name": format!("{}/{}", of.plural, sub.name()),
        "singularName": "",
        "namespaced": of.namespaced(),
        "kind": object.kind,
        "verbs": sub.verbs(),
    });
    if object.group != of.group {
        entry["group"] = (&*object.group).into();
        entry["version"] = (&*object.version).into();
    }
    entry
}

/// Lists that are empty are left out, as clients expect.
fn without_empty(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.as_array().is_some_and(Vec::is_empty));
    }
    value
}

/// The version of apidiscovery.k8s.io that the client wants, if it wants all in one document.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    for range in accepted(headers) {
        if range.media != "application/json" {
            continue;
        }
        match (range.convert_to.as_str(), range.version.as_str()) {
            ("APIGroupDiscoveryList", "v2") => return Some("v2"),
            ("APIGroupDiscoveryList", "v2beta1") => return Some("v2beta1"),
            ("", _) => return None,
            _ => {}
        }
    }
    None
}

/// Everything in one document, or that the client has it already.
fn aggregated(version: &'static str, items: Vec<Value>, headers: &HeaderMap) -> Response<Body> {
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let document = document.to_string();
    let tag = format!("\"{}\"", hex::encode_upper(Sha256::digest(&document)));
    let known = headers.get(header::IF_NONE_MATCH);
    let known = known.is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let media = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    let mut response = match known {
        true => reply::response(media, StatusCode::NOT_MODIFIED, Body::empty()),
        false => reply::response(media, StatusCode::OK, Body::from(document)),
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn aggregated_group(served: &Snapshot, name: &str) -> Value {
    let versions = served.of_group(name).map(|version| {
        let resources: Vec<Value> = version.resources().map(aggregated_resource).collect();
        json!({"version": version.version, "resources": resources, "freshness": "Current"})
    });
    let versions: Vec<Value> = versions.collect();
    match name {
        "" => json!({"metadata": {"creationTimestamp": null}, "versions": versions}),
        name => {
            json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})
        }
    }
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |object: &Resource| {
        let (group, version) = (&object.group, &object.version);
        json!({"group": group, "version": version, "kind": object.kind})
    };
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| {
            json!({
                "subresource": sub.name(),
                "responseKind": kind(sub.object(resource)),
                "verbs": sub.verbs(),
            })
        })
        .collect();
    let scope = match resource.scope {
        Scope::Namespaced => "Namespaced",
        Scope::Cluster => "Cluster",
    };
    without_empty(json!({
        "resource": resource.plural,
        "responseKind": kind(resource),
        "scope": scope,
        "singularResource": resource.singular,
        "verbs": resource.verbs,
        "shortNames": resource.short_names,
        "categories": resource.categories,
        "subresources": subresources,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::registry::Registry;
    use super::*;

    #[test]
    fn every_resource_is_discovered_with_its_parts() {
        let served = Registry::new().snapshot();
        let list = resource_list(&served, "apps", "v1").expect("served");
        let names: Vec<&str> = list["resources"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|r| r["name"].as_str())
            .collect();
        assert!(names.contains(&"deployments") && names.contains(&"deployments/scale"));
        let scale = list["resources"].as_array().into_iter().flatten();
        let scale = scale
            .clone()
            .find(|r| r["name"] == "deployments/scale")
            .expect("listed");
        assert_eq!(scale["group"], "autoscaling");
        assert!(resource_list(&served, "nothing", "v1").is_err());
    }

    #[test]
    fn aggregated_discovery_is_chosen_by_the_first_known_form() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static(
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                 application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                 application/json",
            ),
        );
        assert_eq!(aggregated_version(&headers), Some("v2"));
        assert_eq!(aggregated_version(&HeaderMap::new()), None);
    }
}
