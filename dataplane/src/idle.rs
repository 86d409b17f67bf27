// SPDX-License-Identifier: Apache-2.0
//! What a worker does when nothing comes: spin, or sleep so shortly that nobody notices.

use std::time::Duration;

use serde::Deserialize;

/// Empty turns in a row after which an adaptive worker sleeps.
const EMPTY_TURNS: u32 = 512;
/// How long it sleeps. With the timer slack at 1 ns it wakes well within 100 µs.
const NAP: Duration = Duration::from_micros(50);

/// The idle policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Never sleeps: lowest latency, the core is always at full load.
    Busy,
    /// Sleeps 50 µs at a time once nothing has come for a while.
    #[default]
    Adaptive,
}

/// Counts empty turns and sleeps when it is time to.
#[derive(Debug)]
pub struct Idler {
    policy: Policy,
    empty_turns: u32,
}

impl Idler {
    /// An idler for the calling thread, whose timer slack it sets.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        if policy == Policy::Adaptive {
            // Linux adds 50 µs of slack by default. Should it refuse, naps are that much longer.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        }
        Self { policy, empty_turns: 0 }
    }

    /// After a turn; true if it slept.
    #[inline]
    pub fn after_turn(&mut self, had_work: bool) -> bool {
        if had_work {
            self.empty_turns = 0;
            return false;
        }
        if self.policy == Policy::Busy {
            return false;
        }
        self.empty_turns = self.empty_turns.saturating_add(1);
        if self.empty_turns < EMPTY_TURNS {
            return false;
        }
        std::thread::sleep(NAP);
        true
    }
}
