# SPDX-License-Identifier: Apache-2.0
"""What came of a run: the table, and whether all holds."""

import dataclasses

from wire import KINDS

#: Share of its pace below which TCP says more about the machine than about the headends.
TCP_SHARE = 0.2


@dataclasses.dataclass
class Outcome:
    """Everything that was measured."""

    plan: object
    streams: tuple
    transfers: tuple
    replacements: list
    takeover: object
    wires: list
    links: list
    udp_socket_drops: int
    capture_drops: int
    #: Before anything was provoked: drops by side and reason.
    drops: dict
    #: Then: the side, what it must have dropped, what it has.
    provoked: tuple

    def lost_in_replacements(self, stream):
        """Stamped packets missing that were due while SAs were being replaced."""
        windows = [(one.began_ns, one.ended_ns) for one in self.replacements]
        due = lambda number: stream.started_ns + number * 1_000_000_000 // self.plan.rate_pps  # noqa: E731
        return sum(
            any(began <= due(number) <= ended for began, ended in windows)
            for first, packets in stream.gaps for number in range(first, first + packets)
        )

    @property
    def host_drops(self):
        """Packets that the machine itself lost, between the programs."""
        return sum(abs(link.lost) for link in self.links) + self.udp_socket_drops


def judge(outcome):
    """Returns what does not hold, and what makes the run say nothing either way."""
    failures, doubts = [], []
    for check in (_streams, _transfers, _control, _wire, _drops):
        failures += check(outcome)
    if outcome.capture_drops:
        doubts.append(f"the capture lost {outcome.capture_drops:,} frames")
    if outcome.host_drops:
        doubts.append(f"host rings and sockets lost {outcome.host_drops:,} packets")
    for wire, link in zip(outcome.wires, outcome.links):
        if wire.frames != link.sent and not outcome.capture_drops:
            doubts.append(f"{link.name}: {link.sent:,} frames sent, {wire.frames:,} captured")
    for transfer in outcome.transfers:
        if 0 < transfer.mbit_s < outcome.plan.tcp_mbit_s * TCP_SHARE:
            doubts.append(f"{transfer.direction}: TCP ran at {transfer.mbit_s:.1f} Mbit/s only")
    if outcome.host_drops:
        # Then a packet may be lost without anybody's fault.
        failures = [failure for failure in failures if not isinstance(failure, Excusable)]
    return failures, doubts


class Excusable(str):
    """What does not hold, but follows from packets that the machine lost."""


def _streams(outcome):
    for stream in outcome.streams:
        if stream.lost:
            yield Excusable(f"{stream.direction}: {stream.lost:,} stamped packets lost")
        if stream.refused:
            yield Excusable(f"{stream.direction}: the kernel refused {stream.refused:,} stamped packets")
        for what in ("duplicated", "reordered", "foreign", "corrupt"):
            if number := getattr(stream, what):
                yield f"{stream.direction}: {number:,} packets {what}"


def _transfers(outcome):
    for transfer in outcome.transfers:
        if not transfer.mbit_s:
            yield f"{transfer.direction}: no TCP"


def _control(outcome):
    takeover = outcome.takeover
    if takeover.generation_before != takeover.generation_after or not takeover.same_sas:
        yield (f"{takeover.side}: the new control changed the running state (generation {takeover.generation_before} → "
               f"{takeover.generation_after})")
    if len(outcome.replacements) != outcome.plan.replacements:
        yield f"{len(outcome.replacements)} replacements, not {outcome.plan.replacements}"


def _wire(outcome):
    for wire in outcome.wires:
        if wire.kinds["clear"]:
            yield f"{wire.direction}: {wire.kinds['clear']:,} frames in clear"
        if wire.iv_not_increasing:
            yield f"{wire.direction}: {wire.iv_not_increasing:,} IVs are not above the one before"
        if wire.dissected != wire.frames:
            yield f"{wire.direction}: tshark saw {wire.dissected:,} of {wire.frames:,} frames"
        if not wire.kinds["ESP"] or not wire.kinds["ESP"] == wire.dissected_esp == wire.decrypted:
            yield f"{wire.direction}: {wire.decrypted:,} of {wire.kinds['ESP']:,} ESP frames decrypted to esp:gre:ip"
    for place, wire in enumerate(outcome.wires):
        ours = {generation[place].spi for generation in outcome.plan.generations}
        if unused := ours - set(wire.spis):
            yield f"{wire.direction}: {len(unused)} SAs carried nothing"
        if foreign := set(wire.spis) - ours:
            yield f"{wire.direction}: {len(foreign)} SPIs that are no SA of this run"


