# SPDX-License-Identifier: Apache-2.0
"""Capture files, waiting, undoing, and the named skips, without a network."""

import os
import signal
import struct
import subprocess
import sys

import pytest

from harness import cleanup, frames, pcap, skips, wait


def test_a_capture_file_round_trips(tmp_path):
    records = [pcap.Record(1_700_000_000_123_456_789, b"\x02" * 60), pcap.Record(5, b"\x03" * 1514)]
    pcap.write(tmp_path / "x.pcap", records)
    assert pcap.read(tmp_path / "x.pcap") == records


@pytest.mark.parametrize("order", "<>")
def test_both_byte_orders_and_both_clocks_are_read(tmp_path, order):
    for magic, nanoseconds in ((pcap.MAGIC_MICROSECONDS, 7_000), (pcap.MAGIC_NANOSECONDS, 7)):
        data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
        data += struct.pack(order + "IIII", 1, 7, 3, 3) + b"abc"
        (tmp_path / "x.pcap").write_bytes(data)
        assert pcap.read(tmp_path / "x.pcap") == [pcap.Record(1_000_000_000 + nanoseconds, b"abc")]


def test_a_file_cut_short_ends_before_the_cut_and_a_cut_frame_is_an_error(tmp_path):
    pcap.write(tmp_path / "x.pcap", [b"a" * 60, b"b" * 60])
    data = (tmp_path / "x.pcap").read_bytes()
    (tmp_path / "x.pcap").write_bytes(data[:-1])
    assert pcap.frames(tmp_path / "x.pcap") == [b"a" * 60]
    (tmp_path / "x.pcap").write_bytes(data[:36] + struct.pack("<I", 1000) + data[40:])
    with pytest.raises(ValueError, match="cut"):
        pcap.read(tmp_path / "x.pcap")


def test_frames_are_told_apart_as_esp_clear_and_neighbour_traffic():
    ethernet = bytes(12)
    ipv4 = bytearray(bytes.fromhex("45000018000100004032") + bytes(10) + b"esp!")
    ipv6 = bytes.fromhex("60000000000c3c40") + bytes(32) + b"\x32\0" + bytes(6) + b"esp!"
    assert frames.esp_of(ethernet + b"\x08\x00" + ipv4 + bytes(18)) == b"esp!"
    assert frames.esp_of(ethernet + b"\x81\x00\x00\x05\x08\x00" + ipv4) == b"esp!"
    assert frames.esp_of(ethernet + b"\x86\xdd" + ipv6) == b"esp!"
    assert not frames.is_clear(ethernet + b"\x08\x06" + bytes(46))
    ipv4[9] = 47
    assert frames.is_clear(ethernet + b"\x08\x00" + ipv4)
    solicitation = bytes.fromhex("6000000000183aff") + bytes(32) + b"\x87" + bytes(23)
    assert not frames.is_clear(ethernet + b"\x86\xdd" + solicitation)
    assert frames.is_clear(ethernet + b"\x86\xdd" + solicitation.replace(b"\x87", b"\x80"))


def test_waiting_ends_with_the_value_or_with_the_reason():
    answers = iter((0, None, "here"))
    assert wait.until(lambda: next(answers), "an answer", timeout=5) == "here"

    def never():
        raise wait.NotYet("the cat sits on it")

    with pytest.raises(TimeoutError, match="a seat.*the cat"):
        wait.until(never, "a seat", timeout=0.05)


def test_undoing_runs_once_and_survives_a_failure(capsys):
    done = []
    first = cleanup.register(lambda: done.append("first"), "first")
    broken = cleanup.register(lambda: 1 / 0, "broken")
    first.run()
    first.run()
    broken.run()
    assert done == ["first"] and "broken: division" in capsys.readouterr().err


def test_undoing_runs_on_sigterm_too(tmp_path):
    script = ("import os, pathlib, signal; from harness import cleanup;"
              f"cleanup.register(lambda: pathlib.Path({str(tmp_path / 'undone')!r}).touch(), 'mark');"
              "os.kill(os.getpid(), signal.SIGTERM)")
    environment = {**os.environ, "PYTHONPATH": str(skips.REPOSITORY / "tests")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert done.returncode == -signal.SIGTERM and (tmp_path / "undone").exists()


def test_only_named_skips_are_allowed():
    prefixes = skips.allowed_prefixes()
    assert prefixes and all(skips.allowed(prefix + " and more") for prefix in prefixes)
    assert not skips.allowed("root: namespaces need it") and not skips.allowed("")


def test_a_missing_tool_is_a_reason_to_skip():
    assert skips.missing_tools(("sh",)) is None
    assert "no-such-program" in skips.missing_tools(("sh", "no-such-program"))
