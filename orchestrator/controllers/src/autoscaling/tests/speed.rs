//! How fast it goes.

use super::*;

/// The numbers that rounds lead to, each of which happens: seconds, and the CPU of each pod.
fn numbers(behavior: Value, start: i64, rounds: &[(i64, u32)]) -> Vec<i64> {
    let names: Vec<String> = (0..10).map(|number| format!("p{number}")).collect();
    let pods = names.iter().map(|name| pod(name));
    let scaler = autoscaler(json!([cpu(50)]), json!({"behavior": behavior}));
    let mut bench = Bench::new([scaler].into_iter().chain(pods).collect());
    let mut current = start;
    let mut numbers = Vec::new();
    for (seconds, used) in rounds {
        let running = &names[..current as usize];
        let used: Vec<_> = running.iter().map(|name| (name.as_str(), *used)).collect();
        // The pods that do not run any more are not there.
        let all: Vec<_> = names
            .iter()
            .map(|name| pod(name))
            .take(current as usize)
            .collect();
        let scaler = autoscaler(json!([cpu(50)]), json!({"behavior": behavior}));
        bench.world = world([scaler].into_iter().chain(all));
        let answers = [(SCALE, Ok(scale(current))), (PODS, Ok(usage(&used)))];
        current = target(&bench.round(*seconds, &answers)).unwrap_or(current);
        numbers.push(current);
    }
    numbers
}

#[test]
fn it_grows_by_four_or_twofold_within_fifteen_seconds() {
    assert_eq!(numbers(json!({}), 1, &[(0, 1000), (15, 1000)]), [5, 10]);
    assert_eq!(numbers(json!({}), 5, &[(0, 1000)]), [10]);
}

#[test]
fn it_shrinks_to_the_most_that_was_recommended_within_five_minutes() {
    let rounds = [(0, 50), (15, 10), (299, 10), (315, 10)];
    assert_eq!(numbers(json!({}), 4, &rounds), [4, 4, 4, 1]);
}

#[test]
fn policies_bound_the_change_within_their_period() {
    let one_a_minute = json!({"scaleUp": {"policies": [
        {"type": "Pods", "value": 1, "periodSeconds": 60}]}});
    let rounds = [(0, 1000), (15, 1000), (61, 1000)];
    assert_eq!(numbers(one_a_minute, 1, &rounds), [2, 2, 3]);
    let least = json!({"scaleUp": {"selectPolicy": "Min", "policies": [
        {"type": "Pods", "value": 3, "periodSeconds": 60},
        {"type": "Percent", "value": 50, "periodSeconds": 60}]}});
    assert_eq!(numbers(least, 4, &[(0, 1000)]), [6]);
    let half = json!({"scaleDown": {"stabilizationWindowSeconds": 0, "policies": [
        {"type": "Percent", "value": 50, "periodSeconds": 60}]}});
    assert_eq!(numbers(half, 8, &[(0, 1), (15, 1), (61, 1)]), [4, 4, 2]);
    let never = json!({"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Disabled"}});
    assert_eq!(numbers(never, 8, &[(0, 1)]), [8]);
}

#[test]
fn a_tolerance_of_its_own_counts() {
    let wide = json!({"scaleUp": {"tolerance": "500m"}});
    assert_eq!(numbers(wide, 2, &[(0, 70), (15, 80)]), [2, 4]);
}
