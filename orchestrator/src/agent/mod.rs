//! One node: registers it, keeps its lease, runs its pods and hands the datapath its view.
