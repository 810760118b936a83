use serde_json::{Value, json};

use super::*;
use crate::fixture::{now, object, words};
use crate::world::Change;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

fn node(taints: &Value) -> Object {
    let value = json!({"metadata": {"name": "node-1"}, "spec": {"taints": taints}});
    object(Kind::NODE, value)
}

/// A pod that came to the node ten minutes ago, at `fixture::now` minus that.
fn pod(name: &str, tolerations: &Value) -> Object {
    let value = json!({
        "metadata": {"name": name},
        "spec": {"nodeName": "node-1", "containers": [], "tolerations": tolerations},
        "status": {"phase": "Running"},
    });
    object(Kind::POD, value)
}

/// A node with a controller that hears of it.
struct Stage {
    world: World,
    controller: TaintEvictionController,
}

impl Stage {
    fn new(objects: Vec<Object>) -> Self {
        let mut stage = Self {
            world: World::default(),
            controller: TaintEvictionController::default(),
        };
        objects
            .into_iter()
            .for_each(|object| stage.see(object, now()));
        stage
    }

    fn see(&mut self, mut object: Object, at: Timestamp) {
        let known = self.world.get(object.kind, &object.key);
        object.meta.revision = known.map_or(1, |known| known.meta.revision + 1);
        for diff in self.world.apply(Change::Upsert(object)) {
            self.controller.hear(&diff, at);
        }
    }

    /// The names of pods that are evicted, and in how many seconds to look again.
    fn planned(&mut self, at: Timestamp) -> (Vec<String>, Option<i64>) {
        let about = (Kind::NODE, Key::new("", "node-1"));
        let plan = self
            .controller
            .plan(&self.world, &about, at)
            .expect("a node");
        let words = words(&plan.actions).into_iter();
        let deleted = words.filter_map(|word| Some(word.strip_prefix("delete pods ")?.to_owned()));
        (deleted.collect(), plan.again.map(|wait| wait.as_secs()))
    }
}

fn tolerates(seconds: Value) -> Value {
    json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": seconds}])
}

fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

#[test]
fn pods_are_evicted_when_their_patience_ends() {
    // (tolerations, seconds since the taint, evicted, seconds until it is)
    let cases = [
        (json!([]), 0, true, None),
        (tolerates(json!(60)), 59, false, Some(1)),
        (tolerates(json!(60)), 60, true, None),
        (tolerates(json!(-5)), 0, true, None),
        (
            tolerates(json!(i64::MAX)),
            60,
            false,
            Some(LONGEST_SECONDS - 60),
        ),
        (tolerates(Value::Null), 9000, false, None),
        (json!([{"operator": "Exists"}]), 9000, false, None),
    ];
    for (tolerations, age, evicted, again) in cases {
        let since = timestamp(now());
        let taints = json!([{"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": since}]);
        let mut stage = Stage::new(vec![node(&taints), pod("a", &tolerations)]);
        let names: Vec<String> = evicted.then(|| "a".to_owned()).into_iter().collect();
        assert_eq!(
            stage.planned(after(age)),
            (names, again),
            "{tolerations} after {age} s"
        );
    }
}

#[test]
fn a_taint_without_a_time_counts_from_when_it_was_first_seen() {
    let taints = json!([{"key": UNREACHABLE, "value": "v", "effect": "NoExecute"}]);
    let mut stage = Stage::new(vec![node(&taints), pod("a", &tolerates(json!(60)))]);
    // The value is another one: only `Exists` fits, as in these tolerations.
    assert_eq!(stage.planned(after(10)), (vec![], Some(50)));
    stage.see(node(&taints), after(30));
    assert_eq!(
        stage.planned(after(59)),
        (vec![], Some(1)),
        "the node was only written again"
    );
    assert_eq!(stage.planned(after(60)).0, ["a"]);
}

#[test]
fn removing_the_taint_cancels_the_eviction() {
    let taints = json!([{"key": UNREACHABLE, "effect": "NoExecute"}]);
    let mut stage = Stage::new(vec![node(&taints), pod("a", &tolerates(json!(10)))]);
    assert_eq!(stage.planned(after(5)), (vec![], Some(5)));
    stage.see(node(&json!([])), after(6));
    assert_eq!(stage.planned(after(60)), (vec![], None));
    stage.see(node(&taints), after(70));
    assert_eq!(
        stage.planned(after(75)),
        (vec![], Some(5)),
        "it is a new taint"
    );
}

#[test]
fn of_several_pods_each_has_its_own_patience() {
    let taints = json!([{"key": UNREACHABLE, "effect": "NoExecute"}]);
    let mut stage = Stage::new(vec![
        node(&taints),
        pod("soon", &tolerates(json!(10))),
        pod("later", &tolerates(json!(20))),
        pod("stays", &tolerates(Value::Null)),
    ]);
    assert_eq!(
        stage.planned(after(10)),
        (vec!["soon".to_owned()], Some(10))
    );
}

#[test]
fn a_pod_that_came_after_the_taint_has_its_patience_from_then_on() {
    let taints = json!([{"key": UNREACHABLE, "effect": "NoExecute"}]);
    let value = json!({
        "metadata": {"name": "new"},
        "spec": {"nodeName": "node-1", "containers": [], "tolerations": tolerates(json!(60))},
        "status": {"conditions": [{"type": "PodScheduled", "status": "True",
            "lastTransitionTime": timestamp(after(100))}]},
    });
    let mut stage = Stage::new(vec![node(&taints), object(Kind::POD, value)]);
    assert_eq!(stage.planned(after(110)), (vec![], Some(50)));
}

#[test]
fn an_evicted_pod_says_that_it_was_disrupted() {
    let taints = json!([{"key": "repair", "value": "yes", "effect": "NoExecute"}]);
    let equal = json!([{"key": "repair", "operator": "Equal", "value": "yes"}]);
    let mut stage = Stage::new(vec![node(&taints), pod("a", &json!([])), pod("b", &equal)]);
    let about = (Kind::NODE, Key::new("", "node-1"));
    let plan = stage
        .controller
        .plan(&stage.world, &about, now())
        .expect("a node");
    let words = words(&plan.actions);
    assert!(words[0].starts_with("patch pods/status a"), "{words:?}");
    assert!(words[0].contains("DeletionByTaintManager"), "{words:?}");
    assert_eq!(
        words[1],
        "tell TaintManagerEviction Marking for deletion Pod ns/a"
    );
    assert_eq!(&words[2..], ["delete pods a"]);
}
