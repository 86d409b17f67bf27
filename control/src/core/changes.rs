// SPDX-License-Identifier: Apache-2.0
//! Changes: checked here, committed by the dataplane, then kept on disk. Or refused whole, with reasons in names.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{Change, Compiled, Config, Indices, Names, SaEntry, SaName};
use messages::{Base, Object, ObjectId, Refusal, Request};

use super::{ChangeOutcome, Changed, Core, MANUAL_KEYING_WARNING, Mode, RetiringSa, Synced, unix_ms};
use crate::exchange::{Ending, Outcome};
use crate::failure::{Failure, FailureKind};
use crate::history::Kind;
use crate::keys;
use crate::link::LinkError;
use crate::sas::{self, NewSa};
use crate::store::{Retiring, Saved, StoreError};
use crate::view::Phase;

impl Core {
    /// Replaces the whole configuration.
    pub(super) async fn apply(&mut self, config: Config, mode: Mode) -> Result<Changed, Failure> {
        let mut retiring = self.saved.retiring.clone();
        retiring.retain(|name, _| config.sa(*name).is_some());
        self.change(config, retiring, mode).await
    }

    /// Adds one SA.
    pub(super) async fn add_sa(&mut self, new: NewSa, mode: Mode) -> Result<Changed, Failure> {
        let entry = self.new_entry(new, false)?;
        let mut config = self.saved.config.clone();
        config.sas.push(entry);
        self.change(config, self.saved.retiring.clone(), mode).await
    }

    /// Deletes one SA.
    pub(super) async fn delete_sa(&mut self, name: SaName, mode: Mode) -> Result<Changed, Failure> {
        self.saved.config.sa(name).ok_or_else(|| self.no_such_sa(name))?;
        let mut retiring = self.saved.retiring.clone();
        retiring.remove(&name);
        self.change(sas::without(&self.saved.config, &[name]), retiring, mode).await
    }

    /// The entry for a new SA; a key that the request carries is kept first.
    pub(super) fn new_entry(&self, new: NewSa, replaces: bool) -> Result<SaEntry, Failure> {
        let like = if replaces { new.predecessor(&self.saved.config) } else { None };
        let unreadable = |problem| {
            Failure::new(FailureKind::Invalid, "the SA is not valid; nothing was changed").with(problem)
        };
        let (mut entry, key) = new.into_entry(like).map_err(unreadable)?;
        let name = entry.name();
        if self.saved.config.sa(name).is_some() {
            return Err(Failure::new(
                FailureKind::Exists,
                format!("SA {name} exists already; nothing was changed"),
            )
            .with("give an SPI of its own to each SA; a new key needs a new SPI"));
        }
        if let Some(line) = key {
            let secret = keys::parse(line.as_bytes())
                .map_err(|problem| unreadable(format!("SA {name}: the key is {problem}")))?;
            let kept = self.keys.keep(name, &secret, line.trim().as_bytes());
            entry.key_id = Some(kept.map_err(|error| internal(&error))?);
        }
        Ok(entry)
    }

    fn no_such_sa(&self, name: SaName) -> Failure {
        let known: Vec<_> = self.saved.config.sas.iter().take(8).map(|sa| sa.name().to_string()).collect();
        let failure = Failure::new(FailureKind::NotFound, format!("there is no SA {name}"));
        if known.is_empty() { failure } else { failure.with(format!("there are: {}", known.join(", "))) }
    }

    /// Makes `config` the configuration: checked, committed, kept.
    pub(super) async fn change(
        &mut self,
        config: Config,
        retiring: Retiring,
        mode: Mode,
    ) -> Result<Changed, Failure> {
        let indices = self.saved.indices.allocate(&config);
        let wanted = Saved { config, indices, retiring };
        let result = match self.compile(&wanted) {
            Ok(compiled) => self.change_to(wanted, compiled, mode).await,
            Err(problems) => Err(Failure::invalid(problems.sentences())),
        };
        if let Err(failure) = &result {
            tracing::warn!(details = failure.details.join("; "), "{}", failure.error);
        }
        result
    }

    async fn change_to(&mut self, wanted: Saved, compiled: Compiled, mode: Mode) -> Result<Changed, Failure> {
        let changes = self.describe(&wanted, &compiled);
        let mut warnings = Vec::new();
        if !wanted.config.sas.is_empty() {
            tracing::warn!("{MANUAL_KEYING_WARNING}");
            warnings.push(MANUAL_KEYING_WARNING.to_owned());
        }
        warnings.extend(wanted.config.groups_without_sa());
        let outcome = match mode {
            Mode::DryRun => self.check(&wanted, compiled, &mut warnings).await?,
            Mode::Do => self.carry_out(wanted, compiled).await?,
        };
        let retiring = self.retiring();
        Ok(Changed { outcome, generation: self.generation, changes, retiring, warnings })
    }

    async fn check(
        &mut self,
        wanted: &Saved,
        compiled: Compiled,
        warnings: &mut Vec<String>,
    ) -> Result<ChangeOutcome, Failure> {
        if self.link.is_none() {
            warnings.push("the dataplane is not connected: it was not asked".into());
            return Ok(ChangeOutcome::Checked);
        }
        let (base, changes) = self.steps_to(&compiled);
        match self.transact(base, changes, Ending::Check).await {
            Ok(Outcome::Refused(refusal)) => Err(Failure::refused(self.explain(&refusal, &wanted.indices))),
            Ok(_) => Ok(ChangeOutcome::Checked),
            Err(error) => Err(self.lost(&error)),
        }
    }

