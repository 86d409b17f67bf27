#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Make the golden captures: packets that a stock Linux kernel sealed, with all that is needed to open them.

Boots one guest. In it, two network namespaces, a and b, joined by a veth pair,
are the two ends of a tunnel; pings of many shapes go both ways. What leaves a
and b is captured twice, in clear on the tunnel's own device and sealed on the
wire, and packet n of one is packet n of the other. Linux itself opened every
packet too: a ping unanswered or an XFRM error fails the run.
"""

import argparse
import dataclasses
import json
import random
import shutil
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import cleanup, pcap  # noqa: E402: found through the line above
from linuxpeer import Gre, LinuxPeer, SecurityAssociation, Tunnel, ip, prepare  # noqa: E402

GOLDEN = Path(__file__).with_name("golden")
SEED = 4303
ENDS = ("a", "b")
WIRE = {4: ("10.77.0.1", "10.77.0.2"), 6: ("2001:db8:77::1", "2001:db8:77::2")}
DUAL_TIER = ("10.78.1.1", "10.78.2.1")
INNER = {4: ("172.31.0.1", "172.31.0.2"), 6: ("fd00:31::1", "fd00:31::2")}
TOS_VALUES = (0x00, 0xB8, 0x28, 0x02, 0x01, 0x03, 0x88)
TWO_TO_32 = 1 << 32
# Link types that tcpdump may give a tunnel's device, and the length of what stands before the IP packet:
# raw IP, and Linux's two kinds of cooked header.
CLEAR_LINK_TYPES = {101: 0, 113: 16, 276: 20}
PCAP_MICROSECONDS = 0xA1B2C3D4


@dataclass(frozen=True)
class Variant:
    """One capture: what differs from GRE without options in ESP transport mode, AES-128-GCM, ICV 16, over IPv4."""

    name: str
    about: str
    gre: Gre | None = Gre()
    mode: str | None = "transport"
    key_octets: int = 16
    icv_octets: int = 16
    esn: bool = False
    first_sequence_numbers: tuple[int, int] = (1, 1)
    delivery_family: int = 4
    payload_family: int = 4
    dual_tier: bool = False
    large: bool = False


VARIANTS = (
    Variant("transport", "GRE in ESP transport mode, AES-128-GCM; small and large packets", large=True),
    Variant("transport-aes-192", "AES-192-GCM", key_octets=24),
    Variant("transport-aes-256", "AES-256-GCM", key_octets=32),
    Variant("transport-icv-12", "ICV of 12 octets", icv_octets=12),
    Variant("transport-icv-8", "ICV of 8 octets", icv_octets=8),
    Variant("transport-inherit", "ToS, TTL and DF of the delivery header copied from the payload",
            gre=Gre(ttl=None, tos=None, copy_df=True)),
    Variant("transport-fixed-tos", "ToS of the delivery header fixed", gre=Gre(tos=0x68, ttl=200)),
    Variant("transport-ipv6-payload", "IPv6 payload over IPv4 delivery", payload_family=6),
    Variant("transport-esn", "ESN", esn=True),
    Variant("transport-esn-wrap", "ESN across 2^32: low words 0xffffffff, 0, 1",
            esn=True, first_sequence_numbers=(TWO_TO_32 - 4, 6 * TWO_TO_32 - 3)),
    Variant("gre-key", "GRE with a key", gre=Gre(key=0xC0FFEE42)),
    Variant("gre-key-zero", "GRE with key 0, which is not the same as no key", gre=Gre(key=0)),
    Variant("gre-checksum", "GRE with a checksum", gre=Gre(checksum=True)),
    Variant("gre-sequence", "GRE with sequence numbers", gre=Gre(sequence=True)),
    Variant("gre-all-esn-aes-256", "GRE with checksum, key and sequence; ESN; AES-256-GCM",
            gre=Gre(key=42, checksum=True, sequence=True), key_octets=32, esn=True),
    Variant("tunnel", "GRE in ESP tunnel mode, both with the same addresses", mode="tunnel", large=True),
    Variant("tunnel-inherit", "tunnel mode; ToS, TTL and DF copied by GRE and by ESP",
            mode="tunnel", gre=Gre(ttl=None, tos=None, copy_df=True)),
    Variant("tunnel-dual-tier", "GRE in ESP tunnel mode with addresses of its own, GRE key, ESN",
            mode="tunnel", gre=Gre(key=7), esn=True, dual_tier=True),
    Variant("ipv6-delivery", "IPv6 delivery; a Destination Options header stands before ESP", delivery_family=6),
    Variant("ipv6-delivery-no-limit", "IPv6 delivery without the tunnel encapsulation limit, IPv6 payload",
            delivery_family=6, payload_family=6, gre=Gre(encap_limit=False)),
    Variant("ipv6-delivery-tunnel", "IPv6 delivery, ESP tunnel mode; Destination Options inside ESP",
            delivery_family=6, mode="tunnel"),
    Variant("esp-tunnel", "ESP tunnel mode alone, IPv4 in IPv4", gre=None, mode="tunnel"),
    Variant("esp-tunnel-ipv6-payload", "ESP tunnel mode alone, IPv6 in IPv4", gre=None, mode="tunnel",
            payload_family=6),
    Variant("gre-alone", "GRE without ESP", mode=None),
    Variant("gre-alone-all", "GRE with checksum, key and sequence, without ESP",
            gre=Gre(key=99, checksum=True, sequence=True), mode=None),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="variants to make; all if none is named")
    parser.add_argument("--output", type=Path, default=GOLDEN, help="folder for NAME.pcap and NAME.json")
    parser.add_argument("--cache", type=Path, help="folder to keep the kernel and initial ram disk in")
    parser.add_argument("--list", action="store_true", help="list the variants and stop")
    arguments = parser.parse_args()
    if arguments.list:
        for variant in VARIANTS:
            print(f"{variant.name:26} {variant.about}")
        return 0
    unknown = set(arguments.names) - {variant.name for variant in VARIANTS}
    if unknown:
        parser.error(f"no such variant: {', '.join(sorted(unknown))}; --list names them")
    arguments.output.mkdir(parents=True, exist_ok=True)
    with LinuxPeer(prepare(arguments.cache or temporary_folder()), "goldens") as guest:
        print(f"guest up after {guest.boot_seconds:.1f} s", flush=True)
        made_with = describe(guest)
        guest.run(WIRE_SCRIPT)
        for variant in VARIANTS:
            if not arguments.names or variant.name in arguments.names:
                started = time.monotonic()
                count = make(guest, variant, made_with, arguments.output)
                print(f"{variant.name}: {count} packets, {time.monotonic() - started:.1f} s", flush=True)
    return 0


def temporary_folder() -> Path:
    """A folder that goes when this program ends, by a signal too."""
    folder = Path(tempfile.mkdtemp(prefix="linux-peer-image-"))
    cleanup.register(lambda: shutil.rmtree(folder), f"folder {folder}")
    return folder


WIRE_SCRIPT = f"""set -e
ip netns add a; ip netns add b
ip link add wire netns a address 52:54:00:00:77:01 type veth peer name wire netns b address 52:54:00:00:77:02
for end in a b; do
    ip netns exec $end sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \\
        net.ipv6.conf.all.router_solicitations=0 net.ipv6.conf.default.router_solicitations=0
    ip -n $end link set lo up
    ip -n $end link set wire addrgenmode none
    ip netns exec $end ethtool -K wire tx off tso off gso off gro off >/dev/null
    ip -n $end link set wire up
