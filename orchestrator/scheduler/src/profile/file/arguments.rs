//! `pluginConfig`: what each plugin can be told. A field that is not known is refused by its path. Pure.

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use serde_json::Value;

use super::items;
use crate::demand::read_spread;
use crate::profile::{Profile, Strategy};

/// Kubernetes rates by requested-to-capacity shapes of 0 to 10.
const SHAPE_SCALE: i64 = 10;

/// The fields of the arguments of each plugin that has any.
const KNOWN: [(&str, &[&str]); 6] = [
    (
        "NodeResourcesFit",
        &[
            "ignoredResources",
            "ignoredResourceGroups",
            "scoringStrategy",
        ],
    ),
    ("NodeResourcesBalancedAllocation", &["resources"]),
    (
        "InterPodAffinity",
        &[
            "hardPodAffinityWeight",
            "ignorePreferredTermsOfExistingPods",
        ],
    ),
    (
        "PodTopologySpread",
        &["defaultConstraints", "defaultingType"],
    ),
    (
        "DefaultPreemption",
        &["minCandidateNodesPercentage", "minCandidateNodesAbsolute"],
    ),
    ("VolumeBinding", &["bindTimeoutSeconds"]),
];

/// Reads the arguments of one plugin into its profile.
pub fn read(profile: &mut Profile, plugin: &str, args: &Value, at: &str) -> Result<(), String> {
    let Some((_, known)) = KNOWN.iter().find(|(name, _)| *name == plugin) else {
        return Err(format!(
            "{at}: there is nothing to set of \"{plugin}\" here"
        ));
    };
    for field in args
        .as_object()
        .into_iter()
        .flatten()
        .map(|(field, _)| field)
    {
        if !known.contains(&field.as_str()) && !["apiVersion", "kind"].contains(&field.as_str()) {
            return Err(format!("{at}.{field}: not supported"));
        }
    }
    match plugin {
        "NodeResourcesFit" => fit(profile, args, at),
        "NodeResourcesBalancedAllocation" => {
            if let Some(resources) = args["resources"].as_array() {
                profile.balanced = resources.iter().map(|it| resource(it).0).collect();
            }
            Ok(())
        }
        "InterPodAffinity" => affinity(profile, args, at),
        "PodTopologySpread" => spread(profile, args, at),
        "DefaultPreemption" => preemption(profile, args, at),
        _ => volumes(profile, args, at),
    }
}

fn fit(profile: &mut Profile, args: &Value, at: &str) -> Result<(), String> {
    let names = texts(&args["ignoredResources"], &format!("{at}.ignoredResources"))?;
    profile.uncounted.names.extend(names);
    let groups = format!("{at}.ignoredResourceGroups");
    profile.uncounted.groups = texts(&args["ignoredResourceGroups"], &groups)?;
    let strategy = &args["scoringStrategy"];
    if strategy.is_null() {
        return Ok(());
    }
    profile.fit.strategy = match strategy["type"].as_str() {
        None | Some("LeastAllocated") => Strategy::LeastAllocated,
        Some("MostAllocated") => Strategy::MostAllocated,
        Some("RequestedToCapacityRatio") => {
            let shape = &strategy["requestedToCapacityRatio"]["shape"];
            let at = format!("{at}.scoringStrategy.requestedToCapacityRatio.shape");
            Strategy::RequestedToCapacityRatio(points(shape, &at)?)
        }
        Some(_) => return Err(format!("{at}.scoringStrategy.type: not supported")),
    };
    if let Some(resources) = strategy["resources"].as_array() {
        profile.fit.resources = resources.iter().map(resource).collect();
    }
    Ok(())
}

fn affinity(profile: &mut Profile, args: &Value, at: &str) -> Result<(), String> {
    let weight = &args["hardPodAffinityWeight"];
    if !weight.is_null() {
        let at = format!("{at}.hardPodAffinityWeight");
        profile.hard_affinity_weight = within(weight, 0, 100, &at)?;
    }
    profile.ignores_wishes_of_placed = args["ignorePreferredTermsOfExistingPods"] == true;
    Ok(())
}

