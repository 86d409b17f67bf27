# SPDX-License-Identifier: Apache-2.0
"""One headend: a greyhound-dataplane and a greyhound-control in a namespace, with their folders, and the CLI.

Only the programs' interface is used: `--config-dir`, `--run-dir`, `--state-dir` (each the instance's own folder),
`--instance`, the files `<config>/{dataplane,config}.toml`, the sockets `<run>/{dataplane,control}.sock`, `--json`.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

from harness import cleanup, netns, skips, wait

#: How a dataplane port opens a veth end: rings large enough for bursts.
AF_PACKET_DEVICE = "net_af_packet0,iface={interface},framecnt=4096"


class CliError(Exception):
    """The CLI ended with a failure; the text is what it said."""

    def __init__(self, args, done):
        super().__init__(f"greyhound {' '.join(args)}: exit {done.returncode}: {done.stderr.strip()}")
        self.returncode = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr


def af_packet(interface, index=0):
    """The device string of a veth end; `index` tells several in one dataplane apart."""
    return AF_PACKET_DEVICE.replace("packet0", f"packet{index}").format(interface=interface)


class Headend:
    """The two processes of one instance. Nothing runs until `start`, `start_dataplane` or `start_control`."""

    def __init__(self, lab, namespace, dataplane_toml, config_toml, instance="main", env=None):
        self.lab = lab
        self.namespace = namespace
        self.instance = instance
        self.env = dict(env or {})
        self.folder = pathlib.Path(lab.folder, f"headend-{namespace.label}-{instance}")
        self.config_dir = self.folder / "etc"
        self.state_dir = self.folder / "state"
        # A Unix socket's path is limited to 107 octets, so sockets do not live in the test's folder.
        self.run_dir = pathlib.Path(tempfile.mkdtemp(prefix="gh-run-"))
        self._undo = cleanup.register(lambda: shutil.rmtree(self.run_dir), f"folder {self.run_dir}")
        for folder in (self.config_dir, self.state_dir):
            folder.mkdir(parents=True, mode=0o700)
        self.write_config("dataplane.toml", dataplane_toml)
        self.write_config("config.toml", config_toml)
        self.dataplane = None
        self.control = None

    # Files

    def write_config(self, name, text):
        """Writes (or replaces) a file beside the configuration; returns its path."""
        path = self.config_dir / name
        path.write_text(text)
        os.chmod(path, 0o600)
        return path

    def write_key(self, name, key_material):
        """Writes key ‖ salt as a key file (one line of hex, 0600); returns its path."""
        return self.write_config(name, bytes(key_material).hex() + "\n")

    def socket_path(self, name):
        """`dataplane` or `control`: where that process listens."""
        return self.run_dir / f"{name}.sock"

    @property
    def flags(self):
        """The flags that both processes take."""
        return ["--config-dir", self.config_dir, "--run-dir", self.run_dir, "--state-dir", self.state_dir,
                "--instance", self.instance]

    # Processes

    def start(self, timeout=30.0):
        """Makes the state, starts both, waits until both listen."""
        self.init_state()
        self.start_dataplane(timeout)
        self.start_control(timeout)
        return self

    def init_state(self):
        """Makes an empty store of sequence limits, as an operator does once on a new machine."""
        netns.run([skips.binary_folder() / "greyhound-dataplane", *self.flags, "init-state"],
                  env={**os.environ, **self.env})

    def start_dataplane(self, timeout=30.0):
        """Starts the dataplane and waits until it listens."""
        self.dataplane = self._start("greyhound-dataplane")
        self._wait_listening("dataplane", self.dataplane, timeout)
        return self.dataplane

    def start_control(self, timeout=30.0):
        """Starts control and waits until it listens."""
        self.control = self._start("greyhound-control")
        self._wait_listening("control", self.control, timeout)
        return self.control

    def stop(self):
        """Ends both with SIGTERM; returns their exit statuses (None for one that did not run)."""
        return tuple(process.stop() if process else None for process in (self.control, self.dataplane))

    def close(self):
        """Removes the folder of the sockets; the processes must have ended."""
        self._undo.run()

    def kill_dataplane(self):
        """SIGKILL."""
        self.dataplane.kill()

    def kill_control(self):
        """SIGKILL."""
        self.control.kill()

    # CLI

    def cli(self, *args, stdin=None, timeout=30.0):
        """Runs `greyhound ARGS --json` and returns the parsed answer (None where it prints nothing)."""
        done = self.cli_raw(*args, "--json", stdin=stdin, timeout=timeout)
        if done.returncode != 0:
            raise CliError([str(arg) for arg in args], done)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def cli_raw(self, *args, stdin=None, timeout=30.0):
        """Runs `greyhound ARGS` and returns the finished process with its output as text, whatever its status."""
        command = [skips.binary_folder() / "greyhound", "--run-dir", self.run_dir, "--instance", self.instance, *args]
        given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return netns.run([str(word) for word in command], check=False, timeout=timeout, **given)

    def wait_cli(self, *args, condition, what, timeout=30.0):
        """Asks the CLI until `condition(answer)` holds; returns that answer."""

        def asked():
            try:
                answer = self.cli(*args)
            except CliError as error:
                raise wait.NotYet(str(error)) from None
            return (answer,) if condition(answer) else None

        return wait.until(asked, what, timeout, interval=0.05)[0]

    # Inside

    def _start(self, program):
        binary = skips.binary_folder() / program
        return self.lab.start(self.namespace, [binary, *self.flags], env={"NO_COLOR": "1", **self.env},
                              name=f"{program}-{self.namespace.label}-{self.instance}")

    def _wait_listening(self, name, process, timeout):
        path = self.socket_path(name)

        def listening():
            if not process.running:
                raise RuntimeError(f"{process.name} ended ({process.returncode}):\n{process.tail()}")
            return _connects(path)

        wait.until(listening, f"{process.name} to listen on {path}", timeout)


def _connects(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