done
ip -n a addr add {WIRE[4][0]}/24 dev wire; ip -n b addr add {WIRE[4][1]}/24 dev wire
ip -n a addr add {WIRE[6][0]}/64 dev wire nodad; ip -n b addr add {WIRE[6][1]}/64 dev wire nodad
ip -n a addr add {DUAL_TIER[0]}/32 dev lo; ip -n b addr add {DUAL_TIER[1]}/32 dev lo
ip -n a route add {DUAL_TIER[1]} via {WIRE[4][1]} src {DUAL_TIER[0]}
ip -n b route add {DUAL_TIER[0]} via {WIRE[4][0]} src {DUAL_TIER[1]}
ip netns exec a ping -q -c 1 -W 20 {WIRE[4][1]}; ip netns exec a ping -q -c 1 -W 20 {WIRE[6][1]}
"""


def describe(guest: LinuxPeer) -> dict:
    """The versions behind a capture; they go into every sidecar."""
    kernel = guest.run("uname -v").output.split("Debian ")[1].split()[0]
    iproute = guest.run("ip -V").output.strip().rpartition("iproute2-")[2]
    return {"kernel": f"{guest.image.kernel_release} {kernel}", "iproute2": iproute, "seed": SEED}


def make(guest: LinuxPeer, variant: Variant, made_with: dict, output: Path) -> int:
    """Make one capture and its sidecar; returns the number of packets."""
    dice = random.Random(f"{SEED} {variant.name}")
    tunnels = tunnel_ends(variant, dice)
    for end, tunnel in zip(ENDS, tunnels):
        in_end(guest, end, tunnel.up_script())
    try:
        clear, wire = exchange(guest, variant, tunnels[0].device, dice)
    finally:
        for end, tunnel in zip(ENDS, tunnels):
            in_end(guest, end, tunnel.down_script())
    merged = sorted(
        ((frame.time_ns, index, frame, inner)
         for index in range(2) for frame, inner in zip(wire[index], clear[index], strict=True)),
        key=lambda entry: entry[:2],
    )
    start = merged[0][0]
    frames = [pcap.Record(time_ns - start, record.frame) for time_ns, _, record, _ in merged]
    pcap.write(output / f"{variant.name}.pcap", frames)
    listed = [
        {"frame": number, "direction": index, "inner": inner.hex()}
        for number, (_, index, _, inner) in enumerate(merged)
    ]
    write_sidecar(output / f"{variant.name}.json", sidecar(variant, tunnels, made_with), listed)
    return len(frames)


def tunnel_ends(variant: Variant, dice: random.Random) -> tuple[Tunnel, Tunnel]:
    """Both ends of the variant's tunnel, with SPIs and keys of its own."""
    wire = WIRE[variant.delivery_family]
    delivery = DUAL_TIER if variant.dual_tier else wire
    associations: list[SecurityAssociation | None] = [None, None]
    if variant.mode:
        associations = [
            SecurityAssociation(
                spi=dice.randrange(0x100, TWO_TO_32),
                key_salt=dice.randbytes(variant.key_octets + 4),
                icv_octets=variant.icv_octets,
                esn=variant.esn,
                first_sequence_number=first,
            )
            for first in variant.first_sequence_numbers
        ]
    ends = []
    for here, there in ((0, 1), (1, 0)):
        ends.append(
            Tunnel(
                local=delivery[here],
                remote=delivery[there],
                inner_addresses=tuple(f"{addresses[here]}/{31 if family == 4 else 127}"
                                      for family, addresses in ((4, INNER[4]), (6, INNER[6]))),
                inner_routes=(f"{INNER[4][there]}/32", f"{INNER[6][there]}/128"),
                gre=variant.gre,
                mode=variant.mode or "transport",
                outbound=associations[here],
                inbound=associations[there],
                esp_local=wire[here],
                esp_remote=wire[there],
            )
        )
    return ends[0], ends[1]


