# SPDX-License-Identifier: Apache-2.0
"""Seeded random valid configurations over the real processes: what is applied is what runs and what is listed.

Each seed is applied over the one before it, so that every change between two of them happens to a running dataplane.
"""

import ipaddress
import random

import pytest

from harness import toml
from harness.headend import af_packet
from harness.scene import dataplane_toml

pytestmark = [pytest.mark.requires_root, pytest.mark.requires_binaries]

SEEDS = [826, 2544, 4303, 6040, 8221]
UPLINKS = 2


@pytest.fixture(scope="module")
def gateway(module_lab):
    """A headend with three ports, and nothing at their far ends."""
    inside, outside = module_lab.namespace("gateway"), module_lab.namespace("far")
    names = ["lan", *(f"wan{number}" for number in range(UPLINKS))]
    for name in names:
        module_lab.veth(inside, f"{name}p", outside, f"{name}f")
    ports = [(name, af_packet(f"{name}p", number)) for number, name in enumerate(names)]
    headend = module_lab.headend(inside, dataplane_toml(ports), "")
    headend.start()
    headend.wait_cli("status", condition=lambda answer: answer["dataplane"], what="a connected dataplane")
    return headend


class Sampler:
    """A random configuration that is valid; keys go into files beside it."""

    def __init__(self, headend, seed):
        self.rng = random.Random(seed)
        self.headend = headend
        self.config = {"manual_keying": "lab", "loopbacks": ["10.255.0.1/32", "2001:db8:ffff::1/128"]}
        for kind in ("port", "neighbor", "route", "protection", "tunnel", "policy", "sa"):
            self.config[kind] = []
        self.spis = set()
        self.ports()
        for site in range(self.rng.randrange(2, 9)):
            self.site(site)
        for number in range(self.rng.randrange(0, 6)):
            self.policy(number)

    def maybe(self, value, chance=0.5):
        return value() if self.rng.random() < chance else None

    def ports(self):
        rng = self.rng
        self.config["port"].append({"name": "lan", "side": "protected", "addresses": ["10.0.0.1/16", "2001:db8::1/64"]})
        for number in range(UPLINKS):
            us, gateway = rng.sample(range(1, 255), 2)
            self.config["port"].append({
                "name": f"wan{number}", "side": "unprotected", "mtu": self.maybe(lambda: rng.randrange(1_280, 1_501)),
                "addresses": [f"198.18.{number}.{us}/24", f"2001:db8:{number + 1:x}::{us:x}/64"],
                "answer_ping": self.maybe(lambda: rng.choice((True, False)))})
            self.config["route"].append({
                "prefix": f"100.{64 + number}.0.0/16", "port": f"wan{number}", "via": f"198.18.{number}.{gateway}"})
            if rng.random() < 0.5:
                mac = bytes([2, *rng.randbytes(5)]).hex(":")
                self.config["neighbor"].append(
                    {"port": f"wan{number}", "address": f"198.18.{number}.{gateway}", "mac": mac})
        if rng.random() < 0.5:
            self.config["route"].append({"prefix": "11.255.0.0/16", "discard": True})

    def header(self):
        rng = self.rng
        return {"tos": self.maybe(lambda: rng.choice(("copy", rng.randrange(64)))),
                "df": self.maybe(lambda: rng.choice(("copy", "clear", "set"))),
                "ttl": self.maybe(lambda: rng.randrange(1, 256))}

    def site(self, site):
        rng, name, uplink = self.rng, f"site-{site}", self.rng.randrange(UPLINKS)
        ours = self.config["port"][1 + uplink]["addresses"][0].split("/")[0]
        theirs = f"100.{64 + uplink}.0.{site + 1}"
        kind = rng.choice(("gre", "esp", "transport", "tunnel", "dual"))
        if kind != "gre":
            self.protection(name, "transport" if kind == "transport" else "tunnel", ours, theirs)
        if kind == "esp":
            self.config["policy"].append({
                "name": name, "port": f"wan{uplink}", "local": "10.0.0.0/16", "remote": f"11.{site}.0.0/16",
                "action": "protect", "protection": name})
            self.config["route"].append({"prefix": f"11.{site}.0.0/16", "port": f"wan{uplink}",
                                         "via": self.config["route"][uplink]["via"]})
            return
        if kind == "dual":
            ours, theirs = "10.255.0.1", f"10.254.{site}.1"
        self.config["tunnel"].append({
            "name": name, "source": ours, "destination": theirs, "key": self.maybe(lambda: rng.randrange(1 << 32)),
            "checksum": rng.choice((True, False)), "sequence": rng.choice((True, False)),
            "protection": None if kind == "gre" else name, **self.header(),
            "mtu": self.maybe(lambda: rng.randrange(576, 1_400), 0.3),
            "mss": self.maybe(lambda: rng.choice(("automatic", "off", rng.randrange(216, 1_400)))),
            "strict_source": self.maybe(lambda: rng.choice((True, False)))})
        self.config["route"].append({"prefix": f"11.{site}.0.0/{rng.randrange(16, 25)}", "tunnel": name})
        if kind == "gre":
            self.config["policy"].append({
                "name": name, "port": f"wan{uplink}", "local": f"{ours}/32", "remote": f"{theirs}/32",
                "protocol": rng.choice(("gre", 47)), "action": "bypass"})

    def protection(self, name, mode, ours, theirs):
        self.config["protection"].append(
            {"name": name, "mode": mode, "local": ours, "remote": theirs, **self.header()})
        self.sa(name, "outbound")
        for _ in range(self.rng.randrange(1, 3)):
            self.sa(name, "inbound")

    def sa(self, protection, direction):
        rng = self.rng
        spi = rng.choice([spi for spi in rng.sample(range(0x100, 1 << 32), 4) if spi not in self.spis])
        self.spis.add(spi)
        path = self.headend.write_key(f"{spi:08x}.key", rng.randbytes(rng.choice((16, 24, 32)) + 4))
        inbound = direction == "inbound"
        esn = rng.choice((True, False))
        # RFC 4303 App. A2: without a window the high half of an ESN cannot be inferred.
        window = self.maybe(lambda: rng.choice((64 if esn else 0, 64, 128, 1_024, 8_192))) if inbound else None
        prefix = None if inbound else self.maybe(lambda: {"bits": 8, "value": rng.randrange(256)}, 0.3)
        lifetime = self.maybe(lambda: {"soft_packets": 1 << 30, "hard_packets": 1 << 31}, 0.3)
        self.config["sa"].append({
            "protection": protection, "direction": direction, "spi": spi, "key_file": str(path),
            "algorithm": rng.choice(("ENCR_AES_GCM_16", "ENCR_AES_GCM_12", "ENCR_AES_GCM_8")),
            "esn": esn, "replay_window": window, "iv_prefix": prefix, "lifetime": lifetime})

    def policy(self, number):
        rng = self.rng
        local = ipaddress.ip_network((rng.randrange(1 << 32), rng.randrange(33)), strict=False)
        first = rng.randrange(1, 65_000)
        self.config["policy"].append({
            "name": f"policy-{number}", "port": f"wan{rng.randrange(UPLINKS)}", "local": self.maybe(lambda: local),
            "protocol": rng.choice(("udp", "tcp")),
            "local_ports": self.maybe(lambda: rng.choice((str(first), f"{first}-{first + 500}"))),
            "remote_ports": self.maybe(lambda: "500"), "action": rng.choice(("bypass", "discard"))})


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_applied_runs_and_is_listed(gateway, seed):
    wanted = Sampler(gateway, seed).config
    path = gateway.write_config("wanted.toml", toml.dumps(wanted))
    before = gateway.cli_raw("config").stdout

    assert gateway.cli_raw("diff", path).returncode == 1, "it differs from what runs"
    gateway.cli("apply", path, "--dry-run")
    assert gateway.cli_raw("config").stdout == before, "a dry run changed the configuration"

    answer = gateway.cli("apply", path)
    assert answer["outcome"] == "committed", answer
    agrees(gateway, wanted, path)
    assert gateway.cli("apply", path)["outcome"] == "unchanged"

    printed = gateway.write_config("printed.toml", gateway.cli_raw("config").stdout)
    assert gateway.cli_raw("diff", printed).returncode == 0, "what `config` prints is what runs"


