use serde_json::json;

use super::*;

fn quota(hard: Value, status: Value) -> Value {
    json!({"metadata": {"name": "q", "namespace": "a", "uid": "1"}, "spec": {"hard": hard},
        "status": status})
}

fn secrets() -> Value {
    json!({"secrets": "5"})
}

fn secret() -> Measured<'static> {
    Measured {
        resource: api::find("", "v1", "secrets").expect("served"),
        object: &Value::Null,
        now: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn key(name: &str) -> Arc<str> {
    format!("/registry/core/secrets/a/{name}").into()
}

fn used(ledger: &mut Ledger, reached: Revision) -> Vec<(Value, Revision)> {
    let corrections = ledger.corrections(reached, |_, _| true);
    corrections
        .into_iter()
        .map(|it| (it.quota["status"].clone(), it.revision))
        .collect()
}

#[test]
fn a_new_quota_says_what_is_used() {
    let mut ledger = Ledger::default();
    assert!(ledger.quota("a", "q", Some(quota(secrets(), json!({}))), 7));
    ledger.begin("a", "q", 7);
    ledger.count("a", "q", &key("x"), &secret());
    let status = json!({"hard": {"secrets": "5"}, "used": {"secrets": "1"}});
    assert_eq!(used(&mut ledger, 7), [(status.clone(), 7)]);
    assert!(!ledger.quota("a", "q", Some(quota(secrets(), status)), 8));
    assert!(used(&mut ledger, 8).is_empty());
}

#[test]
fn nothing_is_written_before_what_was_counted_is_reached() {
    let mut ledger = Ledger::default();
    ledger.quota("a", "q", Some(quota(secrets(), json!({}))), 7);
    ledger.begin("a", "q", 9);
    ledger.count("a", "q", &key("x"), &secret());
    assert!(used(&mut ledger, 8).is_empty());
    assert!(ledger.is_dirty());
    // The cache had seen it already.
    ledger.put("a", &key("x"), &secret());
    let (status, _) = used(&mut ledger, 9).remove(0);
    assert_eq!(status["used"]["secrets"], "1");
}

#[test]
fn a_charge_and_its_object_need_no_correction_and_a_deletion_does() {
    let mut ledger = Ledger::default();
    let status = |used: &str| json!({"hard": {"secrets": "5"}, "used": {"secrets": used}});
    ledger.quota("a", "q", Some(quota(secrets(), status("0"))), 7);
    ledger.begin("a", "q", 7);
    ledger.put("a", &key("x"), &secret());
    ledger.quota("a", "q", Some(quota(secrets(), status("1"))), 8);
    assert!(used(&mut ledger, 8).is_empty());
    ledger.gone("a", &key("x"));
    assert_eq!(used(&mut ledger, 9), [(status("0"), 8)]);
}

#[test]
fn a_namespace_without_quotas_is_not_kept() {
    let mut ledger = Ledger::default();
    ledger.quota("a", "q", Some(quota(secrets(), json!({}))), 7);
    assert!(ledger.has("a"));
    ledger.quota("a", "q", None, 8);
    assert!(!ledger.has("a"));
    ledger.put("a", &key("x"), &secret());
    assert!(used(&mut ledger, 9).is_empty());
}

#[test]
fn other_limits_are_counted_anew() {
    let mut ledger = Ledger::default();
    ledger.quota("a", "q", Some(quota(secrets(), json!({}))), 7);
    ledger.begin("a", "q", 7);
    let more = json!({"secrets": "9"});
    assert!(ledger.quota("a", "q", Some(quota(more, json!({}))), 8));
    assert!(used(&mut ledger, 8).is_empty(), "not counted yet");
    ledger.begin("a", "q", 8);
    let (status, _) = used(&mut ledger, 8).remove(0);
    assert_eq!(
        status,
        json!({"hard": {"secrets": "9"}, "used": {"secrets": "0"}})
    );
}
