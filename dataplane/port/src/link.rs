// SPDX-License-Identifier: Apache-2.0
//! A cable between two memory ports that carries frames only when told to, with faults and a trace.

use crate::Port;
use crate::fault::{FaultCounts, Faults, Faulty};
use crate::memory::{self, PairConfig, Wire};
use pktbuf::{Packet, Pool};
use std::fmt;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first port to the second.
    AToB,
    /// From the second port to the first.
    BToA,
}

/// Sees every frame as it was transmitted, before any fault.
pub type Trace = Box<dyn FnMut(Direction, &[u8]) + Send>;

/// A cable between two ports. Frames wait at the ports until [`carry`](Self::carry).
pub struct Link {
    wires: [Wire; 2],
    faulty: [Faulty; 2],
    overrun: [u64; 2],
    trace: Option<Trace>,
}

impl Link {
    /// Two ports and the cable between them, without faults. Duplicates come from `pool`.
    ///
    /// # Panics
    /// If there are no queues, or they hold nothing.
    #[must_use]
    pub fn new(config: &PairConfig, seed: u64, pool: &Pool) -> (Port, Port, Link) {
        let mirrored = PairConfig {
            names: [config.names[1].clone(), config.names[0].clone()],
            queues: [config.queues[1], config.queues[0]],
            macs: [config.macs[1], config.macs[0]],
            ..config.clone()
        };
        let (a, wire_a) = memory::wire_with(config);
        let (b, wire_b) = memory::wire_with(&mirrored);
        let faulty = [seed, !seed].map(|seed| Faulty::new(Faults::default(), seed, pool));
        (a, b, Link { wires: [wire_a, wire_b], faulty, overrun: [0; 2], trace: None })
    }

    /// Sets the faults of one direction from the next frame on.
    pub fn set_faults(&mut self, direction: Direction, faults: Faults) {
        self.faulty[direction as usize].set_faults(faults);
    }

    /// Shows every frame to `trace` from now on.
    pub fn set_trace(&mut self, trace: Trace) {
        self.trace = Some(trace);
    }

    /// Carries what both ports have transmitted so far and returns how many frames that was.
    pub fn carry(&mut self) -> usize {
        self.carry_one_way(Direction::AToB) + self.carry_one_way(Direction::BToA)
    }

    /// Puts a frame on the cable as somebody else who has tapped it would: past trace and faults, to the port that
    /// `direction` leads to.
    ///
    /// # Errors
    /// The packet, if the port's queue is full.
    pub fn inject(&self, direction: Direction, queue: u16, packet: Packet) -> Result<(), Packet> {
        self.wires[1 - direction as usize].inject(queue, packet)
    }

    /// Delivers what reordering holds back.
    pub fn flush(&mut self) {
        for from in 0..2 {
            let (to, overrun) = (&self.wires[1 - from], &mut self.overrun[from]);
            self.faulty[from].flush(|packet| deliver(to, 0, packet, overrun));
        }
    }

    /// What faults did to one direction.
    #[must_use]
    pub fn counts(&self, direction: Direction) -> FaultCounts {
        self.faulty[direction as usize].counts()
    }

    /// Frames of one direction lost because the receiving port was full.
    #[must_use]
    pub fn overrun(&self, direction: Direction) -> u64 {
        self.overrun[direction as usize]
    }

    /// Plugs or unplugs the cable.
    pub fn set_link(&mut self, up: bool) {
        self.wires.iter().for_each(|wire| wire.set_link(up));
    }

    fn carry_one_way(&mut self, direction: Direction) -> usize {
        let from = direction as usize;
        let mut carried = 0;
        for queue in 0..self.wires[from].queues() {
            while let Some(packet) = self.wires[from].collect_from(queue) {
                carried += 1;
                if let Some(trace) = &mut self.trace {
                    trace(direction, packet.data());
                }
                let (to, overrun) = (&self.wires[1 - from], &mut self.overrun[from]);
                self.faulty[from].pass(packet, |packet| deliver(to, queue, packet, overrun));
            }
        }
        carried
    }
}

