// SPDX-License-Identifier: Apache-2.0
//! The connection to the dataplane: its greeting with the shared memory, and the two rings.
//!
//! The other side is distrusted: what it says is copied out, then checked; what is no event is counted and skipped, and
//! a ring that it broke ends the connection. Nothing here waits for it without an end.
//!
//! Not here: transactions and lists ([`exchange`](crate::exchange)), what is sent ([`core`](crate::core)).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use messages::{Event, Greeting, GreetingError, Hello, MESSAGE_BYTES_MAX, PREAMBLE_BYTES, Request};
use ring::{Consumer, Producer, PushError, RECORD_BYTES};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use sysmem::{CounterReader, LockedBytes, SharedMemory};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use zeroize::Zeroize as _;

/// How long a greeting may take.
const GREETING_TIME: Duration = Duration::from_secs(5);
/// First pause between two attempts to connect.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest pause while nobody listens. Short: a dataplane that was restarted carries nothing until it is filled.
const BACKOFF_LAST: Duration = Duration::from_millis(200);
/// Pause when the dataplane is there and does not want us.
const BACKOFF_UNWANTED: Duration = Duration::from_secs(2);
/// Descriptors in a greeting: request ring, event ring, counters.
const DESCRIPTORS: usize = 3;

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens, or the socket failed.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// The dataplane closed the connection.
    #[error("the dataplane went away")]
    Closed,
    /// The dataplane does not want us.
    #[error("the dataplane refuses this control process: {0}")]
    Unwanted(String),
    /// The greeting.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    /// The greeting's parts do not fit together.
    #[error("the dataplane's greeting contradicts itself: {0}")]
    Contradiction(&'static str),
    /// The shared memory.
    #[error("{0}")]
    Memory(#[from] sysmem::SharedError),
    /// A ring.
    #[error("the ring to the dataplane: {0}")]
    Ring(String),
    /// No answer.
    #[error("the dataplane does not answer (waited {} s)", .0.as_secs())]
    Silent(Duration),
}

impl LinkError {
    /// Whether somebody is there who should be talked to less often.
    fn is_unwanted(&self) -> bool {
        !matches!(self, Self::Socket(_) | Self::Closed)
    }
}

/// The connection to a dataplane.
pub struct Link {
    stream: UnixStream,
    requests: Producer,
    events: Consumer,
    /// Locked: requests carry keys.
    record: LockedBytes,
    hello: Hello,
    counters: CounterReader,
    /// Records that were no event.
    strays: u64,
    /// Number of the last transaction or list.
    number: u32,
}

/// Connects, however long it takes; tells `complain` whenever the reason for not being connected changes.
pub async fn connect(path: &Path, mut complain: impl FnMut(&LinkError)) -> Link {
    let (mut pause, mut last) = (BACKOFF_FIRST, String::new());
    loop {
        let error = match Link::establish(path).await {
            Ok(link) => return link,
            Err(error) => error,
        };
        let reason = error.to_string();
        if reason != last {
            complain(&error);
            last = reason;
        }
        sleep(if error.is_unwanted() { BACKOFF_UNWANTED } else { pause }).await;
        pause = (pause * 2).min(BACKOFF_LAST);
    }
}

impl Link {
    /// One attempt to connect.
    ///
    /// # Errors
    /// Every [`LinkError`].
    pub async fn establish(path: &Path) -> Result<Self, LinkError> {
        let stream = UnixStream::connect(path).await?;
        let greeting = timeout(GREETING_TIME, receive_greeting(&stream)).await;
        let (greeting, descriptors) = greeting.map_err(|_| LinkError::Silent(GREETING_TIME))??;
        match greeting {
            Greeting::Hello(hello) => Self::attach(stream, hello, descriptors),
            Greeting::Refused { reason } => Err(LinkError::Unwanted(reason)),
        }
    }

    fn attach(stream: UnixStream, hello: Hello, descriptors: Vec<OwnedFd>) -> Result<Self, LinkError> {
        check(&hello)?;
        let [requests, events, counters]: [OwnedFd; DESCRIPTORS] =
            descriptors.try_into().map_err(|_| LinkError::Contradiction("not three descriptors"))?;
        let ring_bytes = ring::bytes_for(hello.ring_records)
            .ok_or(LinkError::Contradiction("an impossible size of rings"))?;
        let counter_bytes = sysmem::counter::bytes_for(hello.counters.words());
        let requests = open(requests, ring_bytes)?;
        let events = open(events, ring_bytes)?;
        let counters = open(counters, counter_bytes)?;
        let broken = |error: ring::AttachError| LinkError::Ring(error.to_string());
        Ok(Self {
            stream,
            requests: Producer::attach(requests.region(0, ring_bytes)?).map_err(broken)?,
            events: Consumer::attach(events.region(0, ring_bytes)?).map_err(broken)?,
            record: LockedBytes::zeroed(RECORD_BYTES)?,
            counters: CounterReader::new(counters.region(0, counter_bytes)?)?,
            hello,
            strays: 0,
            number: 0,
        })
    }

    /// What the dataplane said of itself.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Its counters, live.
    #[must_use]
    pub fn counters(&self) -> &CounterReader {
        &self.counters
    }

    /// A number for the next transaction or list.
    pub(crate) fn next_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// Sends a request; false if the ring is full.
    ///
    /// # Errors
    /// [`LinkError::Ring`].
    pub(crate) fn push(&mut self, request: &Request) -> Result<bool, LinkError> {
        let room = self.record.get_mut(..MESSAGE_BYTES_MAX).unwrap_or_default();
        let pushed = match messages::encode(request, room) {
            Ok(bytes) => self.requests.push(bytes),
            Err(error) => return Err(LinkError::Ring(error.to_string())),
        };
        self.record.zeroize();
        match pushed {
            Ok(()) => Ok(true),
            Err(PushError::Full) => Ok(false),
            Err(error) => Err(LinkError::Ring(error.to_string())),
        }
    }

    /// The next event, if there is one. Records that are none are skipped.
    ///
    /// # Errors
    /// [`LinkError::Ring`].
    pub(crate) fn next_event(&mut self) -> Result<Option<Event>, LinkError> {
        let mut record = [0; RECORD_BYTES];
        for _ in 0..self.events.capacity() {
            match self.events.pop(&mut record).map_err(|error| LinkError::Ring(error.to_string()))? {
                None => return Ok(None),
                Some(length) => match messages::decode(record.get(..length).unwrap_or_default()) {
                    Ok(event) => return Ok(Some(event)),
                    Err(error) => self.note_stray(&error),
                },
            }
        }
        Ok(None)
    }

    fn note_stray(&mut self, error: &messages::DecodeError) {
        self.strays += 1;
        // One line for each power of two: a broken peer must not fill the log.
        if self.strays.is_power_of_two() {
            tracing::warn!(%error, count = self.strays, "the dataplane sent a record that is no event");
        }
    }

    /// Returns when the dataplane has closed the connection. It never sends anything after its greeting.
    pub async fn closed(&self) {
        loop {
            if self.stream.readable().await.is_err() || !self.is_open() {
                return;
            }
        }
    }

    /// Whether the dataplane is still there.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let mut byte = [0];
        match self.stream.try_read(&mut byte) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

fn check(hello: &Hello) -> Result<(), LinkError> {
    let workers = usize::from(hello.counters.workers);
    let ports = usize::from(hello.counters.ports);
    if hello.version != messages::PROTOCOL_VERSION {
        let (theirs, ours) = (hello.version, messages::PROTOCOL_VERSION);
        return Err(GreetingError::Version { theirs, ours }.into());
    }
    if workers == 0 || workers != hello.worker_cpus.len() {
        return Err(LinkError::Contradiction("its numbers of workers differ"));
    }
    if ports != hello.ports.len() {
        return Err(LinkError::Contradiction("its numbers of ports differ"));
    }
    Ok(())
}

fn open(descriptor: OwnedFd, bytes: usize) -> Result<Arc<SharedMemory>, LinkError> {
    Ok(Arc::new(SharedMemory::open(descriptor, bytes..=bytes)?))
}

async fn receive_greeting(stream: &UnixStream) -> Result<(Greeting, Vec<OwnedFd>), LinkError> {
    let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
    let mut wanted = PREAMBLE_BYTES;
    loop {
        while bytes.len() < wanted {
            let missing = wanted - bytes.len();
            let received = stream.async_io(Interest::READABLE, || receive(stream, missing)).await?;
            if received.0.is_empty() {
                return Err(LinkError::Closed);
            }
            bytes.extend(received.0);
            descriptors.extend(received.1);
            if descriptors.len() > DESCRIPTORS {
                return Err(LinkError::Contradiction("more than three descriptors"));
            }
        }
        let Some((preamble, body)) = bytes.split_first_chunk::<PREAMBLE_BYTES>() else {
            return Err(GreetingError::Malformed.into());
        };
        let length = Greeting::body_bytes(preamble)?;
        if body.len() == length {
            return Ok((Greeting::parse(body)?, descriptors));
        }
        wanted = PREAMBLE_BYTES + length;
    }
}

/// At most `limit` bytes, and the descriptors that come with them.
fn receive(stream: &UnixStream, limit: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; limit.min(1 << 16)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = rights.flatten().collect();
    bytes.truncate(received.bytes);
    Ok((bytes, descriptors))
}
