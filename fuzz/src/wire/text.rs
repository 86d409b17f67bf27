// SPDX-License-Identifier: Apache-2.0
//! What people write: MAC addresses, protocols, DSCPs. What is read is shown so that it reads the same again.

use core::fmt::{Debug, Display};
use core::str::FromStr;

use ::wire::{Dscp, IpProtocol, MacAddr};

pub(super) fn check(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    round_trip::<MacAddr>(text);
    round_trip::<IpProtocol>(text);
    round_trip::<Dscp>(text);
}

fn round_trip<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>().ok();
        assert_eq!(again.as_ref(), Some(&value), "{text:?}");
    }
}
