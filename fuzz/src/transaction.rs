// SPDX-License-Identifier: Apache-2.0
//! What a control process that cannot be trusted puts into transactions: objects of any content, compiled.
//!
//! The input is a list of messages, each with its length in front. What compiles on top of the state before must compile
//! from nothing as well, and the other way round: sharing what did not change is not to be seen.

use std::sync::LazyLock;

use messages::{Base, Object, Request, decode};
use tables::{Generation, Limits, Neighbors, PortLimits, Shadow};

use crate::input::Input;

/// Objects that the shadow may hold: enough for all to refer to each other, and few enough to be quick.
const OBJECTS_MAX: usize = 64;
/// More than so many objects name, so that a full table is never why only one way compiles.
const NEIGHBORS_MAX: usize = 256;

static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    sas_max: 64,
    tunnels_max: 32,
    workers: 2,
    ports: vec![PortLimits { mtu_max: 1500, is_tagged: false }, PortLimits { mtu_max: 9216, is_tagged: true }],
});

/// Transactions, one after the other.
///
/// # Panics
/// On a finding.
pub fn transaction(data: &[u8]) {
    let mut input = Input::new(data);
    let neighbors = Neighbors::with_seed(NEIGHBORS_MAX, 1);
    let mut running: Option<Generation> = None;
    let mut shadow = Shadow::default();
    let mut objects = 0;
    while !input.is_empty() {
        let bytes = usize::from(input.u8());
        let Ok(request) = decode::<Request>(input.bytes(bytes)) else { continue };
        match request {
            Request::Begin { base, .. } => {
                shadow = match (base, &running) {
                    (Base::Running, Some(running)) => running.wanted().clone(),
                    _ => Shadow::default(),
                };
            }
            Request::Put(object) if objects < OBJECTS_MAX => {
                objects += usize::from(put(&mut shadow, &object));
            }
            Request::Delete(id) => drop(shadow.delete(id)),
            Request::Commit { .. } | Request::Check { .. } => {
                let next = compile(&shadow, running.as_ref(), &neighbors);
                if let (Request::Commit { .. }, Some(next)) = (request, next) {
                    next.switch_neighbors(running.as_ref(), &neighbors);
                    running = Some(next);
                }
            }
            _ => {}
        }
    }
}

fn put(shadow: &mut Shadow, object: &Object) -> bool {
    let put = shadow.put(object, &LIMITS);
    if let Err(refusal) = put {
        assert!(!refusal.to_string().is_empty());
    }
    put.is_ok()
}

fn compile(shadow: &Shadow, running: Option<&Generation>, neighbors: &Neighbors) -> Option<Generation> {
    let number = running.map_or(1, |running| running.number + 1);
    let next = shadow.compile(number, &LIMITS, running, neighbors);
    let alone = shadow.compile(number, &LIMITS, None, &Neighbors::with_seed(NEIGHBORS_MAX, 1));
    match (&next, &alone) {
        (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
        (Ok(_), Err(refusal)) => panic!("compiles on top of what runs, but not alone: {refusal}"),
        (Err(refusal), Ok(_)) => panic!("compiles alone, but not on top of what runs: {refusal}"),
    }
    next.ok()
}
