//! The Kubernetes wire API over HTTPS: REST, watch, discovery, OpenAPI, tables.

pub mod cache;
