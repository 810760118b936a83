//! Clock, supervised tasks, telemetry, certificates. Imports nothing of ours.
