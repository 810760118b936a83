//! Every way in which the API refuses a request, and its `Status` on the wire.
//!
//! One variant a Kubernetes reason; codes, reasons and messages are those of Kubernetes, because
//! clients match on them.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    ListMeta, Status, StatusCause, StatusDetails,
};

use super::resource::Resource;

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Unauthorized(String),
    /// The whole message; see [`ApiError::forbidden`] for the usual form.
    #[error("{message}")]
    Forbidden { target: Target, message: String },
    #[error("{} \"{}\" not found", .0.qualified(), .0.name)]
    NotFound(Target),
    /// No such path or resource at all.
    #[error("the server could not find the requested resource")]
    NoSuchResource,
    #[error("{} \"{}\" already exists", .0.qualified(), .0.name)]
    AlreadyExists(Target),
    /// The same of an object that is going, which somebody's finalizers or grace still keep.
    #[error("object is being deleted: {} \"{}\" already exists", .0.qualified(), .0.name)]
    StillGoing(Target),
    #[error("Operation cannot be fulfilled on {} \"{}\": {message}", .target.qualified(), .target.name)]
    Conflict { target: Target, message: String },
    /// An applied configuration changes what other managers own: one cause a field.
    #[error("{message}")]
    ApplyConflict { message: String, causes: Vec<Cause> },
    #[error("{} \"{}\" is invalid: {}", .target.qualified(), .target.name, Causes(.causes))]
    Invalid { target: Target, causes: Vec<Cause> },
    /// The request is well-formed but cannot be done: a patch that does not apply.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Unprocessable(String),
    #[error("{0}")]
    Expired(String),
    /// A page of a state that is no longer known; `next` is a token that goes on with the present state.
    #[error("{message}")]
    ExpiredPage { message: String, next: String },
    #[error("{action} is not supported on resources of kind \"{}\"", .target.qualified())]
    MethodNotAllowed { target: Target, action: String },
    #[error("{0}")]
    NotAcceptable(String),
    #[error("{0}")]
    UnsupportedMediaType(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("{message}")]
    TooManyRequests {
        message: String,
        retry_after_seconds: i32,
    },
    #[error("{0}")]
    Timeout(String),
    #[error("Internal error occurred: {0}")]
    Internal(String),
    #[error("{0}")]
    ServiceUnavailable(String),
    /// What another server says, which has a say in it: an admission webhook.
    #[error("{}", .0.message.as_deref().unwrap_or_default())]
    Given(Box<Status>),
}

/// What an error is about: `kind` is the plural resource name, for [`ApiError::Invalid`] the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub group: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
}

/// One violated rule of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `spec.containers[0].image`
    pub field: String,
    pub kind: CauseKind,
    /// The text after `field: `, complete.
    pub message: String,
}

/// The reason of a cause, as Kubernetes names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseKind {
    Required,
    Invalid,
    Duplicate,
    Forbidden,
    NotSupported,
    NotFound,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
    FieldManagerConflict,
}

