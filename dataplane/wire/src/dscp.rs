// SPDX-License-Identifier: Apache-2.0
//! The differentiated services code point (RFC 2474), and the byte it shares with ECN.
//!
//! IPv4 calls the byte ToS, IPv6 traffic class:
//!
//! ```text
//!   0   1   2   3   4   5   6   7
//! +---+---+---+---+---+---+---+---+
//! |         DSCP          |  ECN  |
//! +---+---+---+---+---+---+---+---+
//! ```

use core::fmt;
use core::str::FromStr;

use crate::{Ecn, ParseError, ipv4, ipv6};

/// A differentiated services code point, 0 to 63.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dscp(u8);

impl Dscp {
    /// Default forwarding, best effort (RFC 2474 §4.1).
    pub const DEFAULT: Dscp = Dscp(0);
    /// Expedited forwarding (RFC 3246).
    pub const EF: Dscp = Dscp(46);
    /// Class selector 6, network control (RFC 2474 §4.2.2).
    pub const CS6: Dscp = Dscp(48);
    /// Class selector 7.
    pub const CS7: Dscp = Dscp(56);

    /// The code point `value`; `None` from 64 on.
    #[inline]
    pub const fn new(value: u8) -> Option<Dscp> {
        if value < 64 { Some(Dscp(value)) } else { None }
    }

    /// The code point in a ToS or traffic class byte.
    #[inline]
    pub const fn of_tos(tos: u8) -> Dscp {
        Dscp(tos >> 2)
    }

    /// The value, 0 to 63.
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The ToS or traffic class byte of this code point and `ecn`.
    #[inline]
    pub const fn tos(self, ecn: Ecn) -> u8 {
        self.0 << 2 | ecn.bits()
    }

    /// The name in RFC 4594 or RFC 8622 ("EF", "AF21", "CS6", "DF", "LE"), if the code point has one.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(value, _)| *value == self.0).map(|(_, name)| *name)
    }
}

const NAMES: [(u8, &str); 22] = [
    (0, "DF"),
    (1, "LE"),
    (8, "CS1"),
    (10, "AF11"),
    (12, "AF12"),
    (14, "AF13"),
    (16, "CS2"),
    (18, "AF21"),
    (20, "AF22"),
    (22, "AF23"),
    (24, "CS3"),
    (26, "AF31"),
    (28, "AF32"),
    (30, "AF33"),
    (32, "CS4"),
    (34, "AF41"),
    (36, "AF42"),
    (38, "AF43"),
    (40, "CS5"),
    (46, "EF"),
    (48, "CS6"),
    (56, "CS7"),
];

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => self.0.fmt(f),
        }
    }
}

impl fmt::Debug for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Neither a code point's name nor a number from 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a DSCP: give a name such as \"EF\" or a number from 0 to 63")]
pub struct UnknownDscp;

impl FromStr for Dscp {
    type Err = UnknownDscp;

    fn from_str(text: &str) -> Result<Dscp, UnknownDscp> {
        if let Some((value, _)) = NAMES.iter().find(|(_, name)| text.eq_ignore_ascii_case(name)) {
            return Ok(Dscp(*value));
        }
        text.parse().ok().and_then(Dscp::new).ok_or(UnknownDscp)
    }
}

/// The ToS or traffic class byte of the IP packet `l3`.
///
/// # Errors
/// [`ParseError::Truncated`]; [`ParseError::BadVersion`].
#[inline]
pub fn tos_of(l3: &[u8]) -> Result<u8, ParseError> {
    match l3.first().ok_or(ParseError::Truncated)? >> 4 {
        4 => Ok(ipv4::Header::split(l3)?.0.tos()),
        6 => Ok(ipv6::Header::split(l3)?.0.traffic_class()),
        _ => Err(ParseError::BadVersion),
    }
}

