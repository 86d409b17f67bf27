// SPDX-License-Identifier: Apache-2.0
//! What control and dataplane say to each other, read from any bytes.
//!
//! The first byte says as what the rest is read. What can be read can be written, into a ring's record where it travels
//! in one, in no more bytes, and reads the same again.

use core::fmt::Debug;

use messages::{
    Event, Greeting, MESSAGE_BYTES_MAX, Object, ObjectId, PREAMBLE_BYTES, Request, decode, encode,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::input::Input;

/// One message.
///
/// # Panics
/// On a finding.
pub fn codec(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 6 {
        0 => request(input.rest()),
        1 => event(input.rest()),
        2 => greeting(input.rest()),
        3 => preamble(input),
        4 => drop(record::<Object>(input.rest())),
        _ => drop(record::<ObjectId>(input.rest())),
    }
}

fn request(bytes: &[u8]) {
    let Some(request) = record::<Request>(bytes) else { return };
    if let Request::Put(Object::Sa(sa)) = &request {
        assert!(matches!(sa.key.secret.key().len(), 16 | 24 | 32));
        assert!(format!("{request:?}").contains("Secret(..)"), "a key is shown");
    }
}

fn event(bytes: &[u8]) {
    if let Some(Event::Refused { refusal, .. }) = record::<Event>(bytes) {
        assert!(!refusal.to_string().is_empty());
    }
}

/// Reads a message of a ring; writes it as a ring would, and reads it again.
fn record<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let message = decode::<T>(bytes).ok()?;
    let mut buffer = [0xa5; MESSAGE_BYTES_MAX];
    let written = encode(&message, &mut buffer).expect("a message that was read fits a record");
    assert!(written.len() <= bytes.len(), "written longer than it was read");
    assert_eq!(decode::<T>(written).as_ref(), Ok(&message));
    Some(message)
}

fn greeting(bytes: &[u8]) {
    let Ok(greeting) = Greeting::parse(bytes) else { return };
    let Ok(whole) = greeting.to_bytes() else {
        assert!(bytes.len() > 1 << 20, "a short greeting that was read cannot be written");
        return;
    };
    let (preamble, body) = whole.split_first_chunk::<PREAMBLE_BYTES>().expect("a preamble is written");
    assert_eq!(Greeting::body_bytes(preamble), Ok(body.len()));
    assert_eq!(Greeting::parse(body), Ok(greeting));
}

fn preamble(mut input: Input<'_>) {
    let preamble = input.array::<PREAMBLE_BYTES>();
    if let Ok(bytes) = Greeting::body_bytes(&preamble) {
        assert!(bytes <= 1 << 20, "a greeting of {bytes} bytes would be waited for");
    }
}
