// SPDX-License-Identifier: Apache-2.0
//! A transaction that is refused, forgotten or aborted changes nothing: traffic goes on under the same SAs and the same
//! generation, and no counter of drops moves.

use core::net::{IpAddr, Ipv4Addr};

use greyhound_simulation::topology::{End, Shape, Topology, WAN};
use greyhound_simulation::traffic::Ledger;
use messages::{
    Address, Base, Direction, DropReason, Field, Fingerprint, IpPrefix, Object, ObjectId, Policy,
    PolicyAction, PolicyIndex, PortIndex, ProtectionIndex, Refusal, Route, RouteTarget, Sa, SaIndex,
    Selector, Tunnel, TunnelIndex, WorkerCounter,
};

const ENDS: [End; 2] = [End::A, End::B];

/// What an operator sees of a headend, less what grows with traffic.
#[derive(Debug, PartialEq)]
struct View {
    generation: u64,
    workers_generation: u64,
    drops: Vec<(DropReason, u64)>,
    sas: Vec<(SaIndex, ProtectionIndex, u32, Fingerprint)>,
}

struct Run {
    net: Topology,
    ledger: Ledger,
    transaction: u32,
}

impl Run {
    fn new() -> Self {
        let net = Topology::new(Shape::default());
        let mut run = Self { net, ledger: Ledger::default(), transaction: 1_000 };
        run.traffic();
        run
    }

    /// Some packets both ways, all of which arrive, sealed under the SAs of the first configuration without a gap.
    fn traffic(&mut self) {
        for round in 0..4 {
            for from in ENDS {
                for flow in 0..4 {
                    self.ledger.send(&mut self.net, from, flow, 0, 50 + 100 * usize::from(flow));
                }
            }
            if round == 0 {
                self.net.settle();
            }
        }
        self.net.settle();
        self.ledger.collect(&mut self.net);
        self.ledger.assert_complete();
        for end in ENDS {
            let spi = sa_of(&self.net, end, Direction::Outbound, 0).spi;
            let seen = self.net.esp_seen();
            let numbers = seen.iter().filter(|packet| packet.spi == spi).map(|packet| packet.iv);
            assert!(numbers.eq(1..=self.ledger.sent_from(end)));
            assert_eq!((self.net.headend(end).unaccounted(), self.net.headend(end).drops()), (0, vec![]));
        }
        assert_eq!((self.net.buffers_out(), self.net.frames_in_clear()), (0, 0));
    }

    fn view(&mut self) -> View {
        let a = self.net.headend(End::A);
        View {
            generation: a.generation(),
            workers_generation: a.counter(WorkerCounter::Generation),
            drops: a.drops(),
            sas: a.sas(0).iter().map(|sa| (sa.sa, sa.protection, sa.spi, sa.fingerprint)).collect(),
        }
    }

    /// Opens a transaction at A that first takes away all that traffic needs, so that anything of it that took effect
    /// would show. Returns its number.
    fn stage(&mut self, deleted: &[ObjectId], objects: &[Object]) -> u32 {
        let all = self.net.objects(End::A, 0);
        let installer = self.net.headend(End::A).installer();
        self.transaction += 1;
        installer.begin(self.transaction, Base::Running);
        for object in all.iter().filter(|object| matches!(object, Object::Sa(_) | Object::Route(_))) {
            installer.delete(object.id());
        }
        objects.iter().for_each(|object| installer.put(object));
        deleted.iter().for_each(|id| installer.delete(*id));
        self.transaction
    }

    fn commit(&mut self, transaction: u32) -> Result<(), Refusal> {
        let now_ns = self.net.now_ns;
        self.net.headend(End::A).installer().commit(transaction, now_ns).map(drop)
    }

    /// The transaction is refused for `reason`, by check and by commit, and nothing else happens.
    fn refuses(&mut self, deleted: &[ObjectId], objects: &[Object], reason: Refusal) {
        let before = self.view();
        let transaction = self.stage(deleted, objects);
        assert_eq!(self.net.headend(End::A).installer().check(transaction), Err(reason));
        let transaction = self.stage(deleted, objects);
        assert_eq!(self.commit(transaction), Err(reason));
        self.traffic();
        assert_eq!(self.view(), before, "{reason}");
    }

