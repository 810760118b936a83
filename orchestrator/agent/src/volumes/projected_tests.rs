use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::api::sources::{Contents, Token, Tokens};

fn facts() -> Facts {
    Facts {
        node_name: "n1".to_owned(),
        node_ips: Default::default(),
        pod_ips: None,
        node_cpus: 2,
        node_memory_bytes: 1 << 30,
    }
}

fn sources() -> Sources {
    let contents = |entries: &[(&str, &[u8])]| {
        let entries = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.to_vec()));
        Arc::new(Contents {
            entries: entries.collect(),
            ..Default::default()
        })
    };
    let conf = contents(&[("a", b"one"), ("bin", &[0, 1, 2, 255])]);
    let object = |kind: Kind, name: &str| Wanted::Object(kind, name.to_owned());
    let bundle = |text: &str| contents(&[(trust_bundles::ENTRY, text.as_bytes())]);
    let objects = [
        (object(Kind::ConfigMap, "conf"), conf),
        (
            object(Kind::Secret, "sec"),
            contents(&[("pass", b"s3cret")]),
        ),
        (object(Kind::ConfigMap, "empty"), contents(&[])),
        (Wanted::Bundles(named("one")), bundle("ONE")),
        (Wanted::Bundles(of_signer(json!({}))), bundle("ALL")),
    ];
    Sources {
        objects: objects.into(),
        claimed: Default::default(),
        mounted: BTreeMap::new(),
        images: BTreeMap::new(),
        service_env: BTreeMap::new(),
        tokens: Tokens::from([
            (wish("", 3607), Ok(Token("a.b.c".into()))),
            (wish("vault", 600), Err("it is sealed".to_owned())),
        ]),
    }
}

fn named(name: &str) -> BundleWish {
    BundleWish::Named(name.to_owned())
}

fn of_signer(selector: Value) -> BundleWish {
    let source =
        json!({ "path": "p", "signerName": "example.com/mine", "labelSelector": selector });
    BundleWish::of(&serde_json::from_value(source).expect("a source"))
}

/// The conformance tests of `[sig-auth] ClusterTrustBundle`: several volumes, by name and by signer, optional or not.
#[test]
fn a_trust_bundle_is_a_file_and_an_optional_one_that_is_not_there_an_empty_one() {
    let file = |source: Value| {
        let pod =
            json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c" }] } });
        let pod = serde_json::from_value(pod).expect("a pod");
        let volume =
            json!({ "name": "v", "projected": { "sources": [{ "clusterTrustBundle": source }] } });
        let volume = serde_json::from_value(volume).expect("a volume");
        let files = files(&pod, &volume, &sources(), &facts());
        let files = files.map(|mut files| files.remove("p").expect("a file"));
        files.map(|file| (String::from_utf8_lossy(&file.bytes).into_owned(), file.mode))
    };
    let text = |text: &str| Ok((text.to_owned(), 0o644));
    let signer = "example.com/mine";
    assert_eq!(file(json!({ "path": "p", "name": "one" })), text("ONE"));
    let all = json!({ "path": "p", "signerName": signer, "labelSelector": {} });
    assert_eq!(file(all), text("ALL"));
    // A selector that is not set fits no bundle.
    let nothing = json!({ "path": "p", "signerName": signer, "optional": true });
    assert_eq!(file(nothing), text(""));
    assert_eq!(
        file(json!({ "path": "p", "name": "none", "optional": true })),
        text("")
    );
    let why = |source: Value| file(source).expect_err("nothing is there").message;
    assert!(why(json!({ "path": "p", "name": "none" })).contains("\"none\" not found"));
    let zero = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
    assert_eq!(why(json!({ "path": "p", "signerName": signer })), zero);
}

fn wish(audience: &str, seconds: i64) -> TokenWish {
    TokenWish {
        audience: audience.to_owned(),
        seconds,
    }
}

#[test]
fn a_token_is_for_the_pod_s_user_or_group_if_it_says_which_that_is() {
    let file = |context: Value, own: Value, audience: &str, seconds: i64| {
        let pod = json!({
            "metadata": { "name": "p" },
            "spec": { "securityContext": context, "containers": [
                { "name": "c", "securityContext": own }, { "name": "d" },
            ]},
        });
        let pod = serde_json::from_value(pod).expect("a pod");
        let volume = json!({ "name": "v", "projected": { "sources": [{ "serviceAccountToken":
            { "path": "token", "audience": audience, "expirationSeconds": seconds } }]}});
        let volume = serde_json::from_value(volume).expect("a volume");
        let files = files(&pod, &volume, &sources(), &facts());
        files.map(|mut files| files.remove("token").expect("a token"))
    };
    for (context, own, mode, owner) in [
        (json!({}), json!({}), 0o644, None),
        (json!({ "fsGroup": 1000 }), json!({}), 0o600, None),
        (json!({ "runAsUser": 7 }), json!({}), 0o600, Some(7)),
        (
            json!({ "runAsUser": 7 }),
            json!({ "runAsUser": 8 }),
            0o644,
            None,
        ),
        (json!({}), json!({ "runAsUser": 8 }), 0o644, None),
    ] {
        let file = file(context.clone(), own.clone(), "", 3607).expect("a file");
        assert_eq!(file.bytes, b"a.b.c");
        assert_eq!((file.mode, file.owner), (mode, owner), "{context} {own}");
    }
    let refused = file(json!({}), json!({}), "vault", 600).expect_err("none came");
    assert_eq!(refused.message, "failed to fetch token: it is sealed");
    assert!(
        !format!("{:?}", sources()).contains("a.b.c"),
        "a token is shown"
    );
}

