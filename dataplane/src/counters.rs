// SPDX-License-Identifier: Apache-2.0
//! Counters in shared memory: each worker writes its own words, control reads them live.

use std::sync::Arc;

use messages::{CountersLayout, DropReason, PortCounter, PortIndex, WorkerCounter, WorkerId};
use sysmem::{CounterWriter, SharedError, SharedMemory};

/// The memory with all counters.
pub struct CountersMemory {
    memory: Arc<SharedMemory>,
    layout: CountersLayout,
}

impl CountersMemory {
    /// Memory for so many workers and ports, zeroed.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn create(layout: CountersLayout) -> Result<Self, SharedError> {
        let memory = SharedMemory::create("greyhound-counters", sysmem::counter::bytes_for(layout.words()))?;
        Ok(Self { memory: Arc::new(memory), layout })
    }

    /// Where each counter lies.
    #[must_use]
    pub fn layout(&self) -> CountersLayout {
        self.layout
    }

    /// The memory itself, to be shared.
    #[must_use]
    pub fn memory(&self) -> &Arc<SharedMemory> {
        &self.memory
    }

    /// The writer's end of one worker's words.
    ///
    /// # Errors
    /// If there is no such worker.
    pub fn writer(&self, worker: WorkerId) -> Result<WorkerCounters, SharedError> {
        let bytes = self.layout.worker_stride() * size_of::<u64>();
        let region = self.memory.region(worker.index() * bytes, bytes)?;
        Ok(WorkerCounters { writer: CounterWriter::new(region)?, layout: self.layout })
    }
}

/// One worker's words.
pub struct WorkerCounters {
    writer: CounterWriter,
    layout: CountersLayout,
}

impl WorkerCounters {
    /// Writes the worker's counters and drop counters.
    pub fn publish_worker(
        &mut self,
        workers: &[u64; WorkerCounter::COUNT],
        drops: &[u64; DropReason::COUNT],
    ) {
        self.writer.publish(0, workers);
        self.writer.publish(WorkerCounter::COUNT, drops);
    }

    /// Writes the worker's counters of one port.
    pub fn publish_port(&mut self, port: PortIndex, counts: &[u64; PortCounter::COUNT]) {
        self.writer.publish(self.layout.port(WorkerId(0), port, PortCounter::RxPackets), counts);
    }
}
