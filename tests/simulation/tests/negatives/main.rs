// SPDX-License-Identifier: Apache-2.0
//! Every packet that must not pass, one cause each: it ends in the one counter that is its own, and nothing else changes.
//!
//! One file a layer: [`link`], [`ip`], [`gre`], [`esp`], [`policy`], [`resources`]. At the end stands the check that every
//! reason in `messages::DropReason` is provoked here or said to be shown elsewhere, and that `docs/drops.md` names it.

mod esp;
mod gre;
mod ip;
mod link;
mod manual;
mod policy;
mod resources;
mod support;

use std::collections::BTreeSet;

use messages::DropReason;

const QOS: &str = "tests/simulation/tests/qos.rs";

/// Reasons that no packet from outside can provoke: where they are shown, and why not here.
const ELSEWHERE: &[(DropReason, &str, &str)] = &[
    // Tunnels and ports have an MTU of at least 576, and a parsed packet can be cut to that: it takes a call of the stage
    // with less to see that it gives up.
    (
        DropReason::FragmentFailed,
        "dataplane/pipeline/src/fragment.rs",
        "a_packet_that_cannot_be_cut_is_dropped",
    ),
    // A headend with a service policy is another one than the one here.
    (DropReason::QosPoliced, QOS, "what_is_above_its_policer_is_dropped_and_what_is_marked_leaves_marked"),
    (
        DropReason::QosQueueLimit,
        QOS,
        "voice_loses_nothing_and_waits_for_two_packets_at_most_while_bulk_is_twice_the_rate",
    ),
    (DropReason::QosWred, QOS, "early_drops_are_told_apart_and_ecn_capable_packets_are_marked_instead"),
    (DropReason::QosCodel, QOS, "early_drops_are_told_apart_and_ecn_capable_packets_are_marked_instead"),
    (DropReason::QosPie, QOS, "pie_drops_or_marks_what_arrives_while_the_queue_is_late"),
    (
        DropReason::QosNoRoom,
        "dataplane/pipeline/src/queues.rs",
        "a_scheduler_without_room_gives_the_packet_back",
    ),
    (
        DropReason::QosGone,
        QOS,
        "what_waits_for_a_tunnel_that_goes_is_a_counted_drop_and_what_waits_for_others_goes_on",
    ),
];

#[test]
fn every_reason_is_provoked_here_or_shown_elsewhere() {
    for case in [link::CASES, ip::CASES, gre::CASES, esp::CASES, policy::CASES, resources::CASES].concat() {
        case();
    }
    let here = support::provoked();
    let elsewhere: BTreeSet<_> = ELSEWHERE.iter().map(|(reason, ..)| *reason).collect();
    let both: Vec<_> = here.intersection(&elsewhere).collect();
    assert!(both.is_empty(), "provoked here after all: {both:?}");
    let missing: Vec<_> = DropReason::ALL
        .iter()
        .filter(|reason| !here.contains(reason) && !elsewhere.contains(reason))
        .collect();
    assert!(missing.is_empty(), "no test provokes {missing:?}");
    for (reason, file, test) in ELSEWHERE {
        let path = manual::root().join(file);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let body = text.split_once(&format!("fn {test}()")).map(|(_, body)| body);
        let named = body.is_some_and(|body| body.contains(&format!("DropReason::{reason:?}")));
        assert!(named, "{file} has no test {test} about {reason}");
    }
}
