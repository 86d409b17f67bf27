# SPDX-License-Identifier: Apache-2.0
"""The checks in scripts/: each must find what it is there to find."""

import importlib.machinery
import importlib.util
import subprocess
import sys

import pytest

from harness import skips

SCRIPTS = skips.REPOSITORY / "scripts"

TABLE = """
| crate | may use | its tests may use too | unsafe |
|---|---|---|---|
| wire | nothing | nothing | no |
| port | wire (optional) | nothing | yes: foreign functions |
| process | all of the above | nothing | no |
| perf, simulation | anything | anything | no |
| pipeline | wire | port | no |

| another | table |
"""


def load(name):
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(SCRIPTS / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    # dataclasses look their module up by name.
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def workspace(*edges):
    return {"crates": dict.fromkeys(("wire", "port", "process", "perf", "simulation", "pipeline")), "edges": set(edges)}


def test_edges_inside_the_table_pass():
    edges = load("check-edges")
    table = edges.read_table(TABLE)
    allowed = workspace(("port", "wire", "normal"), ("process", "port", "build"), ("perf", "process", "normal"),
                        ("simulation", "wire", "dev"), ("pipeline", "port", "dev"))
    assert edges.check(table, allowed) == []


@pytest.mark.parametrize("edge", (
    ("wire", "port", "normal"), ("wire", "port", "dev"), ("port", "process", "normal"), ("process", "perf", "normal"),
    ("pipeline", "port", "normal"), ("pipeline", "port", "build"),
))
def test_an_edge_outside_the_table_is_found(edge):
    edges = load("check-edges")
    (problem,) = edges.check(edges.read_table(TABLE), workspace(edge))
    assert problem.startswith(f"{edge[0]} uses {edge[1]}")


def test_a_crate_without_a_row_and_a_row_without_a_crate_are_found():
    edges = load("check-edges")
    there = workspace()
    there["crates"]["stranger"] = there["crates"].pop("wire")
    assert len(edges.check(edges.read_table(TABLE), there)) == 2


def test_a_table_that_names_an_unknown_crate_is_refused():
    edges = load("check-edges")
    with pytest.raises(SystemExit, match="no row for"):
        edges.read_table(TABLE.replace("wire (optional)", "cable"))
    with pytest.raises(SystemExit, match="no table"):
        edges.read_table("| crate |")


def test_the_tables_unsafe_column_is_read():
    table = load("check-edges").read_table(TABLE)
    assert [name for name, row in table.items() if row["unsafe"]] == ["port"]


@pytest.mark.parametrize("expression, fits", (
    ("MIT", True), ("MIT OR GPL-3.0-only", True), ("MIT/Apache-2.0", True), ("Apache-2.0 / MIT", True),
    ("(MIT OR Apache-2.0) AND Unicode-3.0", True), ("Apache-2.0 WITH LLVM-exception", True),
    ("GPL-2.0-only OR (MIT AND Zlib)", True),
    ("", False), ("GPL-3.0-or-later", False), ("MIT AND GPL-2.0-only", False), ("(MIT OR GPL-2.0-only", False),
    ("GPL-2.0-only WITH Classpath-exception-2.0", False), ("MIT OR", True), ("MIT nonsense", False),
    ("LGPL-2.1 OR (GPL-2.0-only AND MIT)", False),
))
def test_licence_expressions(expression, fits):
    assert load("check-licences").fits(expression) == fits


CARGO_LOG = """
running 4 tests
test seal::opens_what_it_seals ... ok
test window::is_too_slow ... ignored, slow: takes ten minutes
test pool::uses_huge_pages ... ignored
skipped: huge pages: none are configured
test result: ok. 7 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.10s
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
"""

PYTEST_LOG = """
=========================== short test summary info ============================
SKIPPED [2] tests/conftest.py:39: ping: not installed (scripts/setup.sh installs it)
============= 2 failed, 93 passed, 2 skipped, 1 deselected, 1 error in 5.22s =============
"""


def test_logs_are_counted():
    tally = load("tally")
    cargo, pytest_counts = tally.count(CARGO_LOG), tally.count(PYTEST_LOG)
    assert (cargo.passed, cargo.failed) == (9, 1)
    assert cargo.skips == {"slow: takes ten minutes": 1, "ignored: pool::uses_huge_pages": 1,
                           "huge pages: none are configured": 1}
    assert (pytest_counts.passed, pytest_counts.failed) == (93, 3)
    assert pytest_counts.skips == {"ping: not installed (scripts/setup.sh installs it)": 2}
    assert tally.count("93 passed, 1 skipped in 5.22s\n").passed == 93
    assert tally.count("3 passed, 1 warning in 61.00s (0:01:01)\n").passed == 3


@pytest.mark.parametrize("log, status, required, last, code", (
    (CARGO_LOG.replace("1 failed", "0 failed"), "ok", "0", "9 passed, 0 failed, 3 skipped", 0),
    (CARGO_LOG.replace("1 failed", "0 failed"), "ok", "1", "9 passed, 2 failed, 1 skipped", 1),
    ("skipped stage: miri: no nightly\n", "skipped", "1", "0 passed, 0 failed, 1 skipped", 0),
    ("skipped stage: fuzz: not there\n", "skipped", "1", "0 passed, 1 failed, 0 skipped", 1),
    ("error: could not compile\n", "FAILED", "0", "0 passed, 1 failed, 0 skipped", 1),
))
def test_the_last_line_and_the_exit_status(tmp_path, log, status, required, last, code):
    (tmp_path / "01-stage.log").write_text(log)
    (tmp_path / "01-stage.status").write_text(f"{status} 3\n")
    done = subprocess.run([sys.executable, SCRIPTS / "tally", tmp_path], capture_output=True, text=True, check=False,
                          env={"GREYHOUND_REQUIRE_ALL": required})
    assert (done.stdout.splitlines()[-1], done.returncode) == (last, code)


PROBE = """
import pytest
def test_named(): pytest.skip("slow: an hour")
def test_other(): pytest.skip("the cat sits on it")
@pytest.mark.requires_tools("no-such-program")
def test_marked(): raise AssertionError("must not run")
"""


@pytest.mark.parametrize("required, outcome", (("0", "3 skipped"), ("1", "1 failed, 1 skipped, 1 error")))
def test_a_skip_that_is_not_named_fails_where_everything_is_required(tmp_path, required, outcome):
    (tmp_path / "test_probe.py").write_text(PROBE)
    for name in ("conftest.py", "pytest.ini"):
        (tmp_path / name).write_text((skips.REPOSITORY / "tests" / name).read_text())
    done = subprocess.run([sys.executable, "-m", "pytest", tmp_path], capture_output=True, text=True, check=False,
                          env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "GREYHOUND_REQUIRE_ALL": required,
                               "PYTHONPATH": str(skips.REPOSITORY / "tests")})
    assert outcome in done.stdout.splitlines()[-1], done.stdout
