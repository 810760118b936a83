//! Revisioned keys: compare-and-set, watch from a revision, compaction.
