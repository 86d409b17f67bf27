// SPDX-License-Identifier: Apache-2.0
//! Pools: where packets come from and go back to.

use crate::memory::MemoryPool;
use crate::{Batch, HEADROOM, Packet};
use std::io;
use std::sync::Arc;

/// [`PoolConfig::align_at`] for packets that will be sealed: the first byte that ESP encrypts when a frame
/// received in clear is sent as GRE (4 bytes) in ESP transport mode, the Ethernet header of 14 bytes replaced.
pub const ALIGN_OUTBOUND: usize = 14 - 4;

/// [`PoolConfig::align_at`] for packets that will be opened: the first encrypted byte of a received ESP frame,
/// behind Ethernet 14, IPv4 20, SPI and sequence number 8, IV 8.
pub const ALIGN_INBOUND: usize = 14 + 20 + 8 + 8;

const CACHE_LINE: usize = 64;

/// What a pool is made of.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Number of packets. DPDK pools use memory best at a power of two less one.
    pub packets: usize,
    /// Bytes that a packet can hold behind the standard headroom: the longest frame plus
    /// [`SEALING_TAILROOM`](crate::SEALING_TAILROOM).
    pub data_bytes: usize,
    /// Packets that each registered thread may keep to itself (DPDK pools only; at most 512).
    pub cache: u32,
    /// Offset in a received frame of the byte that lies on a cache line boundary.
    pub align_at: usize,
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig { packets: 8191, data_bytes: 2048, cache: 256, align_at: ALIGN_OUTBOUND }
    }
}

/// A checked [`PoolConfig`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) packets: usize,
    buf_len: u16,
    shift: u16,
}

impl Geometry {
    pub(crate) fn new(config: &PoolConfig) -> io::Result<Geometry> {
        let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if config.packets == 0 || u32::try_from(config.packets).is_err() {
            return refuse(format!("a pool of {} packets: must be 1 to 2^32 - 1", config.packets));
        }
        let Ok(buf_len) = u16::try_from(config.data_bytes.saturating_add(HEADROOM)) else {
            let most = usize::from(u16::MAX) - HEADROOM;
            return refuse(format!("{} data bytes a packet: at most {most}", config.data_bytes));
        };
        let past_line = (HEADROOM + config.align_at % CACHE_LINE) % CACHE_LINE;
        // Below CACHE_LINE, so it fits.
        let shift = ((CACHE_LINE - past_line) % CACHE_LINE) as u16;
        Ok(Geometry { packets: config.packets, buf_len, shift })
    }

    pub(crate) fn packets_u32(&self) -> u32 {
        u32::try_from(self.packets).unwrap_or(u32::MAX)
    }

    pub(crate) fn buf_len(&self) -> u16 {
        self.buf_len
    }

    /// Bytes by which the buffer starts behind a cache line boundary.
    pub(crate) fn shift(&self) -> u16 {
        self.shift
    }

    /// Bytes from slot to slot with `overhead` bytes in front of the shifted buffer: an odd number of cache
    /// lines, so that the same field of all slots does not fall into few sets of the cache.
    pub(crate) fn stride(&self, overhead: usize) -> usize {
        let lines = (overhead + usize::from(self.shift) + usize::from(self.buf_len)).div_ceil(CACHE_LINE);
        (lines | 1) * CACHE_LINE
    }
}

struct Inner {
    kind: Kind,
    data_bytes: usize,
    shift: u16,
}

enum Kind {
    Memory(MemoryPool),
    #[cfg(have_dpdk)]
    Dpdk(crate::dpdk::DpdkPool),
}

/// A pool of packets. Clones are handles of the same pool.
///
/// It allocates nothing after it was made. It may be dropped while packets are out: their memory stays until
/// the last one is home.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

impl Pool {
    /// A pool in plain memory of `packets` packets with room for `data_bytes` bytes behind the headroom.
    ///
    /// # Errors
    /// If the sizes are out of range, or there is no memory.
    pub fn memory(packets: usize, data_bytes: usize) -> io::Result<Pool> {
        Pool::memory_with(&PoolConfig { packets, data_bytes, ..PoolConfig::default() })
    }

