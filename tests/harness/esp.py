# SPDX-License-Identifier: Apache-2.0
"""ESP with AES-GCM, written from RFC 4303 and RFC 4106 alone, to judge packets that Greyhound made.

Padding is checked, ESN is part of the AAD, ICVs of 8, 12 and 16 octets are right. There is no replay window in
here: a test says which sequence numbers it expects.

    RFC 4303 §2                                       RFC 4106
    |        Security Parameters Index (SPI)      |   nonce = salt (4) | IV (8)             §4
    |            Sequence Number (low 32)         |   AAD   = SPI | sequence number (8)     §5
    |    IV (8)  |  payload  |  padding (1,2,3…)  |         = SPI | ESN (12)
    |            | pad length | next header | ICV |   key material = key | salt             §8.1
"""

import dataclasses
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_SIZES = (16, 24, 32)
ICV_SIZES = (8, 12, 16)
SALT_SIZE = 4
IV_SIZE = 8
HEADER_SIZE = 8

NEXT_HEADER_IPV4 = 4
NEXT_HEADER_IPV6 = 41
NEXT_HEADER_GRE = 47
NEXT_HEADER_DUMMY = 59


class EspError(Exception):
    """A packet that an RFC 4303 receiver must refuse; the text says why."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """What a receiver finds in a packet."""

    spi: int
    #: The whole sequence number: 64 bits with ESN, else 32.
    sequence: int
    iv: bytes
    next_header: int
    payload: bytes
    padding: bytes


class Sa:
    """One unidirectional SA."""

    def __init__(self, spi, key, salt, icv=16, esn=False):
        if len(key) not in KEY_SIZES:
            raise ValueError(f"key of {len(key)} octets: RFC 4106 §8.1 has 16, 24 and 32")
        if len(salt) != SALT_SIZE:
            raise ValueError(f"salt of {len(salt)} octets: RFC 4106 §4 has 4")
        if icv not in ICV_SIZES:
            raise ValueError(f"ICV of {icv} octets: RFC 4106 §6 has 8, 12 and 16")
        self.spi = spi
        self.icv = icv
        self.esn = esn
        self._key = bytes(key)
        self._salt = bytes(salt)

    def __repr__(self):
        return f"Sa(spi=0x{self.spi:08x}, AES-{len(self._key) * 8}-GCM-{self.icv}, esn={self.esn})"

    @classmethod
    def from_key_material(cls, spi, key_material, icv=16, esn=False):
        """`key_material` is key ‖ salt (RFC 4106 §8.1), as bytes or hex."""
        raw = bytes.fromhex(key_material) if isinstance(key_material, str) else bytes(key_material)
        return cls(spi, raw[:-SALT_SIZE], raw[-SALT_SIZE:], icv, esn)

    @property
    def key_material(self):
        """key ‖ salt."""
        return self._key + self._salt

    def seal(self, sequence, payload, next_header, iv=None, extra_padding=0):
        """A whole ESP packet, SPI to ICV. `iv` is the sequence number unless given; `extra_padding` a multiple of 4."""
        payload = bytes(payload)
        pad_length = -(len(payload) + 2) % 4 + extra_padding
        trailer = bytes(range(1, pad_length + 1)) + bytes([pad_length, next_header])
        return self.seal_plaintext(sequence, payload + trailer, iv)

    def seal_plaintext(self, sequence, plaintext, iv=None):
        """As `seal`, but the trailer is the caller's: packets with a valid ICV that are wrong inside."""
        iv = struct.pack("!Q", sequence) if iv is None else bytes(iv)
        encryptor = Cipher(algorithms.AES(self._key), modes.GCM(self._salt + iv)).encryptor()
        encryptor.authenticate_additional_data(self._aad(sequence))
        sealed = encryptor.update(bytes(plaintext)) + encryptor.finalize()
        return struct.pack("!II", self.spi, sequence & 0xFFFFFFFF) + iv + sealed + encryptor.tag[:self.icv]

    def open(self, packet, sequence_high=0):
        """Opens a whole ESP packet (SPI to ICV). `sequence_high` is the upper half of an ESN, which is not sent."""
        packet = bytes(packet)
        smallest = HEADER_SIZE + IV_SIZE + 4 + self.icv
        if len(packet) < smallest:
            raise EspError(f"{len(packet)} octets: an ESP packet has at least {smallest}")
        if len(packet) - self.icv & 3:
            raise EspError("RFC 4303 §2.4: pad length and next header are not right-aligned in a 4-octet word")
        spi, low = struct.unpack_from("!II", packet)
        if spi != self.spi:
            raise EspError(f"SPI 0x{spi:08x}: this SA has 0x{self.spi:08x}")
        sequence = (sequence_high << 32 | low) if self.esn else low
        if sequence == 0:
            raise EspError("RFC 4303 §2.2: sequence number 0 is never sent")
        iv = packet[HEADER_SIZE:HEADER_SIZE + IV_SIZE]
        plaintext = self._decrypt(packet, sequence, iv)
        payload, padding, next_header = split_trailer(plaintext)
        return Opened(spi, sequence, iv, next_header, payload, padding)

    def _decrypt(self, packet, sequence, iv):
        tag = packet[-self.icv:]
        decryptor = Cipher(
            algorithms.AES(self._key), modes.GCM(self._salt + iv, tag, min_tag_length=self.icv)
        ).decryptor()
        decryptor.authenticate_additional_data(self._aad(sequence))
        opened = decryptor.update(packet[HEADER_SIZE + IV_SIZE:-self.icv])
        try:
            return opened + decryptor.finalize()
        except InvalidTag:
            raise EspError("the ICV does not verify") from None

    def _aad(self, sequence):
        if self.esn:
            return struct.pack("!IQ", self.spi, sequence)
        return struct.pack("!II", self.spi, sequence)


def split_trailer(plaintext):
    """Payload, padding and next header of a decrypted ESP packet; RFC 4303 §2.4 padding is checked."""
    pad_length, next_header = plaintext[-2], plaintext[-1]
    if pad_length + 2 > len(plaintext):
        raise EspError(f"pad length {pad_length} reaches beyond the payload")
    end = len(plaintext) - 2 - pad_length
    padding = plaintext[end:-2]
    if padding != bytes(range(1, pad_length + 1)):
        raise EspError(f"RFC 4303 §2.4: padding {padding.hex()} is not 1, 2, 3, …")
    return plaintext[:end], padding, next_header


def infer_sequence_high(top, window, low):
    """The upper half of an ESN from the highest sequence number accepted so far (RFC 4303 App. A2.2)."""
    top_high, top_low = top >> 32, top & 0xFFFFFFFF
    if top_low >= window - 1:
        return top_high if low >= top_low - window + 1 else top_high + 1
    # Case B: the window spans two subspaces of 2^32 sequence numbers.
    return top_high - 1 if low >= (top_low - window + 1) & 0xFFFFFFFF else top_high


def spi_of(packet):
    """The SPI of an ESP packet."""
    return struct.unpack_from("!I", packet)[0]


def sequence_of(packet):
    """The 32 bits of sequence number that an ESP packet carries."""
    return struct.unpack_from("!I", packet, 4)[0]


def iv_of(packet):
    """The IV of an ESP packet with AES-GCM."""
    return packet[HEADER_SIZE:HEADER_SIZE + IV_SIZE]
