//! The arithmetic of a rollout: how large each set may be now. Numbers only. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How far a rolling update may stray from the wanted number, resolved to pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    pub wanted: i32,
    pub max_surge: i32,
    pub max_unavailable: i32,
}

/// One set in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    pub replicas: i32,
    pub available: i32,
}

impl Size {
    /// Available pods that stay when the set's pending deletions are done.
    fn lasting(self) -> i32 {
        self.available.min(self.replicas)
    }
}

impl Bounds {
    /// Percentages of surge round up, of unavailability down; both zero would never end.
    pub fn resolve(
        wanted: i32,
        surge: Option<&IntOrString>,
        unavailable: Option<&IntOrString>,
    ) -> Self {
        let max_surge = scaled(surge, wanted, true);
        let mut max_unavailable = scaled(unavailable, wanted, false);
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self {
            wanted,
            max_surge,
            max_unavailable: max_unavailable.min(wanted),
        }
    }

    pub fn min_available(self) -> i32 {
        self.wanted - self.max_unavailable
    }

    pub fn max_total(self) -> i32 {
        self.wanted.saturating_add(self.max_surge)
    }

    /// The size of the new set, where all sets together have `total` pods.
    pub fn new_size(self, total: i32, new: i32) -> i32 {
        if new >= self.wanted {
            return self.wanted;
        }
        let room = self.max_total() - total;
        if room <= 0 {
            new
        } else {
            new + room.min(self.wanted - new)
        }
    }

    /// The sizes of the old sets, given oldest first: unhealthy pods go first, then healthy ones as
    /// far as enough stay available.
    pub fn old_sizes(self, new: Size, old: &[Size]) -> Vec<i32> {
        let mut sizes: Vec<i32> = old.iter().map(|size| size.replicas).collect();
        let total: i32 = new.replicas + sizes.iter().sum::<i32>();
        let new_unavailable = new.replicas - new.lasting();
        let mut room = total - self.min_available() - new_unavailable;
        if room <= 0 {
            return sizes;
        }
        for (size, set) in sizes.iter_mut().zip(old) {
            let unhealthy = (set.replicas - set.lasting()).min(room);
            *size -= unhealthy;
            room -= unhealthy;
        }
        let available = new.lasting() + old.iter().map(|set| set.lasting()).sum::<i32>();
        let mut room = available - self.min_available();
        for size in &mut sizes {
            let step = (*size).min(room).max(0);
            *size -= step;
            room -= step;
        }
        sizes
    }
}

/// Spreads a change of the total over sets in proportion to their size. `sets` are largest first:
/// (replicas, the total that the set was last sized for).
pub fn proportional(allowed: i32, sets: &[(i32, i32)]) -> Vec<i32> {
    let total: i32 = sets.iter().map(|(replicas, _)| replicas).sum();
    let to_add = allowed - total;
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for &(replicas, last_allowed) in sets {
        let rest = to_add - added;
        let share = if to_add == 0 {
            0
        } else {
            fraction(replicas, allowed, last_allowed)
        };
        let share = if to_add > 0 {
            share.clamp(0, rest)
        } else {
            share.clamp(rest, 0)
        };
        added += share;
        sizes.push(replicas + share);
    }
    // What rounding leaves over goes to the largest; what it lacks is taken as far as there is any.
    let mut rest = to_add - added;
    for size in &mut sizes {
        let step = rest.max(-*size);
        *size += step;
        rest -= step;
    }
    sizes
}

/// What a set's size becomes in proportion, less its size; halves round away from zero.
fn fraction(replicas: i32, allowed: i32, last_allowed: i32) -> i32 {
    if allowed == 0 || last_allowed <= 0 {
        return -replicas;
    }
    let (replicas, allowed, last) = (
        i64::from(replicas),
        i64::from(allowed),
        i64::from(last_allowed),
    );
    let size = (2 * replicas * allowed + last) / (2 * last);
    i32::try_from(size - replicas).unwrap_or(0)
}

fn scaled(value: Option<&IntOrString>, of: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(n)) => (*n).max(0),
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let parts = percent.max(0) * i64::from(of);
            let n = if up { (parts + 99) / 100 } else { parts / 100 };
            i32::try_from(n).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests;
