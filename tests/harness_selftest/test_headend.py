# SPDX-License-Identifier: Apache-2.0
"""`Headend` against stand-in programs that have the same flags, files and sockets, and nothing else."""

import pathlib
import signal
import sys

import pytest

from harness.headend import CliError, af_packet

pytestmark = pytest.mark.requires_root

STAND_IN = r'''#!{python}
import argparse, json, os, pathlib, signal, socket, sys
parser = argparse.ArgumentParser()
for flag in "--config-dir", "--run-dir", "--state-dir":
    parser.add_argument(flag, type=pathlib.Path)
parser.add_argument("--instance")
parser.add_argument("--json", action="store_true")
parser.add_argument("rest", nargs="*")
args = parser.parse_args()
name = pathlib.Path(sys.argv[0]).name.removeprefix("greyhound-")
if name == "greyhound":
    probe = socket.socket(socket.AF_UNIX)
    try:
        probe.connect(str(args.run_dir / "control.sock"))
    except OSError as error:
        sys.exit(f"control does not answer: {{error}}")
    if args.rest == ["drops"]:
        sys.exit(0)
    print(json.dumps({{"asked": args.rest, "json": args.json, "stdin": sys.stdin.read()}}))
    sys.exit(0)
state = args.state_dir / name
if args.rest == ["init-state"]:
    state.mkdir(parents=True)
    sys.exit(0)
if name == "dataplane" and not state.exists():
    sys.exit("no state")
settings = {{"dataplane": "dataplane.toml", "control": "config.toml"}}[name]
print("read", (args.config_dir / settings).read_text(), flush=True)
path = args.run_dir / f"{{name}}.sock"
path.unlink(missing_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(path))
listener.listen()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    listener.accept()
'''


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("greyhound-dataplane", "greyhound-control", "greyhound"):
        path = folder / name
        path.write_text(STAND_IN.format(python=sys.executable))
        path.chmod(0o755)
    monkeypatch.setenv("GREYHOUND_BIN", str(folder))


def test_both_processes_start_answer_and_end(lab, stand_ins, headend):
    one = headend(lab.namespace("gateway"), "[dataplane]", "[control]", instance="blue").start()
    assert "read [dataplane]" in one.dataplane.output() and "read [control]" in one.control.output()
    assert one.cli("sa", "list") == {"asked": ["sa", "list"], "json": True, "stdin": ""}
    assert one.cli("sa", "add", stdin="secret")["stdin"] == "secret"
    assert one.cli("drops") is None
    assert one.stop() == (0, 0)
    with pytest.raises(CliError, match="does not answer"):
        one.cli("sa", "list")


def test_a_killed_process_starts_again(lab, stand_ins, headend):
    one = headend(lab.namespace("gateway"), "", "").start()
    first = one.control.pid
    one.kill_control()
    assert one.control.returncode == -signal.SIGKILL and one.dataplane.running
    one.start_control()
    assert one.control.pid != first
    assert one.wait_cli("sa", "list", condition=lambda answer: answer["asked"], what="an answer")["json"]


def test_a_process_that_does_not_come_up_says_why(lab, stand_ins, headend):
    one = headend(lab.namespace("gateway"), "", "")
    with pytest.raises(RuntimeError, match="no state"):
        one.start_dataplane()


def test_two_instances_do_not_meet(lab, stand_ins, headend):
    place = lab.namespace("gateway")
    blue, green = (headend(place, "", "", instance=name).start() for name in ("blue", "green"))
    assert blue.cli("x") and green.cli("x")
    blue.stop()
    assert green.cli("y")["asked"] == ["y"]


def test_nothing_is_left_behind(lab, stand_ins, headend):
    one = headend(lab.namespace("gateway"), "", "").start()
    pids = one.dataplane.pid, one.control.pid
    lab.close()
    assert not one.run_dir.exists()
    assert not any(pathlib.Path("/proc", str(pid)).exists() for pid in pids)


def test_keys_are_private_files(lab, stand_ins, headend):
    path = headend(lab.namespace("gateway"), "", "").write_key("a.key", bytes(20))
    assert path.read_text() == "00" * 20 + "\n" and path.stat().st_mode & 0o777 == 0o600


def test_device_strings():
    assert af_packet("site0") == "net_af_packet0,iface=site0,framecnt=4096"
    assert af_packet("core0", 1) == "net_af_packet1,iface=core0,framecnt=4096"
