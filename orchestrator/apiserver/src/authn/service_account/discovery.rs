//! What others need to verify tokens of this cluster (OpenID Connect Discovery 1.0).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{State, reply};
use api::ApiError;

/// Where it is told.
pub const CONFIGURATION: &str = "/.well-known/openid-configuration";
pub const KEYS: &str = "/openid/v1/jwks";

/// Where the keys are, and which issuer they are of.
pub async fn configuration(Extract(state): Extract<Arc<State>>) -> Response<Body> {
    let issuer = issuer(&state);
    let configuration = issuer.map(|issuer| {
        json!({
            "issuer": issuer,
            "jwks_uri": format!("https://{}{KEYS}", state.config.advertise),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    });
    answer("application/json", configuration)
}

/// The public keys.
pub async fn keys(Extract(state): Extract<Arc<State>>) -> Response<Body> {
    let ring = state.authentication.accounts.keys.ring();
    let keys = issuer(&state).map(|_| ring.public());
    answer("application/jwk-set+json", keys)
}

/// The issuer that signs; nothing is told of one that is no HTTPS URL, as others could not look there.
fn issuer(state: &State) -> Option<&String> {
    let first = state.authentication.accounts.issuers.first();
    first.filter(|issuer| issuer.starts_with("https://"))
}

fn answer(content_type: &'static str, value: Option<Value>) -> Response<Body> {
    let Some(value) = value else {
        return reply::error(&ApiError::NoSuchResource);
    };
    let body = Body::from(value.to_string());
    let mut answer = reply::response(content_type, StatusCode::OK, body);
    let hour = HeaderValue::from_static("public, max-age=3600");
    answer.headers_mut().insert(header::CACHE_CONTROL, hour);
    answer
}
