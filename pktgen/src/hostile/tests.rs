// SPDX-License-Identifier: Apache-2.0
//! Each kind against our own opening of ESP, which must refuse it for its reason and no other.

use esp::{InboundParameters, InboundSa, Lifetime, OpenBurst, OpenError, Spi};
use wire::IpProtocol;

use super::*;
use crate::profile::Profile;

const TEXT: &str = r#"
[[stream]]
name = "one"
rate = { pps = 1 }
size = 150
ip = { source = "10.0.0.1", destination = "10.1.0.1" }
udp = {}
gre = { source = "192.0.2.1", destination = "198.51.100.1" }
esp = { spi = 4096, lab_key = "000102030405060708090a0b0c0d0e0f10111213" }
"#;
const AT: usize = 34;

fn maker(text: &str) -> Maker {
    let profile = Profile::parse(text).unwrap();
    Maker::new(profile.streams().next().unwrap(), Engine::best(), Path::new("")).unwrap()
}

/// The first packets of the same stream, in clear.
pub(super) fn packets_in_clear(count: usize) -> Vec<Vec<u8>> {
    let profile = Profile::parse(&TEXT.replace("gre =", "#").replace("esp =", "#")).unwrap();
    let settings = profile.streams().next().unwrap();
    let mut stream = stream::Stream::new(0, settings, 0, Engine::best(), Path::new("")).unwrap();
    let pool = Pool::memory(1, 2048).unwrap();
    let write = |_| {
        let mut packet = pool.alloc().unwrap();
        let pick = Pick { stream: 0, class: 0, due: 0 };
        stream.write(1, std::iter::once((pick, &mut packet)), |_| 0, &mut Turns::new()).unwrap();
        packet.data().to_vec()
    };
    (0..count).map(write).collect()
}

/// What becomes of frames at one SA, in order.
fn outcomes(frames: &[Vec<u8>]) -> Vec<Result<Vec<u8>, OpenError>> {
    let profile = Profile::parse(TEXT).unwrap();
    let esp = profile.streams().next().unwrap().esp.as_ref().unwrap();
    let (key, salt) =
        esp.keys(Path::new("")).unwrap().load(1).unwrap()[0].expand(Engine::best(), icv(esp)).unwrap();
    let sa = InboundSa::new(InboundParameters {
        spi: Spi(4096),
        key,
        salt,
        esn: false,
        window: Some(1024),
        lifetime: Lifetime::default(),
    });
    let (sa, pool) = (sa.unwrap(), Pool::memory(1, 2048).unwrap());
    let open = |frame: &Vec<u8>| {
        let ip = ipv4::Packet::parse(&frame[14..]).unwrap();
        assert!(ip.checksum_is_valid() && ip.payload.len() == frame.len() - AT);
        let mut packet = pool.copy_of(frame).unwrap();
        let mut burst = OpenBurst::new(0);
        burst.push(&mut packet, AT, &sa)?;
        let opened = burst.open().remove(0)?;
        assert_eq!(opened.next_header, IpProtocol::GRE);
        Ok(packet.data()[opened.payload].to_vec())
    };
    frames.iter().map(open).collect()
}

fn refusals(kind: Hostile) -> Vec<Option<OpenError>> {
    let made = maker(TEXT).make(kind, 3).unwrap();
    let outcomes = outcomes(&made.frames);
    let came: Vec<u32> = outcomes.iter().flatten().map(|text| stamp_of(text)).collect();
    assert_eq!(came, made.good.into_iter().collect::<Vec<_>>());
    let refused: Vec<_> = outcomes.into_iter().map(Result::err).collect();
    assert_eq!(refused.iter().flatten().count() as u64, made.hostile);
    refused
}

/// The number in the stamp behind GRE, IPv4 and UDP.
fn stamp_of(text: &[u8]) -> u32 {
    crate::stamp::Stamp::parse(&text[4 + 20 + 8..]).unwrap().sequence
}