def exchange(guest: LinuxPeer, variant: Variant, device: str, dice: random.Random):
    """Ping both ways under capture; returns, for each direction, the clear packets and the frames on the wire."""
    captures = [(end, interface) for end in ENDS for interface in (device, "wire")]
    guest.run(start_captures(captures))
    try:
        for end, other in ((0, 1), (1, 0)):
            target = INNER[variant.payload_family][other]
            options = pings(variant, from_a=end == 0, dice=dice)
            commands = [f"ping -n -q -c 1 -W 20 {each} {target}" for each in options]
            in_end(guest, ENDS[end], "\n".join(("set -e", *commands)))
    finally:
        guest.run(STOP_CAPTURES)
    errors = guest.run("for end in a b; do ip netns exec $end grep -v '[[:space:]]0$' /proc/net/xfrm_stat; done; true")
    if errors.output.strip():
        raise RuntimeError(f"{variant.name}: XFRM counted errors:\n{errors.output}")
    clear, wire = [], []
    for end in ENDS:
        link_type, records = fetch(guest, end, device)
        clear.append([record.frame[CLEAR_LINK_TYPES[link_type] :] for record in records])
        for packet in clear[-1]:
            ip.parse(packet)
        link_type, records = fetch(guest, end, "wire")
        assert link_type == pcap.LINKTYPE_ETHERNET
        wire.append([record for record in records if not resolves_addresses(record.frame)])
    for index, end in enumerate(ENDS):
        if not clear[index] or len(clear[index]) != len(wire[index]):
            raise RuntimeError(f"{variant.name}: {end} sent {len(clear[index])} packets, {len(wire[index])} frames")
    return clear, wire


def pings(variant: Variant, from_a: bool, dice: random.Random) -> list[str]:
    """Options for each ping: every residue of the length modulo 4, so that every pad length occurs."""
    # An ICMP header is 8 octets in both families; an empty ping is the shortest there is.
    sizes = [0, 1, 2, 3] if from_a else [5, 18]
    sizes = [size + 4 * dice.randrange(0, 12) if size > 1 else size for size in sizes]
    if from_a:
        sizes += [1372 if variant.payload_family == 4 else 1352, 1001] if variant.large else [131]
    options = []
    for size in sizes:
        line = f"-s {size} -Q {dice.choice(TOS_VALUES)} -t {dice.choice((1, 17, 64, 128, 255))}"
        line += f" -p {dice.randrange(256):02x}"
        if variant.payload_family == 4:
            line += f" -M {dice.choice(('do', 'dont'))}"
        options.append(line)
    return options


