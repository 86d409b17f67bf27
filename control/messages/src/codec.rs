// SPDX-License-Identifier: Apache-2.0
//! Encoding of messages into ring records: postcard (<https://postcard.jamesmunns.com/wire-format>), strict.

use serde::{Serialize, de::DeserializeOwned};

/// The most bytes an encoded request or event takes: a ring record less its header.
pub const MESSAGE_BYTES_MAX: usize = 496;

/// A message that does not fit a record; no message of this crate does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not fit its record")]
pub struct EncodeError;

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message of this protocol version")]
pub struct DecodeError;

/// Writes `message` into `record` and returns the bytes used.
///
/// # Errors
/// [`EncodeError`] if `record` is too short.
pub fn encode<'a, T: Serialize>(message: &T, record: &'a mut [u8]) -> Result<&'a [u8], EncodeError> {
    postcard::to_slice(message, record).map(|used| &*used).map_err(|_| EncodeError)
}

/// Reads exactly one message from `bytes`.
///
/// # Errors
/// [`DecodeError`] for anything but one whole message: unknown variants, bytes missing, bytes left over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(DecodeError),
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::*;

    fn largest_sa() -> Sa {
        Sa {
            sa: SaIndex(u32::MAX),
            protection: ProtectionIndex(u32::MAX),
            direction: Direction::Outbound,
            spi: u32::MAX,
            key: Key { secret: Secret::from_keymat(&[0xff; 36]).unwrap(), icv_bytes: 16 },
            esn: true,
            replay_window: 8192,
            class_group: 255,
            owner: Some(WorkerId(u16::MAX)),
            iv_prefix: IvPrefix { bits: 32, value: u32::MAX },
            lifetime: LifetimeLimits {
                soft_bytes: u64::MAX,
                hard_bytes: u64::MAX,
                soft_packets: u64::MAX,
                hard_packets: u64::MAX,
                soft_seconds: u32::MAX,
                hard_seconds: u32::MAX,
            },
        }
    }

    fn v6() -> IpAddr {
        IpAddr::V6(Ipv6Addr::from([0xff; 16]))
    }

    fn prefix() -> IpPrefix {
        IpPrefix { address: v6(), length: 128 }
    }

    fn largest_profile() -> TrafficProfile {
        TrafficProfile { rate_bps: u64::MAX, burst_bytes: Some(u32::MAX) }
    }

    fn largest_objects() -> Vec<Object> {
        let ports = Some(PortRange { first: u16::MAX, last: u16::MAX });
        let selector = Selector {
            local: Some(prefix()),
            remote: Some(prefix()),
            protocol: Some(255),
            local_ports: ports,
            remote_ports: ports,
        };
        let port = PortIndex(u16::MAX);
        let profile = DropProfile { min_packets: u16::MAX, max_packets: u16::MAX, one_in: u16::MAX };
        vec![
            Object::Sa(largest_sa()),
            Object::Policy(Policy {
                policy: PolicyIndex(u32::MAX),
                port,
                order: u32::MAX,
                selector,
                action: PolicyAction::Protect(ProtectionIndex(u32::MAX)),
            }),
            Object::Route(Route {
                prefix: prefix(),
                target: RouteTarget::Port { port, next_hop: Some(v6()) },
            }),
            Object::Tunnel(Tunnel {
                tunnel: TunnelIndex(u32::MAX),
                source: v6(),
                destination: v6(),
                gre: GreOptions { key: Some(u32::MAX), checksum: true, sequence: true },
                protection: Some(ProtectionIndex(u32::MAX)),
                tos: TosPolicy::Dscp(63),
                df: DfPolicy::Set,
                ttl: 255,
                mtu: Some(u16::MAX),
                mss: MssClamp::Fixed(u16::MAX),
                strict_source: true,
                marks: TunnelMarks {
                    outward: Some(DscpMapIndex(u32::MAX)),
                    receipt: ReceivedDscp::Map(DscpMapIndex(u32::MAX)),
                },
            }),
            Object::DscpMap(DscpMap { dscp_map: DscpMapIndex(u32::MAX), changes: vec![(63, 63); 64] }),
            Object::Protection(Protection {
                protection: ProtectionIndex(u32::MAX),
                mode: EspMode::Tunnel,
                local: v6(),
                remote: v6(),
                tos: TosPolicy::Dscp(63),
                df: DfPolicy::Set,
                ttl: 255,
                class_groups: ClassGroups([DscpSet(u64::MAX); CLASS_GROUPS_MAX]),
            }),
            Object::PolicyClass(PolicyClass {
                policy_map: PolicyMapIndex(u32::MAX),
                place: u8::MAX,
                class_map: Some(ClassMapIndex(u32::MAX)),
                service: Service::Bandwidth(Share::Rate(u64::MAX)),
                police: Some(Police {
                    committed: largest_profile(),
                    second: SecondBucket::Peak(largest_profile()),
                    aware: Some(ColourAware { yellow: DscpSet(u64::MAX), red: DscpSet(u64::MAX) }),
                    conform: PoliceAction::SetDscp(63),
                    exceed: PoliceAction::SetDscp(63),
                    violate: PoliceAction::SetDscp(63),
                }),
                limit: QueueLimit::Microseconds(u32::MAX),
                early: EarlyDrop::Wred(Wred {
                    weight: 16,
                    default: profile,
                    profiles: vec![(63, profile); PROFILES_MAX],
                }),
                ecn: true,
                set_dscp: Some(63),
                set_vlan_priority: Some(7),
            }),
            Object::Criterion(Criterion {
                class_map: ClassMapIndex(u32::MAX),
                place: u16::MAX,
                negated: true,
                source: Some(prefix()),
                destination: Some(prefix()),
                protocol: Some(255),
                source_ports: ports,
                destination_ports: ports,
                tcp_flags: Some(TcpFlags { mask: 255, value: 255 }),
                dscps: Some(DscpSet(u64::MAX)),
                tunnel: Some(TunnelIndex(u32::MAX)),
                ingress: Some(port),
                vlan_priorities: Some(255),
                nested: Some(ClassMapIndex(u32::MAX)),
            }),
        ]
    }

    #[test]
    fn every_large_object_fits_a_record_and_comes_back() {
        for object in largest_objects() {
            let request = Request::Put(object);
            let mut record = [0xa5; MESSAGE_BYTES_MAX];
            let used = encode(&request, &mut record).unwrap();
            assert_eq!(decode::<Request>(used), Ok(request));
        }
    }

    #[test]
    fn every_truncation_and_every_extra_byte_is_refused() {
        for object in largest_objects() {
            let mut record = [0; MESSAGE_BYTES_MAX];
            let used = encode(&Request::Put(object), &mut record).unwrap().to_vec();
            for length in 0..used.len() {
                assert_eq!(decode::<Request>(&used[..length]), Err(DecodeError), "{length}");
            }
            assert_eq!(decode::<Request>(&[&used[..], &[0]].concat()), Err(DecodeError));
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let mut record = [0; MESSAGE_BYTES_MAX];
        let used = encode(&([0u8; 32], 17u8, [0u8; 4]), &mut record).unwrap();
        assert_eq!(decode::<Secret>(used), Err(DecodeError));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_is_a_message_that_encodes_again(bytes in proptest::collection::vec(any::<u8>(), 0..MESSAGE_BYTES_MAX)) {
            if let Ok(request) = decode::<Request>(&bytes) {
                let mut record = [0; MESSAGE_BYTES_MAX];
                let used = encode(&request, &mut record).unwrap();
                prop_assert_eq!(decode::<Request>(used), Ok(request));
            }
        }
    }
}
