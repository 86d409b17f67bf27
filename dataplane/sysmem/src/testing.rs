// SPDX-License-Identifier: Apache-2.0
//! What the tests of several modules share: a look at the kernel's view of a mapping, and a test in its own process.

use std::process::{Command, ExitStatus};

const MARK: &str = "GREYHOUND_SYSMEM_CHILD";

/// The `VmFlags` of the mapping that holds `address`, from `/proc/self/smaps`.
pub(crate) fn vm_flags(address: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    let mut inside = false;
    for line in smaps.lines() {
        if let Some(range) = address_range(line) {
            inside = range.contains(&address);
        } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    panic!("no mapping holds {address:#x}");
}

fn address_range(line: &str) -> Option<std::ops::Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// Runs `body` in a process of its own: this test binary again, with only the test `name`.
///
/// For what changes the whole process (limits, dumpability). In the child it returns `None` after `body`.
pub(crate) fn in_own_process(name: &str, body: impl FnOnce()) -> Option<ExitStatus> {
    if std::env::var_os(MARK).is_some() {
        body();
        return None;
    }
    let test_binary = std::env::current_exe().expect("path of the test binary");
    let output = Command::new(test_binary)
        .args([name, "--exact", "--nocapture"])
        .env(MARK, "1")
        .output()
        .expect("the test binary starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("1 passed") || !output.status.success(), "{name} did not run: {stdout}");
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    Some(output.status)
}
