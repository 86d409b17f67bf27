// SPDX-License-Identifier: Apache-2.0
//! The values of fields and their form in the file.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use ipnet::IpNet;
use messages::{DfPolicy, Direction, EspMode, MssClamp, PortRange, PortSide, TosPolicy};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wire::{Dscp, IpProtocol, MacAddr};

use crate::scalar::{self, Scalar, Value};

/// The least SPI that may be used: 0–255 are reserved (RFC 4303 §2.1).
const SPI_MIN: u32 = 256;
/// A fixed MSS.
const MSS: core::ops::RangeInclusive<u16> = 216..=9176;

/// That keys are configured by hand, and that whoever does it knows what it means.
///
/// RFC 4106 §2 and RFC 8221 §3 want automated keying for AES-GCM: with static keys nothing but our own care keeps a
/// nonce from being used twice, and a key that leaks opens everything that was ever sent under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManualKeying {
    /// For laboratories.
    Lab,
}

/// What a policy does (RFC 4301 §4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// In clear.
    Bypass,
    /// Not at all.
    Discard,
    /// Under ESP, by the policy's protection.
    Protect,
}

/// Algorithm of an SA, by its name in RFC 8221; the key's length says the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// `ENCR_AES_GCM_16`.
    #[default]
    AesGcm16,
    /// `ENCR_AES_GCM_12`.
    AesGcm12,
    /// `ENCR_AES_GCM_8`.
    AesGcm8,
}

impl Algorithm {
    /// Length of the ICV in bytes.
    #[must_use]
    pub const fn icv_bytes(self) -> u8 {
        match self {
            Self::AesGcm16 => 16,
            Self::AesGcm12 => 12,
            Self::AesGcm8 => 8,
        }
    }

    /// The name in RFC 8221.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesGcm16 => "ENCR_AES_GCM_16",
            Self::AesGcm12 => "ENCR_AES_GCM_12",
            Self::AesGcm8 => "ENCR_AES_GCM_8",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Not an algorithm's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown algorithm: give {}", Algorithm::EXPECTED)]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::from_text(text).ok_or(UnknownAlgorithm)
    }
}

/// Where the key of an SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyReference<'a> {
    /// In a file: one line of hex, key ‖ salt.
    File(&'a str),
    /// In control's own store.
    Id(&'a str),
}

/// What names an SA: its direction and SPI, as in "outbound 0x00001001".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaName {
    /// Inbound or outbound.
    pub direction: Direction,
    /// The SPI.
    pub spi: u32,
}

impl fmt::Display for SaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        write!(f, "{direction} 0x{:08x}", self.spi)
    }
}

/// Not an SA's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an SA: give direction and SPI, as in \"outbound 0x00001001\"")]
pub struct UnknownSaName;

impl FromStr for SaName {
    type Err = UnknownSaName;

    fn from_str(text: &str) -> Result<Self, UnknownSaName> {
        let (direction, spi) = text.split_once(' ').ok_or(UnknownSaName)?;
        let direction = Direction::from_text(direction).ok_or(UnknownSaName)?;
        Ok(Self { direction, spi: spi_from_text(spi).ok_or(UnknownSaName)? })
    }
}

fn spi_from_text(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

/// Words that stand for values.
macro_rules! words {
    ($type:ty, $expected:literal, $($word:literal => $value:path),+) => {
        impl Value for $type {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Option<Self> {
                match text {
                    $($word => Some($value),)+
                    _ => None,
                }
            }

            fn to_scalar(&self) -> Scalar {
                let word = match self {
                    $($value => $word,)+
                };
                Scalar::Text(word.into())
            }
        }
    };
}

words! { PortSide, "\"protected\" or \"unprotected\"", "protected" => PortSide::Protected, "unprotected" => PortSide::Unprotected }
words! { EspMode, "\"transport\" or \"tunnel\"", "transport" => EspMode::Transport, "tunnel" => EspMode::Tunnel }
words! { DfPolicy, "\"copy\", \"clear\" or \"set\"", "copy" => DfPolicy::Copy, "clear" => DfPolicy::Clear, "set" => DfPolicy::Set }
words! { Direction, "\"inbound\" or \"outbound\"", "inbound" => Direction::Inbound, "outbound" => Direction::Outbound }
words! { Action, "\"protect\", \"bypass\" or \"discard\"", "protect" => Action::Protect, "bypass" => Action::Bypass, "discard" => Action::Discard }
words! { Algorithm, "\"ENCR_AES_GCM_16\", \"ENCR_AES_GCM_12\" or \"ENCR_AES_GCM_8\"",
"ENCR_AES_GCM_16" => Algorithm::AesGcm16, "ENCR_AES_GCM_12" => Algorithm::AesGcm12, "ENCR_AES_GCM_8" => Algorithm::AesGcm8 }
words! { ManualKeying, "\"lab\", the only word there is: AES-GCM wants automated keying (RFC 4106 §2, RFC 8221), static keys are for laboratories",
"lab" => ManualKeying::Lab }

/// For types that stand in JSON on their own.
macro_rules! serde_by_scalar {
    ($($type:ty),+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                scalar::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                scalar::deserialize(deserializer)
            }
        }
    )+};
}

