//! The verbs over JSON: create, patch, delete, get. Errors are sorted by what a caller can do.

use http::{Method, Request};
use serde_json::{Value, json};
use thiserror::Error;

use super::kind::Kind;

/// Why a request did not do what it should, by what follows from it.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("not found: {0}")]
    NotFound(String),
    #[error("already exists: {0}")]
    AlreadyExists(String),
    /// The object changed meanwhile, or is another one of the same name.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The revision asked for is no longer held; list anew.
    #[error("gone: {0}")]
    Gone(String),
    /// The server understood and refused: the same request will be refused again.
    #[error("{0}")]
    Refused(String),
    /// Nothing is known about the outcome.
    #[error("no answer: {0}")]
    Unknown(String),
}

impl From<kube::Error> for ClientError {
    fn from(error: kube::Error) -> Self {
        let status = match error {
            kube::Error::Api(status) => status,
            other => return ClientError::Unknown(other.to_string()),
        };
        let message = status.message.clone();
        match (status.code, status.reason.as_str()) {
            (404, _) => ClientError::NotFound(message),
            (409, "AlreadyExists") => ClientError::AlreadyExists(message),
            (409, _) => ClientError::Conflict(message),
            (410, _) => ClientError::Gone(message),
            (400..=499, _) if status.code != 429 => ClientError::Refused(message),
            _ => ClientError::Unknown(message),
        }
    }
}

/// How a patch is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatchKind {
    Merge,
    Strategic,
}

/// The verbs of one client.
#[derive(Clone)]
pub struct Verbs {
    client: kube::Client,
}

impl Verbs {
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    pub async fn get(&self, kind: Kind, ns: &str, name: &str) -> Result<Value, ClientError> {
        self.send(Method::GET, kind.path(ns, name, ""), "", Vec::new())
            .await
    }

    /// What is at a path, with its query.
    pub async fn read(&self, path: &str) -> Result<Value, ClientError> {
        self.send(Method::GET, path.to_owned(), "", Vec::new())
            .await
    }

    /// Whether `ns` still holds an object of `kind`.
    pub async fn any(&self, kind: Kind, ns: &str) -> Result<bool, ClientError> {
        let path = format!("{}?limit=1", kind.path(ns, "", ""));
        let list = self.send(Method::GET, path, "", Vec::new()).await?;
        Ok(list["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty()))
    }

    pub async fn create(
        &self,
        kind: Kind,
        ns: &str,
        parent: (&str, &str),
        object: &Value,
    ) -> Result<Value, ClientError> {
        let path = kind.path(ns, parent.0, parent.1);
        self.send(Method::POST, path, JSON, object.to_string().into_bytes())
            .await
    }

    pub async fn replace(
        &self,
        kind: Kind,
        target: (&str, &str, &str),
        object: &Value,
    ) -> Result<Value, ClientError> {
        let path = kind.path(target.0, target.1, target.2);
        self.send(Method::PUT, path, JSON, object.to_string().into_bytes())
            .await
    }

    pub async fn patch(
        &self,
        kind: Kind,
        target: (&str, &str, &str),
        how: PatchKind,
        body: &Value,
    ) -> Result<Value, ClientError> {
        let path = kind.path(target.0, target.1, target.2);
        let content = match how {
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
        };
        self.send(Method::PATCH, path, content, body.to_string().into_bytes())
            .await
    }

    pub async fn delete(
        &self,
        kind: Kind,
        ns: &str,
        name: &str,
        options: &Value,
    ) -> Result<Value, ClientError> {
        let mut options = options.clone();
        options["kind"] = json!("DeleteOptions");
        options["apiVersion"] = json!("v1");
        let path = kind.path(ns, name, "");
        self.send(Method::DELETE, path, JSON, options.to_string().into_bytes())
            .await
    }

    async fn send(
        &self,
        method: Method,
        path: String,
        content: &str,
        body: Vec<u8>,
    ) -> Result<Value, ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        if !content.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, content);
        }
        let request = request
            .body(body)
            .map_err(|e| ClientError::Refused(e.to_string()))?;
        Ok(self.client.request::<Value>(request).await?)
    }
}

const JSON: &str = "application/json";
