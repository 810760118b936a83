//! IP addresses and networks (Kubernetes' `ip` and `cidr` libraries). Stricter than Go's older parser:
//! no zeros in front, no IPv4 in IPv6.

use std::net::IpAddr;
use std::rc::Rc;

use ipnetwork::IpNetwork;

use super::{Cost, ONE, Overload, T, f, m, strings::text};
use crate::cel::{
    meter::Meter,
    typing::Opaque as O,
    value::{Failure, Opaque, Outcome, Value, error, no_overload},
};

const IP: T = T::Of(O::Ip);
const CIDR: T = T::Of(O::Cidr);
const TEXT: Cost = Cost::Text(1);

pub const TABLE: &[Overload] = &[
    f("ip", &[T::Str], IP, TEXT, to_ip),
    f("isIP", &[T::Str], T::Bool, TEXT, |_, a| {
        Ok(parse_ip(text(a, 0)?).is_ok().into())
    }),
    f(
        "ip.isCanonical",
        &[T::Str],
        T::Bool,
        Cost::Text(2),
        is_canonical,
    ),
    m("family", &[IP], T::Int, ONE, |_, a| {
        of_ip(a, |ip| if ip.is_ipv4() { 4 } else { 6 })
    }),
    m("isUnspecified", &[IP], T::Bool, ONE, |_, a| {
        is(a, |ip| ip.is_unspecified())
    }),
    m("isLoopback", &[IP], T::Bool, ONE, |_, a| {
        is(a, |ip| ip.is_loopback())
    }),
    m("isLinkLocalMulticast", &[IP], T::Bool, ONE, |_, a| {
        is(a, is_link_local_multicast)
    }),
    m("isLinkLocalUnicast", &[IP], T::Bool, ONE, |_, a| {
        is(a, is_link_local_unicast)
    }),
    m("isGlobalUnicast", &[IP], T::Bool, ONE, |_, a| {
        is(a, is_global_unicast)
    }),
    f("cidr", &[T::Str], CIDR, TEXT, to_cidr),
    f("isCIDR", &[T::Str], T::Bool, TEXT, |_, a| {
        Ok(parse_cidr(text(a, 0)?).is_ok().into())
    }),
    m(
        "containsIP",
        &[CIDR, IP],
        T::Bool,
        Cost::Network,
        contains_ip,
    ),
    m(
        "containsIP",
        &[CIDR, T::Str],
        T::Bool,
        Cost::Network,
        contains_ip,
    ),
    m(
        "containsCIDR",
        &[CIDR, CIDR],
        T::Bool,
        Cost::Network,
        contains_cidr,
    ),
    m(
        "containsCIDR",
        &[CIDR, T::Str],
        T::Bool,
        Cost::Network,
        contains_cidr,
    ),
    m("ip", &[CIDR], IP, ONE, |_, a| {
        Ok(opaque(Opaque::Ip(net(a, 0)?.ip())))
    }),
    m("masked", &[CIDR], CIDR, ONE, masked),
    m("prefixLength", &[CIDR], T::Int, ONE, |_, a| {
        Ok(i64::from(net(a, 0)?.prefix()).into())
    }),
];

pub fn opaque<'a>(value: Opaque<'a>) -> Value<'a> {
    Value::Opaque(Rc::new(value))
}

fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}

fn parse_ip(text: &str) -> Result<IpAddr, Failure> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => error(format!(
            "IPv4-mapped IPv6 address {:?} is not allowed",
            shown(text)
        )),
        Ok(ip) => Ok(ip),
        Err(_) => error(format!(
            "IP Address {:?} parse error during conversion from string: unable to parse IP",
            shown(text)
        )),
    }
}

fn parse_cidr(text: &str) -> Result<IpNetwork, Failure> {
    let parts = text.split_once('/').and_then(|(ip, length)| {
        let plain = length == "0" || !length.starts_with('0');
        let digits = plain && length.bytes().all(|b| b.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits)?;
        IpNetwork::new(parse_ip(ip).ok()?, length).ok()
    });
    match parts {
        Some(net) => Ok(net),
        None => error(format!(
            "network address parse error during conversion from string: {:?}",
            shown(text)
        )),
    }
}

fn ip(args: &[Value<'_>], at: usize) -> Result<IpAddr, Failure> {
    match &args[at] {
        Value::Opaque(opaque) => match **opaque {
            Opaque::Ip(ip) => Ok(ip),
            _ => no_overload(),
        },
        _ => parse_ip(text(args, at)?),
    }
}

fn net(args: &[Value<'_>], at: usize) -> Result<IpNetwork, Failure> {
    match &args[at] {
        Value::Opaque(opaque) => match **opaque {
            Opaque::Cidr(net) => Ok(net),
            _ => no_overload(),
        },
        _ => parse_cidr(text(args, at)?),
    }
}

fn to_ip<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(opaque(Opaque::Ip(parse_ip(text(args, 0)?)?)))
}

fn to_cidr<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(opaque(Opaque::Cidr(parse_cidr(text(args, 0)?)?)))
}

fn is_canonical<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let text = text(args, 0)?;
    Ok((parse_ip(text)?.to_string() == text).into())
}

fn of_ip<'a>(args: &[Value<'a>], what: fn(IpAddr) -> i64) -> Outcome<'a> {
    Ok(what(ip(args, 0)?).into())
}

fn is<'a>(args: &[Value<'a>], what: fn(IpAddr) -> bool) -> Outcome<'a> {
    Ok(what(ip(args, 0)?).into())
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(broadcast
        || ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || is_link_local_unicast(ip))
}

fn contains_ip<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(net(args, 0)?.contains(ip(args, 1)?).into())
}

fn contains_cidr<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (outer, inner) = (net(args, 0)?, net(args, 1)?);
    let within = outer.prefix() <= inner.prefix() && outer.contains(inner.ip());
    Ok(within.into())
}

fn masked<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let net = net(args, 0)?;
    match IpNetwork::new(net.network(), net.prefix()) {
        Ok(net) => Ok(opaque(Opaque::Cidr(net))),
        Err(e) => error(e.to_string()),
    }
}
