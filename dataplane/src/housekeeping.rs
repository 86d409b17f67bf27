// SPDX-License-Identifier: Apache-2.0
//! The thread beside the workers: serves control, switches states, keeps the sequence store ahead of use, ages
//! neighbours, reports worn SAs.
//!
//! ```text
//!   request ring → Installer → State → mailboxes → workers switch → Committed
//! ```
//!
//! A commit is answered once every worker runs it; until then no further request is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use messages::{Digest, Event, Hello, List, Refusal, Request, SaIndex, TunnelState, WorkerId};
use tables::Neighbors;

use crate::control_link::{self, ControlLink, Listener};
use crate::counters::CountersMemory;
use crate::installer::{Installer, Worn};
use crate::mailbox::Mailboxes;

const MS: u64 = 1_000_000;
/// How often sequence limits are looked at. Half a chunk lasts longer at any rate one SA can reach.
const LIMITS_NS: u64 = 20 * MS;
/// How often window edges are written.
const EDGES_NS: u64 = 500 * MS;
/// How often neighbours are aged and lifetimes looked at.
const AGE_NS: u64 = 200 * MS;
/// When a worker that does not switch is complained about.
const STUCK_NS: u64 = 1_000 * MS;
/// Requests that one turn handles at most.
const REQUESTS: usize = 512;

/// Everything that housekeeping looks after.
pub struct Housekeeping {
    installer: Installer,
    mailboxes: Arc<Mailboxes>,
    neighbors: Arc<Neighbors>,
    counters: CountersMemory,
    listener: Listener,
    link: Option<ControlLink>,
    hello: Hello,
    pending: Option<Pending>,
    worn: BTreeMap<SaIndex, bool>,
    store_failing: bool,
    limits_at_ns: u64,
    edges_at_ns: u64,
    age_at_ns: u64,
}

/// A commit that not every worker has switched to yet.
struct Pending {
    transaction: u32,
    generation: u64,
    digest: Digest,
    complain_at_ns: u64,
}

impl Housekeeping {
    /// Housekeeping over these parts. `hello` is what control is told, generation and digest left out.
    #[must_use]
    pub fn new(
        installer: Installer,
        mailboxes: Arc<Mailboxes>,
        neighbors: Arc<Neighbors>,
        counters: CountersMemory,
        listener: Listener,
        hello: Hello,
    ) -> Self {
        Self {
            installer,
            mailboxes,
            neighbors,
            counters,
            listener,
            link: None,
            hello,
            pending: None,
            worn: BTreeMap::new(),
            store_failing: false,
            limits_at_ns: 0,
            edges_at_ns: 0,
            age_at_ns: 0,
        }
    }

    /// One turn; true if control kept it busy.
    pub fn turn(&mut self, now_ns: u64) -> bool {
        self.mailboxes.free_retired();
        self.accept();
        self.finish_commit(now_ns);
        let busy = self.serve(now_ns);
        self.look_after(now_ns);
        self.flush();
        busy
    }

    /// Ends what has to be ended once the workers are gone.
    pub fn close(mut self) {
        if let Err(error) = self.installer.close_cleanly() {
            tracing::error!(%error, "sequence numbers not used could not be taken back; SAs will resume at their limits");
        }
    }

    fn accept(&mut self) {
        let Some(stream) = self.listener.accept() else { return };
        if self.link.as_ref().is_some_and(ControlLink::is_open) {
            return control_link::refuse(&stream, "another control process is connected; stop it first");
        }
        match ControlLink::establish(stream, self.hello.clone(), self.counters.memory()) {
            Ok(link) => {
                tracing::info!(generation = self.hello.generation, "control connected");
                self.installer.abort();
                self.link = Some(link);
            }
            Err(error) => tracing::warn!(%error, "control could not be connected"),
        }
    }

    /// Handles requests while there are any and no commit is pending.
    fn serve(&mut self, now_ns: u64) -> bool {
        let mut served = 0;
        while served < REQUESTS && self.pending.is_none() {
            let Some(link) = &mut self.link else { break };
            match link.next_request() {
                Ok(None) => {
                    if served == 0 && !link.is_open() {
                        self.disconnect("it went away");
                    }
                    break;
                }
                Ok(Some(Some(request))) => self.handle(request, now_ns),
                Ok(Some(None)) => self.refuse_record(),
                Err(error) => {
                    self.disconnect(&error.to_string());
                    break;
                }
            }
            served += 1;
        }
        served > 0
    }

    fn disconnect(&mut self, why: &str) {
        tracing::info!(why, "control disconnected; traffic goes on");
        self.installer.abort();
        self.link = None;
    }

    /// A record that is no request spoils the open transaction, or is refused on its own.
    fn refuse_record(&mut self) {
        tracing::warn!("control sent a record that is no request");
        match self.installer.open_transaction() {
            Some(_) => self.installer.spoil(Refusal::Malformed),
            None => self.send(Event::Refused { transaction: 0, refusal: Refusal::Malformed }),
        }
    }

