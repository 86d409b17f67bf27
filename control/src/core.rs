// SPDX-License-Identifier: Apache-2.0
//! The one task that owns the link to the dataplane and the running configuration. Changes happen here, one after
//! another; whoever only reads looks at the [`View`].
//!
//! ```text
//!            connect ──▶ digest ours? ──yes──▶ took over, nothing sent
//!               ▲            │no
//!            closed          ▼
//!               └──── whole state, Base::Empty ──▶ Committed
//!                            changes, Base::Running ──▶ Committed, kept on disk │ Refused, nothing changed
//! ```
//!
//! Not here: the protocol ([`exchange`](crate::exchange)), HTTP ([`api`](crate::api)), what a configuration means
//! (`config`).

mod changes;
mod replace;
mod synchronise;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::{Config, Environment, Indices, Names, SaName};
use messages::{Digest, Event, List, Object, ObjectId};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::failure::Failure;
use crate::history::{History, Kind};
use crate::keys::Keys;
use crate::link::{self, Link, LinkError};
use crate::sas::NewSa;
use crate::store::{Saved, Store};
use crate::view::{Dataplane, Phase, View};

/// How often events are looked for while nothing is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// Said whenever manually keyed SAs are applied.
pub const MANUAL_KEYING_WARNING: &str = "manual_keying = \"lab\": static keys are for laboratories only; \
     RFC 4106 §2 and RFC 8221 want automated keying for AES-GCM";

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// What can be asked of the core.
pub enum Command {
    /// Replace the whole configuration.
    Apply(Box<Config>, Mode, Reply<Changed>),
    /// Add an SA.
    AddSa(NewSa, Mode, Reply<Changed>),
    /// Replace SAs, make before break.
    ReplaceSas(Vec<NewSa>, Duration, Reply<Changed>),
    /// Delete an SA.
    DeleteSa(SaName, Mode, Reply<Changed>),
    /// Ask the dataplane for a list.
    List(List, Reply<Listing>),
}

/// Whether something is done or only checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Do it.
    Do,
    /// Say what it would do.
    DryRun,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOutcome {
    /// The dataplane runs it.
    Committed,
    /// The dataplane ran it already.
    Unchanged,
    /// It is kept; the dataplane is not connected.
    Pending,
    /// It would be carried out.
    Checked,
}

/// An SA that goes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiringSa {
    /// Its name.
    pub sa: SaName,
    /// When.
    pub in_seconds: u64,
}

/// The answer to a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What became of it.
    pub outcome: ChangeOutcome,
    /// The generation that the dataplane runs.
    pub generation: Option<u64>,
    /// What it changes, a line for each entry of the configuration.
    pub changes: Vec<String>,
    /// SAs that go by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retiring: Vec<RetiringSa>,
    /// What should be known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A list from the dataplane, and what its numbers mean.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Its items.
    pub items: Vec<Event>,
    /// The numbers of the state that the dataplane runs; empty if that state is not ours.
    pub indices: Indices,
}

/// What the dataplane is known to run.
struct Synced {
    objects: BTreeMap<ObjectId, Object>,
    digest: Digest,
    indices: Indices,
}

/// Where the core finds things.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Socket of the dataplane.
    pub dataplane_socket: PathBuf,
    /// The file that is applied at the first start.
    pub config_file: PathBuf,
}

/// The core.
pub struct Core {
    paths: Paths,
    store: Store,
    keys: Keys,
    saved: Arc<Saved>,
    /// Whether there is a configuration at all, and whether it is on disk.
    is_configured: bool,
    is_stored: bool,
    /// A change whose answer never came.
    candidate: Option<Saved>,
    link: Option<Link>,
    dataplane: Option<Arc<Dataplane>>,
    environment: Option<Environment>,
    synced: Option<Synced>,
    generation: Option<u64>,
    phase: Phase,
    trouble: Vec<String>,
    /// What is wrong with `config.toml`, while nothing else is configured.
    file_problems: Vec<String>,
    history: Arc<History>,
    view: watch::Sender<Arc<View>>,
}

impl Core {
    /// A core with the state that is kept in `store`, or else with what `config.toml` says.
    ///
    /// # Errors
    /// The state cannot be read. A `config.toml` that is wrong is complained about and waits to be put right.
    pub fn new(paths: Paths, store: Store, keys: Keys, history: Arc<History>) -> anyhow::Result<Self> {
        let (stored, candidate) = (store.running()?, store.candidate()?);
        let is_stored = stored.is_some();
        let mut core = Self {
            paths,
            store,
            keys,
            saved: Arc::new(stored.unwrap_or_default()),
            is_configured: is_stored,
            is_stored,
            candidate,
            link: None,
            dataplane: None,
            environment: None,
            synced: None,
            generation: None,
            phase: Phase::Empty,
            trouble: Vec::new(),
            file_problems: Vec::new(),
            history,
            view: watch::Sender::new(Arc::new(View::default())),
        };
        if !is_stored {
            core.begin_with_file();
        }
        core.wait_for_dataplane();
        core.publish();
        Ok(core)
    }

