// SPDX-License-Identifier: Apache-2.0
//! What control and dataplane say to each other: plain types, their encoding, and the closed lists of
//! drop reasons and counters.
//!
//! Control describes the wanted state as [`Object`]s, staged in a transaction ([`Request`]) and switched by
//! `Commit`; the dataplane answers with [`Event`]s. Every request and event fits one ring record
//! ([`MESSAGE_BYTES_MAX`]). When a peer connects, the dataplane says [`Hello`] over the Unix socket that also
//! carries the shared memory.
//!
//! Not here: the ring itself (`ring`), the meaning of a transaction (`tables::Shadow`), names of things
//! (only control knows a tunnel's name; the dataplane knows its index).
#![forbid(unsafe_code)]

mod codec;
mod counters;
mod drops;
mod event;
mod groups;
mod hello;
mod ids;
mod objects;
mod quality;
mod request;
mod secret;

pub use codec::{DecodeError, EncodeError, MESSAGE_BYTES_MAX, decode, encode};
pub use counters::{CountersLayout, PortCounter, WorkerCounter};
pub use drops::DropReason;
pub use event::{
    Event, Field, InboundState, Neighbor, NeighborState, OutboundState, Refusal, SaState, TunnelState,
};
pub use groups::{CLASS_GROUPS_MAX, ClassGroups};
pub use hello::{Greeting, GreetingError, Hello, HelloPort, PREAMBLE_BYTES, PROTOCOL_VERSION};
pub use ids::{
    ClassMapIndex, Digest, DscpMapIndex, Fingerprint, PolicyIndex, PolicyMapIndex, PortIndex,
    ProtectionIndex, SaIndex, TunnelIndex, WorkerId,
};
pub use objects::{
    Address, DfPolicy, Direction, EspMode, GreOptions, IpPrefix, IvPrefix, Key, LifetimeLimits, MssClamp,
    Object, ObjectId, Policy, PolicyAction, PortRange, PortSettings, PortSide, Protection, Route,
    RouteTarget, Sa, Selector, StaticNeighbor, TosPolicy, Tunnel,
};
pub use quality::{
    CLASSES_MAX, CRITERIA_MAX, ClassDrops, ClassMap, ColourAware, ColourCount, Criterion, DropProfile,
    DscpMap, DscpSet, EXPANDED_CRITERIA_MAX, EarlyDrop, NESTING_MAX, PIE_US_MAX, PROFILES_MAX, Police,
    PoliceAction, PolicyClass, PolicyMap, QueueLimit, QueueState, ReceivedDscp, SecondBucket, Service,
    ServicePolicy, ServiceTarget, Share, TcpFlags, TrafficProfile, TunnelMarks, Wred,
};
pub use request::{Base, List, Request};
pub use secret::Secret;
