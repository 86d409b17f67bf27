// SPDX-License-Identifier: Apache-2.0
//! What happened lately, for `greyhound watch` and `GET /v1/events`. Bounded: the oldest goes first.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Entries that are kept.
const KEPT: usize = 1024;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The dataplane came, went, or was filled.
    Dataplane,
    /// The configuration was changed, or a change was refused.
    Change,
    /// An SA reached a lifetime limit, or was retired.
    Sa,
    /// The dataplane's store of sequence numbers.
    Store,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, one more than that of the entry before.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What it is about.
    pub kind: Kind,
    /// What happened.
    pub text: String,
}

/// The answer to "what happened since?".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// The number to ask from next time.
    pub next: u64,
    /// The entries that are still kept, oldest first.
    pub events: Vec<Entry>,
}

/// What happened lately.
#[derive(Debug, Default)]
pub struct History {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    entries: VecDeque<Entry>,
}

impl History {
    /// Adds an entry.
    pub fn note(&self, kind: Kind, text: impl Into<String>) {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let unix_ms = u64::try_from(unix_ms).unwrap_or(u64::MAX);
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        if inner.entries.len() == KEPT {
            inner.entries.pop_front();
        }
        inner.entries.push_back(Entry { number, unix_ms, kind, text: text.into() });
    }

    /// The entries from `number` on.
    #[must_use]
    pub fn since(&self, number: u64) -> Since {
        let inner = self.lock();
        let events = inner.entries.iter().filter(|entry| entry.number >= number).cloned().collect();
        Since { next: inner.next, events }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_numbered_and_asked_for_by_number() {
        let history = History::default();
        assert_eq!(history.since(0), Since { next: 0, events: vec![] });
        for text in ["a", "b", "c"] {
            history.note(Kind::Change, text);
        }
        let since = history.since(1);
        let texts: Vec<_> = since.events.iter().map(|entry| (entry.number, entry.text.as_str())).collect();
        assert_eq!((since.next, texts), (3, vec![(1, "b"), (2, "c")]));
        assert_eq!(history.since(3).events, vec![]);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let history = History::default();
        for number in 0..KEPT + 10 {
            history.note(Kind::Sa, number.to_string());
        }
        let since = history.since(0);
        assert_eq!((since.events.len(), since.events[0].number), (KEPT, 10));
    }
}
