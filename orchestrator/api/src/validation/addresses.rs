//! IP addresses and ranges, wherever a field holds one.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{At, Errors};
use crate::address;

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

const NO_IPV4_IN_IPV6: &str = "must not be an IPv4-mapped IPv6 address";

const NO_IPV4_RANGE_IN_IPV6: &str = "must not have an IPv4-mapped IPv6 address";

const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Says whether the text is an address. The one place for all fields that hold one.
pub fn ip(at: &At<'_>, errors: &mut Errors) -> bool {
    let fits = address::parse_ip(at.text()).is_some();
    if !fits {
        let parses = at.text().parse::<IpAddr>().is_ok();
        errors.invalid(at, if parses { NO_IPV4_IN_IPV6 } else { IP });
    }
    fits
}

/// The range that the text is. The one place for all fields that hold one.
pub fn cidr(at: &At<'_>, errors: &mut Errors) -> Option<IpNetwork> {
    let range = address::parse_range(at.text());
    if range.is_none() {
        let parses = at.text().contains('/') && at.text().parse::<IpNetwork>().is_ok();
        errors.invalid(at, if parses { NO_IPV4_RANGE_IN_IPV6 } else { CIDR });
    }
    range
}

pub fn too_many(list: &At<'_>, max: usize, errors: &mut Errors) {
    let length = list.value.as_array().map_or(0, Vec::len);
    if length > max {
        errors.too_many(list, length, max);
    }
}

/// Endpoints may not lead to a node's own or to link-local services.
pub fn usual_address(at: &At<'_>, errors: &mut Errors) {
    let Ok(address) = at.text().parse::<IpAddr>() else {
        return;
    };
    if address.is_unspecified() {
        errors.invalid(at, format!("may not be unspecified ({address})"));
    }
    if address.is_loopback() {
        errors.invalid(
            at,
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        );
    }
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    if link_local {
        errors.invalid(
            at,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
    if link_local_multicast {
        errors.invalid(
            at,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        );
    }
}
