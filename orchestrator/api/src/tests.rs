//! Whatever a client sends, the pipeline of a request neither panics nor contradicts itself.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    FieldValidation, Resource, Subresource, apply, patch, resources,
    schema::{self, Type},
};

/// Turns a tape of random bytes into a value of a type: right in kind, wild in content.
pub(crate) struct Tape<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tape<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn next(&mut self) -> u8 {
        self.at += 1;
        self.bytes.get(self.at - 1).copied().unwrap_or_default()
    }

    /// One in so many; never once the tape has run out.
    fn one_in(&mut self, times: u8) -> bool {
        self.next() % times == times - 1
    }

    fn value(&mut self, ty: &Type, depth: u8) -> Value {
        if self.one_in(40) {
            return Value::Null;
        }
        let texts = [
            "",
            "a",
            "web",
            "10.0.0.1",
            "None",
            "80%",
            "1Gi",
            "UDP",
            "ExternalName",
            "ClientIP",
            "Always",
            "In",
            "-",
            "A b",
            "kubernetes",
            "NodePort",
        ];
        let numbers = [0, 1, -1, 80, 65536, i64::from(i32::MAX)];
        match ty {
            Type::Any => json!({}),
            Type::Bool => (self.next() % 2 == 0).into(),
            Type::Bytes => "YQ==".into(),
            Type::Int32 | Type::Int64 => numbers[usize::from(self.next()) % numbers.len()].into(),
            Type::Number => 1.5.into(),
            Type::IntOrString if self.next() % 2 == 0 => 8080.into(),
            Type::Quantity => {
                let amounts = [
                    json!("1"),
                    json!(2),
                    json!("-5"),
                    json!("1.5Gi"),
                    json!("100m"),
                ];
                amounts[usize::from(self.next()) % amounts.len()].clone()
            }
            Type::Time | Type::MicroTime => {
                let times = [
                    "2026-01-02T03:04:05Z",
                    "2026-01-02T05:04:05.1234567+02:00",
                    "2026-01-02T03:04:05.000000Z",
                ];
                times[usize::from(self.next()) % times.len()].into()
            }
            Type::String | Type::IntOrString => {
                texts[usize::from(self.next()) % texts.len()].into()
            }
            Type::List(item) => (0..self.next() % 3)
                .map(|_| self.value(item, depth + 1))
                .collect(),
            Type::Map(item) => (0..self.next() % 3)
                .map(|_| {
                    let key = texts[usize::from(self.next()) % texts.len()];
                    (key.to_owned(), self.value(item, depth + 1))
                })
                .collect::<Map<_, _>>()
                .into(),
            Type::Ref(name) => self.object(name, depth),
            Type::Inline(_) | Type::Nullable(_) => unreachable!("built-in kinds have none"),
            Type::SchemaOr(either) if self.next() % 2 == 0 => self.value(&either.schema, depth),
            Type::SchemaOr(either) => self.value(&either.other, depth),
        }
    }

    pub(crate) fn object(&mut self, name: &str, depth: u8) -> Value {
        let mut object = Map::new();
        let fields = &schema::definition(name).unwrap().fields;
        for (key, field) in fields {
            let wanted = match depth {
                0 => true,
                1..=4 => self.next() % 4 == 0,
                5..=8 => self.next() % 8 == 1,
                _ => false,
            };
            if wanted && !["apiVersion", "kind"].contains(&&**key) {
                object.insert(key.to_string(), self.value(&field.ty, depth + 1));
            }
        }
        Value::Object(object)
    }
}

/// A decoded object of the kind; none if the content is of a wrong type after all.
fn object(resource: &Resource, bytes: &[u8]) -> Option<Value> {
    let value = Tape::new(bytes).object(&resource.definition, 0);
    let decoded = resource.canonical(value, FieldValidation::Strict);
    match decoded {
        Ok(decoded) => Some(decoded.object),
        Err(error) => {
            assert_eq!(error.code(), 400, "{error}");
            None
        }
    }
}

