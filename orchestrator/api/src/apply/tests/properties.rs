use proptest::prelude::*;

use super::*;

/// Some fields of a pod, of every sort: by key, item, set, and whole.
fn configuration() -> impl Strategy<Value = Value> {
    let label = prop::collection::btree_map("[abc]", "[12]", 0..3);
    let finalizers = prop::collection::btree_set("[xyz]", 0..3);
    let env = prop::collection::btree_map("[EFG]", prop::option::of("[12]"), 0..3);
    let container = (prop::option::of("[12]"), env, prop::option::of(0..3i32));
    let containers = prop::collection::btree_map("[pqr]", container, 0..3);
    let selector = prop::option::of(prop::collection::btree_map("[st]", "[12]", 1..2));
    let user = prop::option::of(0..3i64);
    (label, finalizers, containers, selector, user, any::<u64>()).prop_map(pod)
}

type Container = (
    Option<String>,
    std::collections::BTreeMap<String, Option<String>>,
    Option<i32>,
);

#[allow(clippy::type_complexity, reason = "the parts of one generated value")]
fn pod(
    (labels, finalizers, containers, selector, user, order): (
        std::collections::BTreeMap<String, String>,
        std::collections::BTreeSet<String>,
        std::collections::BTreeMap<String, Container>,
        Option<std::collections::BTreeMap<String, String>>,
        Option<i64>,
        u64,
    ),
) -> Value {
    let mut object = json!({"metadata": {}, "spec": {}});
    if !labels.is_empty() {
        object["metadata"]["labels"] = json!(labels);
    }
    if !finalizers.is_empty() {
        let names: Vec<String> = finalizers.iter().map(|name| format!("x/{name}")).collect();
        object["metadata"]["finalizers"] = json!(names);
    }
    let mut list: Vec<Value> = containers.into_iter().map(container).collect();
    if !list.is_empty() {
        let turn = order as usize % list.len();
        list.rotate_left(turn);
        object["spec"]["containers"] = list.into();
    }
    if let Some(selector) = selector {
        object["spec"]["nodeSelector"] = json!(selector);
    }
    if let Some(user) = user {
        object["spec"]["securityContext"] = json!({"runAsUser": user});
    }
    object
}

fn container((name, (image, env, port)): (String, Container)) -> Value {
    let mut container = json!({"name": name});
    if let Some(image) = image {
        container["image"] = image.into();
    }
    if !env.is_empty() {
        let item = |(name, value): (String, Option<String>)| match value {
            Some(value) => json!({"name": name, "value": value}),
            None => json!({"name": name}),
        };
        container["env"] = env.into_iter().map(item).collect();
    }
    if let Some(port) = port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    container
}

/// A pod that some managers have written, by applying (with force) and by updating.
fn written(writes: &[(u8, bool, Value)]) -> Cluster {
    let mut cluster = Cluster::pods();
    cluster.create("maker", json!({"metadata": {"labels": {"made": "1"}}}));
    for (manager, applies, configuration) in writes {
        let manager = format!("m{manager}");
        if *applies {
            cluster.force(&manager, configuration.clone());
        } else {
            cluster.update(&manager, |pod| {
                let metadata = configuration["metadata"].as_object().unwrap();
                for (key, value) in metadata {
                    pod["metadata"][key] = value.clone();
                }
                pod["spec"] = configuration["spec"].clone();
            });
        }
    }
    cluster
}

