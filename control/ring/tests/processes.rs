// SPDX-License-Identifier: Apache-2.0
//! Both ends in different processes: this test binary again, with the memory's descriptor as its standard input.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use greyhound_ring::{AttachError, Consumer, Producer, PushError, RECORD_BYTES, bytes_for, format};
use sysmem::SharedMemory;

const ROLE: &str = "GREYHOUND_RING_CHILD";
const CAPACITY: u32 = 16;
const RING_BYTES: usize = 384 + CAPACITY as usize * 512;

/// Two rings in one memory, one each way, as the control channel has them.
fn two_rings() -> Arc<SharedMemory> {
    assert_eq!(bytes_for(CAPACITY), Some(RING_BYTES));
    let memory = Arc::new(SharedMemory::create("ring-test", 2 * RING_BYTES).unwrap());
    for offset in [0, RING_BYTES] {
        format(&memory.region(offset, RING_BYTES).unwrap(), CAPACITY).unwrap();
    }
    memory
}

fn child(role: &str, memory: &SharedMemory) -> Child {
    let fd: OwnedFd = memory.as_fd().try_clone_to_owned().unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["the_peer_process", "--exact", "--nocapture"])
        .env(ROLE, role)
        .stdin(fd)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test of its own: what the other process runs. Without a role it has nothing to do.
#[test]
fn the_peer_process() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let fd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let memory = Arc::new(SharedMemory::open(fd, 2 * RING_BYTES..=2 * RING_BYTES).unwrap());
    match role.to_str() {
        Some("echo") => echo(&memory),
        Some("scribble") => scribble(&memory),
        _ => panic!("unknown role"),
    }
}

/// Sends each record back reversed until an empty one comes.
fn echo(memory: &Arc<SharedMemory>) {
    let mut requests = Consumer::attach(memory.region(0, RING_BYTES).unwrap()).unwrap();
    let mut answers = Producer::attach(memory.region(RING_BYTES, RING_BYTES).unwrap()).unwrap();
    let mut record = [0; RECORD_BYTES];
    loop {
        match requests.pop(&mut record).unwrap() {
            Some(0) => return,
            Some(length) => {
                record[..length].reverse();
                while answers.push(&record[..length]) == Err(PushError::Full) {
                    std::thread::yield_now();
                }
            }
            None => std::thread::yield_now(),
        }
    }
}

/// Overwrites the whole memory with all ones, indices last.
fn scribble(memory: &Arc<SharedMemory>) {
    for word in memory.words(0..2 * RING_BYTES).unwrap().iter().rev() {
        word.store(u64::MAX, std::sync::atomic::Ordering::Release);
    }
}

#[test]
fn ten_thousand_records_go_to_another_process_and_back() {
    const RECORDS: u32 = 10_000;
    let memory = two_rings();
    let mut requests = Producer::attach(memory.region(0, RING_BYTES).unwrap()).unwrap();
    let mut answers = Consumer::attach(memory.region(RING_BYTES, RING_BYTES).unwrap()).unwrap();
    let mut peer = child("echo", &memory);
    let (mut sent, mut received) = (0, 0);
    let mut record = [0; RECORD_BYTES];
    while received < RECORDS {
        while sent < RECORDS && requests.push(&payload(sent)) == Ok(()) {
            sent += 1;
        }
        while let Some(length) = answers.pop(&mut record).unwrap() {
            record[..length].reverse();
            assert_eq!(record[..length], payload(received));
            received += 1;
        }
        assert!(peer.try_wait().unwrap().is_none(), "the peer ended after {received} answers");
        std::thread::yield_now();
    }
    requests.push(&[]).unwrap();
    assert!(peer.wait().unwrap().success());
    assert_eq!((sent, requests.unread(), answers.pop(&mut record)), (RECORDS, Ok(0), Ok(None)));
    let slots = memory.words(RING_BYTES + 384..2 * RING_BYTES).unwrap();
    assert!(slots.iter().all(|word| word.load(std::sync::atomic::Ordering::Relaxed) == 0));
}

fn payload(number: u32) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(4 + number as usize % 500).collect()
}

#[test]
fn a_killed_peer_leaves_a_ring_that_is_full_at_worst() {
    let memory = two_rings();
    let mut requests = Producer::attach(memory.region(0, RING_BYTES).unwrap()).unwrap();
    let mut answers = Consumer::attach(memory.region(RING_BYTES, RING_BYTES).unwrap()).unwrap();
    let mut peer = child("echo", &memory);
    let mut record = [0; RECORD_BYTES];
    for number in 0..100 {
        while requests.push(&payload(number)) == Err(PushError::Full) {
            assert!(peer.try_wait().unwrap().is_none(), "the peer ended");
            while answers.pop(&mut record).unwrap().is_some() {}
            std::thread::yield_now();
        }
    }
    peer.kill().unwrap();
    peer.wait().unwrap();
    while answers.pop(&mut record).unwrap().is_some() {}
    let more = (0..=CAPACITY).take_while(|&number| requests.push(&payload(number)) == Ok(())).count();
    assert!(more <= CAPACITY as usize);
    assert_eq!(requests.push(b"x"), Err(PushError::Full));
    assert_eq!(answers.pop(&mut record), Ok(None));
}

#[test]
fn another_process_that_scribbles_over_everything_breaks_the_ring_and_nothing_else() {
    let memory = two_rings();
    let mut requests = Producer::attach(memory.region(0, RING_BYTES).unwrap()).unwrap();
    let mut answers = Consumer::attach(memory.region(RING_BYTES, RING_BYTES).unwrap()).unwrap();
    assert!(child("scribble", &memory).wait().unwrap().success());
    assert!(requests.unread().is_err());
    assert!(answers.pop(&mut [0; RECORD_BYTES]).is_err());
    let wrong = Producer::attach(memory.region(0, RING_BYTES).unwrap()).unwrap_err();
    assert_eq!(wrong, AttachError::Magic(u64::MAX));
}