    fn sa(&self, direction: Direction, generation: u32) -> Sa {
        sa_of(&self.net, End::A, direction, generation)
    }

    fn tunnel(&self) -> Tunnel {
        let tunnel = |object: &Object| match object {
            Object::Tunnel(tunnel) => Some(*tunnel),
            _ => None,
        };
        self.net.network(End::A).iter().find_map(tunnel).expect("a tunnel")
    }
}

fn sa_of(net: &Topology, end: End, direction: Direction, generation: u32) -> Sa {
    match net.sa(end, direction, generation) {
        Object::Sa(sa) => sa,
        _ => unreachable!("an SA"),
    }
}

fn elsewhere(last: u8) -> IpAddr {
    Ipv4Addr::new(203, 0, 113, last).into()
}

fn route(target: RouteTarget) -> Route {
    Route { prefix: IpPrefix { address: elsewhere(0), length: 24 }, target }
}

fn policy(policy: u32, order: u32, action: PolicyAction) -> Policy {
    let selector =
        Selector { local: None, remote: None, protocol: None, local_ports: None, remote_ports: None };
    Policy { policy: PolicyIndex(policy), port: WAN, order, selector, action }
}

#[test]
fn what_refers_to_nothing_is_refused() {
    let mut run = Run::new();
    let missing = Route { ..route(RouteTarget::Tunnel(TunnelIndex(9))) };
    let expected = Refusal::Dangling(ObjectId::Route(missing.prefix), ObjectId::Tunnel(TunnelIndex(9)));
    run.refuses(&[], &[Object::Route(missing)], expected);

    let nowhere = route(RouteTarget::Port { port: PortIndex(7), next_hop: Some(elsewhere(1)) });
    let expected = Refusal::Dangling(ObjectId::Route(nowhere.prefix), ObjectId::Port(PortIndex(7)));
    run.refuses(&[], &[Object::Route(nowhere)], expected);

    let sa = Sa { protection: ProtectionIndex(5), ..run.sa(Direction::Inbound, 1) };
    let expected = Refusal::Dangling(ObjectId::Sa(sa.sa), ObjectId::Protection(ProtectionIndex(5)));
    run.refuses(&[], &[Object::Sa(sa)], expected);

    let tunnel = Tunnel { protection: Some(ProtectionIndex(5)), ..run.tunnel() };
    let expected =
        Refusal::Dangling(ObjectId::Tunnel(tunnel.tunnel), ObjectId::Protection(ProtectionIndex(5)));
    run.refuses(&[], &[Object::Tunnel(tunnel)], expected);

    let entry = policy(1, 1, PolicyAction::Protect(ProtectionIndex(5)));
    let expected =
        Refusal::Dangling(ObjectId::Policy(entry.policy), ObjectId::Protection(ProtectionIndex(5)));
    run.refuses(&[], &[Object::Policy(entry)], expected);

    let address = Address { port: Some(PortIndex(1)), address: elsewhere(1), length: 24 };
    let port = ObjectId::Port(WAN);
    run.refuses(&[port], &[], Refusal::Dangling(ObjectId::Address(End::A.wan()), port));
    run.refuses(
        &[ObjectId::Protection(ProtectionIndex(0))],
        &[Object::Address(address)],
        Refusal::Dangling(ObjectId::Tunnel(TunnelIndex(0)), ObjectId::Protection(ProtectionIndex(0))),
    );
}