def start_captures(captures: list[tuple[str, str]]) -> str:
    """A script that starts one tcpdump for each and returns when all of them listen. Only what leaves is captured."""
    lines = ["set -e", "rm -f /run/cap-*"]
    for end, interface in captures:
        name = f"/run/cap-{end}-{interface}"
        lines.append(
            f"ip netns exec {end} tcpdump -Z root -n -p --immediate-mode -U -s 0 -Q out -i {interface} "
            f"-w {name}.pcap 2>{name}.log & echo $! >{name}.pid"
        )
    lines.append(
        "for pid in /run/cap-*.pid; do log=${pid%pid}log; until grep -q 'listening on' $log; do "
        "kill -0 $(cat $pid) || { cat $log; exit 1; }; usleep 50000; done; done"
    )
    return "\n".join(lines)


# The answer to the last ping is in the rings when ping returns, though perhaps not yet in the files.
STOP_CAPTURES = """
sizes() { cat /run/cap-*.pcap | wc -c; }
before=none; now=$(sizes)
until [ "$before" = "$now" ]; do before=$now; usleep 300000; now=$(sizes); done
for pid in /run/cap-*.pid; do kill -INT $(cat $pid); done
for pid in /run/cap-*.pid; do while kill -0 $(cat $pid) 2>/dev/null; do usleep 20000; done; done
grep -L '^0 packets dropped by kernel' /run/cap-*.log | grep . && exit 1
true
"""


def fetch(guest: LinuxPeer, end: str, interface: str) -> tuple[int, list[pcap.Record]]:
    """The link type and the frames of one capture; the guest writes little-endian, in microseconds."""
    data = guest.read_file(f"/run/cap-{end}-{interface}.pcap")
    magic, _, _, _, _, _, link_type = struct.unpack_from("<IHHiIII", data)
    assert magic == PCAP_MICROSECONDS
    records, offset = [], 24
    while offset < len(data):
        seconds, microseconds, captured, original = struct.unpack_from("<IIII", data, offset)
        octets = data[offset + 16 : offset + 16 + captured]
        assert len(octets) == captured == original
        records.append(pcap.Record(seconds * 1_000_000_000 + microseconds * 1_000, octets))
        offset += 16 + captured
    return link_type, records


def resolves_addresses(frame: bytes) -> bool:
    """Whether the frame is ARP or neighbour discovery: the only clear text that belongs on the wire."""
    ethertype, rest = ip.parse_ethernet(frame)
    if ethertype == ip.ETHERTYPE_ARP:
        return True
    if ethertype != ip.ETHERTYPE_IPV6:
        return False
    packet = ip.parse(rest)
    return packet.protocol == ip.PROTOCOL_ICMPV6 and packet.payload[0] in (133, 134, 135, 136, 143)


def sidecar(variant: Variant, tunnels: tuple[Tunnel, Tunnel], made_with: dict) -> dict:
    """Everything about the capture but its packets; README.md describes the fields."""
    gre = None
    if variant.gre:
        gre = dataclasses.asdict(variant.gre)
        gre["encap_limit"] = variant.delivery_family == 6 and variant.gre.encap_limit
    directions = []
    for tunnel in tunnels:
        esp = None
        if tunnel.outbound:
            esp = dataclasses.asdict(tunnel.outbound) | {"key_salt": tunnel.outbound.key_salt.hex()}
            esp["algorithm"] = tunnel.outbound.algorithm
            del esp["replay_window"]
        directions.append(
            {
                "source": tunnel.esp_local if tunnel.outbound else tunnel.local,
                "destination": tunnel.esp_remote if tunnel.outbound else tunnel.remote,
                "gre_source": tunnel.local if variant.gre else None,
                "gre_destination": tunnel.remote if variant.gre else None,
                "esp": esp,
            }
        )
    return {
        "format": 1,
        "name": variant.name,
        "about": variant.about,
        "made_with": made_with,
        "delivery_family": variant.delivery_family,
        "payload_family": variant.payload_family,
        "mode": variant.mode,
        "gre": gre,
        "directions": directions,
    }


def write_sidecar(path: Path, head: dict, listed: list[dict]) -> None:
    """Indented, but one line for each packet."""
    body = json.dumps(head, indent=2).removesuffix("\n}")
    lines = ",\n".join(f"    {json.dumps(packet)}" for packet in listed)
    path.write_text(f'{body},\n  "packets": [\n{lines}\n  ]\n}}\n')


def in_end(guest: LinuxPeer, end: str, script: str) -> None:
    """Run a script inside one of the guest's namespaces."""
    guest.run(f"ip netns exec {end} /bin/sh -s <<'END_OF_SCRIPT'\n{script}\nEND_OF_SCRIPT")


if __name__ == "__main__":
    sys.exit(main())