fn deliver(to: &Wire, queue: u16, packet: Packet, overrun: &mut u64) {
    if to.inject(queue, packet).is_err() {
        *overrun += 1;
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("wires", &self.wires)
            .field("overrun", &self.overrun)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, Link};
    use crate::fault::Faults;
    use crate::memory::PairConfig;
    use pktbuf::{Batch, Pool};
    use std::sync::{Arc, Mutex};

    #[test]
    fn frames_wait_at_the_port_until_carried_and_are_traced() {
        let pool = Pool::memory(10, 100).unwrap();
        let (a, b, mut link) = Link::new(&PairConfig::new(2, 4), 1, &pool);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let trace = seen.clone();
        link.set_trace(Box::new(move |direction, frame| {
            trace.lock().unwrap().push((direction, frame.to_vec()))
        }));
        let mut batch = Batch::from_iter([pool.copy_of(b"there").unwrap()]);
        a.queue(1).unwrap().transmit(&mut batch);
        assert_eq!(b.queue(1).unwrap().receive(&mut batch), 0);
        assert_eq!(link.carry(), 1);
        assert_eq!(b.queue(1).unwrap().receive(&mut batch), 1);
        b.queue(0).unwrap().transmit(&mut batch);
        assert_eq!((link.carry(), link.carry()), (1, 0));
        assert_eq!(a.queue(0).unwrap().receive(&mut batch), 1);
        let expected = [Direction::AToB, Direction::BToA].map(|direction| (direction, b"there".to_vec()));
        assert_eq!(*seen.lock().unwrap(), expected);
        assert_ne!(a.mac(), b.mac());
    }

    #[test]
    fn an_injected_frame_goes_one_way_past_trace_and_faults() {
        let pool = Pool::memory(10, 100).unwrap();
        let (a, b, mut link) = Link::new(&PairConfig::new(1, 1), 1, &pool);
        link.set_faults(Direction::AToB, Faults { loss_ppm: 1_000_000, ..Faults::default() });
        link.set_trace(Box::new(|_, _| panic!("an injected frame was transmitted by nobody")));
        let frame = || pool.copy_of(b"frame").unwrap();
        assert!(link.inject(Direction::AToB, 0, frame()).is_ok());
        assert!(link.inject(Direction::AToB, 0, frame()).is_err(), "the queue holds one");
        let [got_a, got_b] = [&a, &b].map(|port| port.queue(0).unwrap().receive(&mut Batch::new()));
        assert_eq!((got_a, got_b), (0, 1));
    }

    #[test]
    fn the_directions_have_faults_of_their_own() {
        let pool = Pool::memory(10, 100).unwrap();
        let (a, b, mut link) = Link::new(&PairConfig::new(1, 4), 1, &pool);
        link.set_faults(Direction::AToB, Faults { loss_ppm: 1_000_000, ..Faults::default() });
        for port in [&a, &b] {
            let mut batch = Batch::from_iter([pool.copy_of(b"frame").unwrap()]);
            port.queue(0).unwrap().transmit(&mut batch);
        }
        link.carry();
        let [got_a, got_b] = [&a, &b].map(|port| port.queue(0).unwrap().receive(&mut Batch::new()));
        assert_eq!((got_a, got_b), (1, 0));
        assert_eq!((link.counts(Direction::AToB).lost, link.counts(Direction::BToA).passed), (1, 1));
    }

    #[test]
    fn a_port_that_does_not_receive_loses_frames_and_that_is_counted() {
        let pool = Pool::memory(10, 100).unwrap();
        let (a, _b, mut link) = Link::new(&PairConfig::new(1, 2), 1, &pool);
        for _ in 0..2 {
            let mut batch: Batch = (0..2).map(|_| pool.copy_of(b"frame").unwrap()).collect();
            a.queue(0).unwrap().transmit(&mut batch);
            link.carry();
        }
        assert_eq!((link.overrun(Direction::AToB), pool.available()), (2, 8));
    }

    #[test]
    fn what_is_held_back_comes_with_a_flush_and_unplugging_stops_all() {
        let pool = Pool::memory(10, 100).unwrap();
        let (a, b, mut link) = Link::new(&PairConfig::new(1, 2), 1, &pool);
        link.set_faults(Direction::AToB, Faults { reorder_ppm: 1_000_000, ..Faults::default() });
        let mut batch = Batch::from_iter([pool.copy_of(b"frame").unwrap()]);
        link.set_link(false);
        assert_eq!(a.queue(0).unwrap().transmit(&mut batch), 0);
        link.set_link(true);
        assert_eq!(a.queue(0).unwrap().transmit(&mut batch), 1);
        link.carry();
        assert_eq!(b.queue(0).unwrap().receive(&mut batch), 0);
        link.flush();
        assert_eq!(b.queue(0).unwrap().receive(&mut batch), 1);
    }
}
