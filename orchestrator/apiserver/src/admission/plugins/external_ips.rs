//! DenyServiceExternalIPs: nobody takes an address outside for a Service by writing it.

use serde_json::Value;

use super::{forbidden, is_whole};
use crate::admission::Attributes;
use api::{ApiError, Behaviour};

pub fn validate(attributes: &Attributes<'_>, service: Option<&Value>) -> Result<(), ApiError> {
    let Some(service) = service.filter(|_| is_whole(attributes, Behaviour::Service)) else {
        return Ok(());
    };
    let addresses = |service: &'_ Value| -> Vec<Value> {
        let list = service["spec"]["externalIPs"].as_array();
        list.cloned().unwrap_or_default()
    };
    let kept = attributes.old.map(addresses).unwrap_or_default();
    match addresses(service)
        .iter()
        .all(|address| kept.contains(address))
    {
        true => Ok(()),
        false => Err(forbidden(
            attributes,
            "Use of external IPs is denied by admission control.",
        )),
    }
}