fn writes() -> impl Strategy<Value = Vec<(u8, bool, Value)>> {
    prop::collection::vec((0..3u8, any::<bool>(), configuration()), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn applying_twice_is_applying_once(writes in writes(), wanted in configuration()) {
        let mut cluster = written(&writes);
        cluster.force("ops", wanted.clone());
        let once = cluster.live().clone();
        cluster.apply("ops", wanted);
        prop_assert_eq!(cluster.live(), &once);
    }

    #[test]
    fn a_forced_apply_succeeds_and_the_object_says_what_was_applied(
        writes in writes(),
        wanted in configuration(),
    ) {
        let mut cluster = written(&writes);
        cluster.force("ops", wanted.clone());
        let shape = shape::whole(cluster.resource);
        let again = merge::merge(shape, cluster.live(), &named(cluster.resource, wanted));
        let mut again = cluster.resource.canonical(again, FieldValidation::Strict).unwrap().object;
        cluster.resource.default(&mut again);
        prop_assert_eq!(cluster.live(), &again);
    }

    #[test]
    fn an_applier_owns_exactly_the_fields_it_named(writes in writes(), wanted in configuration()) {
        let mut cluster = written(&writes);
        cluster.force("ops", wanted.clone());
        let shape = shape::whole(cluster.resource);
        let expected = of_object::of_object(shape, &wanted);
        let entries = cluster.entries();
        let own = entries.iter().find(|entry| entry["manager"] == "ops");
        let own = own.map_or(json!({}), |entry| entry["fieldsV1"].clone());
        let mut expected = expected.nodes().clone();
        field_set::subtract(&mut expected, shape::never_owned().as_object().unwrap());
        prop_assert_eq!(own, Value::Object(expected));
    }

    #[test]
    fn who_is_refused_takes_nothing_and_who_is_not_loses_nobody_a_field(
        writes in writes(),
        wanted in configuration(),
    ) {
        let mut cluster = written(&writes);
        let before = cluster.live().clone();
        let owned: Vec<_> = (0..3).map(|m| cluster.owned(&format!("m{m}"))).collect();
        if cluster.try_apply("ops", None, wanted, false).is_err() {
            prop_assert_eq!(cluster.live(), &before);
        } else {
            let now: Vec<_> = (0..3).map(|m| cluster.owned(&format!("m{m}"))).collect();
            prop_assert_eq!(owned, now);
        }
    }

    #[test]
    fn what_an_applier_owns_is_in_the_object_whoever_gives_up_what(
        writes in writes(),
        wanted in configuration(),
        less in configuration(),
    ) {
        let mut cluster = written(&writes);
        cluster.force("ops", wanted.clone());
        cluster.force("ops", less);
        // Every path that an applier still owns is in the object.
        let shape = shape::whole(cluster.resource);
        let paths = of_object::of_object(shape, cluster.live());
        let paths = FieldSet::of(field_set::with_structs(paths.nodes(), shape));
        for entry in cluster.entries() {
            if entry["operation"] == "Apply" {
                for path in FieldSet::parse(&entry["fieldsV1"]).unwrap().paths() {
                    let there = paths.contains(path.iter().copied());
                    prop_assert!(there, "{path:?} of {}", entry["manager"]);
                }
            }
        }
    }

    #[test]
    fn an_update_and_an_unchanged_one_leave_every_other_path_to_its_owner(
        writes in writes(),
        value in "[78]",
    ) {
        let mut cluster = written(&writes);
        let change = |pod: &mut Value| pod["metadata"]["labels"]["a"] = value.clone().into();
        let before: Vec<_> = (0..3).map(|m| cluster.owned(&format!("m{m}"))).collect();
        cluster.update("other", change);
        let after = cluster.entries();
        cluster.update("other", change);
        prop_assert_eq!(after, cluster.entries());
        for (m, before) in before.into_iter().enumerate() {
            let left: Vec<_> = before
                .into_iter()
                .filter(|path| path != ".metadata.labels.a")
                .collect();
            prop_assert_eq!(left, cluster.owned(&format!("m{m}")));
        }
    }

    #[test]
    fn what_is_stored_reads_back_as_it_is(writes in writes()) {
        let cluster = written(&writes);
        for entry in cluster.entries() {
            let set = FieldSet::parse(&entry["fieldsV1"]).unwrap();
            prop_assert_eq!(set.into_value(), entry["fieldsV1"].clone());
        }
        let stored = cluster.resource.canonical(cluster.live().clone(), FieldValidation::Strict);
        prop_assert_eq!(&stored.unwrap().object, cluster.live());
    }

    #[test]
    fn uniting_and_subtracting_are_inverse(left in configuration(), right in configuration()) {
        let shape = shape::whole(find("", "v1", "pods").unwrap());
        let (left, right) = (of_object::of_object(shape, &left), of_object::of_object(shape, &right));
        let both = field_set::intersection(left.nodes(), right.nodes());
        let mut only = left.nodes().clone();
        field_set::subtract(&mut only, right.nodes());
        prop_assert!(field_set::intersection(&only, right.nodes()).is_empty());
        field_set::unite(&mut only, both);
        prop_assert_eq!(&only, left.nodes());
    }
}