serde_by_scalar! { ManualKeying, Action, Algorithm, SaName }

impl Value for SaName {
    const EXPECTED: &'static str = "direction and SPI, as in \"outbound 0x00001001\"";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_scalar(&self) -> Scalar {
        Scalar::Text(self.to_string())
    }
}

impl Value for TosPolicy {
    const EXPECTED: &'static str = "\"copy\", a DSCP's name such as \"EF\", or its number from 0 to 63";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "copy" => Some(Self::Copy),
            _ => text.parse::<Dscp>().ok().map(|dscp| Self::Dscp(dscp.get())),
        }
    }

    fn from_number(number: i64) -> Option<Self> {
        u8::try_from(number).ok().and_then(Dscp::new).map(|dscp| Self::Dscp(dscp.get()))
    }

    fn to_scalar(&self) -> Scalar {
        match self {
            Self::Copy => Scalar::Text("copy".into()),
            Self::Dscp(value) => match Dscp::new(*value).and_then(Dscp::name) {
                Some(name) => Scalar::Text(name.into()),
                None => Scalar::Number((*value).into()),
            },
        }
    }
}

impl Value for MssClamp {
    const EXPECTED: &'static str = "\"automatic\", \"off\" or a number from 216 to 9176";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "automatic" => Some(Self::Automatic),
            "off" => Some(Self::Off),
            _ => None,
        }
    }

    fn from_number(number: i64) -> Option<Self> {
        u16::try_from(number).ok().filter(|mss| MSS.contains(mss)).map(Self::Fixed)
    }

    fn to_scalar(&self) -> Scalar {
        match self {
            Self::Automatic => Scalar::Text("automatic".into()),
            Self::Off => Scalar::Text("off".into()),
            Self::Fixed(mss) => Scalar::Number((*mss).into()),
        }
    }
}

impl Value for IpProtocol {
    const EXPECTED: &'static str = "a protocol's name such as \"udp\", or its number from 0 to 255";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_number(number: i64) -> Option<Self> {
        u8::try_from(number).ok().map(Self)
    }

    fn to_scalar(&self) -> Scalar {
        match self.name() {
            Some(name) => Scalar::Text(name.into()),
            None => Scalar::Number(self.0.into()),
        }
    }
}

impl Value for PortRange {
    const EXPECTED: &'static str = "one port, as in \"500\", or a range, as in \"500-600\", lowest first";

    fn from_text(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
        (range.first <= range.last).then_some(range)
    }

    fn from_number(number: i64) -> Option<Self> {
        u16::try_from(number).ok().map(|port| Self { first: port, last: port })
    }

    fn to_scalar(&self) -> Scalar {
        Scalar::Text(if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        })
    }
}

impl Value for MacAddr {
    const EXPECTED: &'static str = "an Ethernet address, as in \"02:00:00:00:00:09\"";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_scalar(&self) -> Scalar {
        Scalar::Text(self.to_string())
    }
}

impl Value for IpAddr {
    const EXPECTED: &'static str = "an IPv4 or IPv6 address, as in \"192.0.2.1\" or \"2001:db8::1\"";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_scalar(&self) -> Scalar {
        Scalar::Text(self.to_string())
    }
}

impl Value for IpNet {
    const EXPECTED: &'static str = "address and prefix length, as in \"192.0.2.1/24\" or \"2001:db8::1/64\"";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_scalar(&self) -> Scalar {
        Scalar::Text(self.to_string())
    }
}

/// An address alone, with or without the length of a whole address behind it.
#[derive(Clone, Copy)]
struct Single(IpAddr);

impl Value for Single {
    const EXPECTED: &'static str = "a single address, as in \"10.255.0.1/32\" or \"2001:db8::1/128\"";

    fn from_text(text: &str) -> Option<Self> {
        match text.parse::<IpNet>() {
            Ok(net) => (net.prefix_len() == net.max_prefix_len()).then(|| Self(net.addr())),
            Err(_) => text.parse().ok().map(Self),
        }
    }

    fn to_scalar(&self) -> Scalar {
        Scalar::Text(IpNet::from(self.0).to_string())
    }
}

/// `loopbacks`: single addresses.
pub(crate) mod singles {
    use super::{Deserializer, IpAddr, Serializer, Single, scalar};

    pub(crate) fn serialize<S: Serializer>(values: &[IpAddr], serializer: S) -> Result<S::Ok, S::Error> {
        let singles: Vec<_> = values.iter().copied().map(Single).collect();
        scalar::list::serialize(&singles, serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
        let singles = scalar::list::deserialize::<Single, D>(deserializer)?;
        Ok(singles.into_iter().map(|Single(address)| address).collect())
    }
}

/// An SPI: a number, or hexadecimal digits as a text where a format has no hexadecimal numbers.
struct SpiNumber(u32);

impl Value for SpiNumber {
    const EXPECTED: &'static str = "an SPI from 0x100 to 0xffffffff; 0 to 255 are reserved (RFC 4303 §2.1)";

    fn from_text(text: &str) -> Option<Self> {
        spi_from_text(text).filter(|spi| *spi >= SPI_MIN).map(Self)
    }

