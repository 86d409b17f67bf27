// SPDX-License-Identifier: Apache-2.0
//! A dataplane without packets: the real socket, greeting, shared memory and rings, and behind them only a map of
//! objects. It can be told to refuse, to stop in the middle, to lie and to die.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use messages::{
    Base, CountersLayout, Digest, Direction, DropReason, Event, Greeting, Hello, HelloPort, InboundState,
    List, Neighbor, NeighborState, Object, ObjectId, OutboundState, PROTOCOL_VERSION, PortCounter, PortIndex,
    Refusal, Request, Sa, SaState, TunnelState, WorkerCounter, WorkerId,
};
use ring::{Consumer, Producer, RECORD_BYTES};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use sysmem::{CounterWriter, SharedMemory};

/// Records in each ring: few, so that they fill up.
const RING_RECORDS: u32 = 8;
const LAYOUT: CountersLayout = CountersLayout { workers: 2, ports: 2 };

/// A transaction as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) base: Base,
    pub(crate) changes: Vec<Request>,
    pub(crate) is_check: bool,
}

/// What the fake does when a transaction ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Answer {
    /// Carries it out and says so.
    #[default]
    Commit,
    /// Refuses it.
    Refuse(Refusal),
    /// Carries it out and says nothing.
    CommitSilently,
}

/// What can be looked at and changed while it runs.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) generation: u64,
    pub(crate) digest: Option<Digest>,
    pub(crate) objects: BTreeMap<ObjectId, Object>,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) connections: usize,
    pub(crate) answers: Vec<Answer>,
    /// After so many more requests nothing is read any more.
    pub(crate) reads: Option<usize>,
    /// Records that are put into the event ring as they are.
    pub(crate) records: Vec<Vec<u8>>,
    /// Breaks the event ring's index.
    pub(crate) break_ring: bool,
    /// Said instead of a greeting.
    pub(crate) greeting: Option<Vec<u8>>,
    pub(crate) staged: Option<(u32, Transaction)>,
}

/// A running fake.
pub(crate) struct Fake {
    pub(crate) state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
}

impl Fake {
    /// Listens in `run_dir`, with nothing running.
    pub(crate) fn start(run_dir: &Path) -> Self {
        Self::start_with(run_dir, State::default())
    }

    pub(crate) fn start_with(run_dir: &Path, state: State) -> Self {
        let socket = run_dir.join("dataplane.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (state, stop) = (Arc::new(Mutex::new(state)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            move || serve(&listener, &state, &stop)
        });
        Self { state, stop, thread: Some(thread), socket }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The transactions that changed something since the last call.
    pub(crate) fn take_transactions(&self) -> Vec<Transaction> {
        std::mem::take(&mut self.state().transactions)
    }

    /// Sends an event out of the blue.
    pub(crate) fn send(&self, event: &Event) {
        let mut buffer = [0; messages::MESSAGE_BYTES_MAX];
        let record = messages::encode(event, &mut buffer).unwrap().to_vec();
        self.state().records.push(record);
    }

