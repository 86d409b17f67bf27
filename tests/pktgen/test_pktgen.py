# SPDX-License-Identifier: Apache-2.0
"""The packet generator on both sides of a headend, over net_memif: a device that only decrypts, one that only encrypts,
hostile packets and their counters, RFC 2544, and its report in a browser."""

import json
import shutil
import subprocess

import pytest

from harness import skips, wait

pytestmark = [pytest.mark.requires_root, pytest.mark.requires_binaries]

IN_KEY = bytes(range(20))
OUT_KEY = bytes(range(100, 120))
HEADEND_MAC, OUR_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
PACKETS = 20_000

DATAPLANE = """
idle = "adaptive"
[memory]
huge_pages = false
[[worker]]
cpu = 0
[[port]]
name = "lan"
device = "net_memif0,role=server,socket={folder}/lan.sock,socket-abstract=no,mac={mac},rsize=11"
[[port]]
name = "wan"
device = "net_memif1,role=server,socket={folder}/wan.sock,socket-abstract=no,mac={mac},rsize=11"
"""

CONFIG = """
manual_keying = "lab"
[[port]]
name = "lan"
side = "protected"
addresses = ["10.0.0.1/24"]
[[port]]
name = "wan"
side = "unprotected"
addresses = ["192.0.2.1/24"]
[[neighbor]]
port = "lan"
address = "10.0.0.9"
mac = "{mac}"
[[neighbor]]
port = "wan"
address = "192.0.2.9"
mac = "{mac}"
[[route]]
prefix = "10.1.0.0/16"
port = "lan"
via = "10.0.0.9"
[[route]]
prefix = "198.51.100.0/24"
port = "wan"
via = "192.0.2.9"
[[route]]
prefix = "10.2.0.0/16"
tunnel = "branch"
[[protection]]
name = "branch"
local = "192.0.2.1"
remote = "198.51.100.7"
[[tunnel]]
name = "branch"
source = "192.0.2.1"
destination = "198.51.100.7"
protection = "branch"
[[sa]]
protection = "branch"
direction = "inbound"
spi = 4096
key_file = "in.key"
[[sa]]
protection = "branch"
direction = "outbound"
spi = 4097
key_file = "out.key"
"""

STREAM = """
[[stream]]
name = "branch"
rate = {{ pps = 20_000 }}
size = 150
ip = {{ source = "{source}", destination = {{ first = "{destination}", count = 200 }} }}
udp = {{}}
"""

SEALED = STREAM.format(source="10.2.0.1", destination="10.1.0.1") + f"""
gre = {{ source = "198.51.100.7", destination = "192.0.2.1" }}
esp = {{ spi = 4096, lab_key = "{IN_KEY.hex()}" }}
"""

CLEAR = f"""
[[open]]
spi = 4097
lab_key = "{OUT_KEY.hex()}"
""" + STREAM.format(source="10.1.0.1", destination="10.2.0.1")


class Bench:
    """A headend between two shared-memory links, and the generator at their far ends."""

    def __init__(self, lab):
        self.folder = lab.folder
        namespace = lab.namespace("bench")
        self.headend = lab.headend(namespace, "", CONFIG.format(mac=OUR_MAC))
        # A Unix socket's path is limited, as is that of the sockets beside it.
        self.sockets = self.headend.run_dir
        self.headend.write_config("dataplane.toml", DATAPLANE.format(folder=self.sockets, mac=HEADEND_MAC))
        self.headend.write_key("in.key", IN_KEY)
        self.headend.write_key("out.key", OUT_KEY)
        self.headend.start()
        self.headend.wait_cli("status", condition=lambda status: status["configuration"]["phase"] == "committed",
                              what="the configuration to run")
        self.sequence = 1

    def port(self, name, number):
        return f"net_memif{number},role=client,socket={self.sockets}/{name}.sock,socket-abstract=no,rsize=11"

    def generate(self, command, *args, profile, transmit, receive=None, timeout=120):
        """Runs the generator; returns its exit status and what it printed as JSON. A sealed profile goes on with the
        sequence numbers of the run before."""
        path = self.folder / "profile.toml"
        path.write_text(profile.replace("spi = 4096,", f"spi = 4096, first_sequence = {self.sequence},"))
        command = [skips.binary_folder() / "greyhound-pktgen", "--json", *command.split(), path, *args,
                   "--transmit", self.port(transmit, 8)]
        if receive:
            command += ["--receive", self.port(receive, 9)]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout)
        assert done.stdout, f"{command}: exit {done.returncode}: {done.stderr}"
        return done.returncode, json.loads(done.stdout)

    def drops(self):
        return {drop["reason"]: drop["packets"] for drop in self.headend.cli("drops")}


