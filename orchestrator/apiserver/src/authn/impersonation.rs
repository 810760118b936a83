//! A caller that acts as somebody else: `Impersonate-User`, `-Group`, `-Uid`, `-Extra-<key>`.
//!
//! ```text
//! caller ─▶ wishes of its headers ─▶ may it `impersonate` each of them? ─▶ who it acts as
//!                                                └─no─▶ 403
//! ```
//!
//! The headers are taken off the request whatever they say: nobody further on, in this process or behind
//! a proxy, believes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::User;
use super::user::ShownToken;
use crate::State;
use crate::rest::review;
use api::ApiError;

const PREFIX: &str = "impersonate-";
const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const ACCOUNTS: &str = "system:serviceaccounts";
/// The group of the objects that stand for uids and extras.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// What headers ask for.
#[derive(Debug, Default, PartialEq)]
struct Wish {
    name: String,
    /// None: not said.
    groups: Option<Vec<String>>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

/// Whom the caller acts as, if its headers ask for that and it may; takes the headers away.
pub fn acting_as(
    state: &State,
    caller: &User,
    headers: &mut HeaderMap,
) -> Result<Option<User>, ApiError> {
    let wish = Wish::of(headers);
    let names = headers
        .keys()
        .filter(|name| name.as_str().starts_with(PREFIX));
    for name in names.cloned().collect::<Vec<HeaderName>>() {
        headers.remove(name);
    }
    let Some(wish) = wish? else {
        return Ok(None);
    };
    for object in wish.objects() {
        let asked = json!({"resourceAttributes": object});
        if !review::may(state, caller, &asked) {
            return Err(refusal(caller, &object));
        }
    }
    Ok(Some(wish.user(caller)))
}

/// Whether headers ask to act as another user, and are whole.
pub fn asks(headers: &HeaderMap) -> bool {
    let wish = Wish::of(headers);
    let _ = wish.as_ref().map(|wish| wish.as_ref().map(Wish::objects));
    wish.is_ok_and(|wish| wish.is_some())
}

impl Wish {
    /// None where nothing is asked for.
    fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let bad = |why: &str| ApiError::BadRequest(format!("impersonation: {why}"));
        let values = |name: &str| -> Result<Vec<String>, ApiError> {
            let values = headers.get_all(name).iter();
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned);
            let values = values.map(|value| text(value.as_bytes()));
            let values: Result<_, _> = values.collect();
            values.map_err(|_| bad("a header is not UTF-8"))
        };
        let one = |name: &str| -> Result<String, ApiError> {
            let mut values = values(name)?;
            // A proxy that adds its own would mean one, and a client that was there before it another.
            match values.len() {
                0 | 1 => Ok(values.pop().unwrap_or_default()),
                _ => Err(bad(&format!("the header {name} is there more than once"))),
            }
        };
        let groups = values(GROUP)?;
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in headers.keys() {
            if let Some(key) = name.as_str().strip_prefix(EXTRA) {
                extra
                    .entry(unescaped(key))
                    .or_default()
                    .extend(values(name.as_str())?);
            }
        }
        let wish = Self {
            name: one(USER)?,
            groups: (!groups.is_empty()).then_some(groups),
            uid: one(UID)?,
            extra,
        };
        let is_named = !wish.name.is_empty();
        let asks = headers.contains_key(USER) || wish != Self::default();
        match (asks, is_named) {
            (false, _) => Ok(None),
            (true, true) => Ok(Some(wish)),
            // As Kubernetes answers it.
            (true, false) => Err(ApiError::Internal(
                "requested impersonation without impersonating a user name".to_owned(),
            )),
        }
    }

    /// Namespace and name of the ServiceAccount that it asks for.
    fn account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
        let is_one = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
        is_one.then_some((namespace, name))
    }

    /// What the caller must have the right to impersonate: `resourceAttributes` of a review.
    fn objects(&self) -> Vec<Value> {
        let verb = "impersonate";
        let mut objects = vec![match self.account() {
            Some((namespace, name)) => json!({"verb": verb, "group": "", "version": "v1",
                "resource": "serviceaccounts", "namespace": namespace, "name": name}),
            None => json!({"verb": verb, "group": "", "version": "v1", "resource": "users",
                "name": self.name}),
        }];
        let groups = self.groups.iter().flatten();
        objects.extend(groups.map(|group| {
            json!({"verb": verb, "group": "", "version": "v1", "resource": "groups",
                "name": group})
        }));
        for (key, values) in &self.extra {
            objects.extend(values.iter().map(|value| {
                json!({"verb": verb, "group": AUTHENTICATION, "version": "v1",
                    "resource": "userextras", "subresource": key, "name": value})
            }));
        }
        if !self.uid.is_empty() {
            objects.push(
                json!({"verb": verb, "group": AUTHENTICATION, "version": "v1", "resource": "uids",
                "name": self.uid}),
            );
        }
        objects
    }

    /// The user, who is believed no longer than the caller and comes from where that comes from.
    fn user(self, caller: &User) -> User {
        let groups = match (&self.groups, self.account()) {
            (Some(groups), _) => groups.clone(),
            (None, Some((namespace, _))) => {
                vec![ACCOUNTS.to_owned(), format!("{ACCOUNTS}:{namespace}")]
            }
            (None, None) => Vec::new(),
        };
        User {
            uid: self.uid.into(),
            extra: Arc::new(self.extra),
            token: Some(Arc::new(ShownToken {
                ends: caller.ends(),
                bond: caller.token.as_ref().and_then(|token| token.bond.clone()),
            })),
            peer: caller.peer,
            ..User::named(&self.name, groups)
        }
    }
}

