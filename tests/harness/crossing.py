# SPDX-License-Identifier: Apache-2.0
"""Packets through one configuration of a `Scene`, both ways, each judged to the last octet.

    outbound   a host's packet goes in at the site; what is on the wide wire is taken apart by Scapy and the judges
    inbound    the peer, made of Scapy and the judges, seals; what comes out at the site is compared

A `Crossing` is one of the four configurations: GRE or not, ESP or not, in either mode, with one or two pairs of
addresses, and all their options.
"""

import dataclasses
import warnings

from harness import esp, gre, judge
from harness.scene import LAN, WAN, host_prefix, network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

PROTOCOL_GRE, PROTOCOL_ESP = 47, 50
NEXT_HEADER = {4: esp.NEXT_HEADER_IPV4, 6: esp.NEXT_HEADER_IPV6}
ALGORITHMS = {16: "ENCR_AES_GCM_16", 12: "ENCR_AES_GCM_12", 8: "ENCR_AES_GCM_8"}
SHORTEST_FRAME = 60


@dataclasses.dataclass(frozen=True)
class Header:
    """What is configured of a header that the headend puts in front: `tos` and `df` as in `[[tunnel]]`."""

    tos: str | int = "copy"
    df: str = "copy"
    ttl: int = 64

    def tos_for(self, inside):
        """The ToS byte for a packet inside with this one: DSCP by configuration, ECN copied (RFC 6040 §4.1)."""
        return inside if self.tos == "copy" else self.tos << 2 | inside & 3

    def df_for(self, inside):
        """DF for a packet inside."""
        return inside if self.df == "copy" else self.df == "set"


@dataclasses.dataclass(frozen=True)
class Gre:
    """GRE and its delivery header."""

    key: int | None = None
    checksum: bool = False
    sequence: bool = False
    header: Header = Header()
    #: Delivery addresses other than those of ESP: the dual-tier headend.
    own_addresses: bool = False


@dataclasses.dataclass(frozen=True)
class Esp:
    """ESP: mode, algorithm, and in tunnel mode its header."""

    mode: str = "transport"
    key_octets: int = 16
    icv: int = 16
    esn: bool = False
    header: Header = Header()


