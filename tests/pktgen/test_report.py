# SPDX-License-Identifier: Apache-2.0
"""The packet generator's report: made from results that were kept, opened in a browser, and whole without anything else."""

import shutil
import struct
import subprocess
import zlib

import pytest

from harness import skips

#: A name that would be markup, were it not escaped.
NAME = '<b id="injected">a & b</b>'

PROFILE = f"""
[[stream]]
name = '{NAME}'
rate = {{ pps = 2_000 }}
size = 150
ip = {{ source = "10.0.0.1", destination = "10.1.0.1" }}
udp = {{}}
"""

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1000,6000"]


def generate(*args):
    command = [str(word) for word in (skips.binary_folder() / "greyhound-pktgen", *args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of one run and one RFC 2544, over memory ports."""
    reason = skips.missing_binaries(("greyhound-pktgen",))
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("report")
    profile = folder / "profile.toml"
    profile.write_text(PROFILE)
    port = ("--port", "memory,delay_us=100")
    run = generate("--json", "run", profile, *port, "--seconds", "0.5")
    benchmarks = generate("--json", "rfc2544", profile, *port, "--line-bps", "1e7", "--sizes", "64,512",
                          "--seconds", "0.2", "--resolution", "20", "--repeats", "2",
                          "--benchmarks", "throughput,latency,loss")
    for name, done in (("run.json", run), ("rfc2544.json", benchmarks)):
        assert done.stdout, done.stderr
        (folder / name).write_text(done.stdout)
    done = generate("report", folder / "run.json", folder / "rfc2544.json", "--html", folder / "page.html")
    assert done.returncode == 0, done.stderr
    return folder / "page.html"


def chromium(*args):
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium: not installed (scripts/setup.sh installs it)")
    return subprocess.run([program, *FLAGS, *args], check=True, capture_output=True, text=True, timeout=120).stdout


def colours(png):
    """The colours of a picture of 8 bits a channel, not interlaced, as Chromium writes it."""
    data, at, packed = png.read_bytes(), 8, b""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    assert (depth, interlaced) == (8, 0) and colour in (2, 6)
    step, lines = {2: 3, 6: 4}[colour], zlib.decompress(packed)
    found, above = set(), bytearray(width * step)
    for row in range(height):
        start = row * (width * step + 1)
        line, way = bytearray(lines[start + 1:start + 1 + width * step]), lines[start]
        for place in range(len(line)) if way else ():
            left = line[place - step] if place >= step else 0
            corner = above[place - step] if place >= step else 0
            line[place] = line[place] + predicted(way, left, above[place], corner) & 0xff
        found |= {bytes(line[place:place + 3]).hex() for place in range(0, len(line), step)}
        above = line
    return found


def predicted(way, left, above, corner):
    """What the PNG specification (§9.2) adds to a filtered octet."""
    if way == 4:
        return min((left, above, corner), key=lambda value: abs(left + above - corner - value))
    return (0, left, above, (left + above) // 2)[way]


def test_a_browser_shows_plots_tables_and_the_machine(page):
    dom = chromium("--dump-dom", page.as_uri())
    # One plot of throughput and one of latency for each, and the loss by load.
    assert dom.count("<svg") == 5
    for words in ("RFC 2544: Ethernet frames with FCS", "Throughput by stream", "Throughput by frame size",
                  "Latency at the throughput, cumulative", "Loss by load", "Frame loss", "Machine", "kernel"):
        assert words in dom, words


def test_words_from_a_profile_stay_words(page):
    dom = chromium("--dump-dom", page.as_uri())
    assert "&lt;b id=" in dom and "a &amp; b" in dom
    assert '<b id="injected">' not in dom


def test_the_picture_is_not_blank(page):
    picture = page.with_suffix(".png")
    chromium(f"--screenshot={picture}", page.as_uri())
    # The first two series' colours, and text.
    assert {"0072b2", "d55e00", "1a1a1a"} <= colours(picture)


def test_the_page_needs_nothing_else(page):
    text = page.read_text()
    for outside in ("src=", "href=", "url(", "@import", "<script"):
        assert outside not in text
    assert text.count("http") == text.count("http://www.w3.org/2000/svg")


def test_what_is_no_result_is_refused(tmp_path):
    reason = skips.missing_binaries(("greyhound-pktgen",))
    if reason:
        pytest.skip(reason)
    for text, named in (("{}", "rfc2544 --json"), ("not json", "run --json")):
        (tmp_path / "r.json").write_text(text)
        done = generate("report", tmp_path / "r.json", "--html", tmp_path / "page.html")
        assert done.returncode != 0 and named in done.stderr and "r.json" in done.stderr
    assert not (tmp_path / "page.html").exists()
    assert "run --json" in generate("report", "--help").stdout
