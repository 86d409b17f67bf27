// SPDX-License-Identifier: Apache-2.0
//! Questions to the dataplane that have an answer: transactions and lists.
//!
//! Events that answer nothing (worn SAs, the sequence store) go to `notices` whenever they turn up. An answer to
//! somebody else's question is skipped.

use std::time::Duration;

use messages::{Base, Digest, Event, List, Refusal, Request};
use tokio::time::{Instant, sleep};

use crate::link::{Link, LinkError};

/// Pause between two looks at the rings while something is awaited.
const LOOK: Duration = Duration::from_millis(1);
/// How long the dataplane may take before its next step.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is carried out; this is the digest of what results.
    Commit(Digest),
    /// It is only checked.
    Check,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every worker runs the new generation.
    Committed {
        /// Its number.
        generation: u64,
        /// Nanoseconds between the first and the last worker's switch.
        skew_ns: u64,
    },
    /// It would be carried out.
    Checked,
    /// Nothing was changed.
    Refused(Refusal),
}

impl Link {
    /// Sends a transaction and waits for what becomes of it.
    ///
    /// # Errors
    /// [`LinkError`]: the connection is of no more use, and what became of the transaction is not known.
    pub async fn transact(
        &mut self,
        base: Base,
        changes: impl IntoIterator<Item = Request>,
        ending: Ending,
        notices: &mut impl FnMut(Event),
    ) -> Result<Outcome, LinkError> {
        let transaction = self.next_number();
        self.send(&Request::Begin { transaction, base }, notices).await?;
        for change in changes {
            self.send(&change, notices).await?;
        }
        let last = match ending {
            Ending::Commit(digest) => Request::Commit { transaction, digest },
            Ending::Check => Request::Check { transaction },
        };
        self.send(&last, notices).await?;
        self.wait(notices, |event| outcome(event, transaction)).await
    }

    /// Asks for a list and returns its items.
    ///
    /// # Errors
    /// [`LinkError`]: the connection is of no more use.
    pub async fn list(
        &mut self,
        list: List,
        notices: &mut impl FnMut(Event),
    ) -> Result<Vec<Event>, LinkError> {
        let request = self.next_number();
        self.send(&Request::List { request, list }, notices).await?;
        let mut items = Vec::new();
        self.wait(notices, |event| match event {
            Event::Sa(number, _)
            | Event::Tunnel(number, _)
            | Event::Neighbor(number, _)
            | Event::Qos(number, _)
                if *number == request =>
            {
                items.push(*event);
                Answer::Part
            }
            Event::EndOfList { request: number } if *number == request => Answer::Whole(()),
            _ => Answer::Other,
        })
        .await?;
        Ok(items)
    }

    /// Takes what events there are, without waiting.
    ///
    /// # Errors
    /// [`LinkError::Ring`].
    pub fn poll(&mut self, notices: &mut impl FnMut(Event)) -> Result<(), LinkError> {
        while let Some(event) = self.next_event()? {
            notice(event, notices);
        }
        Ok(())
    }

    async fn send(&mut self, request: &Request, notices: &mut impl FnMut(Event)) -> Result<(), LinkError> {
        let deadline = Instant::now() + PATIENCE;
        while !self.push(request)? {
            // The dataplane may be waiting for room in the other ring.
            self.poll(notices)?;
            self.rest(deadline).await?;
        }
        Ok(())
    }

    /// Looks at every event until one is the answer, or the end of it.
    async fn wait<T>(
        &mut self,
        notices: &mut impl FnMut(Event),
        mut answer: impl FnMut(&Event) -> Answer<T>,
    ) -> Result<T, LinkError> {
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(event) = self.next_event()? {
                match answer(&event) {
                    Answer::Whole(value) => return Ok(value),
                    Answer::Part => deadline = Instant::now() + PATIENCE,
                    Answer::Other => notice(event, notices),
                }
            }
            self.rest(deadline).await?;
        }
    }

    async fn rest(&self, deadline: Instant) -> Result<(), LinkError> {
        if !self.is_open() {
            return Err(LinkError::Closed);
        }
        if Instant::now() >= deadline {
            return Err(LinkError::Silent(PATIENCE));
        }
        sleep(LOOK).await;
        Ok(())
    }
}

enum Answer<T> {
    Whole(T),
    Part,
    Other,
}

fn outcome(event: &Event, wanted: u32) -> Answer<Outcome> {
    match *event {
        Event::Committed { transaction, generation, skew_ns } if transaction == wanted => {
            Answer::Whole(Outcome::Committed { generation, skew_ns })
        }
        Event::Checked { transaction } if transaction == wanted => Answer::Whole(Outcome::Checked),
        Event::Refused { transaction, refusal } if transaction == wanted => {
            Answer::Whole(Outcome::Refused(refusal))
        }
        _ => Answer::Other,
    }
}

fn notice(event: Event, notices: &mut impl FnMut(Event)) {
    match event {
        Event::SaSoftLimit(_) | Event::SaHardLimit(_) | Event::StoreFailing | Event::StoreRecovered => {
            notices(event)
        }
        stale => tracing::debug!(?stale, "an answer that nobody waits for"),
    }
}
