//! One shell (gather, plan, execute) and one pure file a controller.
