// SPDX-License-Identifier: Apache-2.0
//! The dataplane's end of the control channel: the Unix socket that introduces a control process, and the rings.
//!
//! The dataplane creates the shared memory and hands it over with its greeting (SCM_RIGHTS) to a peer whose user id it
//! has checked. One control process at a time. When it goes, the memory goes too; traffic does not notice.
//!
//! Not here: what requests do ([`housekeeping`](crate::housekeeping)).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use messages::{Event, Greeting, Hello, MESSAGE_BYTES_MAX, Request};
use ring::{Consumer, Producer, PushError, RECORD_BYTES};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use sysmem::{LockedBytes, SharedMemory};
use zeroize::Zeroize;

/// Records in each ring.
pub const RING_RECORDS: u32 = 4096;
/// Events kept for a control process that does not read; beyond that it is cut off.
const BACKLOG_EVENTS: usize = 1 << 20;

/// Why the link cannot be set up, or was cut.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket.
    #[error("{path}: {error}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// Another dataplane of this instance runs.
    #[error("{0}: another dataplane answers there; give this one an --instance of its own")]
    InUse(PathBuf),
    /// The shared memory.
    #[error("shared memory for the rings: {0}")]
    Memory(#[from] sysmem::SharedError),
    /// A ring.
    #[error("the ring to control: {0}")]
    Ring(String),
    /// The socket of the connected process.
    #[error("the control process: {0}")]
    Peer(#[from] io::Error),
}

/// Waits for control processes.
pub struct Listener {
    listener: UnixListener,
    control_uid: u32,
}

impl Listener {
    /// Listens at `path`, mode 0660; a socket that nobody answers on is replaced.
    ///
    /// # Errors
    /// [`LinkError::InUse`], [`LinkError::Socket`].
    pub fn bind(path: &Path, control_uid: u32) -> Result<Self, LinkError> {
        let failed = |error| LinkError::Socket { path: path.to_owned(), error };
        if UnixStream::connect(path).is_ok() {
            return Err(LinkError::InUse(path.to_owned()));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let old_mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o117));
        let listener = UnixListener::bind(path);
        rustix::process::umask(old_mask);
        let listener = listener.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, control_uid })
    }

    /// The next process that wants to connect and may, if there is one.
    pub fn accept(&self) -> Option<UnixStream> {
        let (stream, _) = self.listener.accept().ok()?;
        match rustix::net::sockopt::socket_peercred(&stream) {
            Ok(peer) if peer.uid.as_raw() == self.control_uid || peer.uid.is_root() => Some(stream),
            Ok(peer) => {
                let (uid, wanted) = (peer.uid.as_raw(), self.control_uid);
                tracing::warn!(uid, wanted, "refused a control process of another user");
                refuse(
                    &stream,
                    &format!("user id {uid} may not control this dataplane; control_uid is {wanted}"),
                );
                None
            }
            Err(error) => {
                tracing::warn!(%error, "refused a control process whose user id is unknown");
                None
            }
        }
    }
}

/// Tells a process that it is not wanted.
pub fn refuse(stream: &UnixStream, reason: &str) {
    let greeting = Greeting::Refused { reason: reason.to_owned() };
    if let Ok(bytes) = greeting.to_bytes() {
        // It is refused either way.
        let _ = rustix::net::send(stream, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

/// The connection to one control process.
pub struct ControlLink {
    stream: UnixStream,
    requests: Consumer,
    events: Producer,
    /// Locked: requests carry keys.
    record: LockedBytes,
    backlog: VecDeque<Event>,
}

impl ControlLink {
    /// Creates rings and introduces the dataplane: `hello` with the descriptors of request ring, event ring and
    /// counters.
    ///
    /// # Errors
    /// [`LinkError`]; the process is gone or the machine is out of memory.
    pub fn establish(stream: UnixStream, hello: Hello, counters: &SharedMemory) -> Result<Self, LinkError> {
        let requests = ring_memory("greyhound-requests")?;
        let events = ring_memory("greyhound-events")?;
        let greeting = Greeting::Hello(hello).to_bytes().map_err(io::Error::other)?;
        send_with_fds(&stream, &greeting, &[requests.as_fd(), events.as_fd(), counters.as_fd()])?;
        stream.set_nonblocking(true)?;
        let ring = |error: ring::AttachError| LinkError::Ring(error.to_string());
        Ok(Self {
            stream,
            requests: Consumer::attach(requests.region(0, requests.len())?).map_err(ring)?,
            events: Producer::attach(events.region(0, events.len())?).map_err(ring)?,
            record: LockedBytes::zeroed(RECORD_BYTES)?,
            backlog: VecDeque::new(),
        })
    }

    /// Whether the control process is still there.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        match rustix::net::recv(&self.stream, &mut byte, RecvFlags::DONTWAIT) {
            Ok(_) => false,
            Err(error) => error == rustix::io::Errno::AGAIN,
        }
    }

    /// The next request: `Some(None)` for a record that is none, `None` if the ring is empty.
    ///
    /// # Errors
    /// [`LinkError::Ring`] if the other side broke the ring.
    pub fn next_request(&mut self) -> Result<Option<Option<Request>>, LinkError> {
        let record: &mut [u8; RECORD_BYTES] =
            self.record.first_chunk_mut().ok_or_else(|| LinkError::Ring("no record buffer".into()))?;
        let popped = self.requests.pop(record).map_err(|error| LinkError::Ring(error.to_string()))?;
        let decode = |length| record.get(..length).and_then(|bytes| messages::decode(bytes).ok());
        let request = popped.map(decode);
        if request.is_some() {
            record.zeroize();
        }
        Ok(request)
    }

    /// Sends an event, now or when the ring has room again.
    pub fn send(&mut self, event: Event) {
        self.backlog.push_back(event);
    }

    /// Moves waiting events into the ring.
    ///
    /// # Errors
    /// [`LinkError::Ring`] if the other side broke the ring, or has not read for too long.
    pub fn flush(&mut self) -> Result<(), LinkError> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        while let Some(event) = self.backlog.front() {
            let bytes =
                messages::encode(event, &mut buffer).map_err(|error| LinkError::Ring(error.to_string()))?;
            match self.events.push(bytes) {
                Ok(()) => drop(self.backlog.pop_front()),
                Err(PushError::Full) if self.backlog.len() <= BACKLOG_EVENTS => return Ok(()),
                Err(error) => return Err(LinkError::Ring(error.to_string())),
            }
        }
        Ok(())
    }
}

fn ring_memory(name: &str) -> Result<Arc<SharedMemory>, LinkError> {
    let bytes = ring::bytes_for(RING_RECORDS).ok_or_else(|| LinkError::Ring("impossible capacity".into()))?;
    let memory = Arc::new(SharedMemory::create(name, bytes)?);
    let region = memory.region(0, bytes)?;
    ring::format(&region, RING_RECORDS).map_err(|error| LinkError::Ring(error.to_string()))?;
    Ok(memory)
}

/// The first bytes carry the descriptors; a greeting is short, so the socket takes it whole.
fn send_with_fds(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::other("the greeting was cut short")) }
}