#[test]
fn what_excludes_another_is_refused() {
    let mut run = Run::new();
    let inbound = run.sa(Direction::Inbound, 1);
    let same_spi = Sa { spi: inbound.spi, ..run.sa(Direction::Inbound, 2) };
    let expected = Refusal::Conflict(ObjectId::Sa(same_spi.sa), ObjectId::Sa(inbound.sa));
    run.refuses(&[], &[Object::Sa(inbound), Object::Sa(same_spi)], expected);

    let (first, second) = (run.sa(Direction::Outbound, 1), run.sa(Direction::Outbound, 2));
    let expected = Refusal::Conflict(ObjectId::Sa(second.sa), ObjectId::Sa(first.sa));
    run.refuses(&[], &[Object::Sa(first), Object::Sa(second)], expected);

    let twin = Tunnel { tunnel: TunnelIndex(1), ..run.tunnel() };
    let expected = Refusal::Conflict(ObjectId::Tunnel(TunnelIndex(1)), ObjectId::Tunnel(TunnelIndex(0)));
    run.refuses(&[], &[Object::Tunnel(twin)], expected);

    let entries = [policy(1, 5, PolicyAction::Bypass), policy(2, 5, PolicyAction::Discard)];
    let expected = Refusal::Conflict(ObjectId::Policy(PolicyIndex(2)), ObjectId::Policy(PolicyIndex(1)));
    run.refuses(&[], &entries.map(Object::Policy), expected);
}

#[test]
fn a_key_for_two_sas_is_refused_within_a_transaction_and_against_what_runs() {
    let mut run = Run::new();
    let inbound = run.sa(Direction::Inbound, 1);
    let outbound = Sa { key: inbound.key.clone(), ..run.sa(Direction::Outbound, 1) };
    let expected = Refusal::KeyReused(ObjectId::Sa(outbound.sa), ObjectId::Sa(inbound.sa));
    run.refuses(&[], &[Object::Sa(inbound), Object::Sa(outbound)], expected);

    // The transaction takes the running SA away, but its numbers are on the wire.
    for direction in [Direction::Inbound, Direction::Outbound] {
        let running = run.sa(direction, 0);
        let other_spi = Sa { key: running.key.clone(), ..run.sa(direction, 1) };
        let expected = Refusal::KeyReused(ObjectId::Sa(other_spi.sa), ObjectId::Sa(running.sa));
        run.refuses(&[], &[Object::Sa(other_spi)], expected);
        let other_way = match direction {
            Direction::Inbound => Direction::Outbound,
            Direction::Outbound => Direction::Inbound,
        };
        let reversed = Sa { key: running.key.clone(), ..run.sa(other_way, 1) };
        let expected = Refusal::KeyReused(ObjectId::Sa(reversed.sa), ObjectId::Sa(running.sa));
        run.refuses(&[], &[Object::Sa(reversed)], expected);
    }
}

#[test]
fn what_is_out_of_range_or_beyond_a_limit_is_refused() {
    let mut run = Run::new();
    let sa = run.sa(Direction::Inbound, 1);
    let id = ObjectId::Sa(sa.sa);
    for (wrong, field) in [
        (Sa { spi: 255, ..sa.clone() }, Field::Spi),
        (Sa { replay_window: 100, ..sa.clone() }, Field::ReplayWindow),
        (Sa { replay_window: 0, esn: true, ..sa.clone() }, Field::ReplayWindow),
        (Sa { class_group: 1, ..sa.clone() }, Field::ClassGroup),
        (Sa { owner: Some(messages::WorkerId(1)), ..sa.clone() }, Field::Owner),
        (Sa { key: messages::Key { icv_bytes: 15, ..sa.key.clone() }, ..sa.clone() }, Field::IcvBytes),
    ] {
        run.refuses(&[], &[Object::Sa(wrong)], Refusal::OutOfRange(id, field));
    }
    let tunnel = run.tunnel();
    let id = ObjectId::Tunnel(tunnel.tunnel);
    run.refuses(&[], &[Object::Tunnel(Tunnel { ttl: 0, ..tunnel })], Refusal::OutOfRange(id, Field::Ttl));
    let far = Tunnel { tunnel: TunnelIndex(1_024), ..tunnel };
    run.refuses(&[], &[Object::Tunnel(far)], Refusal::BeyondLimit(ObjectId::Tunnel(far.tunnel), 1_024));
    let far = Sa { sa: SaIndex(4_096), ..sa };
    let expected = Refusal::BeyondLimit(ObjectId::Sa(far.sa), 4_096);
    run.refuses(&[], &[Object::Sa(far)], expected);
}

