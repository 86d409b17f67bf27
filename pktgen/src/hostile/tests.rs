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
    let refused: Vec<_> = outcomes.into_iter().map(Result::err).collect();
    assert_eq!(refused.iter().flatten().count() as u64, made.hostile);
    refused
}

#[test]
fn each_kind_is_refused_for_its_reason() {
    use OpenError::{BadIcv, BadPadding, Replayed, SequenceZero, TooOld};
    assert_eq!(refusals(Hostile::BadIcv), [Some(BadIcv); 3]);
    assert_eq!(refusals(Hostile::Replay), [None, Some(Replayed)].repeat(3));
    assert_eq!(refusals(Hostile::TooOld), [None, Some(TooOld), Some(TooOld), Some(TooOld)]);
    assert_eq!(refusals(Hostile::SequenceWrap), [Some(SequenceZero); 3]);
    assert_eq!(refusals(Hostile::BadPad), [Some(BadPadding); 3]);
}

#[test]
fn only_the_spi_is_wrong_where_the_spi_is_unknown() {
    let made = maker(TEXT).make(Hostile::UnknownSpi, 1).unwrap();
    let mut frame = made.frames[0].clone();
    assert_eq!(frame[AT..AT + 4], [0x80, 0, 0x10, 0]);
    frame[AT] = 0;
    assert!(outcomes(&[frame])[0].is_ok());
}

#[test]
fn malformed_gre_is_sealed_well_and_cut_short() {
    let made = maker(TEXT).make(Hostile::MalformedGre, 1).unwrap();
    assert_eq!(outcomes(&made.frames)[0], Ok(PROMISING_GRE.to_vec()));
    assert!(wire::gre::Packet::parse(&PROMISING_GRE).is_err());
}

#[test]
fn fragments_overlap_and_together_hold_the_packet() {
    let made = maker(TEXT).make(Hostile::OverlappingFragments, 1).unwrap();
    assert_eq!((made.frames.len(), made.hostile), (2, 2));
    let parse = |frame: &'_ Vec<u8>| {
        let packet = ipv4::Packet::parse(&frame[14..]).unwrap();
        let repr = ipv4::Repr::parse(&packet).unwrap();
        (usize::from(repr.fragment_offset) * 8, packet.payload.to_vec(), repr.more_fragments)
    };
    let (first, second) = (parse(&made.frames[0]), parse(&made.frames[1]));
    assert_eq!((first.0, first.2, second.0, second.2), (0, true, OVERLAP_AT, false));
    assert!(second.0 < first.1.len());
    let mut whole = made.frames[0][..AT].to_vec();
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
fn streams_that_do_not_fit_a_kind_are_refused_with_a_reason() {
    let clear = TEXT.replace("esp =", "#");
    let profile = Profile::parse(&clear).unwrap();
    assert!(Maker::new(profile.streams().next().unwrap(), Engine::best(), Path::new("")).is_err());
    let esn = TEXT.replace("spi = 4096", "spi = 4096, esn = true");
    assert!(maker(&esn).make(Hostile::SequenceWrap, 1).is_err());
    let no_gre = TEXT.replace("gre =", "#");
    assert!(maker(&no_gre).make(Hostile::MalformedGre, 1).is_err());
}