/// Defaults are idempotent; an object as it would be stored is itself when it comes back.
fn settled(resource: &'static Resource, object: &Value) {
    let mut twice = object.clone();
    resource.default(&mut twice);
    assert_eq!(
        &twice, object,
        "defaults of a {} are idempotent",
        resource.kind
    );
    // A spec that was absent lacks required fields, which decoding fills in.
    let decode = |value: &Value| {
        resource
            .canonical(value.clone(), FieldValidation::Strict)
            .unwrap()
            .object
    };
    let mut stored = decode(object);
    resource.default(&mut stored);
    // A default may be a zero, copied from an invalid value: decoding leaves it out.
    let mut back = decode(&stored);
    resource.default(&mut back);
    assert_eq!(
        back, stored,
        "a stored {} is itself when it comes back",
        resource.kind
    );
    let read: Value = serde_json::from_slice(&resource.serialize(&stored)).unwrap();
    assert_eq!(read, stored);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_object_of_any_kind_upsets_a_request(
        one in proptest::collection::vec(any::<u8>(), 0..600),
        two in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        for resource in resources() {
            let Some(mut old) = object(resource, &one) else { continue };
            resource.prepare_for_create(&mut old);
            resource.default(&mut old);
            settled(resource, &old);
            let created = resource.validate(&old, None, None);
            prop_assert!(created.is_ok() || created.unwrap_err().code() == 422);
            resource.selectable_fields(&old);
            let unchanged = resource.validate(&old, Some(&old), Some(Subresource::Status));
            prop_assert!(unchanged.is_ok() || unchanged.unwrap_err().code() == 422);
            let Some(change) = object(resource, &two) else { continue };
            for sub in [None, Some(Subresource::Status), Some(Subresource::Finalize)] {
                let mut new = change.clone();
                resource.prepare_for_update(&mut new, &old, sub);
                resource.default(&mut new);
                settled(resource, &new);
                let _ = resource.validate(&new, Some(&old), sub);
            }
        }
    }

    #[test]
    fn an_empty_patch_changes_nothing_and_a_whole_object_merges_into_itself(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        for resource in resources() {
            let Some(object) = object(resource, &bytes) else { continue };
            for apply in [patch::strategic::apply, patch::merge::apply] {
                prop_assert_eq!(&apply(resource, &object, &json!({})).unwrap(), &object);
            }
            prop_assert_eq!(&patch::merge::apply(resource, &object, &object).unwrap(), &object);
            let none = patch::json::apply(resource, &object, &json!([]));
            prop_assert_eq!(&none.unwrap(), &object);
            let _ = patch::strategic::apply(resource, &json!({}), &object);
        }
    }

    #[test]
    fn any_object_of_any_kind_can_be_applied_or_is_refused_and_has_owners_after_any_write(
        one in proptest::collection::vec(any::<u8>(), 0..600),
        two in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let writer = |manager, subresource| apply::Writer {
            manager,
            subresource,
            now: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        };
        for resource in resources() {
            let (Some(mut old), Some(mut new)) = (object(resource, &one), object(resource, &two))
            else {
                continue;
            };
            apply::update(resource, None, &mut old, &writer("maker", None));
            for sub in [None, Some(Subresource::Status)] {
                let mut updated = new.clone();
                apply::update(resource, Some(&old), &mut updated, &writer("editor", sub));
                let mut again = updated.clone();
                apply::update(resource, Some(&updated), &mut again, &writer("other", sub));
                prop_assert_eq!(&updated, &again);
            }
            if let Some(metadata) = new["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            for (live, force) in [(None, false), (Some(&old), false), (Some(&old), true)] {
                let by = writer("applier", None);
                match apply::apply(resource, live, &new, &by, force) {
                    // Whoever applied nothing has no record; the next one finds what was there before.
                    Ok(applied) if applied["metadata"]["managedFields"].is_null() => {}
                    Ok(applied) => {
                        let again = apply::apply(resource, Some(&applied), &new, &by, false);
                        prop_assert_eq!(again, Ok(applied));
                    }
                    Err(error) => {
                        let code = error.code();
                        prop_assert!(code == 400 || code == 409 && !force, "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_selector_text_upsets_the_parser(text in "[a-z=!,()<> \\\\./-]{0,20}") {
        let _ = super::selector::LabelSelector::parse(&text);
        let _ = super::selector::FieldSelector::parse(&text);
    }
}
