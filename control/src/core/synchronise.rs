// SPDX-License-Identifier: Apache-2.0
//! What happens when a dataplane turns up: take over what it runs, or fill it.

use std::sync::Arc;

use config::{Compiled, Config, Environment};
use messages::{Base, Digest};

use super::{Core, MANUAL_KEYING_WARNING, Synced};
use crate::exchange::{Ending, Outcome};
use crate::files;
use crate::history::Kind;
use crate::link::Link;
use crate::store::{Retiring, Saved};
use crate::view::{Dataplane, Phase};

impl Core {
    /// At the first start `config.toml` is the configuration. If it is wrong, there is none until it is put right.
    pub(super) fn begin_with_file(&mut self) {
        let path = self.paths.config_file.clone();
        let config = match files::read_text(&path) {
            Ok(None) => return tracing::info!("no configuration yet; waiting for `greyhound apply`"),
            Ok(Some(text)) => {
                Config::parse(&text, &path.display().to_string()).map_err(|error| error.sentences())
            }
            Err(error) => Err(vec![error.to_string()]),
        };
        match config {
            Ok(config) => {
                tracing::info!("beginning with {}", path.display());
                let indices = self.saved.indices.allocate(&config);
                self.saved = Arc::new(Saved { config, indices, retiring: Retiring::new() });
                self.is_configured = true;
            }
            Err(problems) => {
                problems.iter().for_each(|problem| tracing::error!("{problem}"));
                self.file_problems = problems;
            }
        }
    }

    /// Takes over what the dataplane runs if that is our state, or fills it with our state.
    pub(super) async fn synchronise(&mut self, link: Link) {
        let dataplane = Dataplane::new(link.hello(), link.counters());
        let hello = &dataplane.hello;
        tracing::info!(
            pid = hello.pid,
            generation = hello.generation,
            engine = hello.engine,
            "dataplane connected"
        );
        let (digest, generation) = (hello.digest, hello.generation);
        self.generation = Some(generation);
        self.environment = Some(dataplane.environment.clone());
        self.dataplane = Some(Arc::new(dataplane));
        self.link = Some(link);
        self.wait_for_dataplane();
        if self.is_configured {
            self.take_over_or_fill(digest, generation).await;
        } else {
            self.meet_unconfigured(digest, generation);
        }
        self.publish();
    }

    /// Nothing is configured: whatever the dataplane runs goes on.
    fn meet_unconfigured(&mut self, digest: Option<Digest>, generation: u64) {
        if digest.is_none() {
            let empty = Compiled { objects: Default::default(), digest: config::digest(&Default::default()) };
            self.synced = Some(Synced::new(empty, &Saved::default()));
            return;
        }
        let text = format!(
            "the dataplane runs generation {generation}, which this control knows nothing of; \
             `greyhound apply FILE` replaces it"
        );
        tracing::warn!("{text}");
        self.history.note(Kind::Dataplane, text.clone());
        self.trouble.push(text);
        self.phase = Phase::Foreign;
    }

    async fn take_over_or_fill(&mut self, digest: Option<Digest>, generation: u64) {
        if self.take_over_candidate(digest) || self.take_over_running(digest) {
            let text = format!("took over generation {generation}");
            tracing::info!("{text}");
            self.history.note(Kind::Dataplane, text);
            self.phase = Phase::Committed;
            self.keep_first();
        } else {
            self.fill().await;
        }
    }

    /// A change whose answer never came: if the dataplane runs it, it was carried out.
    fn take_over_candidate(&mut self, digest: Option<Digest>) -> bool {
        let Some(candidate) = self.candidate.take() else { return false };
        let compiled = digest.and_then(|_| self.compile(&candidate).ok());
        let taken = match compiled {
            Some(compiled) if Some(compiled.digest) == digest => {
                self.synced = Some(Synced::new(compiled, &candidate));
                self.saved = Arc::new(candidate);
                self.is_configured = true;
                self.store.promote_candidate()
            }
            _ => self.store.discard_candidate(),
        };
        self.complain_of_store(taken);
        self.collect_keys();
        self.synced.is_some()
    }

    fn take_over_running(&mut self, digest: Option<Digest>) -> bool {
        let compiled = digest.and_then(|_| self.compile(&self.saved).ok());
        match compiled {
            Some(compiled) if Some(compiled.digest) == digest => {
                self.synced = Some(Synced::new(compiled, &self.saved));
                true
            }
            _ => false,
        }
    }

    /// Sends the whole state. SAs that the dataplane runs already go on there.
    async fn fill(&mut self) {
        let saved = Arc::clone(&self.saved);
        let compiled = match self.compile(&saved) {
            Ok(compiled) => compiled,
            Err(problems) => return self.cannot_fill(problems.sentences()),
        };
        if !saved.config.sas.is_empty() {
            tracing::warn!("{MANUAL_KEYING_WARNING}");
        }
        let (digest, objects) = (compiled.digest, compiled.objects.len());
        match self
            .transact(
                Base::Empty,
                config::changes(&Default::default(), &compiled.objects),
                Ending::Commit(digest),
            )
            .await
        {
            Ok(Outcome::Committed { generation, skew_ns }) => {
                let text = format!("filled the dataplane with {objects} objects, generation {generation}");
                tracing::info!(skew_ns, "{text}");
                self.history.note(Kind::Dataplane, text);
                self.synced = Some(Synced::new(compiled, &saved));
                self.generation = Some(generation);
                self.phase = Phase::Committed;
                self.keep_first();
            }
            Ok(Outcome::Refused(refusal)) => {
                let reason = self.explain(&refusal, &saved.indices);
                self.cannot_fill(vec![format!("the dataplane refused: {reason}")]);
            }
            Ok(Outcome::Checked) => {}
            Err(error) => self.lose_link(&error),
        }
    }

    fn cannot_fill(&mut self, problems: Vec<String>) {
        for problem in &problems {
            tracing::error!("the configuration cannot be given to the dataplane: {problem}");
            self.history.note(Kind::Dataplane, problem.clone());
        }
        self.trouble = problems;
        self.phase = Phase::Refused;
    }

    /// What came from `config.toml` is kept from its first commit on.
    fn keep_first(&mut self) {
        if !self.is_stored {
            let result = self.store.save(&self.saved);
            self.is_stored = result.is_ok();
            self.complain_of_store(result);
        }
    }

    pub(super) fn compile(&self, saved: &Saved) -> Result<Compiled, config::Problems> {
        config::compile(&saved.config, &saved.indices, &self.environment_for(&saved.config), &self.keys)
    }

    /// The dataplane that is there or was last there; else one that would take anything.
    pub(super) fn environment_for(&self, config: &Config) -> Environment {
        self.environment.clone().unwrap_or_else(|| Environment::assumed(config))
    }
}

impl Synced {
    pub(super) fn new(compiled: Compiled, saved: &Saved) -> Self {
        Self { objects: compiled.objects, digest: compiled.digest, indices: saved.indices.clone() }
    }
}
