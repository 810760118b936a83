//! Chooses a node for each pod: filters, scores, binding.