fn of(volume: Value) -> Result<Vec<(String, Vec<u8>, u32)>, String> {
    let pod = json!({
        "metadata": { "name": "p", "labels": { "b": "2", "a": "1" } },
        "spec": { "containers": [{ "name": "c" }] },
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    let mut volume = volume;
    volume["name"] = json!("v");
    let volume = serde_json::from_value(volume).expect("a volume");
    let files = files(&pod, &volume, &sources(), &facts()).map_err(|error| {
        assert_eq!(error.reason, "FailedMount");
        error.message
    })?;
    let listed = files.into_iter();
    Ok(listed
        .map(|(path, file)| (path, file.bytes, file.mode))
        .collect())
}

fn file(path: &str, bytes: &[u8], mode: u32) -> (String, Vec<u8>, u32) {
    (path.to_owned(), bytes.to_owned(), mode)
}

#[test]
fn every_key_is_a_file_also_a_binary_one() {
    let expected = vec![
        file("a", b"one", 0o644),
        file("bin", &[0, 1, 2, 255], 0o644),
    ];
    assert_eq!(of(json!({ "configMap": { "name": "conf" } })), Ok(expected));
    let secret = json!({ "secret": { "secretName": "sec", "defaultMode": 0o400 } });
    assert_eq!(of(secret), Ok(vec![file("pass", b"s3cret", 0o400)]));
    let nothing = json!({ "configMap": { "name": "empty" } });
    assert_eq!(of(nothing), Ok(Vec::new()));
}

#[test]
fn items_choose_keys_paths_and_modes() {
    let items = json!([
        { "key": "a", "path": "dir/./deep//renamed", "mode": 0o400 },
        { "key": "bin", "path": "bin" },
    ]);
    let volume = json!({ "configMap": { "name": "conf", "items": items, "defaultMode": 0o600 } });
    let expected = vec![
        file("bin", &[0, 1, 2, 255], 0o600),
        file("dir/deep/renamed", b"one", 0o400),
    ];
    assert_eq!(of(volume), Ok(expected));
}

#[test]
fn what_is_missing_and_not_optional_is_named() {
    let missing = [
        (
            json!({ "configMap": { "name": "absent" } }),
            "configmap \"absent\" not found",
        ),
        (
            json!({ "secret": { "secretName": "absent" } }),
            "secret \"absent\" not found",
        ),
        (
            json!({ "configMap": { "name": "conf", "items": [{ "key": "z", "path": "z" }] } }),
            "configmap references non-existent config key: z",
        ),
        (
            json!({ "secret": { "secretName": "sec", "items": [{ "key": "z", "path": "z" }] } }),
            "references non-existent secret key: z",
        ),
    ];
    for (volume, message) in missing {
        assert_eq!(of(volume.clone()), Err(message.to_owned()));
        let mut optional = volume;
        let kind = if optional.get("secret").is_some() {
            "secret"
        } else {
            "configMap"
        };
        optional[kind]["optional"] = json!(true);
        assert_eq!(of(optional), Ok(Vec::new()));
    }
}

#[test]
fn the_later_source_of_a_projection_has_a_path_that_both_have() {
    let fields = json!([{ "path": "a", "fieldRef": { "fieldPath": "metadata.labels" } }]);
    let volume = json!({ "projected": { "defaultMode": 0o440, "sources": [
        { "configMap": { "name": "conf" } },
        { "secret": { "name": "sec" } },
        { "downwardAPI": { "items": fields } },
    ]}});
    let expected = vec![
        file("a", b"a=\"1\"\nb=\"2\"", 0o440),
        file("bin", &[0, 1, 2, 255], 0o440),
        file("pass", b"s3cret", 0o440),
    ];
    assert_eq!(of(volume), Ok(expected));
}

#[test]
fn a_path_that_leaves_the_volume_or_is_the_writers_own_is_refused() {
    let long = "x".repeat(256);
    let refused = [
        "",
        ".",
        "/etc/passwd",
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "..data",
        "..data/a",
        "./..data",
        "..anything",
        "a\0b",
        long.as_str(),
    ];
    for path in refused {
        let items = json!([{ "key": "a", "path": path }]);
        let refused = of(json!({ "configMap": { "name": "conf", "items": items } }));
        let message = refused.expect_err(path);
        assert!(message.starts_with("invalid path"), "{path}: {message}");
    }
    let items = json!([{ "key": "a", "path": "x" }, { "key": "bin", "path": "x/y/z" }]);
    let refused = of(json!({ "configMap": { "name": "conf", "items": items } }));
    assert_eq!(
        refused,
        Err("path \"x\" is a file and a directory".to_owned())
    );
}

#[test]
fn a_path_may_have_dots_that_lead_nowhere() {
    for path in ["...a/b/..c", ".hidden", "a..b", "x/..y"] {
        let items = json!([{ "key": "a", "path": path }]);
        let files = of(json!({ "configMap": { "name": "conf", "items": items } }));
        let starts_with_dots = path.starts_with("..");
        assert_eq!(files.is_err(), starts_with_dots, "{path}");
    }
}

#[test]
fn a_mode_has_no_other_bits_than_those_of_access() {
    let volume = json!({ "configMap": { "name": "conf", "defaultMode": 0o4777 } });
    let modes = of(volume).expect("files").into_iter().map(|it| it.2);
    assert!(modes.into_iter().all(|mode| mode == 0o777));
}