@pytest.fixture(scope="module")
def bench(module_lab):
    reason = skips.missing_binaries(("greyhound-pktgen",))
    if reason:
        pytest.skip(reason)
    return Bench(module_lab)


def check_all_arrived(outcome):
    stream, = outcome["streams"]
    arrived = stream["arrived"]
    assert stream["sent"]["packets"] == arrived["received"] == PACKETS
    assert [arrived[name] for name in ("lost", "reordered", "duplicated", "too_late", "corrupt")] == [0] * 5
    assert outcome["frame_sizes"].startswith("RFC 2544") and arrived["latency_us"]["p50"] > 0


def test_a_device_that_only_decrypts_is_tested_by_one_machine(bench):
    status, result = bench.generate("run", "--seconds", "1", profile=SEALED, transmit="wan", receive="lan")
    bench.sequence = result["outcome"]["streams"][0]["next_sequence"]
    check_all_arrived(result["outcome"])
    assert status == 0 and bench.sequence == PACKETS + 1 and bench.drops() == {}


def test_a_device_that_only_encrypts_is_tested_by_one_machine(bench):
    status, result = bench.generate("run", "--seconds", "1", profile=CLEAR, transmit="lan", receive="wan")
    check_all_arrived(result["outcome"])
    assert status == 0


def test_every_hostile_kind_ends_in_its_counter_and_no_other_and_costs_no_good_packet(bench):
    before = bench.drops()
    status, result = bench.generate("hostile all", "--packets", "20", "--control-socket",
                                    bench.headend.socket_path("control"), profile=SEALED, transmit="wan", receive="lan")
    bench.sequence = result["next_sequence"]
    wrong = [verdict for verdict in result["verdicts"] if not verdict["is_right"]]
    assert (status, wrong, len(result["verdicts"])) == (0, [], 8)
    counted = {reason: count - before.get(reason, 0) for reason, count in bench.drops().items()}
    assert counted == {verdict["reason"]: verdict["hostile"] for verdict in result["verdicts"]}
    for verdict in result["verdicts"]:
        assert verdict["good_received"] == verdict["good"] > verdict["let_through"] == 0


def test_a_wrong_expectation_is_a_failure_by_what_a_command_prints(bench):
    drops = f"{skips.binary_folder()}/greyhound --run-dir {bench.headend.run_dir} drops --json"
    status, result = bench.generate("hostile bad-icv", "--expect", "bad-icv=replayed", "--packets", "5",
                                    "--counters-command", drops, profile=SEALED, transmit="wan")
    bench.sequence = result["next_sequence"]
    verdict, = result["verdicts"]
    assert status == 1 and not verdict["is_right"] and verdict["others"] == {"bad_icv": 5}
    assert verdict["good_received"] is None


def test_rfc_2544_runs_unattended_and_its_report_opens_in_a_browser(bench):
    page = bench.folder / "report.html"
    status, result = bench.generate(
        "rfc2544", "--line-bps", "5e7", "--sizes", "150,512", "--seconds", "0.5", "--resolution", "20", "--repeats", "2",
        "--html", page, profile=CLEAR, transmit="lan", receive="wan")
    report = result["report"]
    assert status == 0 and [size["size"] for size in report["sizes"]] == [150, 512]
    for size in report["sizes"]:
        # How much it is, a busy machine decides.
        assert len(size["no_drop"]["found_percent"]) == 2 and size["loss"] and size["latency_cdf"]
    check_page(page, bench.folder / "report.png")


def check_page(page, picture):
    text = page.read_text()
    assert "http://www.w3.org/2000/svg" in text and text.count("<svg") == 3
    assert "src=" not in text and "href=" not in text, "the page needs nothing else"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium: not installed (scripts/setup.sh installs it)")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1000,2000"]
    subprocess.run([chromium, *flags, f"--screenshot={picture}", page.as_uri()], check=True, timeout=120,
                   capture_output=True)
    dom = subprocess.run([chromium, *flags, "--dump-dom", page.as_uri()], check=True, timeout=120, capture_output=True,
                         text=True).stdout
    assert dom.count("<svg") == 3 and "RFC 2544" in dom
    wait.until(lambda: picture.stat().st_size > 20_000, "a picture that is not blank", 5)
