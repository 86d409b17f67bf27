// SPDX-License-Identifier: Apache-2.0
//! Profiles: a TOML file that says what is sent, and how fast. Plain data; [`stream`](crate::stream) makes packets of it.
//!
//! Whatever is wrong in a file is said with its line, and with what would be right.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use wire::MacAddr;
use wire::dscp::Dscp;

use crate::keys::{KeySource, LabKey};
use crate::rate::Rate;
use crate::sizes::Sizes;
use crate::values::{Values, Vlan};

/// Most streams that one profile has.
pub const STREAMS_MAX: usize = 256;

/// Most SAs that one stream, or one entry of what is opened, has.
pub const SAS_MAX: u32 = 1 << 17;

/// What is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What all that is by chance follows from.
    #[serde(default = "one")]
    pub seed: u64,
    /// The line rate that percentages are of, in bits a second.
    pub line_bps: Option<u64>,
    /// SAs of what comes back sealed.
    #[serde(default)]
    pub open: Vec<Open>,
    /// Whom the device under test may ask for.
    pub answer: Option<Answer>,
    /// The streams.
    #[serde(rename = "stream")]
    streams: Vec<Spanned<Stream>>,
}

/// Addresses that ARP and neighbour solicitations are answered for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The MAC address that they are said to have.
    #[serde(default = "our_mac_alone", deserialize_with = "one_mac")]
    pub mac: MacAddr,
}

/// One stream: packets of one shape at one rate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// What results call it.
    pub name: String,
    /// How fast it is sent.
    pub rate: Rate,
    /// Sizes of its frames in clear.
    pub size: Sizes,
    /// Packets that are sent at once, with longer pauses between.
    #[serde(default = "one_packet")]
    pub burst: u32,
    /// Flows: after so many packets all ranges begin again. Without it each range goes on by itself.
    pub flows: Option<u64>,
    /// Packets after which the stream ends.
    pub packets: Option<u64>,
    /// Whether each packet carries sequence number and time. Without, nothing is known of what arrives.
    #[serde(default = "yes")]
    pub stamp: bool,
    /// Ethernet.
    #[serde(default)]
    pub ethernet: Ethernet,
    /// The IP header next to the payload.
    pub ip: Ip,
    /// UDP above it.
    pub udp: Option<Ports>,
    /// TCP above it.
    pub tcp: Option<Ports>,
    /// An ICMP echo request above it.
    pub icmp: Option<Icmp>,
    /// GRE around it.
    pub gre: Option<Gre>,
    /// ESP around that.
    pub esp: Option<Esp>,
}

/// The Ethernet header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ethernet {
    /// From.
    #[serde(default = "our_mac")]
    pub source: Values<MacAddr>,
    /// To: the device under test.
    #[serde(default = "their_mac")]
    pub destination: Values<MacAddr>,
    /// An 802.1Q tag.
    pub vlan: Option<Values<Vlan>>,
    /// Priority in the tag.
    #[serde(default)]
    pub priority: u8,
}

impl Default for Ethernet {
    fn default() -> Self {
        Self { source: our_mac(), destination: their_mac(), vlan: None, priority: 0 }
    }
}

/// An IP header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ip {
    /// From.
    pub source: Values<IpAddr>,
    /// To.
    pub destination: Values<IpAddr>,
    /// Differentiated services.
    #[serde(default = "best_effort")]
    pub dscp: Values<Dscp>,
    /// Hops that it may make.
    #[serde(default = "hops")]
    pub ttl: u8,
    /// Whether IPv4 may not fragment it.
    #[serde(default)]
    pub dont_fragment: bool,
}

/// Ports of UDP or TCP.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// From.
    #[serde(default = "some_port")]
    pub source_port: Values<u16>,
    /// To.
    #[serde(default = "discard_port")]
    pub destination_port: Values<u16>,
}

/// An echo request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Icmp {
    /// Its identifier.
    #[serde(default = "some_port")]
    pub identifier: Values<u16>,
}

