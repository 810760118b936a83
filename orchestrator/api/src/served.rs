//! What a path leads to: a version of a kind as clients speak it, the version that is stored, and the
//! way between the two.

use std::sync::Arc;

use serde_json::Value;

use super::{decode::FieldValidation, registry, resource::Resource, status::ApiError};

/// A version of a kind that is served.
#[derive(Debug)]
pub struct Served {
    /// The version that the client speaks: names, schema, columns, subresources, warnings.
    pub resource: Arc<Resource>,
    /// What the cache and the store know its objects as.
    pub storage: Arc<Resource>,
    pub conversion: Conversion,
}

/// How objects get from one version to the other.
#[derive(Clone, Debug)]
pub enum Conversion {
    /// The served version is the stored one.
    Same,
    /// The two differ in apiVersion and kind alone.
    Renamed,
    /// An old version of a built-in kind. Both functions leave apiVersion and kind alone, and what
    /// they make need not be canonical.
    Pure {
        /// To the stored version; the object has the defaults of the served one.
        up: fn(&mut Value),
        /// To the served version.
        down: fn(&mut Value),
    },
    /// Versions of a custom kind between which its webhook converts. The API server calls it.
    Webhook(Arc<Webhook>),
}

/// The conversion webhook of a custom kind.
#[derive(Debug)]
pub struct Webhook {
    /// The name of the CustomResourceDefinition.
    pub definition: Box<str>,
    /// `clientConfig`
    pub client: Value,
    /// The versions of ConversionReview that it understands, the best first.
    pub reviews: Box<[Box<str>]>,
}

impl Served {
    /// The stored version itself.
    pub fn stored(resource: &Arc<Resource>) -> Self {
        Self {
            resource: resource.clone(),
            storage: resource.clone(),
            conversion: Conversion::Same,
        }
    }

    /// An old version of the built-in kind of this group and plural.
    ///
    /// # Panics
    /// There is no such kind: the list of old versions is wrong.
    pub(crate) fn view(
        face: Resource,
        (group, plural): (&str, &str),
        conversion: Conversion,
    ) -> Self {
        let mut kinds = registry::resources().iter();
        let storage = kinds.find(|kind| kind.group == group && kind.plural == plural);
        Self {
            resource: Arc::new(face),
            storage: storage.expect("a view is of a built-in kind").clone(),
            conversion,
        }
    }

    /// Whether objects are shown as they are stored.
    pub fn is_same(&self) -> bool {
        matches!(self.conversion, Conversion::Same)
    }

    /// What a client wrote, in the version that is stored. What a webhook is to convert has been
    /// converted before.
    ///
    /// # Errors
    /// The converted object does not fit the schema of the stored version.
    pub fn to_stored(&self, mut object: Value) -> Result<Value, ApiError> {
        let up = match self.conversion {
            Conversion::Same => return Ok(object),
            // It is in the stored version by now, of which the served one knows nothing.
            Conversion::Webhook(_) => return converted(&self.storage, object, None),
            Conversion::Renamed => None,
            Conversion::Pure { up, .. } => Some(up),
        };
        self.resource.default(&mut object);
        converted(&self.storage, object, up)
    }

    /// What is stored, in the version that the client speaks; as for webhooks, as in `to_stored`.
    ///
    /// # Errors
    /// The converted object does not fit the schema of the served version.
    pub fn to_served(&self, object: Value) -> Result<Value, ApiError> {
        match self.conversion {
            Conversion::Same => Ok(object),
            Conversion::Renamed | Conversion::Webhook(_) => converted(&self.resource, object, None),
            Conversion::Pure { down, .. } => converted(&self.resource, object, Some(down)),
        }
    }
}

fn converted(
    to: &Resource,
    mut object: Value,
    convert: Option<fn(&mut Value)>,
) -> Result<Value, ApiError> {
    if let Some(convert) = convert {
        convert(&mut object);
    }
    object["apiVersion"] = to.api_version().into();
    object["kind"] = (&*to.kind).into();
    Ok(to.canonical(object, FieldValidation::Ignore)?.object)
}
