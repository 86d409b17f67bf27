// SPDX-License-Identifier: Apache-2.0
//! SAs replaced, make before break: new inbound SAs first, then the outbound ones switched, and the old inbound SAs
//! deleted when packets that were sealed before the switch have arrived.

use std::time::Duration;

use config::{SaEntry, SaName};

use super::{ChangeOutcome, Changed, Core, Mode, unix_ms};
use crate::failure::{Failure, FailureKind};
use crate::history::Kind;
use crate::sas::{self, NewSa, Replacement};
use crate::store::Retiring;

/// When no SA is about to go.
const NEVER: Duration = Duration::from_secs(3600);
/// An SA that could not be deleted is tried again.
const AGAIN_MS: u64 = 30_000;

impl Core {
    /// Replaces SAs of the same protection, direction and group.
    pub(super) async fn replace_sas(&mut self, new: Vec<NewSa>, grace: Duration) -> Result<Changed, Failure> {
        let entries: Vec<SaEntry> =
            new.into_iter().map(|sa| self.new_entry(sa, true)).collect::<Result<_, _>>()?;
        check_distinct(&entries)?;
        let before = (self.saved.config.clone(), self.saved.retiring.clone());
        let plan = Replacement::of(&before.0, &entries);
        let retiring = self.with_retiring(&plan.retiring, grace);
        self.check_last_step(&plan)?;
        // While nothing runs there is nothing to break.
        let in_one_step = self.link.is_none() || plan.inbound_added == before.0;
        let mut changed = Changed::nothing();
        if !in_one_step {
            changed = self.change(plan.inbound_added.clone(), before.1.clone(), Mode::Do).await?;
        }
        match self.change(plan.switched, retiring, Mode::Do).await {
            Ok(second) => changed.add(second),
            Err(failure) if in_one_step => return Err(failure),
            Err(failure) => return Err(self.roll_back(before, failure).await),
        }
        if grace.is_zero() && !plan.retiring.is_empty() {
            self.retire().await;
            changed.retiring = self.retiring();
        }
        Ok(changed)
    }

    /// What would be refused at the end is refused before anything is done.
    fn check_last_step(&self, plan: &Replacement) -> Result<(), Failure> {
        let indices = self.saved.indices.allocate(&plan.switched);
        let wanted =
            crate::store::Saved { config: plan.switched.clone(), indices, retiring: Retiring::new() };
        self.compile(&wanted).map(drop).map_err(|problems| Failure::invalid(problems.sentences()))
    }

    async fn roll_back(&mut self, before: (config::Config, Retiring), failure: Failure) -> Failure {
        if self.link.is_none() {
            return failure.with("the new inbound SAs may be there already");
        }
        match self.change(before.0, before.1, Mode::Do).await {
            Ok(_) => failure,
            Err(second) => {
                failure.with(format!("and the new inbound SAs could not be removed again: {second}"))
            }
        }
    }

    fn with_retiring(&self, names: &[SaName], grace: Duration) -> Retiring {
        let at = unix_ms().saturating_add(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        let mut retiring = self.saved.retiring.clone();
        for name in names {
            retiring.entry(*name).and_modify(|earlier| *earlier = at.min(*earlier)).or_insert(at);
        }
        retiring
    }

    /// How long until the next SA is due.
    pub(super) fn until_next_retirement(&self) -> Duration {
        let next = self.saved.retiring.values().min();
        next.map_or(NEVER, |at| Duration::from_millis(at.saturating_sub(unix_ms())))
    }

    /// Deletes the SAs that are due.
    pub(super) async fn retire(&mut self) {
        let now = unix_ms();
        let due: Vec<SaName> =
            self.saved.retiring.iter().filter(|(_, at)| **at <= now).map(|(name, _)| *name).collect();
        if due.is_empty() {
            return;
        }
        let mut retiring = self.saved.retiring.clone();
        retiring.retain(|name, _| !due.contains(name));
        let names = due.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self.change(sas::without(&self.saved.config, &due), retiring, Mode::Do).await {
            Ok(_) => {
                self.collect_keys();
                tracing::info!("retired SA {names}");
                self.history.note(Kind::Sa, format!("retired SA {names}"));
            }
            Err(failure) => self.retire_later(&due, &names, &failure),
        }
    }

    fn retire_later(&mut self, due: &[SaName], names: &str, failure: &Failure) {
        let text = format!("SA {names} could not be retired and stays for now: {failure}");
        tracing::error!("{text}");
        self.history.note(Kind::Sa, text);
        let mut saved = (*self.saved).clone();
        for name in due {
            saved.retiring.insert(*name, unix_ms().saturating_add(AGAIN_MS));
        }
        self.saved = std::sync::Arc::new(saved);
        self.publish();
    }
}

fn check_distinct(entries: &[SaEntry]) -> Result<(), Failure> {
    for (number, entry) in entries.iter().enumerate() {
        if entries.iter().take(number).any(|earlier| earlier.place() == entry.place()) {
            let text = format!("two new SAs are {} of protection {}", entry.name(), entry.protection);
            return Err(
                Failure::new(FailureKind::Invalid, text).with("give one SA for each direction and group")
            );
        }
    }
    if entries.is_empty() {
        return Err(Failure::new(FailureKind::Unreadable, "no SA is given; give one or two in sas"));
    }
    Ok(())
}

impl Changed {
    fn nothing() -> Self {
        let (changes, retiring, warnings) = (Vec::new(), Vec::new(), Vec::new());
        Self { outcome: ChangeOutcome::Unchanged, generation: None, changes, retiring, warnings }
    }

    /// This, and then `next`.
    fn add(&mut self, next: Self) {
        let Self { outcome, generation, changes, retiring, warnings } = next;
        (self.outcome, self.generation) = (outcome, generation);
        self.changes.extend(changes);
        (self.retiring, self.warnings) = (retiring, warnings);
    }
}
