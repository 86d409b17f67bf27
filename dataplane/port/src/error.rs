// SPDX-License-Identifier: Apache-2.0
//! Why a port could not be opened.

/// Why a port could not be opened, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The build has no DPDK.
    #[error("port {name} ({device}): this build has no DPDK; install libdpdk-dev and build again")]
    NoDpdk {
        /// The port.
        name: String,
        /// Its device string.
        device: String,
    },
    /// EAL has not been initialised.
    #[error("port {name} ({device}): EAL is not initialised; call Eal::init first")]
    NoEal {
        /// The port.
        name: String,
        /// Its device string.
        device: String,
    },
    /// The device is not there, or its driver refuses it.
    #[error("port {name}: no device {device:?}: {reason}; {advice}")]
    NoDevice {
        /// The port.
        name: String,
        /// Its device string.
        device: String,
        /// What DPDK says.
        reason: String,
        /// What to look at.
        advice: &'static str,
    },
    /// The configuration asks for what cannot be.
    #[error("port {name} ({device}): {what}")]
    Configuration {
        /// The port.
        name: String,
        /// Its device string.
        device: String,
        /// What is wrong and what would be right.
        what: String,
    },
    /// The device refused one step of setting it up.
    #[error("port {name} ({device}): {step} failed: {reason}")]
    Device {
        /// The port.
        name: String,
        /// Its device string.
        device: String,
        /// The step.
        step: String,
        /// What DPDK says.
        reason: String,
    },
}