    /// The SAs that run, as "outbound 0x00001001".
    pub(crate) fn sas(&self) -> Vec<String> {
        let state = self.state();
        let names = state.objects.values().filter_map(|object| match object {
            Object::Sa(sa) => Some(name_of(sa)),
            _ => None,
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

pub(crate) fn name_of(sa: &Sa) -> String {
    config::SaName { direction: sa.direction, spi: sa.spi }.to_string()
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the fake dataplane panicked");
        }
        std::fs::remove_file(&self.socket).unwrap();
    }
}

struct Connection {
    stream: UnixStream,
    requests: Consumer,
    events: Producer,
    event_memory: Arc<SharedMemory>,
}

fn serve(listener: &UnixListener, state: &Mutex<State>, stop: &AtomicBool) {
    let counters =
        Arc::new(SharedMemory::create("fake-counters", sysmem::counter::bytes_for(LAYOUT.words())).unwrap());
    fill_counters(&counters);
    let mut connection: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            connection = greet(stream, &mut state.lock().unwrap(), &counters);
        }
        if let Some(open) = &mut connection {
            let mut state = state.lock().unwrap();
            if open.turn(&mut state) {
                continue;
            }
            state.staged = None;
            connection = None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn fill_counters(memory: &Arc<SharedMemory>) {
    let mut writer = CounterWriter::new(memory.region(0, memory.len()).unwrap()).unwrap();
    writer.set(LAYOUT.drops(WorkerId(0), DropReason::BadIcv), 3);
    writer.set(LAYOUT.drops(WorkerId(1), DropReason::BadIcv), 4);
    writer.set(LAYOUT.worker(WorkerId(1), WorkerCounter::Received), 11);
    writer.set(LAYOUT.port(WorkerId(0), PortIndex(1), PortCounter::TxPackets), 5);
    writer.set(LAYOUT.port(WorkerId(1), PortIndex(1), PortCounter::TxPackets), 6);
}

fn ring_memory(name: &str) -> Arc<SharedMemory> {
    let memory = Arc::new(SharedMemory::create(name, ring::bytes_for(RING_RECORDS).unwrap()).unwrap());
    ring::format(&memory.region(0, memory.len()).unwrap(), RING_RECORDS).unwrap();
    memory
}

fn greet(stream: UnixStream, state: &mut State, counters: &SharedMemory) -> Option<Connection> {
    state.connections += 1;
    if let Some(greeting) = &state.greeting {
        // The peer may have seen enough.
        let _ = rustix::net::send(&stream, greeting, SendFlags::NOSIGNAL);
        return None;
    }
    let (requests, events) = (ring_memory("fake-requests"), ring_memory("fake-events"));
    let greeting = Greeting::Hello(hello(state)).to_bytes().unwrap();
    let fds = [requests.as_fd(), events.as_fd(), counters.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    // In two parts: a socket may do that.
    let (first, rest) = greeting.split_at(20);
    rustix::net::sendmsg(&stream, &[IoSlice::new(first)], &mut control, SendFlags::NOSIGNAL).ok()?;
    rustix::net::send(&stream, rest, SendFlags::NOSIGNAL).ok()?;
    Some(Connection {
        stream,
        requests: Consumer::attach(requests.region(0, requests.len()).unwrap()).unwrap(),
        events: Producer::attach(events.region(0, events.len()).unwrap()).unwrap(),
        event_memory: events,
    })
}

fn hello(state: &State) -> Hello {
    let port = |name: &str, last| HelloPort {
        name: name.into(),
        device: format!("net_null_{name}"),
        mac: [2, 0, 0, 0, 0, last],
        mtu_max: 1500,
        vlan: (name == "wan").then_some(100),
    };
    Hello {
        version: PROTOCOL_VERSION,
        pid: 42,
        generation: state.generation,
        digest: state.digest,
        engine: "fake".into(),
        worker_cpus: vec![2, 3],
        cycles_per_second: 1_000_000_000,
        ports: vec![port("lan", 1), port("wan", 2)],
        sas_max: 64,
        tunnels_max: 64,
        ring_records: RING_RECORDS,
        counters: LAYOUT,
    }
}

impl Connection {
    /// One look at everything; false if the peer is gone.
    fn turn(&mut self, state: &mut State) -> bool {
        if state.break_ring {
            state.break_ring = false;
            // The producer's index, 128 bytes into the ring.
            self.event_memory.words(128..136).unwrap()[0].store(u64::MAX / 2, Ordering::Release);
        }
        for record in std::mem::take(&mut state.records) {
            self.push(&record);
        }
        let mut record = [0; RECORD_BYTES];
        while state.reads != Some(0)
            && let Ok(Some(length)) = self.requests.pop(&mut record)
        {
            state.reads = state.reads.map(|reads| reads - 1);
            let request: Request = messages::decode(&record[..length]).unwrap();
            self.handle(request, state);
        }
        let mut byte = [MaybeUninit::uninit()];
        let received = rustix::net::recv(&self.stream, &mut byte, RecvFlags::DONTWAIT);
        received.is_err_and(|error| error == rustix::io::Errno::AGAIN)
    }

    fn push(&mut self, record: &[u8]) {
        while self.events.push(record).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn send(&mut self, event: &Event) {
        let mut buffer = [0; messages::MESSAGE_BYTES_MAX];
        let record = messages::encode(event, &mut buffer).unwrap();
        self.push(record);
    }

    fn handle(&mut self, request: Request, state: &mut State) {
        match request {
            Request::Begin { transaction, base } => {
                state.staged =
                    Some((transaction, Transaction { base, changes: Vec::new(), is_check: false }));
            }
            Request::Put(_) | Request::Delete(_) => {
                state.staged.as_mut().unwrap().1.changes.push(request);
            }
            Request::Commit { transaction, digest } => self.finish(transaction, Some(digest), state),
            Request::Check { transaction } => self.finish(transaction, None, state),
            Request::Abort => state.staged = None,
            Request::List { request, list } => self.list(request, list, state),
        }
    }

    fn finish(&mut self, transaction: u32, digest: Option<Digest>, state: &mut State) {
        let (number, mut staged) = state.staged.take().unwrap();
        assert_eq!(number, transaction);
        staged.is_check = digest.is_none();
        let answer = if state.answers.is_empty() { Answer::Commit } else { state.answers.remove(0) };
        let event = match (answer, carried_out(state, &staged), digest) {
            (Answer::Refuse(refusal), ..) | (_, Err(refusal), _) => {
                Some(Event::Refused { transaction, refusal })
            }
            (_, Ok(_), None) => Some(Event::Checked { transaction }),
            (_, Ok(objects), Some(digest)) => {
                // What control says of the state must be what control said of its parts.
                assert_eq!(config::digest(&objects), digest);
                state.objects = objects;
                (state.generation, state.digest) = (state.generation + 1, Some(digest));
                let generation = state.generation;
                (answer == Answer::Commit).then_some(Event::Committed { transaction, generation, skew_ns: 7 })
            }
        };
        state.transactions.push(staged);
        if let Some(event) = event {
            self.send(&event);
        }
    }

    fn list(&mut self, request: u32, list: List, state: &State) {
        for object in state.objects.values() {
            match (list, object) {
                (List::Sas, Object::Sa(sa)) => self.send(&Event::Sa(request, sa_state(sa))),
                (List::Tunnels, Object::Tunnel(tunnel)) => {
                    let tunnel = TunnelState {
                        tunnel: tunnel.tunnel,
                        mtu: 1438,
                        egress: Some(PortIndex(1)),
                        packets_out: 1,
                        bytes_out: 2,
                        packets_in: 3,
                        bytes_in: 4,
                    };
                    self.send(&Event::Tunnel(request, tunnel));
                }
                _ => {}
            }
        }
        if list == List::Neighbors {
            let address = "192.0.2.9".parse().unwrap();
            let (port, mac, state) = (PortIndex(1), [2, 0, 0, 0, 0, 9], NeighborState::Reachable);
            self.send(&Event::Neighbor(request, Neighbor { port, address, mac, state }));
        }
        self.send(&Event::EndOfList { request });
    }
}

fn sa_state(sa: &Sa) -> SaState {
    let is_outbound = sa.direction == Direction::Outbound;
    SaState {
        sa: sa.sa,
        protection: sa.protection,
        direction: sa.direction,
        spi: sa.spi,
        fingerprint: sa.key.secret.fingerprint(),
        packets: 10,
        bytes: 1000,
        age_ns: 2_500_000_000,
        outbound: is_outbound.then_some(OutboundState { next_sequence: 11, limit: 4096 }),
        inbound: (!is_outbound).then_some(InboundState { right_edge: 10, owner: WorkerId(1) }),
    }
}

fn carried_out(state: &State, transaction: &Transaction) -> Result<BTreeMap<ObjectId, Object>, Refusal> {
    let mut objects = match transaction.base {
        Base::Running => state.objects.clone(),
        Base::Empty => BTreeMap::new(),
    };
    for change in &transaction.changes {
        match change {
            Request::Put(object) => drop(objects.insert(object.id(), object.clone())),
            Request::Delete(id) => drop(objects.remove(id).ok_or(Refusal::Unknown(*id))?),
            other => unreachable!("{other:?} is not staged"),
        }
    }
    Ok(objects)
}
