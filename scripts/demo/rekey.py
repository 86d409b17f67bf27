# SPDX-License-Identifier: Apache-2.0
"""SAs replaced over both headends while traffic flows, make before break; and control killed and started again."""

import dataclasses
import time

from harness import wait
from progress import say
from world import HOST_INTERFACE, protection

#: How long a step may take on a busy machine.
STEP_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Replacement:
    """When both SAs were replaced, on the monotonic clock."""

    began_ns: int
    ended_ns: int

    @property
    def milliseconds(self):
        return (self.ended_ns - self.began_ns) / 1e6


@dataclasses.dataclass(frozen=True)
class Takeover:
    """What a control that was killed and started again found."""

    side: str
    absent_seconds: float
    #: Stamped and TCP packets that reached the site behind this headend meanwhile.
    packets_meanwhile: int
    generation_before: int
    generation_after: int
    same_sas: bool


def replace_all(world):
    """Replaces the SAs of both directions by new ones; returns when the old ones are gone."""
    old, new = world.plan.generations[-1], world.plan.next_generation()
    began = time.monotonic_ns()
    for sa in new:
        _cli(world, sa.receiver, sa, "add", "inbound")
    for sa in new:
        _cli(world, sa.sender, sa, "replace", "outbound")
    # A link keeps the order: when a packet under the new SA was opened, none under the old one is on its way.
    wait.until(lambda: all(_opened(world, sa) for sa in new), "packets to arrive under the new SAs", STEP_SECONDS, 0.02)
    for sa in old:
        world.headends[sa.receiver].cli("sa", "delete", "inbound", sa.name)
    return Replacement(began, time.monotonic_ns())


def kill_and_restart_control(world, side):
    """SIGKILL; a second's worth of packets; a new control, which must take over the running state as it is."""
    headend = world.headends[side]
    before, sas_before = world.wait_committed(side), set(world.sas(side))
    headend.kill_control()
    killed = time.monotonic()
    say(f"{side.label}: control killed (SIGKILL); packets go on")
    start = _arrived(world, side)
    packets = wait.until(
        lambda: (_arrived(world, side) - start) >= world.plan.rate_pps and _arrived(world, side) - start,
        f"packets to flow through {side.label} without its control", STEP_SECONDS, 0.05)
    headend.start_control()
    after = world.wait_committed(side)
    absent = time.monotonic() - killed
    say(f"{side.label}: new control, pid {headend.control.pid}, took over generation {after} after {absent:.1f} s; "
        f"{packets:,} packets came through meanwhile")
    return Takeover(side.label, absent, packets, before, after, sas_before == set(world.sas(side)))


def _cli(world, side, sa, verb, direction):
    """Gives a new SA to a headend, its key through standard input."""
    world.headends[side].cli("sa", verb, "--protection", protection(world.plan, side), "--direction", direction,
                             "--spi", sa.name, "--key-stdin", stdin=sa.key_material.hex() + "\n")


def _opened(world, sa):
    return world.sas(sa.receiver)["inbound", sa.spi]["packets"]


def _arrived(world, side):
    """Frames that the host behind a headend has received."""
    with world.hosts[side].entered():
        for line in open("/proc/thread-self/net/dev", encoding="ascii"):
            name, _, counts = line.partition(":")
            if name.strip() == HOST_INTERFACE:
                return int(counts.split()[1])
    raise RuntimeError(f"{side.label}: the host has no {HOST_INTERFACE}")