def test_a_control_that_starts_again_takes_over_what_runs(gateway):
    wanted = Sampler(gateway, SEEDS[0]).config
    path = gateway.write_config("wanted.toml", toml.dumps(wanted))
    gateway.cli("apply", path)
    generation = gateway.cli("status")["dataplane"]["generation"]
    gateway.kill_control()
    gateway.start_control()
    status = gateway.wait_cli("status", condition=lambda answer: answer["configuration"]["phase"] == "committed",
                              what="control to have taken over")
    assert status["dataplane"]["generation"] == generation, "it changed what ran already"
    agrees(gateway, wanted, path)


def test_a_dataplane_that_starts_again_is_filled_again(gateway):
    wanted = Sampler(gateway, SEEDS[1]).config
    path = gateway.write_config("wanted.toml", toml.dumps(wanted))
    gateway.cli("apply", path)
    gateway.kill_dataplane()
    dataplane = gateway.start_dataplane()
    gateway.wait_cli("status", what="the dataplane to be filled", condition=lambda answer: answer["dataplane"]
                     and answer["dataplane"]["pid"] == dataplane.pid
                     and answer["configuration"]["phase"] == "committed")
    agrees(gateway, wanted, path)


def agrees(gateway, wanted, path):
    """Every list says what the configuration says."""
    diff = gateway.cli_raw("diff", path)
    assert (diff.returncode, diff.stdout) == (0, ""), diff.stdout
    status = gateway.cli("status")["configuration"]
    assert (status["phase"], status["trouble"]) == ("committed", [])

    sas = {(row["direction"], row["spi"]): row for row in gateway.cli("sa", "list")}
    assert set(sas) == {(sa["direction"], sa["spi"]) for sa in wanted["sa"]}
    for sa in wanted["sa"]:
        row = sas[sa["direction"], sa["spi"]]
        assert row["installed"] and row["protection"] == sa["protection"]
        assert (row["algorithm"], row["esn"]) == (sa["algorithm"], sa["esn"])
        assert (row["next_sequence"] is not None) == (sa["direction"] == "outbound")

    tunnels = {row["name"]: row for row in gateway.cli("tunnel", "list")}
    assert set(tunnels) == {tunnel["name"] for tunnel in wanted["tunnel"]}
    for tunnel in wanted["tunnel"]:
        row = tunnels[tunnel["name"]]
        assert row["installed"]
        for field in ("source", "destination", "protection", "key"):
            assert row.get(field) == tunnel[field], field
        limit = tunnel["mtu"] or 1_500
        assert row["egress"].startswith("wan") and 500 < row["effective_mtu"] <= limit

    routes = gateway.cli("route", "list")
    configured = {row["prefix"]: row for row in routes if row["origin"] == "configured"}
    assert set(configured) == {route["prefix"] for route in wanted["route"]}
    for route in wanted["route"]:
        for field in ("tunnel", "port", "via"):
            assert configured[route["prefix"]].get(field) == route.get(field), route
    connected = {str(ipaddress.ip_interface(address).network)
                 for port in wanted["port"] for address in port["addresses"]}
    assert {row["prefix"] for row in routes if row["origin"] == "connected"} == connected

    for port in {policy["port"] for policy in wanted["policy"]}:
        mine = [policy["name"] for policy in wanted["policy"] if policy["port"] == port]
        rows = [row for row in gateway.cli("policy", "list") if row["port"] == port]
        assert [row["name"] for row in sorted(rows, key=lambda row: row["order"])] == mine

    ports = {row["name"]: row for row in gateway.cli("port", "list")}
    for port in wanted["port"]:
        assert ports[port["name"]]["side"] == port["side"]
        assert ports[port["name"]]["addresses"] == port["addresses"]
        assert ports[port["name"]]["mtu"] == (port.get("mtu") or 1_500)

    statics = {(row["port"], row["address"], row["mac"]) for row in gateway.cli("neighbor", "list")
               if row["state"] == "static"}
    assert statics == {(entry["port"], entry["address"], entry["mac"]) for entry in wanted["neighbor"]}
