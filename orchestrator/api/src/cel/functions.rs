//! Functions and operators: one table, which the checker reads for types, the evaluation for what to
//! run, and both for what it costs.

mod authorization;
mod convert;
mod format;
mod formats;
mod lists;
mod net;
mod operators;
mod quantities;
mod semver;
mod strings;
mod times;
mod urls;

use std::{collections::BTreeMap, sync::OnceLock};

use super::{
    meter::Meter,
    typing::{Opaque, Type},
    value::{Outcome, Value},
};

pub use authorization::{Authorizer, Check, Decision, Question};
pub use convert::{decoded, encoded};
pub use semver::Semver;
pub use times::{duration, timestamp};
pub use urls::Url;

/// One form of a function.
pub struct Overload {
    pub name: &'static str,
    /// Called on its first argument: `text.size()`.
    pub member: bool,
    pub params: &'static [T],
    pub result: T,
    pub cost: Cost,
    pub run: Run,
}

pub type Run = for<'a> fn(&mut Meter<'_>, &[Value<'a>]) -> Outcome<'a>;

/// A type in the table.
#[derive(Clone, Copy, Debug)]
pub enum T {
    Dyn,
    /// Any type, the same at each place.
    A,
    B,
    Bool,
    Int,
    Uint,
    Double,
    Str,
    Bytes,
    Dur,
    Time,
    Type,
    List(&'static T),
    Map(&'static T, &'static T),
    Opt(&'static T),
    Of(Opaque),
}

/// What a call costs, in Kubernetes' units.
#[derive(Clone, Copy, Debug)]
pub enum Cost {
    Fixed(u64),
    /// A tenth of the first argument's size, so many times.
    Text(u64),
    /// The same of the result.
    Result(u64),
    /// Both arguments are copied.
    Sum,
    /// Both are compared.
    Compare,
    /// Text times pattern.
    Regex,
    /// Text times part.
    Contains,
    /// Each item of the second argument.
    In,
    /// Each part of the first argument.
    Traversal,
    /// An address held against a network.
    Network,
    /// Of text against a named format.
    NamedFormat,
    /// A selector of so many characters, in the second argument.
    Selector,
}

pub const LIST_A: T = T::List(&T::A);
pub const MAP: T = T::Map(&T::A, &T::B);
pub const ONE: Cost = Cost::Fixed(1);

pub const fn f(
    name: &'static str,
    params: &'static [T],
    result: T,
    cost: Cost,
    run: Run,
) -> Overload {
    Overload {
        name,
        member: false,
        params,
        result,
        cost,
        run,
    }
}

pub const fn m(
    name: &'static str,
    params: &'static [T],
    result: T,
    cost: Cost,
    run: Run,
) -> Overload {
    Overload {
        name,
        member: true,
        params,
        result,
        cost,
        run,
    }
}

const TABLES: [&[Overload]; 12] = [
    operators::TABLE,
    convert::TABLE,
    strings::TABLE,
    format::TABLE,
    lists::TABLE,
    net::TABLE,
    quantities::TABLE,
    semver::TABLE,
    times::TABLE,
    urls::TABLE,
    formats::TABLE,
    authorization::TABLE,
];

/// The forms of a function; empty if there is none of the name.
pub fn named(name: &str) -> &'static [&'static Overload] {
    static ALL: OnceLock<BTreeMap<&str, Vec<&Overload>>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all: BTreeMap<&str, Vec<&Overload>> = BTreeMap::new();
        for overload in TABLES.into_iter().flatten() {
            all.entry(overload.name).or_default().push(overload);
        }
        all
    });
    all.get(name).map_or(&[], Vec::as_slice)
}

/// The types that stand for `A` and `B` in a call.
#[derive(Default)]
struct Bindings([Option<Type>; 2]);

impl Overload {
    /// The type of a call with arguments of these types, if the form is for them.
    pub fn applies(&self, member: bool, args: &[Type]) -> Option<Type> {
        if self.member != member || self.params.len() != args.len() {
            return None;
        }
        let mut bindings = Bindings::default();
        let mut pairs = self.params.iter().zip(args);
        let fits = pairs.all(|(param, arg)| bindings.bind(*param, arg));
        fits.then(|| bindings.apply(self.result))
    }

    /// Whether the form is for these values.
    pub fn takes(&self, member: bool, args: &[Value<'_>]) -> bool {
        self.member == member
            && self.params.len() == args.len()
            && self
                .params
                .iter()
                .zip(args)
                .all(|(param, arg)| param.admits(arg))
    }
}

impl Bindings {
    fn slot(&mut self, param: T) -> Option<&mut Option<Type>> {
        match param {
            T::A => Some(&mut self.0[0]),
            T::B => Some(&mut self.0[1]),
            _ => None,
        }
    }

    fn bind(&mut self, param: T, arg: &Type) -> bool {
        if let Some(slot) = self.slot(param) {
            return match slot {
                Some(bound) if *bound == Type::Dyn || bound.takes(arg) => true,
                Some(bound) => {
                    let wider = arg.takes(bound);
                    if wider {
                        *slot = Some(arg.clone());
                    }
                    wider
                }
                None => {
                    *slot = Some(arg.clone());
                    true
                }
            };
        }
        match (param, arg) {
            (T::Dyn, _) | (_, Type::Dyn) => true,
            (T::List(of), Type::List(item)) => self.bind(*of, item),
            (T::Map(key, value), Type::Map(k, v)) => self.bind(*key, k) && self.bind(*value, v),
            (T::Opt(of), Type::Optional(inner)) => self.bind(*of, inner),
            (param, arg) => simple(param).is_some_and(|ty| ty.takes(arg)),
        }
    }

    fn apply(&mut self, result: T) -> Type {
        match result {
            T::A | T::B => {
                let bound = self.slot(result).and_then(|slot| slot.clone());
                bound.unwrap_or(Type::Dyn)
            }
            T::List(of) => Type::list(self.apply(*of)),
            T::Map(key, value) => Type::map(self.apply(*key), self.apply(*value)),
            T::Opt(of) => Type::optional(self.apply(*of)),
            other => simple(other).unwrap_or(Type::Dyn),
        }
    }
}

fn simple(param: T) -> Option<Type> {
    Some(match param {
        T::Bool => Type::Bool,
        T::Int => Type::Int,
        T::Uint => Type::Uint,
        T::Double => Type::Double,
        T::Str => Type::String,
        T::Bytes => Type::Bytes,
        T::Dur => Type::Duration,
        T::Time => Type::Timestamp,
        T::Type => Type::Type,
        T::Of(opaque) => Type::Opaque(opaque),
        _ => return None,
    })
}

impl T {
    fn admits(self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Dyn | Self::A | Self::B, _)
            | (Self::Bool, Value::Bool(_))
            | (Self::Int, Value::Int(_))
            | (Self::Uint, Value::Uint(_))
            | (Self::Double, Value::Double(_))
            | (Self::Str, Value::String(_))
            | (Self::Bytes, Value::Bytes(_))
            | (Self::Dur, Value::Duration(_))
            | (Self::Time, Value::Timestamp(_))
            | (Self::Type, Value::Type(_))
            | (Self::List(_), Value::List(_))
            | (Self::Map(..), Value::Map(_))
            | (Self::Opt(_), Value::Optional(_)) => true,
            (Self::Of(wanted), Value::Opaque(opaque)) => opaque.ty() == wanted,
            _ => false,
        }
    }
}
