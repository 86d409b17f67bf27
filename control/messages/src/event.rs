// SPDX-License-Identifier: Apache-2.0
//! What the dataplane answers and reports.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    Direction, Fingerprint, ObjectId, PortIndex, ProtectionIndex, QueueState, SaIndex, TunnelIndex, WorkerId,
};

/// Why a transaction was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A record could not be decoded.
    #[error("a record could not be decoded; control and dataplane may be of different builds")]
    Malformed,
    /// `Put`, `Delete`, `Commit` or `Check` outside a transaction, or with another number.
    #[error("no such transaction is open")]
    NoTransaction,
    /// An id beyond what the dataplane was sized for.
    #[error("{0} is beyond the limit of this dataplane ({1})")]
    BeyondLimit(ObjectId, u32),
    /// `Delete` of something that is not there.
    #[error("{0} does not exist")]
    Unknown(ObjectId),
    /// An object names another that does not exist.
    #[error("{0} refers to {1}, which does not exist")]
    Dangling(ObjectId, ObjectId),
    /// Two objects exclude each other.
    #[error("{0} conflicts with {1}")]
    Conflict(ObjectId, ObjectId),
    /// A value out of its range; the field is named.
    #[error("{0}: {1} is out of range")]
    OutOfRange(ObjectId, Field),
    /// The same key ‖ salt serves two SAs, which would repeat nonces (RFC 4106 §2).
    #[error("{0} has the same key and salt as {1}; every SA needs a key of its own")]
    KeyReused(ObjectId, ObjectId),
    /// The engine does not take this key or ICV length.
    #[error("{0}: the AEAD engine does not take this key")]
    KeyRefused(ObjectId),
    /// The store of sequence limits is missing or damaged: no key is safe to use.
    #[error(
        "{0}: the store of sequence limits is missing or damaged; run `greyhound-dataplane init-state` if this is a new headend"
    )]
    NoSequenceStore(ObjectId),
    /// The limit could not be written to disk.
    #[error("{0}: its sequence limit could not be persisted")]
    StoreWrite(ObjectId),
    /// A tunnel whose encapsulation leaves no room for a payload of 68 (IPv4) bytes.
    #[error("{0}: the egress MTU leaves no room for a payload")]
    NoRoom(ObjectId),
    /// The dataplane has no memory left for it.
    #[error("{0}: out of memory")]
    OutOfMemory(ObjectId),
    /// A worker did not switch in time; it is stuck or gone.
    #[error("worker {0} did not switch to the new generation")]
    WorkerStuck(WorkerId),
    /// The key ‖ salt served an SA of the other direction before: the peer's IVs would come again as ours, or ours as
    /// the peer's (RFC 4106 §2, §3.1).
    #[error("{0} has a key and salt that served the other direction before; every SA needs a key of its own")]
    KeyTurned(ObjectId),
}

/// Names of fields for [`Refusal::OutOfRange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Field {
    /// An address that is unspecified, multicast or of the wrong family.
    Address,
    /// Prefix length, or address bits beyond it.
    Prefix,
    /// A port index or a port's side.
    Port,
    /// MTU.
    Mtu,
    /// TTL.
    Ttl,
    /// DSCP.
    Dscp,
    /// MSS.
    Mss,
    /// SPI.
    Spi,
    /// ICV length.
    IcvBytes,
    /// Anti-replay window.
    ReplayWindow,
    /// IV prefix.
    IvPrefix,
    /// Port range of a selector.
    PortRange,
    /// Owner worker.
    Owner,
    /// A class group that there is not, or a DSCP in two of them.
    ClassGroup,
    /// A soft limit above the hard one.
    Lifetime,
    /// An Ethernet address that is multicast or zero.
    Mac,
    /// The rate of a shaper or policer: 1 bit/s to 1 Tbit/s.
    Rate,
    /// A burst below the longest packet on the wire, or above 1 GiB.
    Burst,
    /// Shares that are more than there is, or too different.
    Share,
    /// A priority level that there is not, or that two classes have.
    PriorityLevel,
    /// A queue limit of nothing, or in time where no rate is known.
    QueueLimit,
    /// Parameters of WRED, CoDel or PIE.
    EarlyDrop,
    /// More classes than a policy-map may have, none for the rest, or more than one.
    Classes,
    /// A class-map that names itself, directly or through others, or that comes to too many rules.
    ClassMap,
    /// A criterion that nothing can match.
    Criterion,
    /// Classes of which some are served and some are not; or a shape or a queue where none is served.
    Service,
    /// A peak rate below the committed one.
    PeakRate,
    /// A DSCP that is of two colours.
    Colour,
    /// An 802.1p priority, or a set of them that is empty.
    VlanPriority,
}

