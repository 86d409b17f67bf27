// SPDX-License-Identifier: Apache-2.0
//! The packet header: the first cache line of DPDK's `rte_mbuf`, field by field.
//!
//! ```text
//!    0 buf_addr      8 buf_iova     16 data_off  18 refcnt  20 nb_segs  22 port    24 ol_flags
//!   32 packet_type  36 pkt_len      40 data_len  42 vlan_tci           44 hash (8)
//!   52 vlan_tci_outer              54 buf_len    56 pool
//! ```
//!
//! The second cache line of an mbuf (next, transmit offloads) is the drivers' and is never touched here.

use std::ffi::c_void;
use std::mem::{offset_of, size_of};

/// Marks the pool pointer of a header that a memory pool owns (invariant 4).
pub(crate) const MEMORY_TAG: usize = 1;

/// `RTE_MBUF_F_RX_RSS_HASH`: `hash[0]` holds the hash that the NIC computed.
pub(crate) const RX_RSS_HASH: u64 = 1 << 1;

/// `RTE_MBUF_F_RX_VLAN_STRIPPED`: `vlan_tci` holds what the tag said that was taken off.
pub(crate) const RX_VLAN_STRIPPED: u64 = 1 << 6;

/// Ours: `vlan_tci` holds the priority that the packet is to leave with. The last of the bits that DPDK keeps for
/// applications and gives out from the first, so that no driver acts on it, as all would on `RTE_MBUF_F_TX_VLAN`.
pub(crate) const VLAN_PRIORITY_SET: u64 = 1 << 40;

/// The header of a packet; opaque outside this crate.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Header {
    pub(crate) buf_addr: *mut u8,
    /// The bus address in an mbuf; the slot number in a memory pool.
    pub(crate) buf_iova: u64,
    pub(crate) data_off: u16,
    pub(crate) refcnt: u16,
    pub(crate) nb_segs: u16,
    pub(crate) port: u16,
    pub(crate) ol_flags: u64,
    pub(crate) packet_type: u32,
    pub(crate) pkt_len: u32,
    pub(crate) data_len: u16,
    pub(crate) vlan_tci: u16,
    pub(crate) hash: [u32; 2],
    pub(crate) vlan_tci_outer: u16,
    pub(crate) buf_len: u16,
    pub(crate) pool: *mut c_void,
}

const _: () = assert!(size_of::<Header>() == 64);
const _: () = assert!(offset_of!(Header, hash) == 44);
const _: () = assert!(offset_of!(Header, pool) == 56);

/// The layout is that of the DPDK this was built with, whose own offsets the shim asserts in C.
#[cfg(have_dpdk)]
mod matches_dpdk {
    use super::Header;
    use dpdk_sys::gh_mbuf_head;
    use std::mem::{offset_of, size_of};

    macro_rules! same_offset {
        ($($field:ident),+) => {
            $(const _: () = assert!(offset_of!(Header, $field) == offset_of!(gh_mbuf_head, $field));)+
        };
    }
    const _: () = assert!(size_of::<Header>() == size_of::<gh_mbuf_head>());
    same_offset!(buf_addr, buf_iova, data_off, refcnt, nb_segs, port, ol_flags, packet_type);
    same_offset!(pkt_len, data_len, vlan_tci, hash, vlan_tci_outer, buf_len, pool);
    const _: () = assert!(super::RX_RSS_HASH == dpdk_sys::GH_RX_RSS_HASH as u64);
    const _: () = assert!(super::RX_VLAN_STRIPPED == dpdk_sys::GH_RX_VLAN_STRIPPED as u64);
    const _: () = assert!(super::VLAN_PRIORITY_SET == 1 << dpdk_sys::GH_LAST_FREE_FLAG);
    const _: () = assert!(crate::HEADROOM == dpdk_sys::GH_HEADROOM as usize);
}