class Crossing:
    """One configuration, applied, with the peer that belongs to it."""

    def __init__(self, scene, gre_options=None, esp_options=None):
        self.scene = scene
        self.plan = scene.plan
        self.gre = gre_options
        self.esp = esp_options
        plan = self.plan
        own = gre_options is not None and gre_options.own_addresses
        self.gre_ends = (plan.our_gre4, plan.peer_gre4) if own else (plan.our_wan4, plan.peer4)
        self.esp_ends = (plan.our_wan4, plan.peer4)
        self.sealer = self.opener = self.scapy_sealer = self.scapy_opener = None
        self.sequence = 0
        self.gre_sequence = 0
        self.sent_outbound = 0
        self.config = self._config()
        # By way of nothing, so that the tunnel is a new one: counters and GRE sequence numbers begin at 0.
        scene.apply(scene.base())
        scene.apply(self.config)
        self.drops_before = scene.drops()

    def both_ways(self, family):
        """Sends an assortment of this family's packets each way and judges them, and the counters after."""
        site, remote, rng = self.plan.site(family), self.plan.remote(family), self.scene.rng
        outbound, inbound = list(assortment(site, remote, rng)), list(assortment(remote, site, rng))
        self.outbound(outbound)
        self.inbound(inbound)
        self.check_counters(len(outbound), len(inbound))

    # Outbound

    def outbound(self, packets):
        """Sends packets at the site, one after the other, and judges what each has become."""
        identifications = set()
        for packet in packets:
            frame = self.send_at_site(packet)
            inner, atomic, identification = self.take_apart(frame)
            assert inner == judge.forwarded(packet), f"{inner.hex()} is not {packet.hex()} one hop on"
            if not atomic:
                assert identification not in identifications, "RFC 6864 §4.1: the identification is not unique"
                identifications.add(identification)

    def send_at_site(self, packet):
        """Sends a packet to the gateway; the next frame on the wide wire."""
        self.scene.site.send(self.frame_from_site(packet))
        frame = self.scene.wide.receive(what="the packet in its tunnel")
        assert frame[:6] == mac_bytes(self.scene.wide.mac) and frame[6:12] == mac_bytes(self.scene.macs[WAN])
        return frame

    def take_apart(self, frame):
        """Judges every header of a frame that the headend made.

        Returns the packet inside, and of the outermost header whether it is atomic, and its identification.
        """
        packet = judge.network_packet(frame)
        assert len(frame) == 14 + len(packet), "octets behind the IP packet"
        inner, headers = self._open(packet)
        self._check_headers(headers, inner)
        outermost = headers[0][0]
        return inner, judge.df_of(outermost), IP(outermost).id

    def _open(self, packet):
        """The packet inside; and outermost first each header's packet with what is configured of it."""
        headers = []
        if self.esp:
            header = self.gre.header if self.esp.mode == "transport" else self.esp.header
            headers.append((packet, self.esp_ends, PROTOCOL_ESP, header))
            opened = self._open_esp(packet)
            if self.gre is None:
                assert opened.next_header == NEXT_HEADER[opened.payload[0] >> 4]
                return opened.payload, headers
            if self.esp.mode == "transport":
                assert opened.next_header == esp.NEXT_HEADER_GRE
                return self._open_gre(opened.payload), headers
            assert opened.next_header == esp.NEXT_HEADER_IPV4
            packet = opened.payload
        headers.append((packet, self.gre_ends, PROTOCOL_GRE, self.gre.header))
        return self._open_gre(packet[20:]), headers

    def _check_headers(self, headers, inner):
        """Innermost first: what is copied is copied from the header that follows (RFC 4301 §5.1.2)."""
        tos, df = judge.tos_of(inner), judge.df_of(inner)
        for packet, (source, destination), protocol, header in reversed(headers):
            tos, df = header.tos_for(tos), header.df_for(df)
            judge.check_outer4(packet, source, destination, protocol, header.ttl, tos, df)

    def _open_esp(self, packet):
        self.sent_outbound += 1
        opened = self.opener.open(packet[20:], self.sent_outbound >> 32)
        assert opened.sequence == self.sent_outbound, "RFC 4303 §3.3.3"
        assert len(opened.padding) == -(len(opened.payload) + 2) % 4, "RFC 4303 §2.4: more padding than needed"
        assert opened.iv not in self.ivs, "RFC 4106 §3.1: an IV twice"
        self.ivs.add(opened.iv)
        if self.scapy_opener:
            again = self.scapy_opener.open(packet, self.sent_outbound >> 32)
            assert (again if self.esp.mode == "tunnel" else again[20:]) == opened.payload, "Scapy sees another payload"
        return opened

    def _open_gre(self, packet):
        parsed = gre.parse(packet)
        assert parsed.key == self.gre.key
        assert (parsed.checksum is not None) == self.gre.checksum
        expected = self.gre_sequence if self.gre.sequence else None
        assert parsed.sequence == expected, "RFC 2890 §2.2"
        self.gre_sequence += 1
        kind = {4: gre.PROTOCOL_IPV4, 6: gre.PROTOCOL_IPV6}[parsed.payload[0] >> 4]
        assert parsed.protocol_type == kind
        return parsed.payload

    # Inbound

    def inbound(self, packets):
        """Sends packets from behind the peer, one after the other, and judges what arrives at the site."""
        for number, packet in enumerate(packets):
            outer_tos = judge.tos_of(packet)
            self.scene.wide.send(self.seal(packet, outer_tos, by_scapy=number % 2 == 1))
            self.expect_at_site(packet, outer_tos)

    def expect_at_site(self, packet, outer_tos):
        """The next frame at the site is this packet, one hop on, out of a tunnel with this outer ToS byte."""
        frame = self.scene.site.receive(what="the packet out of its tunnel")
        assert frame[:6] == mac_bytes(self.scene.site.mac) and frame[6:12] == mac_bytes(self.scene.macs[LAN])
        arrived = judge.network_packet(frame)
        expected = judge.forwarded(judge.left(packet, outer_tos))
        assert arrived == expected, f"{arrived.hex()} is not {expected.hex()}"

    def seal(self, packet, outer_tos=0, by_scapy=False, sequence=None, **how):
        """A frame from the peer with this packet inside; `how` goes to `esp.Sa.seal`."""
        if self.gre is not None:
            number = self.gre_sequence_in if self.gre.sequence else None
            self.gre_sequence_in += 1
            packet = gre.build(packet, key=self.gre.key, checksum=self.gre.checksum, sequence=number)
        if self.esp is None:
            outer = self._outer(self.gre_ends, PROTOCOL_GRE, outer_tos, packet)
        else:
            self.sequence = self.sequence + 1 if sequence is None else sequence
            outer = self._seal_esp(packet, outer_tos, by_scapy and not how, how)
        return self.bare_frame_from_peer(outer)

    def _seal_esp(self, payload, outer_tos, by_scapy, how):
        next_header = esp.NEXT_HEADER_GRE
        if self.gre is None:
            next_header = NEXT_HEADER[payload[0] >> 4]
        elif self.esp.mode == "tunnel":
            payload = self._outer(self.gre_ends, PROTOCOL_GRE, outer_tos, payload)
            next_header = esp.NEXT_HEADER_IPV4
        if by_scapy and self.scapy_sealer:
            iv = self.scene.rng.randbytes(8)
            whole = payload if self.esp.mode == "tunnel" else self._outer(self.gre_ends, PROTOCOL_GRE, 0, payload)
            sealed = self.scapy_sealer.seal(whole, self.sequence, iv)[20:]
        else:
            sealed = self.sealer.seal(self.sequence, payload, next_header, **how)
        return self._outer(self.esp_ends, PROTOCOL_ESP, outer_tos, sealed)

    def frame_from_peer(self, octets, tos=0):
        """A frame with a whole ESP packet of the caller's, or without ESP a GRE packet."""
        ends, protocol = (self.esp_ends, PROTOCOL_ESP) if self.esp else (self.gre_ends, PROTOCOL_GRE)
        return self.bare_frame_from_peer(self._outer(ends, protocol, tos, octets))

    def gre_packet(self, packet):
        """The delivery packet around a packet, without ESP."""
        number = self.gre_sequence_in if self.gre.sequence else None
        self.gre_sequence_in += 1
        octets = gre.build(packet, key=self.gre.key, checksum=self.gre.checksum, sequence=number)
        return self._outer(self.gre_ends, PROTOCOL_GRE, judge.tos_of(packet), octets)

    @staticmethod
    def marked(frame, ecn):
        """The frame with this ECN in its outermost header: what a congested router does."""
        packet = IP(judge.network_packet(frame))
        packet.tos = packet.tos & 0xFC | ecn
        del packet.chksum
        return frame[:14] + bytes(packet)

    def bare_frame_from_peer(self, packet):
        """A frame on the wide wire with this IP packet."""
        return self._frame(self.scene.macs[WAN], self.scene.wide.mac, packet)

    def frame_from_site(self, packet):
        """A frame at the site with this IP packet."""
        return self._frame(self.scene.macs[LAN], self.scene.site.mac, packet)

    @staticmethod
    def _outer(ends, protocol, tos, payload):
        ours, theirs = ends
        return bytes(IP(src=theirs, dst=ours, proto=protocol, tos=tos, ttl=63, id=0x4711) / Raw(payload))

    @staticmethod
    def _frame(destination, source, packet):
        """A frame as a network card would send it: short ones filled up, with octets that are not zero."""
        kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
        frame = bytes(Ether(dst=destination, src=source, type=kind)) + packet
        return frame + b"\xa5" * (SHORTEST_FRAME - len(frame))

    # Counters

    def check_counters(self, outbound, inbound, drops=()):
        """What `sa list`, `tunnel list` and `drops` say after so many packets each way."""
        self.scene.drops_since(self.drops_before, dict(drops))
        headend = self.scene.headend
        if self.gre is not None:
            headend.wait_cli("tunnel", "list", what="the tunnel's counters", timeout=20.0, condition=lambda rows:
                             [(row["packets_out"], row["packets_in"]) for row in rows] == [(outbound, inbound)])
        if self.esp is not None:
            rows = {row["direction"]: row for row in headend.cli("sa", "list")}
            assert set(rows) == {"inbound", "outbound"} and all(row["installed"] for row in rows.values())
            assert (rows["outbound"]["spi"], rows["inbound"]["spi"]) == (self.opener.spi, self.sealer.spi)
            assert (rows["outbound"]["packets"], rows["inbound"]["packets"]) == (outbound, inbound)
            assert rows["outbound"]["next_sequence"] == outbound + 1
            assert rows["inbound"]["right_edge"] == self.sequence

    # Configuration

    def _config(self):
        config, plan = self.scene.base(), self.plan
        self.ivs, self.gre_sequence_in = set(), 0
        if self.esp is not None:
            self._add_esp(config)
        if self.gre is not None:
            self._add_gre(config)
            return config
        for family, length in ((4, 24), (6, 64)):
            via = plan.peer4 if family == 4 else plan.peer6
            config["route"].append({"prefix": network(plan.remote(family), length), "port": WAN, "via": via})
            config["policy"].append({
                "name": f"protect-{family}", "port": WAN, "local": network(plan.site(family), length),
                "remote": network(plan.remote(family), length), "action": "protect", "protection": "branch"})
        return config

    def _add_esp(self, config):
        options = self.esp
        config["manual_keying"] = "lab"
        ours, theirs = self.esp_ends
        in_tunnel_mode = vars(options.header) if options.mode == "tunnel" else {}
        config["protection"].append(
            {"name": "branch", "mode": options.mode, "local": ours, "remote": theirs, **in_tunnel_mode})
        material = {}
        for direction in ("outbound", "inbound"):
            fields = {"algorithm": ALGORITHMS[options.icv], "esn": options.esn}
            entry, material[direction] = self.scene.new_sa("branch", direction, options.key_octets, **fields)
            config["sa"].append(entry)
            peer = esp.Sa.from_key_material(entry["spi"], material[direction], options.icv, options.esn)
            tunnel = (theirs, ours) if options.mode == "tunnel" else None
            scapy = judge.ScapySa(entry["spi"], material[direction], options.esn, tunnel) if options.icv == 16 else None
            if direction == "outbound":
                self.opener, self.scapy_opener = peer, scapy
            else:
                self.sealer, self.scapy_sealer = peer, scapy

    def _add_gre(self, config):
        options, plan = self.gre, self.plan
        ours, theirs = self.gre_ends
        if options.own_addresses:
            config["loopbacks"] = [host_prefix(ours)]
        config["tunnel"].append({
            "name": "branch", "source": ours, "destination": theirs, "key": options.key, "checksum": options.checksum,
            "sequence": options.sequence, "protection": "branch" if self.esp else None, **vars(options.header)})
        for family, length in ((4, 24), (6, 64)):
            config["route"].append({"prefix": network(plan.remote(family), length), "tunnel": "branch"})
        if self.esp is None:
            config["policy"].append({
                "name": "gre-in-clear", "port": WAN, "local": host_prefix(ours), "remote": host_prefix(theirs),
                "protocol": "gre", "action": "bypass"})


