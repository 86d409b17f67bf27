// SPDX-License-Identifier: Apache-2.0
//! Traffic conditioners (RFC 2475 §2.3.3): the policers of a service policy's classes, and what they have said.
//!
//! All workers share a policer: a class has its rate however its packets are spread over them. Each worker counts in a
//! cache line of its own. Both outlive generations, as long as the port or tunnel has a class with the same class-map.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use messages::{
    ClassMapIndex, ColourCount, Field, ObjectId, Police, PoliceAction, PolicyClass, Refusal, SecondBucket,
    WorkerId,
};
use qos::police::{Action, Colour, Meter, Mode, Policer, Workers};
use qos::schedule::ClassSlot;
use wire::Dscp;

use super::profiles::Profiles;

/// The conditioner of one port's or tunnel's service policy.
#[derive(Debug)]
pub struct Conditioner {
    classes: Box<[Class]>,
}

/// What has become of a class's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditioned {
    /// By colour: green, yellow, red. Without a policer all are green.
    pub colours: [ColourCount; 3],
    /// Of these, what was dropped.
    pub dropped: ColourCount,
    /// Whether there is a policer.
    pub is_policed: bool,
}

impl Conditioned {
    /// All that came.
    #[must_use]
    pub fn offered(&self) -> ColourCount {
        self.colours.iter().fold(ColourCount::default(), |sum, colour| ColourCount {
            packets: sum.packets.wrapping_add(colour.packets),
            bytes: sum.bytes.wrapping_add(colour.bytes),
        })
    }
}

/// A packet as a conditioner sees it.
#[derive(Clone, Copy, Debug)]
pub struct Arriving {
    /// Its class.
    pub class: super::Class,
    /// The bytes that it will be on the wire.
    pub wire_bytes: u32,
    /// The DSCP that it came with.
    pub dscp: Dscp,
}

#[derive(Debug)]
struct Class {
    class_map: Option<ClassMapIndex>,
    /// With all its bursts.
    police: Option<Police>,
    policer: Option<Arc<Policer>>,
    counts: Arc<[Block]>,
}

/// Counters with one writer, in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Block {
    colours: [Words; 3],
    dropped: Words,
}

#[derive(Debug, Default)]
struct Words {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Words {
    #[inline(always)]
    fn count(&self, bytes: u32) {
        add(&self.packets, 1);
        add(&self.bytes, u64::from(bytes));
    }

    fn add_to(&self, sum: &mut ColourCount) {
        sum.packets = sum.packets.wrapping_add(self.packets.load(Relaxed));
        sum.bytes = sum.bytes.wrapping_add(self.bytes.load(Relaxed));
    }
}

impl Conditioner {
    /// For the classes of a policy-map, in their order. What is the same in `before` goes on: counters, and tokens as far as
    /// they fit.
    ///
    /// # Errors
    /// A burst that cannot be.
    pub(super) fn new(
        classes: &[PolicyClass],
        profiles: &Profiles,
        workers: u16,
        before: Option<&Self>,
    ) -> Result<Self, Refusal> {
        let same =
            |class: &PolicyClass| before?.classes.iter().find(|other| other.class_map == class.class_map);
        let classes = classes.iter().map(|class| Class::new(class, profiles, workers, same(class)));
        Ok(Self { classes: classes.collect::<Result<_, _>>()? })
    }

    /// What DSCP a packet goes on with; `None`: it is dropped. One thread only calls this for a worker.
    #[inline(always)]
    pub(super) fn condition(&self, arriving: &Arriving, worker: WorkerId, now_ns: u64) -> Option<Dscp> {
        let Arriving { class, wire_bytes, dscp } = *arriving;
        let marked = class.set_dscp.unwrap_or(dscp);
        let Some(of_class) = self.classes.get(usize::from(class.slot.0)) else { return Some(marked) };
        let (colour, action) = match &of_class.policer {
            Some(policer) => policer.police(wire_bytes, dscp, now_ns),
            None => (Colour::Green, Action::Transmit),
        };
        let is_dropped = action == Action::Drop;
        if let Some(block) = of_class.counts.get(worker.index()) {
            block.colours[colour as usize].count(wire_bytes);
            if is_dropped {
                block.dropped.count(wire_bytes);
            }
        }
        match action {
            Action::Transmit => Some(marked),
            Action::Mark(dscp) => Some(dscp),
            Action::Drop => None,
        }
    }

