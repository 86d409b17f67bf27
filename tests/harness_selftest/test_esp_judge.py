# SPDX-License-Identifier: Apache-2.0
"""The ESP judge judged: by a published packet, by Scapy, by another GCM interface, and by packets that are wrong."""

import os
import struct
import warnings

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from harness import esp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, UDP
    from scapy.layers.ipsec import ESP, SecurityAssociation

KEY_SIZES = (16, 24, 32)
ICV_SIZES = (8, 12, 16)

# draft-mcgrew-gcm-test-01, test case 1: ESN, tunnel mode, AES-128, ICV of 16 octets.
CASE_1_KEY = bytes.fromhex("4c80cdefbb5d10da906ac73c3613a634")
CASE_1_SALT = bytes.fromhex("2e443b68")
CASE_1_SPI = 0x00004321
CASE_1_SEQUENCE = 0x87654321_00000000
CASE_1_IV = bytes.fromhex("4956ed7e3b244cfe")
CASE_1_PLAINTEXT = bytes.fromhex(
    "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000"
    "00000000045f736970045f756470037369700963796265726369747902646b00"
    "0021000101020201")
CASE_1_SEALED = bytes.fromhex(
    "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34"
    "cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce"
    "61bc17d768fd9732459018148f6cbe722fd04796562dfdb4")


def some_sa(key_size=16, icv=16, esn=False, spi=0x1001):
    return esp.Sa(spi, os.urandom(key_size), os.urandom(4), icv, esn)


def test_draft_mcgrew_case_1_is_sealed_bit_by_bit():
    sa = esp.Sa(CASE_1_SPI, CASE_1_KEY, CASE_1_SALT, esn=True)
    sealed = sa.seal_plaintext(CASE_1_SEQUENCE, CASE_1_PLAINTEXT, CASE_1_IV)
    assert sealed == struct.pack("!II", CASE_1_SPI, 0) + CASE_1_IV + CASE_1_SEALED


def test_draft_mcgrew_case_1_is_opened():
    sa = esp.Sa(CASE_1_SPI, CASE_1_KEY, CASE_1_SALT, esn=True)
    packet = struct.pack("!II", CASE_1_SPI, 0) + CASE_1_IV + CASE_1_SEALED
    opened = sa.open(packet, sequence_high=0x87654321)
    assert (opened.sequence, opened.payload) == (CASE_1_SEQUENCE, CASE_1_PLAINTEXT[:-4])
    assert (opened.padding, opened.next_header) == (b"\x01\x02", 1)


@pytest.mark.parametrize("key_size", KEY_SIZES)
@pytest.mark.parametrize("icv", ICV_SIZES)
@pytest.mark.parametrize("esn", (False, True))
def test_every_payload_length_survives_seal_and_open(key_size, icv, esn):
    sa = some_sa(key_size, icv, esn)
    for length in (*range(0, 70), 576, 1400, 9000):
        payload = os.urandom(length)
        sequence = 0x5_0000_0007 if esn else 7
        packet = sa.seal(sequence, payload, 47)
        assert (len(packet) - icv) % 4 == 0
        opened = sa.open(packet, sequence >> 32)
        assert (opened.payload, opened.next_header, opened.sequence) == (payload, 47, sequence)
        assert len(opened.padding) < 4


@pytest.mark.parametrize("icv", ICV_SIZES)
def test_a_short_icv_is_the_beginning_of_the_long_one(icv):
    sa = some_sa(16, icv)
    plaintext = bytes(range(64))
    packet = sa.seal_plaintext(9, plaintext)
    key, salt = sa.key_material[:-4], sa.key_material[-4:]
    whole = AESGCM(key).encrypt(salt + struct.pack("!Q", 9), plaintext, struct.pack("!II", sa.spi, 9))
    assert packet[16:] == whole[:len(plaintext) + icv]