/// What is no valid escape stays as it is.
fn unescaped(key: &str) -> String {
    crate::request::percent_decode(key).into_owned()
}

fn refusal(caller: &User, object: &Value) -> ApiError {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (resource, name) = (text("resource"), text("name"));
    let full = match text("subresource") {
        "" => resource.to_owned(),
        sub => format!("{resource}/{sub}"),
    };
    let place = match text("namespace") {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let group = text("group");
    let qualified = match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    };
    ApiError::Forbidden {
        target: Default::default(),
        message: format!(
            "{qualified} \"{name}\" is forbidden: User \"{}\" cannot impersonate resource \
             \"{full}\" in API group \"{group}\" {place}",
            caller.name
        ),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    fn wish(pairs: &[(&'static str, &'static str)]) -> Result<Option<Wish>, u16> {
        Wish::of(&headers(pairs)).map_err(|error| error.code())
    }

    #[test]
    fn every_part_of_the_other_user_is_an_object_to_be_impersonated() {
        let wish = wish(&[
            (USER, "bob"),
            (GROUP, "dev"),
            (GROUP, "system:masters"),
            (UID, "7"),
            ("impersonate-extra-example.com%2fscopes", "view"),
        ]);
        let wish = wish.expect("it reads").expect("it asks");
        let objects = wish.objects();
        let shown: Vec<[&str; 4]> = objects
            .iter()
            .map(|object| {
                ["group", "resource", "subresource", "name"]
                    .map(|field| object[field].as_str().unwrap_or_default())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ["", "users", "", "bob"],
                ["", "groups", "", "dev"],
                ["", "groups", "", "system:masters"],
                [AUTHENTICATION, "userextras", "example.com/scopes", "view"],
                [AUTHENTICATION, "uids", "", "7"],
            ]
        );
    }

    #[test]
    fn a_service_account_has_its_groups_unless_others_are_asked_for() {
        let caller = User::named("ann", Vec::new());
        let name = "system:serviceaccount:shop:web";
        let asked = wish(&[(USER, name)]).expect("it reads").expect("it asks");
        assert_eq!(asked.objects()[0]["resource"], "serviceaccounts");
        assert_eq!(asked.objects()[0]["namespace"], "shop");
        let user = asked.user(&caller);
        let groups = ["system:serviceaccounts", "system:serviceaccounts:shop"];
        assert_eq!(user.groups[..], groups.map(str::to_owned));
        let asked = wish(&[(USER, name), (GROUP, "dev")]);
        let user = asked.expect("it reads").expect("it asks").user(&caller);
        assert_eq!(user.groups[..], ["dev".to_owned()]);
        // Not the name of an account: it is a user's.
        let asked = wish(&[(USER, "system:serviceaccount:shop")]);
        let asked = asked.expect("it reads").expect("it asks");
        assert_eq!(asked.objects()[0]["resource"], "users");
    }

    #[test]
    fn headers_that_mean_nobody_or_two_are_refused() {
        assert_eq!(wish(&[]), Ok(None));
        assert_eq!(wish(&[("impersonate-other", "x")]), Ok(None));
        for nobody in [
            &[(GROUP, "system:masters")][..],
            &[(UID, "7")],
            &[("impersonate-extra-a", "b")],
            &[(USER, "")],
            &[(USER, ""), (GROUP, "dev")],
        ] {
            assert_eq!(wish(nobody), Err(500), "{nobody:?}");
        }
        assert_eq!(wish(&[(USER, "a"), (USER, "b")]), Err(400));
        let mut headers = headers(&[]);
        let value = HeaderValue::from_bytes(b"b\xff").expect("a value");
        headers.insert(USER, value);
        assert_eq!(Wish::of(&headers).map_err(|error| error.code()), Err(400));
    }

    #[test]
    fn who_acts_as_another_proves_no_address_and_lasts_no_longer_than_itself() {
        let ends = jiff::Timestamp::UNIX_EPOCH;
        let caller = User {
            token: Some(Arc::new(ShownToken {
                ends: Some(ends),
                bond: None,
            })),
            peer: Some([10, 0, 0, 9].into()),
            ..User::named("ann", Vec::new())
        };
        let asked = wish(&[(USER, "system:node:a"), (GROUP, "system:nodes")]);
        let user = asked.expect("it reads").expect("it asks").user(&caller);
        assert!(!user.proves([10, 0, 0, 1].into()));
        assert!(user.has_ended(ends));
    }
}
