//! What an applied configuration would take from other managers, and how they are told.

use super::{
    element,
    field_set::{self, FieldSet, Nodes},
    managers::{Entry, Id, Managers, Operation},
};
use crate::status::{ApiError, Cause, CauseKind};

/// The fields of other managers that would change: of each entry those, in order of managers.
pub struct Conflicts<'a>(Vec<(Id<'a>, FieldSet)>);

impl<'a> Conflicts<'a> {
    /// Of everybody but `own` what is among the changed paths.
    pub fn find(managers: &'a Managers, own: Id<'_>, changed: &Nodes) -> Self {
        let of = |entry: &'a Entry| {
            let fields = field_set::intersection(entry.fields(), changed);
            (!fields.is_empty()).then(|| (entry.id(), FieldSet::of(fields)))
        };
        let others = managers.iter().filter(|entry| entry.id() != own);
        let mut found: Vec<_> = others.filter_map(of).collect();
        let key = |id: &Id<'a>| (id.manager, id.operation, id.api_version, id.subresource);
        found.sort_by_key(|(id, _)| key(id));
        Self(found)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same without those that are about these paths.
    pub fn without(self, paths: &Nodes) -> Self {
        let left = self.0.into_iter().filter_map(|(id, fields)| {
            let mut fields = fields.nodes().clone();
            field_set::subtract(&mut fields, paths);
            (!fields.is_empty()).then(|| (id, FieldSet::of(fields)))
        });
        Self(left.collect())
    }

    /// The answer 409 with a cause for every field, in Kubernetes' words.
    pub fn error(&self) -> ApiError {
        let mut causes = Vec::new();
        let mut lines = Vec::new();
        for (id, fields) in &self.0 {
            let manager = shown(id);
            lines.push(format!("conflicts with {manager}:"));
            for path in fields.paths() {
                let field: String = path.into_iter().map(element::shown).collect();
                lines.push(format!("- {field}"));
                causes.push(Cause {
                    field,
                    kind: CauseKind::FieldManagerConflict,
                    message: format!("conflict with {manager}"),
                });
            }
        }
        let message = match causes.as_slice() {
            [one] => format!(
                "Apply failed with 1 conflict: {}: {}",
                one.message, one.field
            ),
            all => format!(
                "Apply failed with {} conflicts: {}",
                all.len(),
                lines.join("\n")
            ),
        };
        ApiError::ApplyConflict { message, causes }
    }
}

/// `"kubelet" with subresource "status" using v1`
fn shown(id: &Id<'_>) -> String {
    let mut text = format!("{:?}", id.manager);
    if !id.subresource.is_empty() {
        text += &format!(" with subresource {:?}", id.subresource);
    }
    if id.operation == Operation::Update {
        text += &format!(" using {}", id.api_version);
    }
    text
}
