//! Defaults of each kind, as Kubernetes fills them in.
