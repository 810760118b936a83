//! What a manager applied before and does not any more.

use serde_json::Value;

use super::{
    field_set::{Nodes, intersection, subtract, with_structs},
    merge::without,
    of_object::of_object,
    shape::Shape,
};

/// The merged object without what `last` names and nobody in `managed` owns now. What nobody owns
/// goes with the item or struct that it is in, and only with it.
pub fn prune(shape: Shape<'_>, merged: &Value, last: &Nodes, managed: &Nodes) -> Value {
    let last = with_structs(last, shape);
    let managed = with_structs(managed, shape);
    let all = paths(shape, merged);
    let rest = left(shape, merged, &last);
    // Of what `last` would take along, that which somebody owns comes back.
    let mut unowned = all.clone();
    subtract(&mut unowned, &paths(shape, &rest));
    subtract(&mut unowned, &managed);
    let owned = left(shape, merged, &unowned);
    // So does what never was this manager's.
    let mut gone = all;
    subtract(&mut gone, &paths(shape, &owned));
    left(shape, merged, &intersection(&gone, &last))
}

fn paths(shape: Shape<'_>, object: &Value) -> Nodes {
    with_structs(of_object(shape, object).nodes(), shape)
}

fn left(shape: Shape<'_>, object: &Value, gone: &Nodes) -> Value {
    without(shape, object, gone).unwrap_or_default()
}
