// SPDX-License-Identifier: Apache-2.0
//! Explicit congestion notification (RFC 3168 §5) and its way through tunnels (RFC 6040; RFC 9601 for GRE).
//!
//! Pure functions over the two bits; the code point that shares the byte is in [`crate::dscp`].

use crate::{ParseError, dscp};

/// The ECN field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct = 0b00,
    /// ECN-capable, ECT(1).
    Ect1 = 0b01,
    /// ECN-capable, ECT(0).
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// The field in a ToS or traffic class byte.
    #[inline]
    pub const fn of_tos(tos: u8) -> Ecn {
        match tos & 0b11 {
            0b00 => Ecn::NotEct,
            0b01 => Ecn::Ect1,
            0b10 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// The two bits.
    #[inline]
    pub const fn bits(self) -> u8 {
        match self {
            Ecn::NotEct => 0b00,
            Ecn::Ect1 => 0b01,
            Ecn::Ect0 => 0b10,
            Ecn::Ce => 0b11,
        }
    }

    /// The byte `tos` with this ECN field and its own DSCP.
    #[inline]
    pub const fn in_tos(self, tos: u8) -> u8 {
        tos & !0b11 | self.bits()
    }
}

/// The packet must be dropped: the outer header says CE, and the inner one cannot carry it (RFC 6040 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("outer CE on an inner packet that is not ECN-capable")]
pub struct Drop;

/// The outer ECN field for `inner` at a tunnel's ingress, normal mode (RFC 6040 §4.1): a copy.
#[inline]
pub const fn encapsulate(inner: Ecn) -> Ecn {
    inner
}

/// The outer ECN field in compatibility mode (RFC 6040 §4.1), for an egress that does not propagate ECN: Not-ECT.
#[inline]
pub const fn encapsulate_compatible(_inner: Ecn) -> Ecn {
    Ecn::NotEct
}

/// The ECN field to forward at a tunnel's egress (RFC 6040 §4.2, figure 4).
///
/// # Errors
/// [`Drop`] when the outer field is CE and the inner Not-ECT.
#[inline]
pub const fn decapsulate(outer: Ecn, inner: Ecn) -> Result<Ecn, Drop> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => Err(Drop),
        (Ecn::Ect0 | Ecn::Ect1, Ecn::Ce) => Ok(Ecn::Ce),
        (Ecn::Ect0, Ecn::Ect1) => Ok(Ecn::Ect1),
        _ => Ok(inner),
    }
}

/// Whether no ingress that follows any of the RFCs makes this pair, and no queue on the way either: the combinations
/// that RFC 6040 §4.2 marks as potentially dangerous, worth a counter.
#[inline]
pub const fn is_dangerous(outer: Ecn, inner: Ecn) -> bool {
    matches!((inner, outer), (Ecn::NotEct, Ecn::Ect0 | Ecn::Ect1 | Ecn::Ce) | (Ecn::Ce, Ecn::Ect1))
}

/// Replaces the ECN field of the IP packet `l3`, with the IPv4 checksum.
///
/// # Errors
/// [`ParseError::Truncated`]; [`ParseError::BadVersion`]. The packet is then unchanged.
#[inline]
pub fn rewrite(l3: &mut [u8], ecn: Ecn) -> Result<(), ParseError> {
    let tos = dscp::tos_of(l3)?;
    dscp::rewrite_tos(l3, ecn.in_tos(tos))
}
