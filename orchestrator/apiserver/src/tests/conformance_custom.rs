//! The conformance tests since 1.20 that concern custom kinds; the comment of each is the name of the one
//! that it stands for.

use super::custom::{
    WEBS, converter, definition, establish, spec_of, version, web, with_a_converter,
};
use super::watches::Watcher;
use super::*;

const APPLY: &str = "application/apply-patch+yaml";

/// The kind with a schema that knows `spec.host` alone, and perhaps an object inside.
fn with_schema(more: Value) -> Value {
    let mut properties = json!({"host": {"type": "string"}});
    if let (Some(all), Some(more)) = (properties.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    definition(json!([version("v1", spec_of(properties))]))
}

/// Creates strictly under one name, and applies strictly under another.
async fn strictly(cluster: &Cluster, object: &Value) -> [Answer; 2] {
    let made = cluster
        .post(&format!("{WEBS}?fieldValidation=Strict"), object.clone())
        .await;
    let mut applied = object.clone();
    applied["metadata"]["name"] = "applied".into();
    let path = format!("{WEBS}/applied?fieldManager=test&fieldValidation=Strict");
    [made, cluster.call("PATCH", &path, APPLY, &applied).await]
}

/// FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema
#[tokio::test]
async fn a_kind_without_a_schema_takes_fields_that_nobody_declared() {
    let cluster = Cluster::start().await;
    let open = json!({"name": "v1", "served": true, "storage": true, "schema": {
        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    establish(&cluster, definition(json!([open]))).await;
    let object = web("v1", "a", json!({"anything": {"goes": [1]}}));
    for answer in strictly(&cluster, &object).await {
        assert_eq!(answer.expect(201)["spec"], object["spec"]);
    }
}

/// FieldValidation should create/apply a valid CR for CRD with validation schema
#[tokio::test]
async fn a_valid_custom_object_passes_strict_validation() {
    let cluster = Cluster::start().await;
    establish(&cluster, with_schema(json!({}))).await;
    for answer in strictly(&cluster, &web("v1", "a", json!({"host": "h"}))).await {
        answer.expect(201);
    }
}

/// FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema
#[tokio::test]
async fn undeclared_properties_of_a_custom_object_are_refused_strictly() {
    let cluster = Cluster::start().await;
    establish(&cluster, with_schema(json!({}))).await;
    let object = web("v1", "a", json!({"host": "h", "extra": 1}));
    for answer in strictly(&cluster, &object).await {
        let text = answer.message().to_owned();
        // An apply says it in the words of a typed value.
        assert!(text.contains("spec.extra"), "{text}");
        assert!((400..500).contains(&answer.code.as_u16()), "{text}");
    }
}

/// FieldValidation should detect duplicates in a CR when preserving unknown fields
#[tokio::test]
async fn a_repeated_key_is_refused_also_where_unknown_fields_stay() {
    let cluster = Cluster::start().await;
    let keeps = json!({"x-kubernetes-preserve-unknown-fields": true, "type": "object"});
    establish(&cluster, with_schema(json!({"open": keeps}))).await;
    let object = r#"{"apiVersion": "example.com/v1", "kind": "Web", "metadata": {"name": "a"},
        "spec": {"open": {"x": 1, "x": 2}}}"#;
    let path = format!("{WEBS}?fieldValidation=Strict");
    let refused = cluster
        .call("POST", &path, "application/json", &json!(object))
        .await;
    let text = refused.message().to_owned();
    assert!(text.contains(r#"duplicate field "spec.open.x""#), "{text}");
    refused.expect(400);
}

/// FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR
#[tokio::test]
async fn undeclared_metadata_of_a_custom_object_and_of_one_inside_are_refused_strictly() {
    let cluster = Cluster::start().await;
    let inside = json!({"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true});
    establish(&cluster, with_schema(json!({"template": inside}))).await;
    let mut object = web("v1", "a", json!({}));
    object["metadata"]["unknownMeta"] = "x".into();
    object["spec"]["template"] = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "unknownSubMeta": "x"}});
    let path = format!("{WEBS}?fieldValidation=Strict");
    let refused = cluster.post(&path, object).await;
    let text = refused.message().to_owned();
    for field in [
        "metadata.unknownMeta",
        "spec.template.metadata.unknownSubMeta",
    ] {
        assert!(
            text.contains(&format!("unknown field \"{field}\"")),
            "{text}"
        );
    }
    refused.expect(400);
}

/// AggregatedDiscovery should support raw aggregated discovery request for CRDs (and the interface for CRDs)
#[tokio::test]
async fn a_custom_kind_is_in_the_one_document_of_discovery() {
    let cluster = Cluster::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let before = cluster.get_as("/apis", accept).await;
    establish(&cluster, with_schema(json!({}))).await;
    let after = cluster.get_as("/apis", accept).await;
    assert_ne!(before.headers["etag"], after.headers["etag"]);
    let document = after.expect(200);
    let groups = document["items"].as_array().expect("groups");
    let own = groups
        .iter()
        .find(|group| group["metadata"]["name"] == "example.com");
    let own = own.expect("the kind's group");
    assert_eq!(own["versions"][0]["version"], "v1");
    assert_eq!(own["versions"][0]["resources"][0]["resource"], "webs");
}

/// StorageVersionMigration CRUD Tests storagemigration.k8s.io/v1 StorageVersionMigration
#[tokio::test]
async fn storage_version_migrations_are_made_listed_updated_patched_and_deleted() {
    let cluster = Cluster::start().await;
    let path = "/apis/storagemigration.k8s.io/v1/storageversionmigrations";
    let migration = json!({"apiVersion": "storagemigration.k8s.io/v1",
        "kind": "StorageVersionMigration", "metadata": {"name": "m"},
        "spec": {"resource": {"group": "", "resource": "configmaps"}}});
    cluster.post(path, migration).await.expect(201);
    let list = cluster.get(path).await.expect(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let one = format!("{path}/m");
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let mut patched = cluster.merge(&one, patch).await.expect(200);
    patched["metadata"]["annotations"]["updated"] = "true".into();
    let updated = cluster.put(&one, patched).await.expect(200);
    assert_eq!(
        updated["metadata"]["annotations"],
        json!({"patched": "true", "updated": "true"})
    );
    cluster.delete(&one).await.expect(200);
    cluster.get(&one).await.expect(404);
}

/// CustomResourceFieldSelectors MUST list and watch custom resources matching the field selector
#[tokio::test]
async fn field_selectors_of_a_custom_kind_are_judged_in_the_version_that_is_asked_for() {
    let cluster = Cluster::start().await;
    let remote = converter().await;
    with_a_converter(&cluster, &remote).await;
    for (name, host) in [("a", "x"), ("b", "y"), ("c", "x")] {
        cluster
            .post(WEBS, web("v1", name, json!({"host": host})))
            .await
            .expect(201);
    }
    let v2 = WEBS.replace("/v1/", "/v2/");
    let (v1_x, v2_x) = (
        format!("{WEBS}?fieldSelector=spec.host%3Dx"),
        format!("{v2}?fieldSelector=spec.url%3Dx"),
    );
    for path in [&v1_x, &v2_x] {
        assert_eq!(names_at(&cluster, path).await, ["a", "c"], "{path}");
    }
    let page = cluster.get(&format!("{v2_x}&limit=1")).await.expect(200);
    let token = page["metadata"]["continue"].as_str().expect("a token");
    let next = format!("{v2_x}&limit=1&continue={token}");
    assert_eq!(names_at(&cluster, &next).await, ["c"]);
    let named = format!("{v2}?fieldSelector=metadata.name%3Db,spec.url%3Dx");
    assert!(names_at(&cluster, &named).await.is_empty());
    cluster
        .get(&format!("{v2}?fieldSelector=spec.host%3Dx"))
        .await
        .expect(400);

    // As objects change or go.
    let mut watches = Vec::new();
    for path in [&v1_x, &v2_x] {
        let mut watch = Watcher::open(&cluster, &format!("{path}&watch=1"), "*/*").await;
        assert_eq!(watch.told().await, ("ADDED".into(), "a".into()));
        assert_eq!(watch.told().await, ("ADDED".into(), "c".into()));
        watches.push(watch);
    }
    let spec = |host: &str| json!({"spec": {"host": host}});
    cluster
        .merge(&format!("{WEBS}/b"), spec("x"))
        .await
        .expect(200);
    cluster
        .merge(&format!("{WEBS}/a"), spec("y"))
        .await
        .expect(200);
    cluster
        .merge(&format!("{WEBS}/a"), spec("z"))
        .await
        .expect(200);
    cluster.delete(&format!("{WEBS}/c")).await.expect(200);
    for mut watch in watches {
        for (kind, name) in [("ADDED", "b"), ("DELETED", "a"), ("DELETED", "c")] {
            assert_eq!(watch.told().await, (kind.to_owned(), name.to_owned()));
        }
    }
    // Nothing goes that the version does not select.
    let not_x = format!("{v2}?fieldSelector=spec.url%21%3Dx");
    cluster.delete(&not_x).await.expect(200);
    assert_eq!(names_at(&cluster, WEBS).await, ["b"]);
}

/// A version without a webhook may offer a field that the stored one does not offer.
#[tokio::test]
async fn a_field_that_only_the_served_version_offers_is_selected_by() {
    let cluster = Cluster::start().await;
    let spec = || spec_of(json!({"color": {"type": "string"}}));
    let mut v2 = version("v2", spec());
    v2["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    establish(&cluster, definition(json!([version("v1", spec()), v2]))).await;
    for (name, color) in [("a", "red"), ("b", "blue")] {
        cluster
            .post(WEBS, web("v1", name, json!({"color": color})))
            .await
            .expect(201);
    }
    let v2 = WEBS.replace("/v1/", "/v2/");
    let red = format!("{v2}?fieldSelector=spec.color%3Dred");
    assert_eq!(names_at(&cluster, &red).await, ["a"]);
}

async fn names_at(cluster: &Cluster, path: &str) -> Vec<String> {
    let list = cluster.get(path).await.expect(200);
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let name = |item: &Value| {
        item["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    items.iter().map(name).collect()
}