    fn handle(&mut self, request: Request, now_ns: u64) {
        match request {
            Request::Begin { transaction, base } => self.installer.begin(transaction, base),
            Request::Put(object) => self.installer.put(&object),
            Request::Delete(id) => self.installer.delete(id),
            Request::Commit { transaction, digest } => self.commit(transaction, digest, now_ns),
            Request::Check { transaction } => {
                let event = match self.installer.check(transaction) {
                    Ok(()) => Event::Checked { transaction },
                    Err(refusal) => Event::Refused { transaction, refusal },
                };
                self.send(event);
            }
            Request::Abort => self.installer.abort(),
            Request::List { request, list } => self.list(request, list, now_ns),
        }
    }

    fn commit(&mut self, transaction: u32, digest: Digest, now_ns: u64) {
        match self.installer.commit(transaction, now_ns) {
            Ok(state) => {
                let generation = state.tables.number;
                // One commit at a time, so there is always room.
                if !self.mailboxes.post(&state) {
                    tracing::error!(generation, "a mailbox was full");
                }
                let complain_at_ns = now_ns + STUCK_NS;
                self.pending = Some(Pending { transaction, generation, digest, complain_at_ns });
            }
            Err(refusal) => {
                tracing::info!(transaction, %refusal, "transaction refused");
                self.send(Event::Refused { transaction, refusal });
            }
        }
    }

    fn finish_commit(&mut self, now_ns: u64) {
        let Some(pending) = &mut self.pending else { return };
        match self.mailboxes.switched(pending.generation) {
            Ok((first_ns, last_ns)) => {
                let &mut Pending { transaction, generation, digest, .. } = pending;
                let skew_ns = last_ns - first_ns;
                tracing::info!(transaction, generation, skew_ns, "committed");
                self.pending = None;
                (self.hello.generation, self.hello.digest) = (generation, Some(digest));
                self.worn.clear();
                self.send(Event::Committed { transaction, generation, skew_ns });
            }
            Err(WorkerId(worker)) if now_ns >= pending.complain_at_ns => {
                tracing::warn!(worker, generation = pending.generation, "worker has not switched yet");
                pending.complain_at_ns = now_ns + STUCK_NS;
            }
            Err(_) => {}
        }
    }

    fn list(&mut self, request: u32, list: List, now_ns: u64) {
        let Self { installer, neighbors, link: Some(link), .. } = self else { return };
        match list {
            List::Sas => installer.sa_states(now_ns).for_each(|state| link.send(Event::Sa(request, state))),
            List::Neighbors => {
                neighbors.iter().for_each(|neighbor| link.send(Event::Neighbor(request, neighbor)))
            }
            List::Qos => {
                installer.queue_states().for_each(|state| link.send(Event::Qos(request, state)));
            }
            List::Tunnels => {
                let tunnels = installer.tables().tunnels.iter();
                tunnels.for_each(|tunnel| link.send(Event::Tunnel(request, tunnel_state(tunnel))));
            }
        }
        link.send(Event::EndOfList { request });
    }

    fn look_after(&mut self, now_ns: u64) {
        if now_ns >= self.limits_at_ns {
            self.limits_at_ns = now_ns + LIMITS_NS;
            let result = self.installer.extend_limits();
            self.note_store(result);
        }
        if now_ns >= self.edges_at_ns {
            self.edges_at_ns = now_ns + EDGES_NS;
            let result = self.installer.save_edges();
            self.note_store(result);
        }
        if now_ns >= self.age_at_ns {
            self.age_at_ns = now_ns + AGE_NS;
            self.neighbors.age(now_ns);
            self.report_worn(now_ns);
        }
    }

    fn note_store(&mut self, result: Result<(), crate::store::StoreError>) {
        match result {
            Err(error) if !self.store_failing => {
                tracing::error!(%error, "the sequence store cannot be written; SAs stop at their limits");
                self.store_failing = true;
                self.send(Event::StoreFailing);
            }
            Ok(()) if self.store_failing => {
                tracing::info!("the sequence store can be written again");
                self.store_failing = false;
                self.send(Event::StoreRecovered);
            }
            _ => {}
        }
    }

    /// Each limit is reported once.
    fn report_worn(&mut self, now_ns: u64) {
        let worn: Vec<Worn> = self.installer.worn(now_ns).collect();
        for worn in worn {
            let (sa, is_hard, event) = match worn {
                Worn::Soft(sa) => (sa, false, Event::SaSoftLimit(sa)),
                Worn::Hard(sa) => (sa, true, Event::SaHardLimit(sa)),
            };
            if self.worn.insert(sa, is_hard) != Some(is_hard) {
                tracing::warn!(sa = sa.0, hard = is_hard, "SA reached a lifetime limit");
                self.send(event);
            }
        }
    }

    fn send(&mut self, event: Event) {
        if let Some(link) = &mut self.link {
            link.send(event);
        }
    }

    fn flush(&mut self) {
        if let Some(link) = &mut self.link
            && let Err(error) = link.flush()
        {
            self.disconnect(&error.to_string());
        }
    }
}

fn tunnel_state(tunnel: &tables::Tunnel) -> TunnelState {
    let counters = tunnel.state.counts().sum();
    TunnelState {
        tunnel: tunnel.tunnel,
        mtu: tunnel.encapsulation.mtu,
        egress: tunnel.encapsulation.egress.map(|egress| egress.port),
        packets_out: counters.packets_out,
        bytes_out: counters.bytes_out,
        packets_in: counters.packets_in,
        bytes_in: counters.bytes_in,
    }
}
