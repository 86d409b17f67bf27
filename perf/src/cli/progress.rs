// SPDX-License-Identifier: Apache-2.0
//! What is going on, on standard error: one line that is overwritten on a terminal, lines elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

pub(super) struct Progress {
    steps: usize,
    step: usize,
    start: Instant,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new(steps: usize) -> Self {
        Self { steps, step: 0, start: Instant::now(), is_terminal: std::io::stderr().is_terminal() }
    }

    /// The next step begins.
    pub(super) fn next(&mut self, what: &str) {
        self.step += 1;
        let (step, steps, seconds) = (self.step, self.steps, self.start.elapsed().as_secs());
        self.print(&format!("[{step}/{steps}, {seconds} s] {what} …"));
    }

    /// Clears the line.
    pub(super) fn done(&self) {
        if self.is_terminal {
            self.print("");
        }
    }

    fn print(&self, line: &str) {
        let mut stderr = std::io::stderr();
        // Nobody is hurt if standard error is closed.
        let _ = if self.is_terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
        let _ = stderr.flush();
    }
}