    fn from_number(number: i64) -> Option<Self> {
        u32::try_from(number).ok().filter(|spi| *spi >= SPI_MIN).map(Self)
    }

    fn to_scalar(&self) -> Scalar {
        Scalar::Number(self.0.into())
    }
}

/// `spi`.
pub(crate) mod spi {
    use super::{Deserializer, Serializer, SpiNumber, scalar};

    pub(crate) fn serialize<S: Serializer>(spi: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        scalar::serialize(&SpiNumber(*spi), serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        scalar::deserialize::<SpiNumber, D>(deserializer).map(|SpiNumber(spi)| spi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a text or a number means, and what is written for it.
    fn text<T: Value>(text: &str) -> Option<String> {
        T::from_text(text).as_ref().map(shown)
    }

    fn number<T: Value>(number: i64) -> Option<String> {
        T::from_number(number).as_ref().map(shown)
    }

    fn shown<T: Value>(value: &T) -> String {
        match value.to_scalar() {
            Scalar::Number(number) => number.to_string(),
            Scalar::Text(text) => format!("{text:?}"),
        }
    }

    #[test]
    fn code_points_protocols_and_mss_are_names_or_numbers() {
        assert_eq!(text::<TosPolicy>("copy").as_deref(), Some("\"copy\""));
        assert_eq!(text::<TosPolicy>("ef").as_deref(), Some("\"EF\""));
        assert_eq!(number::<TosPolicy>(46).as_deref(), Some("\"EF\""));
        assert_eq!(number::<TosPolicy>(63).as_deref(), Some("63"));
        assert_eq!(
            (number::<TosPolicy>(64), number::<TosPolicy>(-1), text::<TosPolicy>("")),
            (None, None, None)
        );
        assert_eq!(number::<IpProtocol>(47).as_deref(), Some("\"gre\""));
        assert_eq!(number::<IpProtocol>(255).as_deref(), Some("255"));
        assert_eq!((number::<IpProtocol>(256), text::<IpProtocol>("gra")), (None, None));
        assert_eq!(number::<MssClamp>(1360).as_deref(), Some("1360"));
        assert_eq!((number::<MssClamp>(215), number::<MssClamp>(9177)), (None, None));
    }

    #[test]
    fn ports_are_one_or_a_range() {
        assert_eq!(text::<PortRange>("500").as_deref(), Some("\"500\""));
        assert_eq!(number::<PortRange>(500).as_deref(), Some("\"500\""));
        assert_eq!(text::<PortRange>("0 - 65535").as_deref(), Some("\"0-65535\""));
        for bad in ["", "-", "5-", "-5", "6-5", "65536", "1-2-3", "http"] {
            assert_eq!(text::<PortRange>(bad), None, "{bad}");
        }
        assert_eq!(number::<PortRange>(65536), None);
    }

    #[test]
    fn an_sa_is_named_by_direction_and_spi() {
        let name = SaName { direction: Direction::Outbound, spi: 0x1001 };
        assert_eq!(name.to_string(), "outbound 0x00001001");
        for same in ["outbound 0x00001001", "outbound 0x1001", "outbound 4097"] {
            assert_eq!(same.parse(), Ok(name), "{same}");
        }
        for bad in [
            "",
            "outbound",
            "out 0x1001",
            "outbound 1001g",
            "outbound 0x+1",
            "outbound -1",
            "outbound 0x100000000",
        ] {
            assert_eq!(bad.parse::<SaName>(), Err(UnknownSaName), "{bad}");
        }
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"outbound 0x00001001\"");
    }

    #[test]
    fn reserved_spis_are_none() {
        assert_eq!(number::<SpiNumber>(256).as_deref(), Some("256"));
        assert_eq!(text::<SpiNumber>("0xffffffff").as_deref(), Some("4294967295"));
        assert_eq!(
            (number::<SpiNumber>(255), number::<SpiNumber>(1 << 32), text::<SpiNumber>("0xff")),
            (None, None, None)
        );
    }

    #[test]
    fn a_single_address_may_have_the_length_of_a_whole_one() {
        assert_eq!(text::<Single>("10.255.0.1").as_deref(), Some("\"10.255.0.1/32\""));
        assert_eq!(text::<Single>("2001:db8::1/128").as_deref(), Some("\"2001:db8::1/128\""));
        assert_eq!((text::<Single>("10.0.0.0/31"), text::<Single>("10.0.0")), (None, None));
    }

    #[test]
    fn an_algorithm_is_called_as_in_rfc_8221() {
        for (algorithm, icv_bytes) in
            [(Algorithm::AesGcm16, 16), (Algorithm::AesGcm12, 12), (Algorithm::AesGcm8, 8)]
        {
            assert_eq!(algorithm.to_string(), format!("ENCR_AES_GCM_{icv_bytes}"));
            assert_eq!((algorithm.icv_bytes(), algorithm.name().parse()), (icv_bytes, Ok(algorithm)));
        }
        let error = "aes".parse::<Algorithm>().unwrap_err();
        assert!(error.to_string().contains("ENCR_AES_GCM_16"), "{error}");
    }
}
