# SPDX-License-Identifier: Apache-2.0
"""Two headends and two sites on one machine; see ../demo.sh, which sets up and builds before it runs this.

    plan.py      addresses, names and keys of one run
    world.py     namespaces, links, headends, their counters
    traffic.py   what flows
    rekey.py     SAs replaced under traffic; control killed and started again
    wire.py      the wire: captured, counted, decrypted
    provoke.py   frames that must be dropped
    report.py    the table, and whether all holds
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests"))

from harness import cleanup, netns, skips, wait  # noqa: E402: the harness is not installed anywhere
from plan import Plan, arrow  # noqa: E402
from progress import Ticker, say  # noqa: E402
from provoke import provoke  # noqa: E402
from rekey import kill_and_restart_control, replace_all  # noqa: E402
from report import Outcome, judge, table  # noqa: E402
from traffic import Traffic  # noqa: E402
from wire import Taps  # noqa: E402
from world import World  # noqa: E402

TOOLS = ("ip", "ethtool", "ping", "ss", "tcpdump", "tshark", "iperf3")
PROGRAMS = ("greyhound-dataplane", "greyhound-control", "greyhound", "greyhound-pktgen")
FOLDER = re.compile(r"^greyhound-demo-(\d+)-")
#: Nice value while traffic flows: a headend has cores of its own, this machine has not.
URGENT, ORDINARY = -20, 0
HOLDS, FAILED, CANNOT, INCONCLUSIVE = 0, 1, 2, 3


def main():
    options = arguments()
    # Shells start what runs in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    missing = skips.missing_root() or skips.missing_tools(TOOLS) or skips.missing_binaries(PROGRAMS)
    if missing:
        print(f"demo: {missing}", file=sys.stderr)
        return CANNOT
    netns.sweep_stale()
    sweep_folders()
    folder = make_folder()
    plan = Plan(options.seconds)
    world = None
    try:
        world = World(plan, folder)
        status = show(run(plan, world))
        if options.keep:
            keep(world)
        return status
    except KeyboardInterrupt:
        say("interrupted")
        return 128 + signal.SIGINT
    except (RuntimeError, TimeoutError, OSError) as error:
        say(f"FAILED: {error}")
        if world is not None:
            show_logs(world)
        return FAILED
    finally:
        # A second Ctrl-C shall not leave half of it standing.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say("tidying up")
        if world is not None:
            world.lab.close()
        cleanup.run_all()


def arguments():
    parser = argparse.ArgumentParser(prog="demo.sh", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=seconds, default=15.0, help="how long traffic flows (default 15)")
    parser.add_argument("--keep", action="store_true", help="leave it standing to play with, until Ctrl-C")
    return parser.parse_args()


def seconds(text):
    value = float(text)
    if not 2 <= value <= 3600:
        raise argparse.ArgumentTypeError("give 2 to 3600 seconds")
    return value


def run(plan, world):
    """The demo itself; returns its `Outcome`."""
    west, east = plan.sides
    set_priority(URGENT)
    say("four namespaces, joined by veth: " + " ── ".join(
        space.name for space in (world.hosts[west], world.gateways[west], world.gateways[east], world.hosts[east])))
    taps = Taps(world)
    say("the wire between the headends is captured at both ends")
    world.start()
    world.ping()
    say("the sites reach each other")

    traffic = Traffic(world)
    traffic.start()
    say(f"traffic for {plan.seconds:g} s: {plan.rate_pps:,} stamped packets/s and TCP at {plan.tcp_mbit_s} Mbit/s, "
        "each way")
    replacements, takeover = change_under_traffic(plan, world, traffic)
    streams, transfers = traffic.stop()
    links = world.links_at_rest()
    world.check_running()
    taps.end()
    say("traffic ended; " + ", ".join(
        f"{stream.direction} {stream.received:,} of {stream.sent:,} stamped packets" for stream in streams))
    drops = {side.label: world.drops(side) for side in plan.sides}
    udp_socket_drops = sum(world.udp_socket_drops(side) for side in plan.sides)

    set_priority(ORDINARY)
    say("tshark decrypts the wire, with the keys of " + f"{sum(map(len, plan.generations))} SAs")
    wires = taps.judge()
    say(f"{sum(wire.frames for wire in wires):,} frames judged")
    provoked = provoke(world, west, east, wires[plan.directions.index((west, east))].last_esp)
    say(f"four kinds of frames that nobody should send, {arrow(west, east)}; `greyhound drops` says at {east.label}:")
    print(world.headends[east].cli_raw("drops").stdout, end="", flush=True)
    return Outcome(plan, streams, transfers, replacements, takeover, wires, links, udp_socket_drops, taps.dropped,
                   drops, (east.label, *provoked))


def change_under_traffic(plan, world, traffic):
    """Replaces every SA, evenly spread over the time; in the middle one control is killed and started again."""
    start, replacements, takeover = time.monotonic(), [], None
    for number in range(plan.replacements):
        flow_until(start + plan.seconds * (number + 0.5) / plan.replacements, world, traffic)
        if number == plan.replacements // 2:
            takeover = kill_and_restart_control(world, plan.west)
        replacements.append(replace_all(world))
        names = ", ".join(f"{arrow(sa.sender, sa.receiver)} {sa.name}" for sa in plan.generations[-1])
        say(f"SAs replaced, {number + 1} of {plan.replacements}, in {replacements[-1].milliseconds:.0f} ms: {names}")
    flow_until(start + plan.seconds, world, traffic)
    return replacements, takeover


def flow_until(moment, world, traffic):
    """Lets traffic flow; raises if anything ends that should not."""
    ticker = Ticker()

    def over():
        world.check_running()
        traffic.check_running()
        ticker.tick(lambda: "traffic flows")
        return time.monotonic() >= moment

    wait.until(over, "the next step", timeout=max(0.0, moment - time.monotonic()) + 60.0, interval=0.05)


def show(outcome):
    """Prints the table and the verdict; returns the exit status."""
    print(f"\n{table(outcome)}\n")
    failures, doubts = judge(outcome)
    for failure in failures:
        print(f"  does not hold: {failure}")
    for doubt in doubts:
        print(f"  in doubt: {doubt}")
    if failures:
        print("FAILED")
    elif doubts:
        print("INCONCLUSIVE: this machine was too busy or lost packets of its own; run it again when it is not")
    else:
        print("All holds: nothing lost, nothing in clear, nothing dropped but what was provoked.")
    sys.stdout.flush()
    return FAILED if failures else INCONCLUSIVE if doubts else HOLDS


def keep(world):
    """Says what to type, and waits for Ctrl-C."""
    program = skips.binary_folder() / "greyhound"
    lines = ["", "It stands until Ctrl-C here. In another terminal, as root:", ""]
    for side, headend in world.headends.items():
        lines.append(f"  {side.label}='{program} --run-dir {headend.run_dir}'")
    west, east = world.plan.sides
    lines += [
        "  $west status; $west sa list; $west tunnel list; $east drops; $west watch",
        f"  $west diff {world.headends[west].config_dir}/config.toml",
        f"  ip netns exec {world.hosts[west].name} ping {east.host.ip}",
        f"  ip netns exec {world.gateways[east].name} tcpdump -n -e -i wan -Q in",
        f"  ls -l {world.lab.folder}    # captures and logs; gone when this ends",
        "",
    ]
    print("\n".join(lines), flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print(flush=True)


def show_logs(world):
    for name, tail in world.lab.logs():
        print(f"--- {name}\n{tail}", file=sys.stderr)


def set_priority(nice):
    """Of this process and those that it starts from then on; what the machine does not allow stays as it is."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)


def make_folder():
    """A private folder for keys, captures and logs, gone when the demo ends."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"greyhound-demo-{os.getpid()}-"))
    cleanup.register(lambda: shutil.rmtree(folder), f"folder {folder}")
    return folder


def sweep_folders():
    """Removes folders of earlier runs that were killed before they could."""
    for folder in pathlib.Path(tempfile.gettempdir()).iterdir():
        owner = FOLDER.match(folder.name)
        if owner and folder.is_dir() and folder.owner() == "root" and not pathlib.Path("/proc", owner[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