/// GRE (RFC 2784, RFC 2890) and its delivery header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gre {
    /// From: the tunnel's near end.
    pub source: Values<IpAddr>,
    /// To: its far end.
    pub destination: Values<IpAddr>,
    /// Differentiated services of the delivery header.
    #[serde(default = "best_effort")]
    pub dscp: Values<Dscp>,
    /// Hops.
    #[serde(default = "hops")]
    pub ttl: u8,
    /// Key.
    pub key: Option<Values<u32>>,
    /// Whether there is a checksum.
    #[serde(default)]
    pub checksum: bool,
    /// Whether packets are numbered.
    #[serde(default)]
    pub sequence: bool,
}

/// Transport or tunnel mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EspMode {
    /// ESP behind the IP header that is there.
    #[default]
    Transport,
    /// ESP behind an IP header of its own.
    Tunnel,
}

/// ESP with AES-GCM (RFC 4303, RFC 4106).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Esp {
    /// Transport or tunnel mode.
    #[serde(default)]
    pub mode: EspMode,
    /// Tunnel mode: from.
    pub source: Option<Values<IpAddr>>,
    /// Tunnel mode: to.
    pub destination: Option<Values<IpAddr>>,
    /// SPI of the first SA; the next one has the next SPI.
    pub spi: u32,
    /// SAs, one for each flow in turn.
    #[serde(default = "one_packet")]
    pub sas: u32,
    /// A file, mode 0600, with a line for each SA: hexadecimal digits of key and salt.
    pub key_file: Option<PathBuf>,
    /// Key and salt of the first SA in the open, for tests; the others' follow from it.
    pub lab_key: Option<LabKey>,
    /// Bytes of the ICV.
    #[serde(default = "sixteen")]
    pub icv_bytes: u8,
    /// Extended sequence numbers.
    #[serde(default)]
    pub esn: bool,
    /// The first sequence number.
    #[serde(default = "one")]
    pub first_sequence: u64,
}

/// SAs that the receiver opens packets with: what a device under test seals with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// SPI of the first SA; the next one has the next SPI.
    pub spi: u32,
    /// SAs.
    #[serde(default = "one_packet")]
    pub sas: u32,
    /// As in a stream's `esp`.
    pub key_file: Option<PathBuf>,
    /// As in a stream's `esp`.
    pub lab_key: Option<LabKey>,
    /// Bytes of the ICV.
    #[serde(default = "sixteen")]
    pub icv_bytes: u8,
    /// Extended sequence numbers.
    #[serde(default)]
    pub esn: bool,
}

impl Esp {
    /// Where the keys come from.
    ///
    /// # Errors
    /// Neither or both places are named.
    pub fn keys(&self, folder: &Path) -> Result<KeySource<'_>, String> {
        key_source(self.key_file.as_deref(), self.lab_key.as_ref(), folder).ok_or_else(|| wants_key("esp"))
    }
}

impl Open {
    /// Where the keys come from.
    ///
    /// # Errors
    /// Neither or both places are named.
    pub fn keys(&self, folder: &Path) -> Result<KeySource<'_>, String> {
        key_source(self.key_file.as_deref(), self.lab_key.as_ref(), folder).ok_or_else(|| wants_key("open"))
    }

    fn check(&self) -> Result<(), String> {
        if self.sas == 0 || self.sas > SAS_MAX {
            return Err(format!("open: {} SAs: 1 to {SAS_MAX}", self.sas));
        }
        self.keys(Path::new("")).map(drop)?;
        let icv = aead::IcvLength::try_from(usize::from(self.icv_bytes));
        icv.map(drop).map_err(|error| format!("open.icv_bytes: {error}"))
    }

    /// The length of the ICV, which was checked when the profile was read.
    #[must_use]
    pub fn icv(&self) -> aead::IcvLength {
        aead::IcvLength::try_from(usize::from(self.icv_bytes)).unwrap_or(aead::IcvLength::Sixteen)
    }
}

fn key_source<'a>(file: Option<&Path>, lab: Option<&'a LabKey>, folder: &Path) -> Option<KeySource<'a>> {
    match (file, lab) {
        (Some(file), None) => Some(KeySource::File(folder.join(file))),
        (None, Some(key)) => Some(KeySource::Lab(key)),
        _ => None,
    }
}

