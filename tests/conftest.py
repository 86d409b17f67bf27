# SPDX-License-Identifier: Apache-2.0
"""Fixtures and rules for all end-to-end tests: markers that skip, skips that may not happen, logs of failed tests."""

import pytest

from harness import netns, skips
from harness.lab import Lab

_LAB = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the scenarios marked slow as well (emulated guests)")


def pytest_sessionstart(session):
    if skips.missing_root() is None:
        netns.sweep_stale()


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_runtest_setup(item):
    reasons = []
    if item.get_closest_marker("requires_root"):
        reasons.append(skips.missing_root())
    for marker in item.iter_markers("requires_tools"):
        reasons.append(skips.missing_tools(marker.args))
    if item.get_closest_marker("requires_binaries"):
        reasons.append(skips.missing_binaries())
    for reason in filter(None, reasons):
        pytest.skip(reason)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    if report.failed:
        for node in (node for node in item.listchain() if _LAB in node.stash):
            report.sections.extend((f"log of {name}", text) for name, text in node.stash[_LAB].logs())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    outcome = yield
    report = outcome.get_result()
    if report.skipped:
        _refuse_skip(report)


def _refuse_skip(report):
    """Turns a skip into a failure where everything is required and the skip is not a named one."""
    reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
    if skips.require_all() and not skips.allowed(reason):
        report.outcome = "failed"
        report.longrepr = f"GREYHOUND_REQUIRE_ALL=1 and skipped: {reason}"


def _lab(folder, node):
    reason = skips.missing_root() or skips.missing_tools(("ip", "ethtool"))
    if reason:
        pytest.skip(reason)
    made = Lab(folder)
    node.stash[_LAB] = made
    yield made
    made.close()


@pytest.fixture
def lab(tmp_path, request):
    """An empty `Lab`; what is made in it goes when the test ends. Needs root."""
    yield from _lab(tmp_path, request.node)


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory, request):
    """As `lab`, for all tests of a file: what is slow to start is started once. Needs root and the binaries."""
    reason = skips.missing_root() or skips.missing_binaries()
    if reason:
        pytest.skip(reason)
    yield from _lab(tmp_path_factory.mktemp(request.module.__name__), request.node)


@pytest.fixture
def headend(lab):
    """Makes headends: `headend(namespace, dataplane_toml, config_toml, instance="main")`. Needs the binaries."""
    reason = skips.missing_binaries()
    if reason:
        pytest.skip(reason)
    return lab.headend