    async fn carry_out(&mut self, wanted: Saved, compiled: Compiled) -> Result<ChangeOutcome, Failure> {
        if self.link.is_none() {
            self.store.save(&wanted).map_err(|error| internal(&error))?;
            self.forget_candidate();
            self.adopt(wanted, Phase::Pending);
            return Ok(ChangeOutcome::Pending);
        }
        if self.synced.as_ref().is_some_and(|synced| synced.digest == compiled.digest) {
            self.store.save(&wanted).map_err(|error| internal(&error))?;
            self.synced = Some(Synced::new(compiled, &wanted));
            self.adopt(wanted, Phase::Committed);
            return Ok(ChangeOutcome::Unchanged);
        }
        self.commit(wanted, compiled).await
    }

    async fn commit(&mut self, wanted: Saved, compiled: Compiled) -> Result<ChangeOutcome, Failure> {
        self.store.save_candidate(&wanted).map_err(|error| internal(&error))?;
        let (base, changes) = self.steps_to(&compiled);
        match self.transact(base, changes, Ending::Commit(compiled.digest)).await {
            Ok(Outcome::Refused(refusal)) => {
                let discarded = self.store.discard_candidate();
                self.complain_of_store(discarded);
                Err(Failure::refused(self.explain(&refusal, &wanted.indices)))
            }
            Ok(outcome) => {
                self.committed(outcome, wanted, compiled);
                Ok(ChangeOutcome::Committed)
            }
            Err(error) => {
                self.candidate = Some(wanted);
                Err(self.lost(&error))
            }
        }
    }

    fn committed(&mut self, outcome: Outcome, wanted: Saved, compiled: Compiled) {
        if let Outcome::Committed { generation, skew_ns } = outcome {
            tracing::info!(generation, skew_ns, "committed");
            self.generation = Some(generation);
        }
        let promoted = self.store.promote_candidate();
        self.complain_of_store(promoted);
        self.synced = Some(Synced::new(compiled, &wanted));
        self.adopt(wanted, Phase::Committed);
    }

    /// What came later counts, whatever became of the change that was never answered.
    fn forget_candidate(&mut self) {
        self.candidate = None;
        let discarded = self.store.discard_candidate();
        self.complain_of_store(discarded);
    }

    fn adopt(&mut self, wanted: Saved, phase: Phase) {
        let number = config::diff(&self.saved.config, &wanted.config).items.len();
        let entries = if number == 1 { "entry" } else { "entries" };
        let text = match phase {
            Phase::Pending => {
                format!("configuration changed in {number} {entries}; waiting for the dataplane")
            }
            _ => format!("configuration changed in {number} {entries}"),
        };
        tracing::info!("{text}");
        self.history.note(Kind::Change, text);
        self.saved = Arc::new(wanted);
        (self.is_configured, self.is_stored) = (true, true);
        self.phase = phase;
        self.trouble.clear();
        self.file_problems.clear();
        self.publish();
    }

    /// From what the dataplane is known to run, or else from nothing.
    fn steps_to(&self, compiled: &Compiled) -> (Base, Vec<Change>) {
        match &self.synced {
            Some(synced) => (Base::Running, config::changes(&synced.objects, &compiled.objects)),
            None => (Base::Empty, config::changes(&BTreeMap::new(), &compiled.objects)),
        }
    }

    pub(super) async fn transact(
        &mut self,
        base: Base,
        changes: Vec<Change>,
        ending: Ending,
    ) -> Result<Outcome, LinkError> {
        let Some(link) = &mut self.link else { return Err(LinkError::Closed) };
        let mut notices = Vec::new();
        let requests = changes.into_iter().map(Request::from);
        let outcome = link.transact(base, requests, ending, &mut |event| notices.push(event)).await;
        self.report(&notices);
        outcome
    }

    fn lost(&mut self, error: &LinkError) -> Failure {
        self.lose_link(error);
        let text = "the dataplane went away before it answered; `greyhound status` shows what it runs once it is back";
        Failure::new(FailureKind::Unavailable, text).with(error.to_string())
    }

    pub(super) fn explain(&self, refusal: &Refusal, indices: &Indices) -> String {
        let nothing = Config::default();
        Names::new(indices, &self.environment_for(&nothing)).explain(refusal)
    }

    /// What a change does, a line for each entry; and SAs whose key file holds another key than before.
    fn describe(&self, wanted: &Saved, compiled: &Compiled) -> Vec<String> {
        let diff = config::diff(&self.saved.config, &wanted.config);
        let mut lines: Vec<String> = diff.items.iter().map(ToString::to_string).collect();
        let Some(synced) = &self.synced else { return lines };
        for (name, number) in &wanted.indices.sas {
            let id = ObjectId::Sa(messages::SaIndex(*number));
            let same_number = synced.indices.sas.get(name) == Some(number);
            let named = diff.items.iter().any(|item| item.name == *name);
            if let (Some(Object::Sa(before)), Some(Object::Sa(after))) =
                (synced.objects.get(&id), compiled.objects.get(&id))
                && same_number
                && !named
                && before.key != after.key
            {
                lines.push(format!("~ sa {name}: its key file holds another key"));
            }
        }
        lines
    }

    pub(super) fn retiring(&self) -> Vec<RetiringSa> {
        let now = unix_ms();
        let of = |(sa, at): (&SaName, &u64)| RetiringSa {
            sa: *sa,
            in_seconds: at.saturating_sub(now).div_ceil(1000),
        };
        self.saved.retiring.iter().map(of).collect()
    }

    /// The dataplane has the change, so there is no way back: say that it will not survive.
    pub(super) fn complain_of_store(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            let text = format!("the running configuration could not be stored: {error}");
            tracing::error!("{text}");
            self.history.note(Kind::Change, text);
        }
    }
}

fn internal(error: &dyn std::error::Error) -> Failure {
    Failure::new(
        FailureKind::Internal,
        format!("control could not write its state; nothing was changed: {error}"),
    )
}
