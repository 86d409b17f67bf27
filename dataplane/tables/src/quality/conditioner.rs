// SPDX-License-Identifier: Apache-2.0
//! Traffic conditioners (RFC 2475 §2.3.3): the policers of a service policy's classes, and what they have said.
//!
//! All workers share a policer: a class has its rate however its packets are spread over them. Each worker counts in a
//! cache line of its own. Both outlive generations, as long as the port or tunnel has a class with the same class-map.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use messages::{
    CLASSES_MAX, ClassMapIndex, ColourCount, Field, ObjectId, Police, PoliceAction, PolicyClass, Refusal,
    SecondBucket, WorkerId,
};
use qos::police::{Action, Colour, Meter, Mode, Policer, Workers};
use qos::schedule::{ClassSlot, Volume};
use qos::tally::{Place, Tally};
use wire::Dscp;

use super::profiles::Profiles;

/// Places for classes.
const CLASSES: usize = CLASSES_MAX as usize;
const _: () = assert!(CLASSES.is_power_of_two());

/// The conditioner of one port's or tunnel's service policy.
#[derive(Debug)]
pub struct Conditioner {
    /// By class; where there is none, nothing is metered.
    policers: [Option<Arc<Policer>>; CLASSES],
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
    fn count(&self, volume: Volume) {
        add(&self.packets, volume.packets);
        add(&self.bytes, volume.bytes);
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
        let classes: Box<[Class]> = classes.collect::<Result<_, _>>()?;
        let policers = core::array::from_fn(|place| classes.get(place)?.policer.clone());
        Ok(Self { policers, classes })
    }

    /// What a packet's policer says of it, and what DSCP it goes on with; `None`: it is dropped. Nothing is counted yet.
    #[inline(always)]
    fn judge(&self, arriving: &Arriving, now_ns: u64) -> (Colour, Option<Dscp>) {
        let Arriving { class, wire_bytes, dscp } = *arriving;
        let marked = Some(class.set_dscp.unwrap_or(dscp));
        let Some(policer) = &self.policers[place(class.slot)] else { return (Colour::Green, marked) };
        match policer.police(wire_bytes, dscp, now_ns) {
            (colour, Action::Transmit) => (colour, marked),
            (colour, Action::Mark(dscp)) => (colour, Some(dscp)),
            (colour, Action::Drop) => (colour, None),
        }
    }

    /// What DSCP a packet goes on with; `None`: it is dropped. One thread only calls this for a worker.
    pub(super) fn condition(&self, arriving: &Arriving, worker: WorkerId, now_ns: u64) -> Option<Dscp> {
        let (colour, dscp) = self.judge(arriving, now_ns);
        self.count(arriving, worker, colour, dscp.is_none());
        dscp
    }

    /// The same for many packets, of which what is common is counted later ([`settle`](Self::settle)).
    #[inline(always)]
    pub(super) fn condition_of_many(
        &self,
        arriving: &Arriving,
        worker: WorkerId,
        now_ns: u64,
        tally: &mut Tally,
    ) -> Option<Dscp> {
        match self.judge(arriving, now_ns) {
            (Colour::Green, Some(dscp)) => {
                tally.count(Place::of(arriving.class.slot), arriving.wire_bytes);
                Some(dscp)
            }
            (colour, dscp) => {
                self.count(arriving, worker, colour, dscp.is_none());
                dscp
            }
        }
    }

    /// Counts the green packets that have gathered.
    pub(super) fn settle(&self, tally: &Tally, worker: WorkerId) {
        for (slot, green) in tally.classes() {
            let class = self.classes.get(usize::from(slot.0));
            if let Some(block) = class.and_then(|class| class.counts.get(worker.index())) {
                block.colours[Colour::Green as usize].count(green);
            }
        }
    }

    #[inline(never)]
    fn count(&self, arriving: &Arriving, worker: WorkerId, colour: Colour, is_dropped: bool) {
        let class = self.classes.get(usize::from(arriving.class.slot.0));
        let Some(block) = class.and_then(|class| class.counts.get(worker.index())) else { return };
        let one = Volume { packets: 1, bytes: u64::from(arriving.wire_bytes) };
        block.colours[colour as usize].count(one);
        if is_dropped {
            block.dropped.count(one);
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

/// The place of a class, of which no policy has more.
#[inline(always)]
fn place(class: ClassSlot) -> usize {
    usize::from(class.0) & (CLASSES - 1)
}

/// One writer: a load and a store, no locked instruction.
#[inline(always)]
fn add(word: &AtomicU64, amount: u64) {
    word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
}