fn spread(profile: &mut Profile, args: &Value, at: &str) -> Result<(), String> {
    let own = match &args["defaultConstraints"] {
        Value::Null => Vec::new(),
        list => items(list, &format!("{at}.defaultConstraints"))?.clone(),
    };
    match args["defaultingType"].as_str() {
        Some("List") => profile.weights.default_spread = 0,
        None | Some("System") if own.is_empty() => {}
        None | Some("System") => {
            return Err(format!(
                "{at}.defaultingType: when .defaultConstraints are specified, it must be \"List\""
            ));
        }
        Some(_) => {
            return Err(format!(
                "{at}.defaultingType: must be \"System\" or \"List\""
            ));
        }
    }
    for (n, value) in own.iter().enumerate() {
        let at = format!("{at}.defaultConstraints[{n}]");
        if !value["labelSelector"].is_null() {
            let why = "constraint must not define a selector, as they deduced for each pod";
            return Err(format!("{at}.labelSelector: {why}"));
        }
        let key = value["topologyKey"].as_str().unwrap_or_default();
        if key.is_empty() {
            return Err(format!("{at}.topologyKey: can not be empty"));
        }
        within(
            &value["maxSkew"],
            1,
            i64::from(i32::MAX),
            &format!("{at}.maxSkew"),
        )?;
        let action = value["whenUnsatisfiable"].as_str().unwrap_or_default();
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            return Err(format!(
                "{at}.whenUnsatisfiable: must be DoNotSchedule or ScheduleAnyway"
            ));
        }
        let read: TopologySpreadConstraint =
            serde_json::from_value(value.clone()).map_err(|error| format!("{at}: {error}"))?;
        let spread = read_spread(&Default::default(), &read);
        profile.constraints.push(spread);
    }
    Ok(())
}

fn preemption(profile: &mut Profile, args: &Value, at: &str) -> Result<(), String> {
    let candidates = &mut profile.candidates;
    let percent = &args["minCandidateNodesPercentage"];
    if !percent.is_null() {
        let at = format!("{at}.minCandidateNodesPercentage");
        candidates.percent = usize::try_from(within(percent, 0, 100, &at)?).unwrap_or(0);
    }
    let least = &args["minCandidateNodesAbsolute"];
    if !least.is_null() {
        let at = format!("{at}.minCandidateNodesAbsolute");
        candidates.least =
            usize::try_from(within(least, 0, i64::from(i32::MAX), &at)?).unwrap_or(0);
    }
    if candidates.percent == 0 && candidates.least == 0 {
        return Err(format!(
            "{at}: minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be zero"
        ));
    }
    Ok(())
}

fn volumes(profile: &mut Profile, args: &Value, at: &str) -> Result<(), String> {
    let timeout = &args["bindTimeoutSeconds"];
    if !timeout.is_null() {
        let at = format!("{at}.bindTimeoutSeconds");
        profile.volumes_timeout_seconds = within(timeout, 0, i64::from(i32::MAX), &at)?;
    }
    Ok(())
}

fn within(value: &Value, least: i64, most: i64, at: &str) -> Result<i64, String> {
    value
        .as_i64()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{at}: not in valid range [{least}-{most}]"))
}

fn texts(list: &Value, at: &str) -> Result<Vec<String>, String> {
    if list.is_null() {
        return Ok(Vec::new());
    }
    let texts = items(list, at)?.iter().map(|it| {
        let text = it.as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| format!("{at}: must be a list of names"))
    });
    texts.collect()
}

