use serde_json::{Value, json};

use super::*;
use crate::fixture::{now, object, words};
use crate::world::Change;

/// The controller and its world, fed by one change after the other.
#[derive(Default)]
struct Lab {
    world: World,
    controller: ConfigRolloutController,
    revision: u64,
}

impl Lab {
    /// What is asked for because of the change, whose patches are carried out.
    fn change(&mut self, kind: Kind, value: Value) -> Vec<String> {
        let diffs = self.apply(kind, value);
        let mut asked = Vec::new();
        for diff in diffs {
            self.controller.hear(&diff, now());
            let mut due = Due::new();
            self.controller.due(&self.world, &diff, &mut due);
            for about in due {
                let plan = self.controller.plan(&self.world, &about, now());
                asked.extend(words(&plan.unwrap_or_default().actions));
            }
        }
        asked
    }

    fn apply(&mut self, kind: Kind, mut value: Value) -> Vec<Diff> {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.world.apply(Change::Upsert(object(kind, value)))
    }
}

fn config_map(name: &str, level: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"LEVEL": level}})
}

/// A Deployment that takes its environment from `settings`, which noted `seen`.
fn deployment(seen: Option<&str>) -> Value {
    let mut annotations = json!({ASKS: "true"});
    if let Some(seen) = seen {
        annotations[SEEN] = seen.into();
    }
    json!({"metadata": {"name": "web", "annotations": annotations}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{
            "name": "main", "envFrom": [{"configMapRef": {"name": "settings"}}]}]}},
    }})
}

/// What the one patch notes.
fn noted(asked: &[String]) -> String {
    let (_, rest) = asked[0]
        .split_once("config-seen\":\"")
        .expect("it is noted");
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn a_change_of_what_a_template_takes_rolls_it_out_and_the_first_look_does_not() {
    let mut lab = Lab::default();
    let absent = lab.change(Kind::DEPLOYMENT, deployment(None));
    assert_eq!(absent, Vec::<String>::new(), "the ConfigMap is waited for");
    let first = lab.change(Kind::CONFIG_MAP, config_map("settings", "info"));
    assert!(
        first.len() == 1 && !first[0].contains("template"),
        "{first:?}"
    );
    let seen = noted(&first);
    let same = lab.change(Kind::DEPLOYMENT, deployment(Some(&seen)));
    assert_eq!(same, Vec::<String>::new());
    let mut labelled = config_map("settings", "info");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(lab.change(Kind::CONFIG_MAP, labelled), Vec::<String>::new());
    let other = lab.change(Kind::CONFIG_MAP, config_map("other", "debug"));
    assert_eq!(other, Vec::<String>::new());
    let changed = lab.change(Kind::CONFIG_MAP, config_map("settings", "debug"));
    assert!(changed[0].contains("\"template\""), "{changed:?}");
    assert!(
        changed[1].starts_with("tell ConfigurationChanged"),
        "{changed:?}"
    );
    assert_ne!(noted(&changed), seen);
}

#[test]
fn without_the_annotation_nothing_happens() {
    let mut lab = Lab::default();
    lab.change(Kind::CONFIG_MAP, config_map("settings", "info"));
    let mut plain = deployment(Some("x.y"));
    plain["metadata"]["annotations"][ASKS] = "false".into();
    assert_eq!(lab.change(Kind::DEPLOYMENT, plain), Vec::<String>::new());
    let changed = lab.change(Kind::CONFIG_MAP, config_map("settings", "debug"));
    assert_eq!(changed, Vec::<String>::new());
}

#[test]
fn a_template_that_refers_to_something_else_is_noted_and_rolls_out_by_itself() {
    let mut lab = Lab::default();
    lab.change(Kind::CONFIG_MAP, config_map("settings", "info"));
    let seen = noted(&lab.change(Kind::DEPLOYMENT, deployment(None)));
    let mut other = deployment(Some(&seen));
    let volume = json!({"name": "s", "secret": {"secretName": "key", "optional": true}});
    other["spec"]["template"]["spec"]["volumes"] = json!([volume]);
    let asked = lab.change(Kind::DEPLOYMENT, other);
    assert!(
        asked.len() == 1 && !asked[0].contains("\"template\""),
        "{asked:?}"
    );
}

#[test]
fn every_way_to_take_a_config_map_or_a_secret_is_known() {
    let template = json!({"spec": {
        "initContainers": [{"envFrom": [{"secretRef": {"name": "a", "optional": true}}]}],
        "containers": [{"env": [
            {"valueFrom": {"configMapKeyRef": {"name": "b", "key": "k"}}},
            {"valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}},
        ]}],
        "volumes": [
            {"configMap": {"name": "c"}},
            {"secret": {"secretName": "d"}},
            {"projected": {"sources": [{"configMap": {"name": "e"}}, {"secret": {"name": "f"}}]}},
        ],
    }});
    let found = references(&template, "ns").into_iter();
    let found: Vec<String> = found
        .map(|it| {
            format!(
                "{} {} {}",
                it.target.0.plural, it.target.1.name, it.optional
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "configmaps b false",
            "configmaps c false",
            "configmaps e false",
            "secrets a false",
            "secrets d false",
            "secrets f false",
        ]
    );
}

#[test]
fn a_secret_counts_by_its_revision_and_no_hash_of_it_is_shown() {
    let mut lab = Lab::default();
    let secret = |value: &str| json!({"metadata": {"name": "key"}, "data": {"k": value}});
    lab.change(Kind::SECRET, secret("b25l"));
    let mut set = json!({"metadata": {"name": "db", "annotations": {ASKS: "true"}}, "spec": {
        "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [],
            "volumes": [{"name": "k", "secret": {"secretName": "key"}}]}}}});
    let seen = noted(&lab.change(Kind::STATEFUL_SET, set.clone()));
    set["metadata"]["annotations"][SEEN] = seen.into();
    lab.change(Kind::STATEFUL_SET, set);
    let changed = lab.change(Kind::SECRET, secret("b25l"));
    assert!(
        changed[0].starts_with("patch statefulsets db"),
        "{changed:?}"
    );
}
