//! Whether XDP runs on the uplink, and how. Pure.

use super::DatapathError;
use super::link::Driver;
use super::syscall::XdpMode;

/// What a node is told about XDP on its uplink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Xdp {
    /// In the driver, where that costs nothing else; nowhere otherwise.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the stack, on any link.
    Generic,
    Off,
}

/// The mode to run in and why, in words for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub mode: Option<XdpMode>,
    pub because: &'static str,
    /// Nobody asked for that mode: the node works without it.
    pub is_optional: bool,
}

/// A driver that gives up segmentation offload for XDP costs long streams more than XDP saves.
pub fn choose(asked: Xdp, driver: Driver) -> Choice {
    let said = |mode| Choice {
        mode,
        because: "it was said so",
        is_optional: false,
    };
    let found = |mode, because| Choice {
        mode,
        because,
        is_optional: true,
    };
    match (asked, driver) {
        (Xdp::Native, _) => said(Some(XdpMode::Native)),
        (Xdp::Generic, _) => said(Some(XdpMode::Generic)),
        (Xdp::Off, _) => said(None),
        (Xdp::Auto, Driver::Card) => found(Some(XdpMode::Native), "the uplink is a card"),
        (Xdp::Auto, Driver::Virtio) => found(
            None,
            "virtio's host would have to cut what it puts together",
        ),
        (Xdp::Auto, Driver::Veth) => found(
            None,
            "the other end of a veth pair would lose segmentation offload",
        ),
        (Xdp::Auto, Driver::Software) => found(None, "the uplink is no card"),
    }
}

/// Says what to do where the uplink does not take what was asked for.
pub fn refused(uplink: &str, mode: XdpMode, error: &DatapathError) -> DatapathError {
    let instead = match mode {
        XdpMode::Native => {
            "its driver may have no XDP, or none at this MTU: \
             start the agent with `--xdp auto`, or with `--xdp generic` to try it out"
        }
        XdpMode::Generic => {
            "another program may hold the link, see `ip link show`: \
             remove it, or start the agent with `--xdp off`"
        }
    };
    DatapathError::Invalid(format!("XDP on {uplink} failed ({error}); {instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVERS: [Driver; 4] = [Driver::Card, Driver::Virtio, Driver::Veth, Driver::Software];

    #[test]
    fn auto_takes_it_only_on_a_card() {
        for driver in DRIVERS {
            let choice = choose(Xdp::Auto, driver);
            let expected = (driver == Driver::Card).then_some(XdpMode::Native);
            assert_eq!(choice.mode, expected, "{driver:?}");
            assert!(choice.is_optional, "{driver:?}");
        }
    }

    #[test]
    fn what_is_said_holds_on_every_link() {
        for driver in DRIVERS {
            for (asked, mode) in [
                (Xdp::Native, Some(XdpMode::Native)),
                (Xdp::Generic, Some(XdpMode::Generic)),
                (Xdp::Off, None),
            ] {
                let choice = choose(asked, driver);
                assert_eq!((choice.mode, choice.is_optional), (mode, false));
            }
        }
    }
}