fn wants_key(section: &str) -> String {
    format!("{section}: wants exactly one of key_file and lab_key")
}

impl Profile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What cannot be read or cannot be, with file and line.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| anyhow::anyhow!("{}: {error}; give a profile (TOML)", path.display()))?;
        Self::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    }

    /// As [`read`](Self::read), from a text.
    ///
    /// # Errors
    /// What cannot be, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let profile: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if profile.streams.is_empty() || profile.streams.len() > STREAMS_MAX {
            return Err(format!("{} streams: wants 1 to {STREAMS_MAX} [[stream]]", profile.streams.len()));
        }
        profile.open.iter().try_for_each(Open::check)?;
        for (number, stream) in profile.streams.iter().enumerate() {
            let before = &profile.streams[..number];
            let name = &stream.get_ref().name;
            let repeated = before.iter().any(|other| other.get_ref().name == *name);
            let repeated = repeated.then(|| "the name is taken by a stream before it".to_owned());
            if let Err(wrong) = repeated.map_or_else(|| stream.get_ref().check(profile.line_bps), Err) {
                let line = text[..stream.span().start].lines().count() + 1;
                return Err(format!("line {line}: stream {name:?}: {wrong}"));
            }
        }
        Ok(profile)
    }

    /// The streams, in the order of the file.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = &Stream> {
        self.streams.iter().map(Spanned::get_ref)
    }

    /// The streams, to change.
    pub fn streams_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.streams.iter_mut().map(Spanned::get_mut)
    }
}

impl Stream {
    fn check(&self, line_bps: Option<u64>) -> Result<(), String> {
        let uppers = [self.udp.is_some(), self.tcp.is_some(), self.icmp.is_some()];
        if uppers.iter().filter(|given| **given).count() != 1 {
            return Err("wants exactly one of udp, tcp and icmp".to_owned());
        }
        if matches!(self.rate, Rate::LinePercent(_)) && line_bps.is_none_or(|bps| bps == 0) {
            return Err("rate.line_percent: of what line? Give line_bps at the top of the profile".to_owned());
        }
        if self.burst == 0 || self.flows == Some(0) || self.packets == Some(0) {
            return Err("burst, flows and packets: wants at least 1".to_owned());
        }
        if self.ethernet.priority > 7 {
            return Err(format!("ethernet.priority {}: 0 to 7", self.ethernet.priority));
        }
        same_family("ip", &self.ip.source, &self.ip.destination)?;
        if let Some(gre) = &self.gre {
            same_family("gre", &gre.source, &gre.destination)?;
        }
        self.esp.as_ref().map_or(Ok(()), Esp::check)
    }
}

impl Esp {
    fn check(&self) -> Result<(), String> {
        match (self.mode, &self.source, &self.destination) {
            (EspMode::Tunnel, Some(source), Some(destination)) => same_family("esp", source, destination)?,
            (EspMode::Transport, None, None) => {}
            _ => {
                return Err("esp: source and destination belong to tunnel mode, and it needs both".to_owned());
            }
        }
        let sas_fit = (1..=SAS_MAX).contains(&self.sas);
        if !sas_fit || self.spi < 256 || self.spi.checked_add(self.sas - 1).is_none() {
            return Err(format!(
                "esp: {} SAs from SPI {}: 1 to {SAS_MAX} SAs, SPIs from 256 to 4294967295",
                self.sas, self.spi
            ));
        }
        if self.first_sequence == 0 || (!self.esn && self.first_sequence > u64::from(u32::MAX)) {
            return Err(format!(
                "esp.first_sequence {}: at least 1, and below 2^32 without esn",
                self.first_sequence
            ));
        }
        aead::IcvLength::try_from(usize::from(self.icv_bytes))
            .map_err(|error| format!("esp.icv_bytes: {error}"))?;
        self.keys(Path::new("")).map(drop)
    }
}