    /// What has become of a class's packets, over all workers.
    #[must_use]
    pub fn conditioned(&self, class: ClassSlot) -> Option<Conditioned> {
        let class = self.classes.get(usize::from(class.0))?;
        let mut sum = Conditioned { is_policed: class.police.is_some(), ..Conditioned::default() };
        for block in class.counts.iter() {
            let pairs = block.colours.iter().zip(&mut sum.colours);
            pairs.for_each(|(words, sum)| words.add_to(sum));
            block.dropped.add_to(&mut sum.dropped);
        }
        Some(sum)
    }

    /// The same of every class, in their order.
    pub fn all(&self) -> impl Iterator<Item = (ClassSlot, Conditioned)> + '_ {
        let slots = (0..=u8::MAX).map(ClassSlot).take(self.classes.len());
        slots.filter_map(|class| Some((class, self.conditioned(class)?)))
    }
}

impl Class {
    fn new(
        class: &PolicyClass,
        profiles: &Profiles,
        workers: u16,
        before: Option<&Self>,
    ) -> Result<Self, Refusal> {
        let id = ObjectId::PolicyClass(class.policy_map, class.place);
        let police = class.police.map(|police| profiles.police(&police, id)).transpose()?;
        let policer = match (police, before) {
            (None, _) => None,
            (Some(_), Some(before)) if before.police == police => before.policer.clone(),
            (Some(police), before) => {
                let policer = policer(&police, workers, id)?;
                if let Some(before) = before.and_then(|before| before.policer.as_ref()) {
                    policer.meter().start_as(before.meter());
                }
                Some(Arc::new(policer))
            }
        };
        let fresh = || std::iter::repeat_with(Block::default).take(usize::from(workers)).collect();
        let counts = before.map_or_else(fresh, |before| Arc::clone(&before.counts));
        Ok(Self { class_map: class.class_map, police, policer, counts })
    }
}

/// A policer that has all its bursts.
fn policer(police: &Police, workers: u16, id: ObjectId) -> Result<Policer, Refusal> {
    let profile = |profile| Profiles::complete_already(profile, id);
    let workers = if workers > 1 { Workers::Several } else { Workers::One };
    let committed = profile(police.committed)?;
    let meter = match police.second {
        SecondBucket::None => Meter::single_rate(committed, 0, workers),
        SecondBucket::ExcessBurst(bytes) => Meter::single_rate(committed, bytes, workers),
        SecondBucket::Peak(peak) => Meter::two_rate(committed, profile(peak)?, workers),
        SecondBucket::ExcessRate(excess) => Meter::two_rate_excess(committed, profile(excess)?, workers),
    };
    let mode = police
        .aware
        .map_or(Mode::ColourBlind, |aware| Mode::ColourAware { yellow: aware.yellow.0, red: aware.red.0 });
    let actions = [police.conform, police.exceed, police.violate];
    let [conform, exceed, violate] = actions.map(|action| match action {
        PoliceAction::Transmit => Ok(Action::Transmit),
        PoliceAction::Drop => Ok(Action::Drop),
        PoliceAction::SetDscp(dscp) => {
            Dscp::new(dscp).map(Action::Mark).ok_or(Refusal::OutOfRange(id, Field::Dscp))
        }
    });
    Ok(Policer::new(meter, mode, [conform?, exceed?, violate?]))
}

/// One writer: a load and a store, no locked instruction.
#[inline(always)]
fn add(word: &AtomicU64, amount: u64) {
    word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
}