fn points(shape: &Value, at: &str) -> Result<Vec<(i64, i64)>, String> {
    let points = items(shape, at)?.iter().map(|point| {
        let use_percent = point["utilization"].as_i64().unwrap_or(0);
        (
            use_percent,
            point["score"].as_i64().unwrap_or(0) * SHAPE_SCALE,
        )
    });
    let points: Vec<(i64, i64)> = points.collect();
    let rises = points.windows(2).all(|two| two[0].0 < two[1].0);
    let within = points
        .iter()
        .all(|(x, y)| (0..=100).contains(x) && (0..=100).contains(y));
    if points.is_empty() || !rises || !within {
        return Err(format!(
            "{at}: utilizations must rise from 0 to 100, scores be 0 to 10"
        ));
    }
    Ok(points)
}

fn resource(value: &Value) -> (String, i64) {
    let name = value["name"].as_str().unwrap_or_default();
    (
        name.to_owned(),
        value["weight"]
            .as_i64()
            .filter(|weight| *weight > 0)
            .unwrap_or(1),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(plugin: &str, args: Value) -> Result<Profile, String> {
        let mut profile = Profile::named("p");
        read(&mut profile, plugin, &args, "args").map(|()| profile)
    }

    #[test]
    fn what_plugins_are_told_is_in_their_profile() {
        let preempting = told(
            "DefaultPreemption",
            json!({"minCandidateNodesPercentage": 0,
            "minCandidateNodesAbsolute": 7}),
        );
        let candidates = preempting.unwrap().candidates;
        assert_eq!((candidates.percent, candidates.least), (0, 7));
        let binding = told("VolumeBinding", json!({"bindTimeoutSeconds": 30})).unwrap();
        assert_eq!(binding.volumes_timeout_seconds, 30);
        let near = told("InterPodAffinity", json!({"hardPodAffinityWeight": 50})).unwrap();
        assert_eq!(near.hard_affinity_weight, 50);
        let fit = json!({"ignoredResources": ["example.com/a"], "ignoredResourceGroups": ["example.org"]});
        let fit = told("NodeResourcesFit", fit).unwrap();
        let has = |name| fit.uncounted.has(name);
        assert!(has("example.com/a") && has("example.org/b") && !has("example.com/c"));
        let spread = json!({"defaultingType": "List", "defaultConstraints": [
            {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]});
        let spread = told("PodTopologySpread", spread).unwrap();
        assert_eq!(spread.weights.default_spread, 0);
        let constraint = &spread.constraints[0];
        assert!(constraint.hard && constraint.max_skew == 2 && constraint.topology_key == "zone");
    }

    #[test]
    fn what_plugins_cannot_be_told_is_refused_by_its_path() {
        let constraint =
            json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        let mut selecting = constraint.clone();
        selecting["labelSelector"] = json!({});
        let list = |constraint: Value| json!({"defaultingType": "List", "defaultConstraints": [constraint]});
        let cases = [
            (
                "VolumeBinding",
                json!({"shape": []}),
                "args.shape: not supported",
            ),
            (
                "VolumeBinding",
                json!({"bindTimeoutSeconds": -1}),
                "args.bindTimeoutSeconds: not in valid range",
            ),
            (
                "DefaultPreemption",
                json!({"minCandidateNodesPercentage": 101}),
                "args.minCandidateNodesPercentage: not in valid range [0-100]",
            ),
            (
                "DefaultPreemption",
                json!({"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0}),
                "args: minCandidateNodesPercentage and",
            ),
            (
                "InterPodAffinity",
                json!({"hardPodAffinityWeight": 101}),
                "args.hardPodAffinityWeight: not in",
            ),
            (
                "NodeAffinity",
                json!({"addedAffinity": {}}),
                "args: there is nothing to set",
            ),
            (
                "PodTopologySpread",
                json!({"defaultConstraints": [constraint]}),
                "args.defaultingType: when",
            ),
            (
                "PodTopologySpread",
                list(selecting),
                "args.defaultConstraints[0].labelSelector: constraint",
            ),
            (
                "PodTopologySpread",
                list(json!({"maxSkew": 1})),
                "args.defaultConstraints[0].topologyKey: can",
            ),
        ];
        for (plugin, args, expected) in cases {
            let why = told(plugin, args).unwrap_err();
            assert!(why.starts_with(expected), "{why}");
        }
    }
}