fn same_family(header: &str, source: &Values<IpAddr>, destination: &Values<IpAddr>) -> Result<(), String> {
    let (source, destination) = (source.first, destination.first);
    if source.is_ipv4() == destination.is_ipv4() {
        return Ok(());
    }
    Err(format!("{header}: {source} and {destination} are of two families"))
}

const fn one() -> u64 {
    1
}

const fn one_packet() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

const fn hops() -> u8 {
    64
}

const fn sixteen() -> u8 {
    16
}

fn one_mac<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<MacAddr, D::Error> {
    let mac = Values::<MacAddr>::deserialize(deserializer)?;
    if mac.changes() {
        return Err(serde::de::Error::custom("one MAC address, not a range"));
    }
    Ok(mac.first)
}

const fn our_mac_alone() -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, 1])
}

fn our_mac() -> Values<MacAddr> {
    Values::one(our_mac_alone())
}

fn their_mac() -> Values<MacAddr> {
    Values::one(MacAddr([2, 0, 0, 0, 0, 2]))
}

fn best_effort() -> Values<Dscp> {
    Values::one(Dscp::DEFAULT)
}

fn some_port() -> Values<u16> {
    Values::one(1_024)
}

/// The discard service, RFC 863.
fn discard_port() -> Values<u16> {
    Values::one(9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"
[[stream]]
name = "one"
rate = { pps = 1000 }
size = 64
ip = { source = "10.0.0.1", destination = "10.1.0.1" }
udp = {}
"#;

    fn wrong(text: &str) -> String {
        Profile::parse(text).err().expect("refused")
    }

    #[test]
    fn the_least_profile_is_taken_with_its_defaults() {
        let profile = Profile::parse(PLAIN).unwrap();
        let stream = profile.streams().next().unwrap();
        assert_eq!((stream.name.as_str(), stream.burst, stream.ip.ttl), ("one", 1, 64));
        assert!(stream.stamp && stream.esp.is_none());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (from, to, line, words) in [
            ("size = 64", "size = 64\nsiez = 1", 6, "siez"),
            ("size = 64", "size = 12", 5, "64 to 9216"),
            ("udp = {}", "", 2, "exactly one of udp, tcp and icmp"),
            ("{ pps = 1000 }", "{ pps = 1000, l2_bps = 1 }", 4, "exactly one of pps"),
            ("{ pps = 1000 }", "{ line_percent = 10 }", 2, "line_bps"),
            ("\"10.1.0.1\"", "\"2001:db8::1\"", 2, "two families"),
            ("\"10.1.0.1\"", "\"ten\"", 6, "IPv4 or IPv6"),
            ("size = 64", "size = 64\nesp = { spi = 4096 }", 2, "key_file and lab_key"),
            ("size = 64", "size = 64\nesp = { spi = 4096, lab_key = \"00\" }", 6, "key and salt"),
            ("size = 64", "size = 64\nburst = 0", 2, "at least 1"),
            ("name = \"one\"", "", 2, "name"),
        ] {
            assert!(PLAIN.contains(from));
            let error = wrong(&PLAIN.replace(from, to));
            assert!(error.contains(&format!("line {line}")) && error.contains(words), "{to}: {error}");
        }
    }

    #[test]
    fn addresses_are_answered_for_at_one_mac() {
        let answer = |text: &str| Profile::parse(&format!("{text}\n{PLAIN}"));
        let profile = answer("answer = { addresses = [\"10.0.0.9\", \"2001:db8::9\"] }").unwrap();
        let answer_to = profile.answer.unwrap();
        assert_eq!((answer_to.addresses.len(), answer_to.mac), (2, our_mac_alone()));
        let range = "answer = { addresses = [], mac = { first = \"02:00:00:00:00:05\", count = 2 } }";
        assert!(answer(range).err().unwrap().contains("one MAC address"));
    }

    #[test]
    fn two_streams_of_one_name_are_refused_at_the_second() {
        let error = wrong(&PLAIN.repeat(2));
        assert!(error.contains("line 9") && error.contains("taken"), "{error}");
        assert!(wrong("seed = 1").contains("stream"));
    }
}