def mac_bytes(text):
    """An Ethernet address as octets."""
    return bytes.fromhex(text.replace(":", ""))


def udp(source, destination, data, tos=0, ttl=64, df=False, identification=1):
    """A UDP packet over IPv4 or IPv6, by Scapy; DF and identification only where there are such."""
    upper = UDP(sport=4_000, dport=5_000) / Raw(data)
    if ":" in source:
        return bytes(IPv6(src=source, dst=destination, tc=tos, hlim=ttl) / upper)
    flags = "DF" if df else 0
    return bytes(IP(src=source, dst=destination, tos=tos, ttl=ttl, flags=flags, id=identification) / upper)


def assortment(source, destination, rng):
    """Packets of all lengths modulo 4, with several DSCPs, each ECN, with and without DF, large and small TTLs."""
    plain = [(0x00, 64, False), (0xb8, 2, True), (0x28, 255, False), (0x22, 64, True), (0x61, 17, False)]
    for number, (tos, ttl, df) in enumerate([*plain, (0x03, 64, False), (0xfc, 64, True)]):
        length = rng.randrange(0, 300) // 4 * 4 + number % 4
        yield udp(source, destination, rng.randbytes(length), tos, ttl, df, rng.randrange(1 << 16))
    yield udp(source, destination, b"", identification=rng.randrange(1 << 16))
    yield udp(source, destination, rng.randbytes(1_300), df=True)
