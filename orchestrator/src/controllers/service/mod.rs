//! Who serves a Service: selection of pods, written as EndpointSlices and as the older Endpoints.

pub mod endpoints;
pub mod selection;
pub mod slices;

#[cfg(test)]
mod tests;