#[test]
fn deleting_what_is_not_there_is_refused() {
    let mut run = Run::new();
    for id in [
        ObjectId::Sa(SaIndex(44)),
        ObjectId::Tunnel(TunnelIndex(3)),
        ObjectId::Protection(ProtectionIndex(3)),
        ObjectId::Policy(PolicyIndex(0)),
        ObjectId::Address(elsewhere(1)),
        ObjectId::Port(PortIndex(5)),
        ObjectId::Neighbor(WAN, End::B.wan()),
        ObjectId::Route(IpPrefix { address: elsewhere(0), length: 24 }),
        // Deleted by the transaction itself before.
        run.net.sa(End::A, Direction::Outbound, 0).id(),
    ] {
        run.refuses(&[id], &[], Refusal::Unknown(id));
    }
}

#[test]
fn the_first_of_several_reasons_is_given_and_what_follows_does_not_heal_it() {
    let mut run = Run::new();
    let sa = run.sa(Direction::Inbound, 1);
    let wrong = Sa { spi: 1, ..sa.clone() };
    let tunnel = Tunnel { ttl: 0, ..run.tunnel() };
    let expected = Refusal::OutOfRange(ObjectId::Sa(sa.sa), Field::Spi);
    run.refuses(&[], &[Object::Sa(wrong.clone()), Object::Tunnel(tunnel)], expected);
    run.refuses(&[], &[Object::Sa(wrong), Object::Sa(sa)], expected);
}

#[test]
fn a_transaction_that_is_spoilt_aborted_or_never_begun_is_refused() {
    let mut run = Run::new();
    let before = run.view();
    assert_eq!(run.commit(1), Err(Refusal::NoTransaction));

    let transaction = run.stage(&[], &[]);
    run.net.headend(End::A).installer().spoil(Refusal::Malformed);
    assert_eq!(run.commit(transaction), Err(Refusal::Malformed));

    let transaction = run.stage(&[], &[]);
    run.net.headend(End::A).installer().abort();
    assert_eq!(run.commit(transaction), Err(Refusal::NoTransaction));

    let transaction = run.stage(&[], &[]);
    assert_eq!(run.commit(transaction + 1), Err(Refusal::NoTransaction), "another's number");
    assert_eq!(run.commit(transaction), Err(Refusal::NoTransaction), "and it is gone after that");
    run.traffic();
    assert_eq!(run.view(), before);
}

#[test]
fn a_check_that_passes_changes_nothing_either() {
    let mut run = Run::new();
    let before = run.view();
    let transaction = run.stage(&[], &[]);
    assert_eq!(run.net.headend(End::A).installer().check(transaction), Ok(()));
    assert_eq!(run.commit(transaction), Err(Refusal::NoTransaction), "a check closes it");
    run.traffic();
    assert_eq!(run.view(), before);
}

#[test]
fn a_transaction_half_staged_and_forgotten_leaves_nothing_to_the_next() {
    let mut run = Run::new();
    let before = run.view();
    let inbound = run.net.sa(End::A, Direction::Inbound, 1);
    run.stage(
        &[ObjectId::Tunnel(TunnelIndex(0))],
        &[inbound.clone(), Object::Route(route(RouteTarget::Discard))],
    );
    run.traffic();
    assert_eq!(run.view(), before);

    // Control died; its successor begins anew.
    let discarded = route(RouteTarget::Discard);
    run.net.commit(End::A, &[Object::Route(discarded)]).expect("a valid change");
    run.net.settle();
    run.traffic();
    let after = run.view();
    assert_eq!((after.generation, after.workers_generation), (before.generation + 1, before.generation + 1));
    assert_eq!((after.sas, after.drops), (before.sas, before.drops), "nothing of the forgotten one");
}

#[test]
fn after_any_number_of_refusals_a_good_transaction_is_taken() {
    let mut run = Run::new();
    let before = run.view().generation;
    for spi in 0..50 {
        let wrong = Sa { spi, ..run.sa(Direction::Inbound, 1) };
        let transaction = run.stage(&[], &[Object::Sa(wrong)]);
        assert!(run.commit(transaction).is_err());
    }
    let inbound = run.net.sa(End::A, Direction::Inbound, 1);
    run.net.commit(End::A, &[inbound]).expect("a valid change");
    run.net.settle();
    run.traffic();
    assert_eq!(run.view().generation, before + 1);
    assert_eq!(run.view().sas.len(), 3);
}
