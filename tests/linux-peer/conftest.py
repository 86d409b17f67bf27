# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests that boot a Linux guest; they belong to the slow ones."""

import os
from pathlib import Path

import pytest

from linuxpeer import LinuxPeer, Unavailable, prepare


@pytest.fixture(scope="session")
def linux_image(tmp_path_factory):
    """Kernel and initial ram disk; made once a run, or kept in the folder GREYHOUND_LINUX_PEER_CACHE names."""
    cache = os.environ.get("GREYHOUND_LINUX_PEER_CACHE")
    try:
        return prepare(Path(cache) if cache else tmp_path_factory.mktemp("linux-image"))
    except Unavailable as reason:
        pytest.skip(f"linux-peer: {reason}")


@pytest.fixture
def linux_peer(linux_image):
    """Boots guests: `linux_peer(name="peer", nics=(...), namespace=...)`; they end with the test."""
    started = []

    def start(name="peer", **options):
        peer = LinuxPeer(linux_image, name, **options)
        started.append(peer)
        peer.start()
        return peer

    yield start
    for peer in started:
        peer.stop()
