// SPDX-License-Identifier: Apache-2.0
//! The least of a control process: connects to a dataplane's socket, pushes requests, reads events.
//!
//! It trusts the dataplane, which runs in the same process. The real one is crate `control`, which waits for its
//! answers; a benchmark has to keep a rate.

use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use messages::{Event, Greeting, MESSAGE_BYTES_MAX, PREAMBLE_BYTES, Request};
use ring::{Consumer, Producer, PushError, RECORD_BYTES};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use sysmem::SharedMemory;

/// Descriptors in a greeting: request ring, event ring, counters.
const DESCRIPTORS: usize = 3;

/// A connection to a dataplane.
pub struct Control {
    requests: Producer,
    events: Consumer,
    _stream: UnixStream,
}

impl Control {
    /// Connects; somebody has to let the dataplane's housekeeping turn meanwhile.
    ///
    /// # Errors
    /// The dataplane does not want us, or says something else than it should.
    pub fn connect(path: &Path) -> anyhow::Result<Self> {
        let mut stream = UnixStream::connect(path).with_context(|| format!("{}", path.display()))?;
        let mut preamble = [0; PREAMBLE_BYTES];
        let descriptors = receive_with_descriptors(&stream, &mut preamble)?;
        let mut body = vec![0; Greeting::body_bytes(&preamble)?];
        stream.read_exact(&mut body)?;
        let hello = match Greeting::parse(&body)? {
            Greeting::Hello(hello) => hello,
            Greeting::Refused { reason } => bail!("the dataplane refuses: {reason}"),
        };
        let bytes = ring::bytes_for(hello.ring_records).context("a size of rings")?;
        let mut descriptors = descriptors.into_iter();
        let mut region = || {
            let descriptor = descriptors.next().context("three descriptors")?;
            let memory = Arc::new(SharedMemory::open(descriptor, bytes..=bytes)?);
            anyhow::Ok(memory.region(0, bytes)?)
        };
        let broken = |error: ring::AttachError| anyhow!("{error}");
        Ok(Self {
            requests: Producer::attach(region()?).map_err(broken)?,
            events: Consumer::attach(region()?).map_err(broken)?,
            _stream: stream,
        })
    }

    /// Sends a request; waits while the ring is full.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn push(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut record = [0; MESSAGE_BYTES_MAX];
        let bytes = messages::encode(request, &mut record)?;
        loop {
            match self.requests.push(bytes) {
                Ok(()) => return Ok(()),
                Err(PushError::Full) => std::thread::yield_now(),
                Err(error) => bail!("{error}"),
            }
        }
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn next_event(&mut self) -> anyhow::Result<Option<Event>> {
        let mut record = [0; RECORD_BYTES];
        let popped = self.events.pop(&mut record).map_err(|error| anyhow!("{error}"))?;
        let decode = |length| messages::decode(record.get(..length).unwrap_or_default());
        Ok(popped.map(decode).transpose()?)
    }
}

/// Fills `bytes`, and takes the descriptors that come with the first of them.
fn receive_with_descriptors(stream: &UnixStream, bytes: &mut [u8]) -> anyhow::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let wanted = bytes.len();
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    if received.bytes != wanted {
        bail!("the dataplane closed the connection");
    }
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(rights.flatten().collect())
}
