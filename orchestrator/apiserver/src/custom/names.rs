//! Which names a definition may use, and what its status says of that. Pure.
//!
//! A name belongs to the definition that had it first; another one that asks for it is told so, and not
//! served until it asks for others or the first one is gone
//! (`apiextensions-apiserver/pkg/controller/status`).

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use api::meta;

/// Names in use in one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Plurals, singulars and short names.
    resources: BTreeSet<String>,
    /// Kinds and kinds of lists.
    kinds: BTreeSet<String>,
}

impl Names {
    /// Those that a definition was given.
    pub fn of(definition: &Value) -> Self {
        let names = &definition["status"]["acceptedNames"];
        let one = |field: &str| text(&names[field]).map(str::to_owned);
        let short = names["shortNames"].as_array().into_iter().flatten();
        let short = short.filter_map(|name| text(name).map(str::to_owned));
        Self {
            resources: [one("plural"), one("singular")]
                .into_iter()
                .flatten()
                .chain(short)
                .collect(),
            kinds: [one("kind"), one("listKind")]
                .into_iter()
                .flatten()
                .collect(),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.resources.extend(other.resources.iter().cloned());
        self.kinds.extend(other.kinds.iter().cloned());
    }
}

/// The definition with its accepted names and the conditions about them; `taken` are the names of the
/// other definitions of the group.
pub fn judged(definition: &Value, taken: &Names, now: Timestamp) -> Value {
    let mut judged = definition.clone();
    let (names, conflict) = accepted(definition, taken);
    judged["status"]["acceptedNames"] = names;
    let is_established = is_true(definition, "Established");
    let (accepted, established) = match conflict {
        Some((reason, message)) => (
            ("False", reason, message),
            ("False", "NotAccepted", "not all names are accepted"),
        ),
        None => (
            ("True", "NoConflicts", "no conflicts found".to_owned()),
            (
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted",
            ),
        ),
    };
    let (status, reason, message) = accepted;
    set_condition(&mut judged, "NamesAccepted", status, reason, &message, now);
    // What is served once goes on being served.
    if !is_established {
        let (status, reason, message) = established;
        set_condition(&mut judged, "Established", status, reason, message, now);
    }
    judged
}

/// Whether a condition of the definition is true.
pub fn is_true(definition: &Value, kind: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Sets a condition; its time is that of the last change of its status.
pub fn set_condition(
    definition: &mut Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = &mut definition["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let mut new = json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": meta::timestamp(now)});
    match conditions
        .iter_mut()
        .find(|condition| condition["type"] == kind)
    {
        Some(old) => {
            if old["status"] == status && !old["lastTransitionTime"].is_null() {
                new["lastTransitionTime"] = old["lastTransitionTime"].take();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// The names that the definition gets, and the last conflict in the order of the fields.
fn accepted(definition: &Value, taken: &Names) -> (Value, Option<(&'static str, String)>) {
    let (wanted, had) = (
        &definition["spec"]["names"],
        &definition["status"]["acceptedNames"],
    );
    let mut names = if had.is_object() {
        had.clone()
    } else {
        json!({})
    };
    let mut conflict = None;
    let used = |name: &str| format!("{name:?} is already in use");
    let fields = [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ];
    for (field, reason, taken) in fields {
        let (new, old) = (&wanted[field], &had[field]);
        let asked: Vec<&str> = match new {
            Value::Array(list) => {
                let old = old.as_array().map(Vec::as_slice).unwrap_or_default();
                let fresh = list.iter().filter(|name| !old.contains(name));
                fresh.filter_map(text).collect()
            }
            _ if new == old => Vec::new(),
            _ => text(new).into_iter().collect(),
        };
        let mut clashes: Vec<String> = asked
            .into_iter()
            .filter(|name| taken.contains(*name))
            .map(used)
            .collect();
        match clashes.len() {
            0 if new.is_null() => {
                if let Some(names) = names.as_object_mut() {
                    names.remove(field);
                }
            }
            0 => names[field] = new.clone(),
            1 => conflict = Some((reason, clashes.remove(0))),
            _ => conflict = Some((reason, format!("[{}]", clashes.join(", ")))),
        }
    }
    match (&wanted["categories"], names.as_object_mut()) {
        (Value::Null, Some(names)) => drop(names.remove("categories")),
        (categories, Some(names)) => drop(names.insert("categories".into(), categories.clone())),
        _ => {}
    }
    (names, conflict)
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({
            "spec": {"names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                "listKind": format!("{kind}List"), "shortNames": ["w"], "categories": ["all"]}},
            "status": {"acceptedNames": {"plural": "", "kind": ""}},
        })
    }

    fn condition<'a>(definition: &'a Value, kind: &str) -> &'a Value {
        let conditions = definition["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|c| c["type"] == kind).unwrap()
    }

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn free_names_are_accepted_and_the_kind_is_established() {
        let judged = judged(&definition("webs", "Web"), &Names::default(), NOW);
        assert_eq!(judged["status"]["acceptedNames"], judged["spec"]["names"]);
        assert!(is_true(&judged, "NamesAccepted") && is_true(&judged, "Established"));
        assert_eq!(
            *condition(&judged, "Established"),
            json!({"type": "Established", "status": "True", "reason": "InitialNamesAccepted",
                "message": "the initial names have been accepted",
                "lastTransitionTime": "1970-01-01T00:00:00Z"})
        );
    }

    #[test]
    fn a_name_that_is_taken_is_refused_and_the_others_are_given() {
        let first = judged(&definition("webs", "Web"), &Names::default(), NOW);
        let taken = Names::of(&first);
        let second = judged(&definition("sites", "Web"), &taken, NOW);
        assert_eq!(
            (
                &second["status"]["acceptedNames"]["plural"],
                &second["status"]["acceptedNames"]["kind"]
            ),
            (&json!("sites"), &json!(""))
        );
        let refused = condition(&second, "NamesAccepted");
        assert_eq!(refused["status"], "False");
        assert_eq!(refused["reason"], "ListKindConflict");
        assert_eq!(refused["message"], "\"WebList\" is already in use");
        assert_eq!(condition(&second, "Established")["reason"], "NotAccepted");
        // Once the first one is gone.
        let later = judged(&second, &Names::default(), NOW);
        assert!(is_true(&later, "Established"));
    }

    #[test]
    fn an_established_kind_stays_so_and_times_are_those_of_changes() {
        let first = judged(&definition("webs", "Web"), &Names::default(), NOW);
        let mut renamed = first.clone();
        renamed["spec"]["names"]["shortNames"] = json!(["w", "x", "y"]);
        let taken = Names {
            resources: ["x".to_owned(), "y".to_owned()].into(),
            kinds: BTreeSet::new(),
        };
        let later = "2026-01-01T00:00:00Z".parse().unwrap();
        let judged_later = judged(&renamed, &taken, later);
        assert!(is_true(&judged_later, "Established"));
        assert_eq!(
            condition(&judged_later, "NamesAccepted")["message"],
            "[\"x\" is already in use, \"y\" is already in use]"
        );
        assert_eq!(
            judged_later["status"]["acceptedNames"]["shortNames"],
            json!(["w"])
        );
        assert_eq!(judged(&first, &Names::default(), later), first);
    }
}