#[test]
fn each_kind_is_refused_for_its_reason() {
    use OpenError::{BadIcv, BadPadding, Replayed, SequenceZero, TooOld};
    let between = |good: usize, refused| {
        let turn = [vec![None; good], vec![Some(refused)]].concat();
        [turn.repeat(3), vec![None]].concat()
    };
    assert_eq!(refusals(Hostile::BadIcv), between(1, BadIcv));
    assert_eq!(refusals(Hostile::Replay), between(2, Replayed));
    assert_eq!(refusals(Hostile::TooOld), between(1, TooOld));
    assert_eq!(refusals(Hostile::SequenceWrap), between(1, SequenceZero));
    assert_eq!(refusals(Hostile::BadPad), between(1, BadPadding));
}

#[test]
fn every_kind_has_its_name() {
    for kind in Hostile::ALL {
        assert_eq!(Hostile::named(kind.name()), Some(kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
    assert_eq!(Hostile::named("all"), None);
}

#[test]
fn only_the_spi_is_wrong_where_the_spi_is_unknown() {
    let made = maker(TEXT).make(Hostile::UnknownSpi, 1).unwrap();
    let mut frame = made.frames[1].clone();
    assert_eq!(frame[AT..AT + 4], [0x80, 0, 0x10, 0]);
    frame[AT] = 0;
    assert!(outcomes(&[frame])[0].is_ok());
}

#[test]
fn malformed_gre_is_sealed_well_and_cut_short() {
    let made = maker(TEXT).make(Hostile::MalformedGre, 1).unwrap();
    assert_eq!(outcomes(&made.frames)[1], Ok(PROMISING_GRE.to_vec()));
    assert!(wire::gre::Packet::parse(&PROMISING_GRE).is_err());
}

#[test]
fn fragments_overlap_and_together_hold_the_packet() {
    let made = maker(TEXT).make(Hostile::OverlappingFragments, 1).unwrap();
    assert_eq!((made.frames.len(), made.hostile), (4, 2));
    let parse = |frame: &'_ Vec<u8>| {
        let packet = ipv4::Packet::parse(&frame[14..]).unwrap();
        let repr = ipv4::Repr::parse(&packet).unwrap();
        (usize::from(repr.fragment_offset) * 8, packet.payload.to_vec(), repr.more_fragments)
    };
    let (first, second) = (parse(&made.frames[1]), parse(&made.frames[2]));
    assert_eq!((first.0, first.2, second.0, second.2), (0, true, OVERLAP_AT, false));
    assert!(second.0 < first.1.len());
    let mut whole = made.frames[1][..AT].to_vec();
    whole[20..22].fill(0);
    whole.extend_from_slice(&first.1[..OVERLAP_AT]);
    whole.extend_from_slice(&second.1);
    set_length(&mut whole).unwrap();
    ipv4::Header::split_mut(&mut whole[14..]).unwrap().0.fill_checksum();
    assert!(outcomes(&[whole])[0].is_ok());
}

#[test]
fn sequence_numbers_are_never_used_again() {
    let mut maker = maker(TEXT);
    let mut next = maker.next_sequence();
    for kind in Hostile::ALL {
        maker.make(kind, 2).unwrap();
        assert!(maker.next_sequence() > next);
        next = maker.next_sequence();
    }
}

#[test]
fn no_iv_stands_on_two_packets_but_a_repeated_one() {
    let mut maker = maker(TEXT);
    let mut frames = std::collections::BTreeMap::new();
    for kind in Hostile::ALL.into_iter().filter(|kind| *kind != Hostile::OverlappingFragments) {
        for frame in maker.make(kind, 3).unwrap().frames {
            let iv = frame[AT + 8..AT + 16].to_vec();
            let before = frames.insert(iv, frame.clone());
            assert!(before.is_none_or(|before| kind == Hostile::Replay && before == frame), "{kind:?}");
        }
    }
}

#[test]
fn streams_that_do_not_fit_a_kind_are_refused_with_a_reason() {
    let clear = TEXT.replace("esp =", "#");
    let profile = Profile::parse(&clear).unwrap();
    assert!(Maker::new(profile.streams().next().unwrap(), Engine::best(), Path::new("")).is_err());
    let esn = TEXT.replace("spi = 4096", "spi = 4096, esn = true");
    assert!(maker(&esn).make(Hostile::SequenceWrap, 1).is_err());
    let no_gre = TEXT.replace("gre =", "#");
    assert!(maker(&no_gre).make(Hostile::MalformedGre, 1).is_err());
}
