//! Images that a node has already.

use crate::demand::Local;
use crate::snapshot::{NodeView, Snapshot};

/// Below this a node's images are worth nothing, in bytes.
const LEAST: i64 = 23 << 20;
/// What an image of one container is worth at most, in bytes.
const MOST_EACH: i64 = 1000 << 20;

/// 0 to 100 by the sizes of the pod's images that are there; an image that few nodes have counts less, so
/// that pods of one image do not heap up where it is.
pub fn score(pod: &Local, view: NodeView, snapshot: &Snapshot) -> i64 {
    let nodes = i64::try_from(snapshot.live_nodes())
        .unwrap_or(i64::MAX)
        .max(1);
    let sizes = pod.images.iter().filter_map(|image| {
        let size = view.node.images.get(image)?;
        let share = snapshot.image_nodes(image) as f64 / nodes as f64;
        Some((*size as f64 * share) as i64)
    });
    let most = MOST_EACH * pod.containers.max(1);
    let sum = sizes.sum::<i64>().clamp(LEAST, most);
    100 * (sum - LEAST) / (most - LEAST)
}