/// Replaces the ToS byte (with the IPv4 checksum) or the traffic class of the IP packet `l3`.
///
/// # Errors
/// [`ParseError::Truncated`]; [`ParseError::BadVersion`]. The packet is then unchanged.
#[inline]
pub fn rewrite_tos(l3: &mut [u8], tos: u8) -> Result<(), ParseError> {
    match l3.first().ok_or(ParseError::Truncated)? >> 4 {
        4 => ipv4::Header::split_mut(l3)?.0.rewrite_tos(tos),
        6 => ipv6::Header::split_mut(l3)?.0.set_traffic_class(tos),
        _ => return Err(ParseError::BadVersion),
    }
    Ok(())
}

/// Replaces the DSCP of the IP packet `l3` and keeps its ECN field.
///
/// # Errors
/// [`ParseError::Truncated`]; [`ParseError::BadVersion`]. The packet is then unchanged.
#[inline]
pub fn rewrite(l3: &mut [u8], dscp: Dscp) -> Result<(), ParseError> {
    let tos = tos_of(l3)?;
    rewrite_tos(l3, dscp.tos(Ecn::of_tos(tos)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;
    use proptest::prelude::*;
    use std::string::ToString;

    // Both made with Scapy: EF and ECT(1).
    const IPV4: &str = "45b90023 12344000 3f113ca1 c0000201 c6336407 0fa01388 000f333c 7061796c 6f6164";
    const IPV6: &str =
        "6b912345 000f113f 20010db8 00000000 00000000 00000001 20010db8 00010000 00000000 00000007
        0fa01388 000fc3fd 7061796c 6f6164";

    #[test]
    fn the_byte_is_found_in_either_family() {
        for packet in [hex(IPV4), hex(IPV6)] {
            let tos = tos_of(&packet).unwrap();
            assert_eq!((Dscp::of_tos(tos), Ecn::of_tos(tos)), (Dscp::EF, Ecn::Ect1));
        }
    }

    #[test]
    fn names_and_numbers_mean_the_same() {
        for value in 0..64 {
            let dscp = Dscp::new(value).unwrap();
            assert_eq!(dscp.to_string().parse(), Ok(dscp));
            assert_eq!(value.to_string().parse(), Ok(dscp));
        }
        assert_eq!("ef".parse(), Ok(Dscp::EF));
        // RFC 2597 §6: AF21 is 010010.
        assert_eq!("AF21".parse(), Ok(Dscp::new(0b01_0010).unwrap()));
        assert_eq!(Dscp::new(64), None);
        for text in ["64", "256", "AF24", ""] {
            assert_eq!(text.parse::<Dscp>(), Err(UnknownDscp), "{text}");
        }
    }

    #[test]
    fn what_is_no_ip_packet_stays_as_it_is() {
        for bytes in [
            hex(""),
            hex("45"),
            hex("60"),
            hex("50112233"),
            hex(IPV4)[..19].to_vec(),
            hex(IPV6)[..39].to_vec(),
        ] {
            let mut changed = bytes.clone();
            assert!(rewrite_tos(&mut changed, 0xff).is_err());
            assert!(rewrite(&mut changed, Dscp::EF).is_err());
            assert_eq!(changed, bytes);
        }
    }

    proptest! {
        #[test]
        fn a_new_byte_changes_nothing_else_and_keeps_the_checksum_right(tos: u8, dscp in 0u8..64) {
            let dscp = Dscp::new(dscp).unwrap();
            for mut packet in [hex(IPV4), hex(IPV6)] {
                let before = crate::flow::parse(&packet).unwrap();
                rewrite_tos(&mut packet, tos).unwrap();
                prop_assert_eq!(tos_of(&packet), Ok(tos));
                prop_assert_eq!(crate::flow::parse(&packet), Ok(crate::flow::Parsed { tos, ..before }));
                rewrite(&mut packet, dscp).unwrap();
                prop_assert_eq!(tos_of(&packet), Ok(dscp.tos(Ecn::of_tos(tos))));
            }
        }
    }
}
