//! The Kubernetes API as data: kinds, selectors, patches, defaults, validation. Pure.