impl ApiError {
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::NotFound(Target::resource(resource, name))
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::AlreadyExists(Target::resource(resource, name))
    }

    pub fn still_going(resource: &Resource, name: &str) -> Self {
        Self::StillGoing(Target::resource(resource, name))
    }

    /// The optimistic lock failed: somebody else wrote the object since it was read.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and \
             try again",
        )
    }

    pub fn conflict(resource: &Resource, name: &str, message: impl Into<String>) -> Self {
        Self::Conflict {
            target: Target::resource(resource, name),
            message: message.into(),
        }
    }

    /// `pods "x" is forbidden: why`
    pub fn forbidden(resource: &Resource, name: &str, why: impl fmt::Display) -> Self {
        Self::forbidden_target(Target::resource(resource, name), why)
    }

    /// The same of what may be no resource that is known here.
    pub fn forbidden_target(target: Target, why: impl fmt::Display) -> Self {
        let (of, name) = (target.qualified(), target.name.as_str());
        let message = match name {
            "" => format!("{of} is forbidden: {why}"),
            name => format!("{of} \"{name}\" is forbidden: {why}"),
        };
        Self::Forbidden { target, message }
    }

    pub fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Self {
        let target = Target {
            group: resource.group.to_string(),
            kind: resource.kind.to_string(),
            name: name.into(),
            uid: String::new(),
        };
        Self::Invalid { target, causes }
    }

    pub fn method_not_allowed(resource: &Resource, action: impl Into<String>) -> Self {
        Self::MethodNotAllowed {
            target: Target::resource(resource, ""),
            action: action.into(),
        }
    }

    /// A watch or list asked for history that is gone.
    pub fn too_old(requested: u64, oldest: u64) -> Self {
        Self::Expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::Given(status) => {
                let code = status.code.and_then(|code| u16::try_from(code).ok());
                code.unwrap_or(self.code_and_reason().0)
            }
            _ => self.code_and_reason().0,
        }
    }

    /// Seconds for the `Retry-After` header.
    pub fn retry_after_seconds(&self) -> Option<i32> {
        match self {
            Self::TooManyRequests {
                retry_after_seconds,
                ..
            } => Some(*retry_after_seconds),
            Self::Given(status) => status.details.as_ref()?.retry_after_seconds,
            _ => None,
        }
    }

    /// The body of the answer.
    pub fn status(&self) -> Status {
        if let Self::Given(status) = self {
            return (**status).clone();
        }
        let (code, reason) = self.code_and_reason();
        Status {
            code: Some(i32::from(code)),
            details: self.details(),
            message: Some(self.to_string()),
            metadata: self.metadata(),
            reason: Some(reason.into()),
            status: Some("Failure".into()),
        }
    }

    fn metadata(&self) -> ListMeta {
        match self {
            Self::ExpiredPage { next, .. } => ListMeta {
                continue_: Some(next.clone()),
                ..ListMeta::default()
            },
            _ => ListMeta::default(),
        }
    }

    fn code_and_reason(&self) -> (u16, &'static str) {
        match self {
            Self::BadRequest(_) => (400, "BadRequest"),
            Self::Unauthorized(_) => (401, "Unauthorized"),
            Self::Forbidden { .. } => (403, "Forbidden"),
            Self::NotFound(_) | Self::NoSuchResource => (404, "NotFound"),
            Self::AlreadyExists(_) | Self::StillGoing(_) => (409, "AlreadyExists"),
            Self::Conflict { .. } | Self::ApplyConflict { .. } => (409, "Conflict"),
            Self::Invalid { .. } | Self::Unprocessable(_) => (422, "Invalid"),
            Self::Expired(_) | Self::ExpiredPage { .. } => (410, "Expired"),
            Self::MethodNotAllowed { .. } => (405, "MethodNotAllowed"),
            Self::NotAcceptable(_) => (406, "NotAcceptable"),
            Self::UnsupportedMediaType(_) => (415, "UnsupportedMediaType"),
            Self::TooLarge(_) => (413, "RequestEntityTooLarge"),
            Self::TooManyRequests { .. } => (429, "TooManyRequests"),
            Self::Timeout(_) => (504, "Timeout"),
            Self::Internal(_) | Self::Given(_) => (500, "InternalError"),
            Self::ServiceUnavailable(_) => (503, "ServiceUnavailable"),
        }
    }

    fn details(&self) -> Option<StatusDetails> {
        match self {
            Self::Forbidden { target, .. }
            | Self::NotFound(target)
            | Self::AlreadyExists(target)
            | Self::StillGoing(target)
            | Self::Conflict { target, .. }
            | Self::MethodNotAllowed { target, .. } => Some(target.details()),
            Self::Invalid { target, causes } => {
                let causes = causes.iter().map(Cause::status).collect();
                Some(StatusDetails {
                    causes: Some(causes),
                    ..target.details()
                })
            }
            Self::ApplyConflict { causes, .. } => Some(StatusDetails {
                causes: Some(causes.iter().map(Cause::status).collect()),
                ..Default::default()
            }),
            Self::NoSuchResource => Some(StatusDetails::default()),
            Self::TooManyRequests {
                retry_after_seconds,
                ..
            } => Some(StatusDetails {
                retry_after_seconds: Some(*retry_after_seconds),
                ..Default::default()
            }),
            Self::Internal(message) => {
                let cause = StatusCause {
                    message: Some(message.clone()),
                    ..Default::default()
                };
                Some(StatusDetails {
                    causes: Some(vec![cause]),
                    ..Default::default()
                })
            }
            _ => None,
        }
    }
}

impl Target {
    pub fn resource(resource: &Resource, name: &str) -> Self {
        Self {
            group: resource.group.to_string(),
            kind: resource.plural.to_string(),
            name: name.into(),
            uid: String::new(),
        }
    }

    /// `deployments.apps`, or `pods` for the core group.
    fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    fn details(&self) -> StatusDetails {
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        StatusDetails {
            causes: None,
            group: text(&self.group),
            kind: text(&self.kind),
            name: text(&self.name),
            retry_after_seconds: None,
            uid: text(&self.uid),
        }
    }
}

impl Cause {
    fn status(&self) -> StatusCause {
        StatusCause {
            field: Some(self.field.clone()),
            message: Some(self.message.clone()),
            reason: Some(self.kind.reason().into()),
        }
    }
}

impl CauseKind {
    /// The reason on the wire.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotSupported => "FieldValueNotSupported",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
            Self::FieldManagerConflict => "FieldManagerConflict",
        }
    }

    /// How the cause's message begins.
    pub fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::NotSupported => "Unsupported value",
            Self::NotFound => "Not found",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
            Self::FieldManagerConflict => "Conflict",
        }
    }
}

/// One cause as `field: message`, several in brackets; equal ones are said once.
struct Causes<'a>(&'a [Cause]);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = Vec::new();
        let mut said = BTreeSet::new();
        for cause in self.0 {
            let text = format!("{}: {}", cause.field, cause.message);
            if said.insert(text.clone()) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [one] => f.write_str(one),
            all => write!(f, "[{}]", all.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_object_names_its_kind_and_every_cause() {
        let deployment = crate::find_kind("apps", "v1", "Deployment").unwrap();
        let cause = |field: &str| Cause {
            field: field.into(),
            kind: CauseKind::Required,
            message: "Required value".into(),
        };
        let one = ApiError::invalid(deployment, "web", vec![cause("spec.selector")]);
        assert_eq!(
            one.to_string(),
            r#"Deployment.apps "web" is invalid: spec.selector: Required value"#
        );
        let two = ApiError::invalid(deployment, "web", vec![cause("a"), cause("b")]);
        assert_eq!(
            two.to_string(),
            r#"Deployment.apps "web" is invalid: [a: Required value, b: Required value]"#
        );
        let status = two.status();
        assert_eq!(status.code, Some(422));
        assert_eq!(status.details.unwrap().causes.unwrap().len(), 2);
    }

    #[test]
    fn a_missing_object_is_named_by_its_resource() {
        let pods = crate::find("", "v1", "pods").unwrap();
        let error = ApiError::not_found(pods, "x");
        assert_eq!(error.to_string(), r#"pods "x" not found"#);
        assert_eq!(
            (error.code(), error.status().reason.as_deref()),
            (404, Some("NotFound"))
        );
    }
}
