//! What a scraper gets.

use axum::http::header;

use super::*;

async fn text(cluster: &Cluster) -> String {
    let answer = cluster.get("/metrics").await;
    assert_eq!(answer.code, 200);
    let kind = answer.headers[header::CONTENT_TYPE]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    match answer.body {
        Value::String(text) => text,
        other => panic!("{other}"),
    }
}

/// The value of the series that begins so.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

const OF_MAPS: &str =
    r#"component="apiserver",group="",version="v1",resource="configmaps",subresource="""#;

#[tokio::test]
async fn requests_are_counted_by_what_they_are_for_and_how_they_end() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(409);
    cluster.get(CONFIG_MAPS).await.expect(200);
    let nobody = cluster.as_user(User::anonymous());
    nobody.get(CONFIG_MAPS).await.expect(403);
    let text = text(&cluster).await;
    for (rest, times) in [
        (r#"scope="resource",verb="POST",code="201""#, 1.0),
        (r#"scope="resource",verb="POST",code="409""#, 1.0),
        (r#"scope="namespace",verb="LIST",code="200""#, 1.0),
        (r#"scope="namespace",verb="LIST",code="403""#, 1.0),
    ] {
        let series = format!("apiserver_request_total{{{OF_MAPS},{rest}}}");
        assert_eq!(value(&text, &series), Some(times), "{series}\n{text}");
    }
    let took = format!(
        "apiserver_request_duration_seconds_bucket{{le=\"60.0\",{OF_MAPS},scope=\"resource\",verb=\"POST\"}}"
    );
    assert_eq!(value(&text, &took), Some(2.0), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn dashboards_find_the_names_that_they_ask_for() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let text = text(&cluster).await;
    for series in [
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"}",
        "apiserver_current_inflight_requests{request_kind=\"mutating\"}",
        "apiserver_storage_objects{resource=\"configmaps\"}",
        "apiserver_storage_objects{resource=\"deployments.apps\"}",
        "apiserver_resource_objects{group=\"apps\",resource=\"deployments\"}",
        "apiserver_watch_cache_resource_version{group=\"\",resource=\"configmaps\"}",
        "authentication_attempts{result=\"success\"}",
        "authenticated_user_requests{username=\"admin\"}",
        "authorization_attempts_total{result=\"allowed\"}",
        "etcd_request_duration_seconds_count{operation=\"update\",type=\"\"}",
        "kubernetes_build_info{",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(value(&text, series).is_some(), "no {series} in\n{text}");
    }
    // The request itself has a seat.
    let seated = "apiserver_current_inflight_requests{request_kind=\"readOnly\"}";
    assert_eq!(value(&text, seated), Some(1.0));
}

#[tokio::test]
async fn a_watch_is_counted_while_it_lasts_with_its_events() {
    let cluster = Cluster::start().await;
    let lasting =
        format!("apiserver_longrunning_requests{{{OF_MAPS},scope=\"namespace\",verb=\"WATCH\"}}");
    let request = Request::get(format!("{CONFIG_MAPS}?watch=1")).body(Body::empty());
    let watch = cluster.send(request.expect("a request")).await;
    assert_eq!(value(&text(&cluster).await, &lasting), Some(1.0));
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let mut body = watch.into_body();
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
    assert!(frame.expect("an event in time").is_some());
    let events = "apiserver_watch_events_total{group=\"\",version=\"v1\",resource=\"configmaps\"}";
    assert!(value(&text(&cluster).await, events) >= Some(1.0));
    drop(body);
    assert_eq!(value(&text(&cluster).await, &lasting), None);
}

#[tokio::test]
async fn nothing_that_a_client_says_makes_a_series() {
    let cluster = Cluster::start().await;
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let ask = async |round: &str| {
        for path in [
            format!("/{round}"),
            format!("/api/v1/{round}"),
            format!("/apis/{round}.example.com/v1/namespaces/x/{round}"),
            format!("/api/v1/namespaces/{round}/configmaps/{round}?labelSelector={round}"),
            format!("/api/v1/nodes/{round}/proxy/{round}"),
            format!("/openapi/v3/{round}"),
        ] {
            cluster.get(&path).await;
            cluster.call("BREW", &path, round, &Value::Null).await;
            cluster
                .call(
                    "PATCH",
                    &path,
                    &format!("application/{round}"),
                    &Value::Null,
                )
                .await;
        }
        text(&cluster).await
    };
    let first = ask("marked-one").await;
    let before = series(&ask("marked-two").await);
    for round in 0..20 {
        ask(&format!("marked-{round}")).await;
    }
    let last = ask("marked-last").await;
    assert_eq!(series(&last), before, "{last}");
    assert!(!first.contains("marked") && !last.contains("marked"));
}

#[tokio::test]
async fn only_those_who_may_see_numbers_get_them() {
    let cluster = Cluster::start().await;
    for (user, code) in [
        (User::anonymous(), 403),
        (User::component("jane"), 403),
        (User::component("system:kube-scheduler"), 403),
    ] {
        cluster.as_user(user).get("/metrics").await.expect(code);
    }
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "monitor"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:monitoring"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    cluster.post(bindings, binding).await.expect(201);
    cluster
        .as_user(User::component("jane"))
        .get("/metrics")
        .await
        .expect(200);
}
