// SPDX-License-Identifier: Apache-2.0
//! What the kernel says of the interface under a virtual device (net_af_packet, net_af_xdp), netdevice(7).

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

/// Whether the interface is up and has a carrier.
pub(super) fn is_running(interface: u32) -> bool {
    let running = libc::IFF_UP | libc::IFF_RUNNING;
    // SAFETY: SIOCGIFFLAGS fills this member of the union.
    let flags = ask(interface, libc::SIOCGIFFLAGS).map(|answer| unsafe { answer.ifr_ifru.ifru_flags });
    flags.is_some_and(|flags| i32::from(flags) & running == running)
}

/// The interface's MTU, unless it is longer than any that a port can have.
pub(super) fn mtu(interface: u32) -> Option<u16> {
    let answer = ask(interface, libc::SIOCGIFMTU)?;
    // SAFETY: SIOCGIFMTU fills this member of the union.
    u16::try_from(unsafe { answer.ifr_ifru.ifru_mtu }).ok()
}

/// The kernel's answer about an interface of this thread's network namespace.
fn ask(interface: u32, question: libc::Ioctl) -> Option<libc::ifreq> {
    // SAFETY: opens a socket; no memory is involved.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return None;
    }
    // SAFETY: the descriptor was just opened and is nobody else's. `File` closes it.
    let socket = unsafe { File::from_raw_fd(socket) };
    // SAFETY: names, numbers and pointers of the structure may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: `ifr_name` has the IF_NAMESIZE bytes that are written.
    if unsafe { libc::if_indextoname(interface, request.ifr_name.as_mut_ptr()) }.is_null() {
        return None;
    }
    // SAFETY: both questions take an `ifreq` with a name and write into it.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), question, &mut request) };
    (status == 0).then_some(request)
}
