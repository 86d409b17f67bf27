// SPDX-License-Identifier: Apache-2.0
//! What the process gives up: core dumps before it holds a key, capabilities once devices are open.

use std::io;

use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// No core dumps, and no limit on locked memory while there is the right to lift it.
///
/// # Errors
/// What the operating system says of the dumps. Without the right to lock more memory the limit stays, and
/// [`sysmem`] says so when it is reached.
pub fn before_keys() -> io::Result<()> {
    sysmem::no_core_dumps()?;
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = rustix::process::setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "the limit on locked memory stays as it is");
    }
    Ok(())
}

/// Drops every capability of the calling thread and of the threads it starts from then on, and the way back to them.
///
/// # Errors
/// What the operating system says.
pub fn after_start() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)?;
    Ok(())
}