impl core::fmt::Display for Field {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Address => "the address",
            Self::Prefix => "the prefix",
            Self::Port => "the port",
            Self::Mtu => "the MTU",
            Self::Ttl => "the TTL",
            Self::Dscp => "the DSCP",
            Self::VlanPriority => "the 802.1p priority",
            Self::Mss => "the MSS",
            Self::Spi => "the SPI",
            Self::IcvBytes => "the ICV length",
            Self::ReplayWindow => "the anti-replay window",
            Self::IvPrefix => "the IV prefix",
            Self::PortRange => "the port range",
            Self::Owner => "the owner worker",
            Self::ClassGroup => "the class group",
            Self::Lifetime => "the lifetime",
            Self::Mac => "the Ethernet address",
            Self::Rate => "the rate",
            Self::Burst => "the burst",
            Self::Share => "the share",
            Self::PriorityLevel => "the priority level",
            Self::QueueLimit => "the queue limit",
            Self::EarlyDrop => "WRED, CoDel or PIE",
            Self::Classes => "the number of classes",
            Self::ClassMap => "the class-map",
            Self::Criterion => "the criterion",
            Self::Service => "the service",
            Self::PeakRate => "the peak rate",
            Self::Colour => "the colour",
        })
    }
}

/// Outbound part of an SA's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundState {
    /// The next sequence number.
    pub next_sequence: u64,
    /// The first number that is not reserved on disk yet.
    pub limit: u64,
}

/// Inbound part of an SA's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundState {
    /// Right edge of the anti-replay window.
    pub right_edge: u64,
    /// The worker that owns the window.
    pub owner: WorkerId,
}

/// An SA as the dataplane sees it: never the key, only its fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaState {
    /// Which SA.
    pub sa: SaIndex,
    /// Its protection.
    pub protection: ProtectionIndex,
    /// Its direction.
    pub direction: Direction,
    /// Its SPI.
    pub spi: u32,
    /// Fingerprint of its key ‖ salt.
    pub fingerprint: Fingerprint,
    /// Packets sealed or opened.
    pub packets: u64,
    /// Their payload bytes (what lies between ESP header and trailer).
    pub bytes: u64,
    /// Nanoseconds since it was installed in this process.
    pub age_ns: u64,
    /// If outbound.
    pub outbound: Option<OutboundState>,
    /// If inbound.
    pub inbound: Option<InboundState>,
}

/// A tunnel as the dataplane sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelState {
    /// Which tunnel.
    pub tunnel: TunnelIndex,
    /// Largest payload packet in force, in bytes.
    pub mtu: u16,
    /// The port its packets leave by; none while no route leads to the peer.
    pub egress: Option<PortIndex>,
    /// Payload packets sent into the tunnel.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Payload packets that came out of it.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
}

/// State of a neighbour (RFC 4861 §7.3.2, applied to ARP too).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NeighborState {
    /// Being asked for.
    Incomplete,
    /// Known.
    Reachable,
    /// Known, not confirmed lately.
    Stale,
    /// Configured.
    Static,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    /// The port it is on.
    pub port: PortIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address; zero while incomplete.
    pub mac: [u8; 6],
    /// Its state.
    pub state: NeighborState,
}

/// A message from dataplane to control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Every worker runs the new generation.
    Committed {
        /// The transaction.
        transaction: u32,
        /// The generation that runs.
        generation: u64,
        /// Nanoseconds between the first and the last worker's switch.
        skew_ns: u64,
    },
    /// The transaction passes the check.
    Checked {
        /// The transaction.
        transaction: u32,
    },
    /// The transaction was refused whole; nothing changed.
    Refused {
        /// The transaction.
        transaction: u32,
        /// Why.
        refusal: Refusal,
    },
    /// An item of a list.
    Sa(u32, SaState),
    /// An item of a list.
    Tunnel(u32, TunnelState),
    /// An item of a list.
    Neighbor(u32, Neighbor),
    /// An item of a list.
    Qos(u32, QueueState),
    /// The list is complete.
    EndOfList {
        /// The request.
        request: u32,
    },
    /// An SA reached a soft limit and should be replaced.
    SaSoftLimit(SaIndex),
    /// An SA reached a hard limit and carries nothing more.
    SaHardLimit(SaIndex),
    /// The store of sequence limits cannot be written; SAs stop at their limits.
    StoreFailing,
    /// Writing it works again.
    StoreRecovered,
}
