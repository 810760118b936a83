//! Which change may give which waiting pod a place: a table of what each plugin's answer depends on. Pure.

use super::plugins::Plugin;

/// What happened, as far as it can help a pod that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    NodeAdded,
    NodeGone,
    NodeLabels,
    NodeTaints,
    NodeAmounts,
    /// A pod left its node, or stops holding anything there.
    PodGone,
    /// A pod was given a node, or its labels changed there.
    PodPlaced,
    /// Room that was being made for a pod is given up.
    NominationGone,
    NamespaceLabels,
    Claims,
    Volumes,
    StorageClasses,
    VolumeLimits,
}

use Event as E;

/// The plugins with what may change their answers from no to yes (beside a new node, which is in all).
const HINTS: [(Plugin, &[Event]); 12] = [
    (Plugin::NodeUnschedulable, &[E::NodeTaints]),
    (Plugin::TaintToleration, &[E::NodeTaints]),
    (Plugin::NodeAffinity, &[E::NodeLabels]),
    (Plugin::NodePorts, &[E::PodGone, E::NominationGone]),
    (
        Plugin::NodeResourcesFit,
        &[E::PodGone, E::NominationGone, E::NodeAmounts],
    ),
    (Plugin::VolumeRestrictions, &[E::PodGone, E::Claims]),
    (
        Plugin::NodeVolumeLimits,
        &[E::PodGone, E::VolumeLimits, E::Claims, E::Volumes],
    ),
    (
        Plugin::VolumeBinding,
        &[
            E::Claims,
            E::Volumes,
            E::StorageClasses,
            E::NodeLabels,
            E::VolumeLimits,
        ],
    ),
    (Plugin::VolumeZone, &[E::Claims, E::Volumes, E::NodeLabels]),
    (
        Plugin::PodTopologySpread,
        &[
            E::PodGone,
            E::PodPlaced,
            E::NodeLabels,
            E::NodeTaints,
            E::NodeGone,
        ],
    ),
    (
        Plugin::InterPodAffinity,
        &[
            E::PodGone,
            E::PodPlaced,
            E::NodeLabels,
            E::NamespaceLabels,
            E::NominationGone,
        ],
    ),
    // What it looks at is not known.
    (
        Plugin::Extender,
        &[
            E::NodeGone,
            E::NodeLabels,
            E::NodeTaints,
            E::NodeAmounts,
            E::PodGone,
            E::PodPlaced,
            E::NominationGone,
            E::NamespaceLabels,
            E::Claims,
            E::Volumes,
            E::StorageClasses,
            E::VolumeLimits,
        ],
    ),
];

/// The bits of the plugins whose answers the event may change.
pub fn concerned(event: Event) -> u32 {
    if event == Event::NodeAdded {
        return u32::MAX;
    }
    let concerned = HINTS.iter().filter(|(_, events)| events.contains(&event));
    concerned.fold(0, |bits, (plugin, _)| bits | plugin.bit())
}

/// The plugins that answer for one node by what is on it: after an event of one node, it alone is asked.
pub fn of_one_node() -> u32 {
    Plugin::NodePorts.bit() | Plugin::NodeResourcesFit.bit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_hears_of_something() {
        for plugin in Plugin::ALL {
            assert!(
                HINTS
                    .iter()
                    .any(|(of, events)| *of == plugin && !events.is_empty())
            );
        }
    }

    #[test]
    fn an_event_wakes_only_those_whom_it_concerns() {
        assert_eq!(
            concerned(Event::NodeTaints) & Plugin::NodeResourcesFit.bit(),
            0
        );
        assert_ne!(
            concerned(Event::PodGone) & Plugin::NodeResourcesFit.bit(),
            0
        );
        assert_eq!(concerned(Event::PodPlaced) & Plugin::NodePorts.bit(), 0);
        assert_eq!(concerned(Event::NodeAdded), u32::MAX);
    }
}
