//! Label and field selectors: parsed from a query string or from an object, matched against maps.

pub mod node;
mod parse;

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    api::core::v1::NodeSelectorRequirement, apimachinery::pkg::apis::meta::v1 as meta,
};

use super::resource::Name;
use super::status::ApiError;

/// A conjunction of requirements on labels; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// From a selector that is null: it selects nothing.
    nothing: bool,
}

/// `key operator values`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without repetition.
    pub values: Vec<String>,
}

/// How a requirement compares a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// The label is an integer above the one value; node affinity and query strings only.
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
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        parse::labels(text)
            .map(|requirements| Self {
                requirements,
                nothing: false,
            })
            .map_err(|e| ApiError::BadRequest(format!("unable to parse requirement: {e}")))
    }

    /// From a workload's selector: null selects nothing, an empty one everything.
    pub fn from_object(selector: Option<&meta::LabelSelector>) -> Result<Self, ApiError> {
        let Some(selector) = selector else {
            return Ok(Self::nothing());
        };
        let labels = selector.match_labels.iter().flatten();
        let mut requirements: Vec<_> = labels.map(|(k, v)| Requirement::equal(k, v)).collect();
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            let operator = match expression.operator.as_str() {
                "Gt" | "Lt" => None,
                other => Operator::named(other),
            };
            let operator = operator.ok_or_else(|| {
                ApiError::BadRequest(format!(
                    "\"{}\" is not a valid label selector operator",
                    expression.operator
                ))
            })?;
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(Self {
            requirements,
            nothing: false,
        })
    }

    /// From a map of equalities, such as a Service's or a ReplicationController's selector.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        let requirements = labels
            .iter()
            .map(|(k, v)| Requirement::equal(k, v))
            .collect();
        Self {
            requirements,
            nothing: false,
        }
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl Requirement {
    /// Checks that the operator has as many values as it takes.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, ApiError> {
        let refuse = |why: &str| Err(ApiError::BadRequest(format!("{key}: {why}")));
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return refuse("for 'in', 'notin' operators, values set can't be empty");
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return refuse("values set must be empty for exists and does not exist");
            }
            Operator::Gt | Operator::Lt
                if values.len() != 1 || values[0].parse::<i64>().is_err() =>
            {
                return refuse("for 'Gt', 'Lt' operators, the value must be one integer");
            }
            _ => {}
        }
        values.sort();
        values.dedup();
        Ok(Self {
            key: key.into(),
            operator,
            values,
        })
    }

    /// From a term of a node's affinity.
    pub fn from_node(term: &NodeSelectorRequirement) -> Result<Self, ApiError> {
        let operator = Operator::named(&term.operator).ok_or_else(|| {
            ApiError::BadRequest(format!(
                "\"{}\" is not a valid node selector operator",
                term.operator
            ))
        })?;
        Self::new(&term.key, operator, term.values.clone().unwrap_or_default())
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&self.key);
        let listed = || label.is_some_and(|label| self.values.binary_search(label).is_ok());
        let compared = |ordering| {
            let label = label.and_then(|l| l.parse::<i64>().ok());
            let value = self.values.first().and_then(|v| v.parse::<i64>().ok());
            label
                .zip(value)
                .is_some_and(|(label, value)| label.cmp(&value) == ordering)
        };
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::Gt => compared(std::cmp::Ordering::Greater),
            Operator::Lt => compared(std::cmp::Ordering::Less),
        }
    }

    fn equal(key: &str, value: &str) -> Self {
        Self {
            key: key.into(),
            operator: Operator::In,
            values: vec![value.into()],
        }
    }
}

impl Operator {
    pub(crate) fn named(word: &str) -> Option<Self> {
        match word {
            "In" => Some(Self::In),
            "NotIn" => Some(Self::NotIn),
            "Exists" => Some(Self::Exists),
            "DoesNotExist" => Some(Self::DoesNotExist),
            "Gt" => Some(Self::Gt),
            "Lt" => Some(Self::Lt),
            _ => None,
        }
    }
}

/// The query string; equalities are written with `=`.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = self.values.join(",");
        match self.operator {
            Operator::In if self.values.len() == 1 => write!(f, "{key}={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn if self.values.len() == 1 => write!(f, "{key}!={values}"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Gt => write!(f, "{key}>{values}"),
            Operator::Lt => write!(f, "{key}<{values}"),
        }
    }
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        parse::fields(text)
            .map(|terms| Self { terms })
            .map_err(ApiError::BadRequest)
    }

    /// Refuses a field that the kind does not offer (`fields` of any object of the kind).
    pub fn check(&self, kind: &str, fields: &[Name]) -> Result<(), ApiError> {
        match self
            .terms
            .iter()
            .find(|t| fields.iter().all(|field| *field != t.field))
        {
            None => Ok(()),
            Some(term) => Err(ApiError::BadRequest(format!(
                "field label not supported: {} (of kind {kind})",
                term.field
            ))),
        }
    }

    /// The same with other names for some fields.
    pub fn renamed<'a>(mut self, name: impl Fn(&str) -> Option<&'a Name>) -> Self {
        for term in &mut self.terms {
            if let Some(name) = name(&term.field) {
                term.field = name.to_string();
            }
        }
        self
    }

    /// The terms of these fields, and the others.
    pub fn split(self, is_first: impl Fn(&str) -> bool) -> (Self, Self) {
        let terms = self.terms.into_iter();
        let (first, rest) = terms.partition(|term| is_first(&term.field));
        (Self { terms: first }, Self { terms: rest })
    }

    pub fn matches(&self, fields: &BTreeMap<Name, String>) -> bool {
        self.terms.iter().all(|term| {
            let value = fields.get(term.field.as_str()).map_or("", String::as_str);
            (value == term.value) == term.equal
        })
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

#[cfg(test)]
mod tests;
