use proptest::prelude::*;

use super::*;

fn text(percent: &str) -> Option<IntOrString> {
    Some(IntOrString::String(percent.to_owned()))
}

#[test]
fn surge_rounds_up_and_unavailability_down() {
    let cases = [
        (10, text("25%"), text("25%"), (3, 2)),
        (1, text("25%"), text("25%"), (1, 0)),
        (3, text("25%"), text("25%"), (1, 0)),
        (4, text("50%"), text("100%"), (2, 4)),
        (
            5,
            Some(IntOrString::Int(2)),
            Some(IntOrString::Int(1)),
            (2, 1),
        ),
        (5, text("0%"), text("10%"), (0, 1)),
        (
            2,
            Some(IntOrString::Int(0)),
            Some(IntOrString::Int(9)),
            (0, 2),
        ),
        (0, text("25%"), text("25%"), (0, 0)),
    ];
    for (wanted, surge, unavailable, (max_surge, max_unavailable)) in cases {
        let bounds = Bounds::resolve(wanted, surge.as_ref(), unavailable.as_ref());
        assert_eq!(
            bounds,
            Bounds {
                wanted,
                max_surge,
                max_unavailable
            }
        );
    }
}

#[test]
fn a_change_of_scale_is_shared_in_proportion() {
    let exact = [
        (18, vec![(8, 13), (5, 13)], vec![11, 7]),
        (13, vec![(8, 13), (5, 13)], vec![8, 5]),
        (0, vec![(8, 13), (5, 13)], vec![0, 0]),
        (5, vec![(10, 10)], vec![5]),
    ];
    for (allowed, sets, expected) in exact {
        assert_eq!(proportional(allowed, &sets), expected, "{sets:?}");
    }
}

/// A rollout in numbers: sets oldest first, the new one last.
#[derive(Debug)]
struct Rollout {
    bounds: Bounds,
    sets: Vec<Size>,
}

impl Rollout {
    fn total(&self) -> i32 {
        self.sets.iter().map(|set| set.replicas).sum()
    }

    fn available(&self) -> i32 {
        self.sets.iter().map(|set| set.lasting()).sum()
    }

    /// What one plan does; the sets delete unavailable pods first.
    fn plan(&mut self) {
        let last = self.sets.len() - 1;
        let new = self.sets[last];
        let grown = self.bounds.new_size(self.total(), new.replicas);
        if grown != new.replicas {
            self.sets[last].replicas = grown;
            return;
        }
        let sizes = self.bounds.old_sizes(new, &self.sets[..last]);
        for (set, size) in self.sets.iter_mut().zip(sizes) {
            set.replicas = size;
        }
    }

    fn done(&self) -> bool {
        let last = self.sets.len() - 1;
        self.sets[..last].iter().all(|set| set.replicas == 0)
            && self.sets[last]
                == Size {
                    replicas: self.bounds.wanted,
                    available: self.bounds.wanted,
                }
    }
}

proptest! {
    /// Whenever pods become available, in whatever order, the bounds hold and it ends.
    #[test]
    fn a_rollout_stays_within_its_bounds_and_ends(
        wanted in 0..30_i32,
        surge in 0..8_i32,
        unavailable in 0..8_i32,
        old in proptest::collection::vec((0..12_i32, 0..12_i32), 1..4),
        arrivals in proptest::collection::vec((0..4_usize, 0..4_i32), 0..80),
    ) {
        let (surge, unavailable) = (IntOrString::Int(surge), IntOrString::Int(unavailable));
        let bounds = Bounds::resolve(wanted, Some(&surge), Some(&unavailable));
        let size = |(replicas, available): (i32, i32)| Size { replicas, available: available.min(replicas) };
        let mut sets: Vec<Size> = old.into_iter().map(size).collect();
        sets.push(Size::default());
        let mut rollout = Rollout { bounds, sets };
        let most = rollout.total().max(bounds.max_total());
        let mut least = rollout.available().min(bounds.min_available());
        for (set, count) in arrivals {
            rollout.plan();
            prop_assert!(rollout.total() <= most, "{rollout:?}");
            prop_assert!(rollout.available() >= least, "{rollout:?}");
            let index = set % rollout.sets.len();
            let set = &mut rollout.sets[index];
            set.available = set.lasting().max((set.available + count).min(set.replicas));
            least = rollout.available().min(bounds.min_available()).max(least);
        }
        for _ in 0..200 {
            rollout.plan();
            prop_assert!(rollout.total() <= most, "{rollout:?}");
            prop_assert!(rollout.available() >= least, "{rollout:?}");
            for set in &mut rollout.sets {
                set.available = set.replicas;
            }
            least = rollout.available().min(bounds.min_available()).max(least);
        }
        prop_assert!(rollout.done(), "{rollout:?}");
    }

    /// Proportional scaling ends at exactly what is allowed and never below zero.
    #[test]
    fn proportional_scaling_hits_the_total(
        allowed in 0..60_i32,
        mut sets in proptest::collection::vec((1..30_i32, 0..60_i32), 1..5),
    ) {
        sets.sort_by_key(|(replicas, _)| -replicas);
        let sizes = proportional(allowed, &sets);
        prop_assert!(sizes.iter().all(|size| *size >= 0), "{sizes:?}");
        prop_assert_eq!(sizes.iter().sum::<i32>(), allowed);
    }
}
