//! Label and field selectors: parsed from a query string or from an object, matched against maps.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::status::ApiError;

/// A conjunction of requirements on labels; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// From a selector that is null: it selects nothing.
    nothing: bool,
}

/// `key operator values`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without repetition.
    pub values: Vec<String>,
}

/// How a requirement compares a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// The label is an integer above the one value; node affinity only.
    Gt,
    Lt,
}

/// A conjunction of `field=value`, `field==value` and `field!=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing.
    pub fn nothing() -> Self {
        Self {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// `a=b,c in (d, e),!f`, as a query parameter carries it.
    pub fn parse(_text: &str) -> Result<Self, ApiError> {
        todo!()
    }

    /// From a workload's selector: null selects nothing, an empty one everything.
    pub fn from_object(_selector: Option<&meta::LabelSelector>) -> Result<Self, ApiError> {
        todo!()
    }

    /// From a map of equalities, such as a Service's or a ReplicationController's selector.
    pub fn from_map(_labels: &BTreeMap<String, String>) -> Self {
        todo!()
    }

    pub fn matches(&self, _labels: &BTreeMap<String, String>) -> bool {
        todo!()
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl Requirement {
    pub fn matches(&self, _labels: &BTreeMap<String, String>) -> bool {
        todo!()
    }
}

impl FieldSelector {
    pub fn parse(_text: &str) -> Result<Self, ApiError> {
        todo!()
    }

    /// Refuses a field that the kind does not offer (`fields` of any object of the kind).
    pub fn check(&self, _kind: &str, _fields: &[&'static str]) -> Result<(), ApiError> {
        todo!()
    }

    pub fn matches(&self, _fields: &BTreeMap<&'static str, String>) -> bool {
        todo!()
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that the field must have, if the selector says so: a list by one name or node.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|t| t.equal && t.field == field)
            .map(|t| t.value.as_str())
    }
}
