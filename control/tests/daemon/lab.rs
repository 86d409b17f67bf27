// SPDX-License-Identifier: Apache-2.0
//! Folders, processes and requests: what every test needs.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake::Fake;

/// Key ‖ salt as hex, recognisable in any place where it should not be.
pub(crate) fn key_line(number: u8) -> String {
    format!("c0ffee{number:02x}").repeat(5)
}

/// A configuration with one protected tunnel, whose keys are in files.
pub(crate) const CONFIG: &str = r#"
manual_keying = "lab"

[[port]]
name = "lan"
side = "protected"
addresses = ["10.1.0.1/24"]

[[port]]
name = "wan"
side = "unprotected"
addresses = ["192.0.2.1/24"]

[[protection]]
name = "branch-7"
local = "192.0.2.1"
remote = "192.0.2.9"

[[tunnel]]
name = "branch-7"
source = "192.0.2.1"
destination = "192.0.2.9"
protection = "branch-7"

[[route]]
prefix = "10.2.0.0/16"
tunnel = "branch-7"

[[sa]]
protection = "branch-7"
direction = "inbound"
spi = 0x1001
key_file = "in.key"

[[sa]]
protection = "branch-7"
direction = "outbound"
spi = 0x2001
key_file = "out.key"
"#;

/// An unprotected tunnel more.
pub(crate) const BRANCH_8: &str = r#"
[[tunnel]]
name = "branch-8"
source = "192.0.2.1"
destination = "192.0.2.10"
"#;

/// Folders of one instance, and the daemon if it runs.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
}

/// What a run of the CLI gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Lab {
    /// Folders with `config.toml` (unless it is empty) and its two keys.
    pub(crate) fn new(config: &str) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap(), daemon: None };
        for folder in [lab.config_dir(), lab.run_dir()] {
            std::fs::create_dir(folder).unwrap();
        }
        if !config.is_empty() {
            lab.write("config.toml", config);
        }
        lab.write("in.key", &key_line(1));
        lab.write("out.key", &key_line(2));
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config_dir(&self) -> PathBuf {
        self.path("etc")
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// A file of control's state.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.path("state/control").join(name)
    }

    /// Writes a file beside the configuration, 0600.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.config_dir().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(crate) fn fake(&self) -> Fake {
        Fake::start(&self.run_dir())
    }

    /// A lab in which control has filled a dataplane with `config`.
    pub(crate) fn filled(config: &str) -> (Self, Fake) {
        let mut lab = Self::new(config);
        let fake = lab.fake();
        lab.start();
        lab.wait_phase("committed");
        fake.take_transactions();
        (lab, fake)
    }

    /// Starts the daemon and waits until it listens.
    pub(crate) fn start(&mut self) {
        self.spawn();
        self.wait("control to listen", || UnixStream::connect(self.run_dir().join("control.sock")).is_ok());
    }

    pub(crate) fn spawn(&mut self) {
        assert!(self.daemon.is_none());
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_greyhound-control"));
        command.arg("--config-dir").arg(self.config_dir()).arg("--run-dir").arg(self.run_dir());
        command.arg("--state-dir").arg(self.path("state")).env("RUST_LOG", "trace");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.daemon = Some(child);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// SIGTERM; returns whether it ended well.
    pub(crate) fn stop(&mut self) -> bool {
        let mut daemon = self.daemon.take().unwrap();
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        daemon.wait().unwrap().success()
    }

    /// Waits for the daemon to end by itself; returns its exit code.
    pub(crate) fn wait_end(&mut self) -> i32 {
        let mut daemon = self.daemon.take().unwrap();
        daemon.wait().unwrap().code().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits for a condition.
    pub(crate) fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain for {what}; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the configuration and the dataplane stand to each other like this.
    pub(crate) fn wait_phase(&self, phase: &str) {
        self.wait(phase, || self.get("/v1/status")["configuration"]["phase"] == phase);
    }

    pub(crate) fn cli(&self, arguments: &[&str]) -> Ran {
        self.cli_with(arguments, "")
    }

    /// Runs the CLI with something on standard input.
    pub(crate) fn cli_with(&self, arguments: &[&str], stdin: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greyhound"));
        command.arg("--run-dir").arg(self.run_dir()).arg("--config-dir").arg(self.config_dir());
        command.args(arguments).current_dir(self.config_dir());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = self.http("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// A request as any HTTP client sends it; the answer must be JSON.
    pub(crate) fn http(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.http_of(method, path, "application/toml", body)
    }

    /// The same with a body of another media type.
    pub(crate) fn http_of(&self, method: &str, path: &str, media_type: &str, body: &str) -> (u16, Value) {
        let headers = format!("Accept: application/json\r\nContent-Type: {media_type}\r\n");
        let (status, text) = self.http_text(method, path, &headers, body);
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}")))
    }

    pub(crate) fn http_text(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.run_dir().join("control.sock")).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// Every file of the state, with its content.
    pub(crate) fn state_files(&self) -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        collect(&self.path("state"), &mut files);
        files
    }
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            let content = std::fs::read_to_string(&path).unwrap();
            files.push((path, content));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }
}
