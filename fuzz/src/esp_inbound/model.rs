// SPDX-License-Identifier: Apache-2.0
//! What should become of each packet, in the plainest way there is.

use std::collections::BTreeSet;

use esp::{HEADER_BYTES, InboundSa, InboundStatistics, OpenError, Opened, SequenceNumber, Usage};
use wire::IpProtocol;

use super::sender::Sent;
use super::{Agreed, BEFORE};

pub(super) struct Model {
    esn: bool,
    window: Option<u64>,
    hard_packets: u64,
    edge: u64,
    /// All up to here counts as seen.
    resumed: u64,
    seen: BTreeSet<u64>,
    usage: Usage,
    statistics: InboundStatistics,
}

impl Model {
    pub(super) fn new(agreed: &Agreed) -> Self {
        Self {
            esn: agreed.esn,
            window: agreed.window.map(u64::from),
            hard_packets: agreed.hard_packets,
            edge: agreed.edge,
            resumed: agreed.edge,
            seen: BTreeSet::new(),
            usage: Usage::default(),
            statistics: InboundStatistics::default(),
        }
    }

    /// The number that the packet is taken to have, or why it is not staged.
    pub(super) fn push(&mut self, sent: &Sent) -> Result<u64, OpenError> {
        if self.usage.packets >= self.hard_packets {
            return Err(OpenError::Expired);
        }
        let text_bytes = sent.esp.len().checked_sub(HEADER_BYTES + sent.icv_bytes);
        match text_bytes {
            None | Some(0..4) => return Err(OpenError::TooShort),
            Some(bytes) if bytes % 4 != 0 => return Err(OpenError::Misaligned),
            _ => {}
        }
        let low = u32::from_be_bytes(sent.esp[4..8].try_into().expect("a whole header"));
        let inferred = self.infer(low);
        self.check(inferred)?;
        Ok(inferred)
    }

    /// What opening gives, the packet's number being `inferred`.
    pub(super) fn open(&mut self, sent: &Sent, inferred: u64) -> Result<Opened, OpenError> {
        if !sent.intact || inferred != sent.sequence {
            self.statistics.bad_icv += 1;
            return Err(OpenError::BadIcv);
        }
        self.check(inferred)?;
        if self.window.is_some() {
            self.statistics.late += u64::from(inferred < self.edge);
            assert!(self.seen.insert(inferred), "accepted twice");
            self.edge = self.edge.max(inferred);
        }
        self.usage.packets += 1;
        self.usage.bytes += sent.text.len() as u64;
        self.strip(&sent.text, inferred)
    }

    /// Usage and statistics are what was counted here.
    pub(super) fn check_totals(&self, sa: &InboundSa) {
        assert_eq!(sa.usage(), self.usage);
        assert_eq!(sa.statistics(), self.statistics);
        if let Some(window) = sa.window() {
            assert_eq!(window.right_edge(), SequenceNumber(self.edge));
        }
    }

    /// RFC 4303 Appendix A2.2, with `T` the window's right edge and `W` its size.
    fn infer(&self, low: u32) -> u64 {
        let Some(window) = self.window.filter(|_| self.esn) else { return u64::from(low) };
        let (high, edge_low) = (self.edge >> 32, self.edge & 0xffff_ffff);
        let low = u64::from(low);
        let high = if edge_low >= window - 1 {
            // Case A: the window lies in one subspace.
            if low + window > edge_low { high } else { high.wrapping_add(1) }
        } else {
            // Case B: it reaches into the one before, if there is one.
            let left = edge_low.wrapping_sub(window - 1) & 0xffff_ffff;
            if low >= left && high > 0 { high - 1 } else { high }
        };
        high << 32 | low
    }

    fn check(&mut self, sequence: u64) -> Result<(), OpenError> {
        let Some(window) = self.window else { return Ok(()) };
        if sequence > self.edge {
            return Ok(());
        }
        if sequence == 0 {
            self.statistics.sequence_zero += 1;
            return Err(OpenError::SequenceZero);
        }
        if self.edge - sequence >= window {
            self.statistics.too_old += 1;
            return Err(OpenError::TooOld);
        }
        if sequence <= self.resumed || self.seen.contains(&sequence) {
            self.statistics.replayed += 1;
            return Err(OpenError::Replayed);
        }
        Ok(())
    }

    fn strip(&mut self, text: &[u8], sequence: u64) -> Result<Opened, OpenError> {
        let (pad_length, next_header) = (usize::from(text[text.len() - 2]), text[text.len() - 1]);
        let Some(payload_bytes) = (text.len() - 2).checked_sub(pad_length) else {
            self.statistics.bad_padding += 1;
            return Err(OpenError::BadPadLength);
        };
        let padding = &text[payload_bytes..text.len() - 2];
        if !padding.iter().zip(1_u8..).all(|(byte, expected)| *byte == expected) {
            self.statistics.bad_padding += 1;
            return Err(OpenError::BadPadding);
        }
        if next_header == 59 {
            self.statistics.dummies += 1;
            return Err(OpenError::Dummy);
        }
        let start = BEFORE.len() + HEADER_BYTES;
        Ok(Opened {
            payload: start..start + payload_bytes,
            next_header: IpProtocol(next_header),
            sequence: SequenceNumber(sequence),
        })
    }
}