def _drops(outcome):
    for side, drops in outcome.drops.items():
        for reason, number in drops.items():
            yield f"{side}: {number:,} packets dropped: {reason}"
    side, expected, found = outcome.provoked
    if expected != found:
        yield f"{side}: provoked {spell(expected)}, but dropped {spell(found)}"


def table(outcome):
    """The table, as text."""
    streams, transfers, wires = outcome.streams, outcome.transfers, outcome.wires
    pace, rate = outcome.plan.tcp_mbit_s, outcome.plan.rate_pps
    rows = [
        ("", *(stream.direction for stream in streams)),
        (f"stamped packets sent ({rate:,}/s)", *(f"{stream.sent:,}" for stream in streams)),
        ("stamped packets received", *(f"{stream.received:,}" for stream in streams)),
        ("lost", *(f"{stream.lost:,}" for stream in streams)),
        ("lost while SAs were replaced", *(f"{outcome.lost_in_replacements(stream):,}" for stream in streams)),
        ("duplicated, reordered", *(f"{stream.duplicated:,}, {stream.reordered:,}" for stream in streams)),
        ("latency p50 / p99 / max (ms)", *(_latency(stream) for stream in streams)),
        (f"TCP, paced to {pace} Mbit/s (Mbit/s)", *(f"{transfer.mbit_s:.1f}" for transfer in transfers)),
        ("TCP segments sent again", *(f"{transfer.retransmits:,}" for transfer in transfers)),
        *((f"frames on the wire: {kind}", *(f"{wire.kinds[kind]:,}" for wire in wires)) for kind in KINDS),
        ("tshark decrypts to esp:gre:ip", *(_share(wire) for wire in wires)),
        ("SAs that carried packets", *(f"{len(wire.spis)}" for wire in wires)),
        ("IVs not above the one before", *(f"{wire.iv_not_increasing:,}" for wire in wires)),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}".rstrip() for row in rows]
    return "\n".join(lines + [""] + _notes(outcome))


def _notes(outcome):
    times = sorted(one.milliseconds for one in outcome.replacements)
    takeover = outcome.takeover
    side, expected, found = outcome.provoked
    lost = [link for link in outcome.links if link.lost]
    return [
        f"  replacements   {len(times)} of both SAs, {times[0]:.0f} to {times[-1]:.0f} ms each, over both headends",
        f"  control        of {takeover.side} killed, away for {takeover.absent_seconds:.1f} s, "
        f"{takeover.packets_meanwhile:,} packets meanwhile; took over generation {takeover.generation_after}",
        *(f"  drops          {label}: {spell(drops)}" for label, drops in outcome.drops.items()),
        f"  provoked       {side}: {spell(expected)}",
        f"  then dropped   {side}: {spell(found)}",
        "  host rings     " + (", ".join(f"{link.name} lost {link.lost:,}" for link in lost) or "lost nothing")
        + f"; sockets lost {outcome.udp_socket_drops:,}; the capture lost {outcome.capture_drops:,}",
    ]


def spell(counts):
    """Drops by reason, as words."""
    return ", ".join(f"{reason} {number:,}" for reason, number in sorted(counts.items())) or "none, all reasons are 0"


def _latency(stream):
    return " / ".join(f"{stream.latency_us[name] / 1e3:.1f}" for name in ("p50", "p99", "max"))


def _share(wire):
    total = wire.kinds["ESP"]
    # Rounded down: 100 means all.
    return f"{wire.decrypted * 1_000 // total / 10 if total else 0:g} %"
