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

/// Whether [`decapsulate`] forwards `inner` as it is.
#[inline(always)]
pub const fn is_kept(outer: Ecn, inner: Ecn) -> bool {
    KEPT >> (outer.bits() << 2 | inner.bits()) & 1 == 1
}

/// A bit for each pair, outer field first, that [`decapsulate`] does not change.
const KEPT: u16 = {
    let mut kept = 0;
    let mut pair = 0;
    while pair < 16 {
        let (outer, inner) = (Ecn::of_tos(pair >> 2), Ecn::of_tos(pair));
        if let Ok(forwarded) = decapsulate(outer, inner)
            && forwarded.bits() == inner.bits()
        {
            kept |= 1 << pair;
        }
        pair += 1;
    }
    kept
};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;
    use Ecn::{Ce, Ect0, Ect1, NotEct};

    const ALL: [Ecn; 4] = [NotEct, Ect0, Ect1, Ce];

    #[test]
    fn what_is_kept_is_what_decapsulation_does_not_change() {
        for (outer, inner) in ALL.into_iter().flat_map(|outer| ALL.map(|inner| (outer, inner))) {
            assert_eq!(is_kept(outer, inner), decapsulate(outer, inner) == Ok(inner), "{outer:?} {inner:?}");
        }
    }

    #[test]
    fn the_bits_are_those_of_rfc_3168() {
        for (bits, ecn) in [(0b00, NotEct), (0b01, Ect1), (0b10, Ect0), (0b11, Ce)] {
            assert_eq!((Ecn::of_tos(0xb8 | bits), ecn.bits()), (ecn, bits));
            assert_eq!(ecn.in_tos(0xbb), 0xb8 | bits);
        }
    }

    #[test]
    fn an_ingress_in_normal_mode_copies_and_in_compatibility_mode_clears() {
        for ecn in ALL {
            assert_eq!(encapsulate(ecn), ecn);
            assert_eq!(encapsulate_compatible(ecn), NotEct);
        }
    }

    #[test]
    fn an_egress_follows_figure_4_of_rfc_6040() {
        let figure = [
            // inner: what is forwarded for outer Not-ECT, ECT(0), ECT(1), CE
            (NotEct, [Ok(NotEct), Ok(NotEct), Ok(NotEct), Err(Drop)]),
            (Ect0, [Ok(Ect0), Ok(Ect0), Ok(Ect1), Ok(Ce)]),
            (Ect1, [Ok(Ect1), Ok(Ect1), Ok(Ect1), Ok(Ce)]),
            (Ce, [Ok(Ce), Ok(Ce), Ok(Ce), Ok(Ce)]),
        ];
        for (inner, row) in figure {
            for (outer, forwarded) in ALL.into_iter().zip(row) {
                assert_eq!(decapsulate(outer, inner), forwarded, "outer {outer:?}, inner {inner:?}");
            }
        }
    }

    #[test]
    fn a_tunnel_without_congestion_changes_nothing_and_is_not_dangerous() {
        for inner in ALL {
            assert_eq!(decapsulate(encapsulate(inner), inner), Ok(inner));
            assert!(!is_dangerous(encapsulate(inner), inner));
            assert!(!is_dangerous(encapsulate_compatible(inner), inner));
        }
        let dangerous: std::vec::Vec<_> = ALL
            .into_iter()
            .flat_map(|inner| ALL.map(|outer| (inner, outer)))
            .filter(|(inner, outer)| is_dangerous(*outer, *inner))
            .collect();
        assert_eq!(dangerous, [(NotEct, Ect0), (NotEct, Ect1), (NotEct, Ce), (Ce, Ect1)]);
    }

    #[test]
    fn marking_in_place_keeps_dscp_and_checksum_right() {
        let mut packet = hex("45b80014 00070000 40110000 c0000201 c6336407");
        crate::ipv4::Header::split_mut(&mut packet).unwrap().0.fill_checksum();
        for ecn in ALL {
            rewrite(&mut packet, ecn).unwrap();
            let parsed = crate::ipv4::Packet::parse(&packet).unwrap();
            assert_eq!(parsed.header.tos(), 0xb8 | ecn.bits());
            assert!(parsed.checksum_is_valid());
        }
        assert_eq!(rewrite(&mut [0x20], Ce), Err(ParseError::BadVersion));
    }
}