@pytest.mark.parametrize("key_size", KEY_SIZES)
@pytest.mark.parametrize("esn", (False, True))
def test_scapy_opens_what_we_seal_and_we_open_what_scapy_seals(key_size, esn):
    sa = some_sa(key_size, 16, esn)
    high = 3 if esn else 0
    scapy_sa = SecurityAssociation(ESP, spi=sa.spi, crypt_algo="AES-GCM", crypt_key=sa.key_material,
                                   esn_en=esn, esn=high)
    clear = IP(src="192.0.2.1", dst="198.51.100.7", id=5) / UDP(sport=1, dport=2) / b"headend"
    clear = IP(bytes(clear))

    ours = sa.seal(high << 32 | 11, bytes(clear[UDP]), 17)
    wrapped = IP(bytes(IP(src=clear.src, dst=clear.dst, proto=50) / ours))
    assert bytes(scapy_sa.decrypt(wrapped)[UDP]) == bytes(clear[UDP])

    theirs = scapy_sa.encrypt(clear.copy(), seq_num=12, iv=struct.pack("!Q", 12))
    opened = sa.open(bytes(theirs[ESP]), high)
    assert (opened.payload, opened.next_header, opened.sequence) == (bytes(clear[UDP]), 17, high << 32 | 12)


@pytest.mark.parametrize("icv", ICV_SIZES)
def test_any_flipped_bit_is_refused(icv):
    sa = some_sa(16, icv)
    packet = sa.seal(1, b"payload", 47)
    for bit in range(len(packet) * 8):
        wrong = bytearray(packet)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(esp.EspError):
            sa.open(bytes(wrong))


def test_every_truncation_is_refused():
    sa = some_sa()
    packet = sa.seal(1, b"payload", 47)
    for length in range(len(packet)):
        with pytest.raises(esp.EspError):
            sa.open(packet[:length])


def test_another_key_salt_or_sequence_half_is_refused():
    sa = some_sa(esn=True)
    packet = sa.seal(5 << 32 | 1, b"payload", 47)
    key, salt = sa.key_material[:-4], sa.key_material[-4:]
    others = (esp.Sa(sa.spi, os.urandom(16), salt, esn=True), esp.Sa(sa.spi, key, b"\0" * 4, esn=True),
              esp.Sa(sa.spi, key, salt))
    assert sa.open(packet, 5).sequence == 5 << 32 | 1
    for other, high in ((sa, 4), (sa, 6), (others[0], 5), (others[1], 5), (others[2], 5)):
        with pytest.raises(esp.EspError, match="ICV"):
            other.open(packet, high)


@pytest.mark.parametrize("plaintext, reason", (
    (b"payload" + bytes([1, 2, 3, 200, 47]), "beyond"),
    (b"payload" + bytes([1, 2, 4, 3, 47]), "padding"),
    (b"payloadp" + bytes([0, 0, 2, 47]), "padding"),
    (b"payload", "aligned"),
))
def test_a_trailer_that_is_wrong_under_a_right_icv_is_refused(plaintext, reason):
    sa = some_sa()
    with pytest.raises(esp.EspError, match=reason):
        sa.open(sa.seal_plaintext(1, plaintext))


def test_sequence_number_zero_is_refused_but_a_zero_low_half_of_an_esn_is_legal():
    plain, extended = some_sa(), some_sa(esn=True)
    with pytest.raises(esp.EspError, match="sequence number 0"):
        plain.open(plain.seal(0, b"x", 47))
    assert extended.open(extended.seal(1 << 32, b"x", 47), 1).sequence == 1 << 32


def test_extra_padding_is_counted_and_checked():
    sa = some_sa()
    opened = sa.open(sa.seal(1, b"ab", 47, extra_padding=200))
    assert (opened.payload, len(opened.padding)) == (b"ab", 200)


def test_the_upper_half_of_an_esn_is_inferred_as_in_appendix_a():
    window = 64
    for top in (100, 2**32 - 5, 2**32 + 3, 5 * 2**32 + 10, 7 * 2**32 + 2**31):
        for sequence in range(max(1, top - window + 1), top + 200):
            assert esp.infer_sequence_high(top, window, sequence & 0xFFFFFFFF) == sequence >> 32


def test_keys_never_show_in_text():
    sa = some_sa()
    assert sa.key_material.hex() not in repr(sa) and repr(sa.key_material) not in repr(sa)
