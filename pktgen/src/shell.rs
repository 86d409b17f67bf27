// SPDX-License-Identifier: Apache-2.0
//! Commands that the user gives for a shell, with a limit: one that hangs does not hang the generator.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a command may take unless somebody says otherwise.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Longest output that is read, in bytes.
const LONGEST_OUTPUT: u64 = 1 << 20;
/// How often it is looked whether the command has ended.
const LOOK: Duration = Duration::from_millis(10);

/// [`LIMIT`].
#[must_use]
pub fn limit() -> Duration {
    LIMIT
}

/// Runs a command and returns what it printed, at most 1 MiB.
///
/// # Errors
/// It does not end well, or not within `limit`: then it is ended, with whatever it started and did not put into a group of its own.
pub fn run(command: &str, limit: Duration) -> anyhow::Result<Vec<u8>> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("sh")?;
    let printed = collect(child.stdout.take());
    let said = collect(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = wait(&mut child, deadline)?;
    let read = |pipe: crossbeam::channel::Receiver<Vec<u8>>| pipe.recv_deadline(deadline).ok();
    // Who has inherited the pipes may hold them open beyond the shell's end.
    let (Some(status), Some(printed), Some(said)) = (status, read(printed), read(said)) else {
        end(&mut child);
        bail!("did not end within {} s, and was ended", limit.as_secs_f64());
    };
    ensure!(status.success(), "ended with {status}: {}", String::from_utf8_lossy(&said).trim());
    Ok(printed)
}

/// Reads a pipe in a thread of its own, which ends when the pipe does.
fn collect(pipe: Option<impl Read + Send + 'static>) -> crossbeam::channel::Receiver<Vec<u8>> {
    let (give, take) = crossbeam::channel::bounded(1);
    std::thread::spawn(move || {
        let mut read = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is what there is.
            let _ = pipe.take(LONGEST_OUTPUT).read_to_end(&mut read);
        }
        // Nobody waits for it beyond the limit.
        let _ = give.send(read);
    });
    take
}

fn wait(child: &mut Child, deadline: Instant) -> anyhow::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends a command and what it started.
fn end(child: &mut Child) {
    // It may have ended meanwhile.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    #[test]
    fn what_a_command_prints_comes_back() {
        assert_eq!(run("printf 3", LIMIT).unwrap(), b"3");
        let error = format!("{:#}", run("echo lost >&2; exit 3", LIMIT).unwrap_err());
        assert!(error.contains("exit status: 3") && error.contains("lost"), "{error}");
    }

    #[test]
    fn a_command_that_hangs_is_ended_and_said() {
        for command in ["sleep 1000", "sleep 1000 & wait", "sleep 1000 &"] {
            let before = Instant::now();
            let error = format!("{:#}", run(command, SHORT).unwrap_err());
            assert!(error.contains("did not end within 0.2 s"), "{command}: {error}");
            assert!(before.elapsed() < Duration::from_secs(60), "{command}");
        }
    }

    #[test]
    fn more_output_than_anybody_wants_is_cut_and_does_not_hang() {
        let error = run("yes", SHORT).map(|printed| printed.len());
        assert!(error.is_err(), "{error:?}");
        assert_eq!(run("head -c 2000000 /dev/zero || true", LIMIT).unwrap().len() as u64, LONGEST_OUTPUT);
    }
}
