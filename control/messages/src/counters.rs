// SPDX-License-Identifier: Apache-2.0
//! Where each counter lies in the shared counters memory: 64-bit words with one writer each.
//!
//! ```text
//! worker 0: WorkerCounter … | DropReason … | port 0: PortCounter … | port 1: … | pad to a cache line
//! worker 1: …
//! ```

use serde::{Deserialize, Serialize};

use crate::{DropReason, PortIndex, WorkerId};

macro_rules! counters {
    ($(#[$doc:meta])* $type:ident { $($variant:ident $name:literal $meaning:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $type {
            $(#[doc = $meaning] $variant,)*
        }

        impl $type {
            /// Every counter, in memory order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name in the CLI and in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it counts.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

counters! {
    /// Counters and gauges of a worker. At each turn's end
    /// received + originated + fragments_made + handed_in
    /// = transmitted + consumed + dropped + handed_out + held.
    WorkerCounter {
        Received "received" "Packets taken from receive queues.";
        Originated "originated" "Packets made here: ARP, neighbour discovery, ICMP.";
        FragmentsMade "fragments_made" "Fragments made of packets that were too large.";
        HandedIn "handed_in" "Packets taken over from other workers.";
        Transmitted "transmitted" "Packets that a device took.";
        Consumed "consumed" "Packets that ended here as they should: ARP, neighbour discovery, echo requests, what was fragmented.";
        Dropped "dropped" "Packets dropped, over all reasons.";
        HandedOut "handed_out" "Packets given to the worker that owns their SA or the queues of their tunnel.";
        Held "held" "Packets waiting for their turn in a scheduler, for a neighbour or for a device (a gauge).";
        Sealed "sealed" "Packets sealed by ESP.";
        Opened "opened" "ESP packets opened with a valid ICV.";
        MssClamped "mss_clamped" "TCP segments whose MSS was lowered.";
        EcnCongested "ecn_congested" "Payload packets marked CE because the delivery header was.";
        IcmpSuppressed "icmp_suppressed" "ICMP errors not sent: rate limit, or RFC 1812 and RFC 4443 forbid them.";
        BusyCycles "busy_cycles" "Time stamp counter cycles spent in turns that had packets.";
        TotalCycles "total_cycles" "Time stamp counter cycles since the worker started.";
        Turns "turns" "Turns of the loop.";
        Sleeps "sleeps" "Times the worker slept because it was idle.";
        Generation "generation" "The generation in force (a gauge).";
    }
}

counters! {
    /// Counters of a worker's queues of one port.
    PortCounter {
        RxPackets "rx_packets" "Packets received.";
        RxBytes "rx_bytes" "Bytes received, Ethernet header included, FCS not.";
        TxPackets "tx_packets" "Packets the device took.";
        TxBytes "tx_bytes" "Bytes the device took, Ethernet header included, FCS not.";
    }
}

/// Size of the counters memory and the place of each word in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersLayout {
    /// Number of workers.
    pub workers: u16,
    /// Number of ports.
    pub ports: u16,
}

impl CountersLayout {
    const WORDS_PER_LINE: usize = 8;

    /// Words of one worker: whole cache lines, so that no line has two writers.
    #[must_use]
    pub const fn worker_stride(self) -> usize {
        let words = WorkerCounter::COUNT + DropReason::COUNT + self.ports as usize * PortCounter::COUNT;
        words.next_multiple_of(Self::WORDS_PER_LINE)
    }

    /// Words in all.
    #[must_use]
    pub const fn words(self) -> usize {
        self.workers as usize * self.worker_stride()
    }

    /// Place of a worker's counter.
    #[must_use]
    pub const fn worker(self, worker: WorkerId, counter: WorkerCounter) -> usize {
        worker.index() * self.worker_stride() + counter as usize
    }

    /// Place of a worker's drop counter.
    #[must_use]
    pub const fn drops(self, worker: WorkerId, reason: DropReason) -> usize {
        worker.index() * self.worker_stride() + WorkerCounter::COUNT + reason as usize
    }

    /// Place of a worker's counter of a port.
    #[must_use]
    pub const fn port(self, worker: WorkerId, port: PortIndex, counter: PortCounter) -> usize {
        worker.index() * self.worker_stride()
            + WorkerCounter::COUNT
            + DropReason::COUNT
            + port.index() * PortCounter::COUNT
            + counter as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_counter_has_a_word_of_its_own_inside_the_layout() {
        let layout = CountersLayout { workers: 3, ports: 5 };
        let mut places = HashSet::new();
        for worker in (0..layout.workers).map(WorkerId) {
            let workers = WorkerCounter::ALL.iter().map(|c| layout.worker(worker, *c));
            let drops = DropReason::ALL.iter().map(|r| layout.drops(worker, *r));
            let ports = (0..layout.ports)
                .flat_map(|p| PortCounter::ALL.iter().map(move |c| layout.port(worker, PortIndex(p), *c)));
            for place in workers.chain(drops).chain(ports) {
                assert!(place < layout.words() && places.insert(place), "{place}");
                assert_eq!(place / layout.worker_stride(), worker.index());
            }
        }
    }
}