    /// A pool in plain memory.
    ///
    /// # Errors
    /// If the sizes are out of range, or there is no memory.
    pub fn memory_with(config: &PoolConfig) -> io::Result<Pool> {
        let geometry = Geometry::new(config)?;
        let pool = MemoryPool::new(&geometry)?;
        Ok(Pool::of(Kind::Memory(pool), &geometry))
    }

    /// A pool in DPDK's memory, for use with DPDK ports. EAL must have been initialised.
    ///
    /// # Errors
    /// If the sizes are out of range, the name is taken, there is no memory, or this build has no DPDK.
    #[cfg(have_dpdk)]
    pub fn dpdk(name: &str, config: &PoolConfig) -> io::Result<Pool> {
        let geometry = Geometry::new(config)?;
        let pool = crate::dpdk::DpdkPool::new(name, &geometry, config.cache)?;
        Ok(Pool::of(Kind::Dpdk(pool), &geometry))
    }

    /// A pool in DPDK's memory: not in this build.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(have_dpdk))]
    pub fn dpdk(name: &str, _config: &PoolConfig) -> io::Result<Pool> {
        let what = format!("pool {name}: this build has no DPDK; install libdpdk-dev and build again");
        Err(io::Error::new(io::ErrorKind::Unsupported, what))
    }

    fn of(kind: Kind, geometry: &Geometry) -> Pool {
        let data_bytes = usize::from(geometry.buf_len()) - HEADROOM;
        Pool(Arc::new(Inner { kind, data_bytes, shift: geometry.shift() }))
    }

    /// An empty packet with the standard headroom, or none if all are out.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<Packet> {
        match &self.0.kind {
            Kind::Memory(pool) => pool.alloc(),
            #[cfg(have_dpdk)]
            Kind::Dpdk(pool) => pool.alloc(),
        }
    }

    /// A packet that holds a copy of `bytes`, or none if all are out or the bytes do not fit.
    #[inline]
    #[must_use]
    pub fn copy_of(&self, bytes: &[u8]) -> Option<Packet> {
        let mut packet = self.alloc()?;
        packet.append(bytes.len()).ok()?.copy_from_slice(bytes);
        Some(packet)
    }

    /// Adds up to `count` empty packets to the batch, as far as it has room and the pool has packets, and
    /// returns how many it added.
    pub fn alloc_into(&self, batch: &mut Batch, count: usize) -> usize {
        let before = batch.len();
        #[cfg(have_dpdk)]
        if let Kind::Dpdk(pool) = &self.0.kind {
            // What it does not have all together it may have one by one.
            pool.alloc_into(batch, count);
        }
        while batch.len() - before < count {
            let Some(packet) = (!batch.is_full()).then(|| self.alloc()).flatten() else { break };
            batch.push(packet);
        }
        batch.len() - before
    }

    /// Packets that are home. Meant for tests and counters: it is not a cheap call on a DPDK pool.
    #[must_use]
    pub fn available(&self) -> usize {
        match &self.0.kind {
            Kind::Memory(pool) => pool.available(),
            #[cfg(have_dpdk)]
            Kind::Dpdk(pool) => pool.available(),
        }
    }

    /// Packets in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        match &self.0.kind {
            Kind::Memory(pool) => pool.capacity(),
            #[cfg(have_dpdk)]
            Kind::Dpdk(pool) => pool.capacity(),
        }
    }

    /// Bytes that a packet can hold behind the standard headroom.
    #[must_use]
    pub fn data_bytes(&self) -> usize {
        self.0.data_bytes
    }

    /// Bytes by which `PoolConfig::align_at` moved each buffer, for drivers that place data by the address of
    /// the header.
    #[must_use]
    pub fn shift(&self) -> u16 {
        self.0.shift
    }

    /// The `rte_mempool` behind the pool, for drivers; null if this is not a DPDK pool.
    #[must_use]
    pub fn as_mempool(&self) -> *mut std::ffi::c_void {
        match &self.0.kind {
            Kind::Memory(_) => std::ptr::null_mut(),
            #[cfg(have_dpdk)]
            Kind::Dpdk(pool) => pool.as_ptr(),
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("capacity", &self.capacity())
            .field("available", &self.available())
            .finish()
    }
}
