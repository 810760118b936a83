//! v1 ServiceAccount.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::columns::{AGE, Column, NAME, Printer, age, list, name};
use crate::resource::{Resource, Subresource};

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["sa".into()],
        answers_with_object: true,
        subresources: vec![Subresource::Token],
        printer: COLUMNS,
        ..Resource::of::<ServiceAccount>("", "core", "serviceaccount", "serviceaccounts")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Secrets", "The number of secrets it may use"),
        AGE,
    ],
    cells: |object, now| {
        vec![
            name(object),
            list(object, "/secrets").len().into(),
            age(object, now),
        ]
    },
};