    /// Where to read what the core publishes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Works until `commands` ends.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let history = Arc::clone(&self.history);
        let socket = self.paths.dataplane_socket.clone();
        let connect = || Box::pin(link::connect(&socket, |error| note_no_link(&history, error)));
        let mut connecting = None;
        loop {
            let due = self.until_next_retirement();
            if let Some(link) = &self.link {
                tokio::select! {
                    () = link.closed() => self.lose_link(&LinkError::Closed),
                    command = commands.recv() => match command {
                        Some(command) => self.handle(command).await,
                        None => return,
                    },
                    () = sleep(due.min(LOOK)) => self.look().await,
                }
            } else {
                tokio::select! {
                    link = connecting.get_or_insert_with(connect) => {
                        connecting = None;
                        self.synchronise(link).await;
                    }
                    command = commands.recv() => match command {
                        Some(command) => self.handle(command).await,
                        None => return,
                    },
                    () = sleep(due) => self.retire().await,
                }
            }
        }
    }

    /// Who is gone before the answer comes does not want it any more.
    async fn handle(&mut self, command: Command) {
        match command {
            Command::Apply(config, mode, reply) => drop(reply.send(self.apply(*config, mode).await)),
            Command::AddSa(sa, mode, reply) => drop(reply.send(self.add_sa(sa, mode).await)),
            Command::ReplaceSas(sas, grace, reply) => drop(reply.send(self.replace_sas(sas, grace).await)),
            Command::DeleteSa(name, mode, reply) => drop(reply.send(self.delete_sa(name, mode).await)),
            Command::List(list, reply) => return drop(reply.send(self.list(list).await)),
        }
        self.collect_keys();
    }

    async fn list(&mut self, list: List) -> Result<Listing, Failure> {
        let Some(link) = &mut self.link else { return Err(Failure::unavailable()) };
        let mut notices = Vec::new();
        let items = link.list(list, &mut |event| notices.push(event)).await;
        self.report(&notices);
        match items {
            Ok(items) => {
                let indices = self.synced.as_ref().map(|synced| synced.indices.clone()).unwrap_or_default();
                Ok(Listing { items, indices })
            }
            Err(error) => {
                self.lose_link(&error);
                Err(Failure::unavailable().with(error.to_string()))
            }
        }
    }

    async fn look(&mut self) {
        let mut notices = Vec::new();
        if let Some(link) = &mut self.link
            && let Err(error) = link.poll(&mut |event| notices.push(event))
        {
            self.lose_link(&error);
        }
        self.report(&notices);
        self.retire().await;
    }

    /// Logs what the dataplane reports of itself.
    fn report(&self, notices: &[Event]) {
        for notice in notices {
            match *notice {
                Event::SaSoftLimit(sa) => {
                    self.report_sa(
                        sa,
                        "reached a soft lifetime limit; replace it with `greyhound sa replace`",
                    );
                }
                Event::SaHardLimit(sa) => {
                    self.report_sa(sa, "reached a hard lifetime limit and carries nothing more");
                }
                Event::StoreFailing => {
                    let text =
                        "the dataplane cannot write its store of sequence numbers; SAs stop at their limits";
                    tracing::error!("{text}");
                    self.history.note(Kind::Store, text);
                }
                Event::StoreRecovered => {
                    let text = "the dataplane can write its store of sequence numbers again";
                    tracing::info!("{text}");
                    self.history.note(Kind::Store, text);
                }
                _ => {}
            }
        }
    }

    fn report_sa(&self, sa: messages::SaIndex, what: &str) {
        let (indices, environment) = match (&self.synced, &self.environment) {
            (Some(synced), Some(environment)) => (&synced.indices, environment),
            _ => return,
        };
        let text = format!("{} {what}", Names::new(indices, environment).of(&ObjectId::Sa(sa)));
        tracing::warn!("{text}");
        self.history.note(Kind::Sa, text);
    }

    fn lose_link(&mut self, error: &LinkError) {
        tracing::warn!(%error, "lost the dataplane");
        self.history.note(Kind::Dataplane, format!("lost the dataplane: {error}"));
        self.link = None;
        self.dataplane = None;
        self.synced = None;
        self.generation = None;
        self.wait_for_dataplane();
        self.publish();
    }

    /// How things stand without a dataplane.
    fn wait_for_dataplane(&mut self) {
        self.trouble = self.file_problems.clone();
        self.phase = match (self.is_configured, self.file_problems.is_empty()) {
            (true, _) => Phase::Pending,
            (false, true) => Phase::Empty,
            (false, false) => Phase::Refused,
        };
    }

    fn publish(&self) {
        self.view.send_replace(Arc::new(View {
            saved: Arc::clone(&self.saved),
            phase: self.phase,
            trouble: self.trouble.clone(),
            dataplane: self.dataplane.clone(),
            generation: self.generation,
        }));
    }

    /// Removes keys that nobody needs any more.
    fn collect_keys(&self) {
        let configs = [Some(&self.saved.config), self.candidate.as_ref().map(|saved| &saved.config)];
        let ids = configs.into_iter().flatten().flat_map(|config| &config.sas);
        let used: BTreeSet<&str> = ids.filter_map(|sa| sa.key_id.as_deref()).collect();
        self.keys.keep_only(&used);
    }
}

fn note_no_link(history: &History, error: &LinkError) {
    match error {
        LinkError::Socket(reason) => tracing::info!(%reason, "waiting for the dataplane"),
        _ => {
            tracing::error!("{error}");
            history.note(Kind::Dataplane, error.to_string());
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
