// SPDX-License-Identifier: Apache-2.0
//! SAs and packets for `esp_inbound`, in its own language.

use super::Seed;
use super::frames::hex;

pub(super) fn seeds() -> Vec<Seed> {
    // Key size, ICV, flags (1 ESN, 6 window, 8 an edge, 16 a hard limit), then what the flags ask for.
    let plain = "00 00 02 04";
    let esn = "02 01 01 00";
    // Flags (0 next, 1 and 2 near, 3 any number; 4 ends the burst; 16 with a right trailer; 192 damaged, 224 cut).
    let next = "10 04 61626364 2f 00";
    let seed = |name: &str, text: String| (name.to_owned(), hex(&text));
    vec![
        seed("in-order", format!("{plain} {}", next.repeat(5))),
        seed("bursts", format!("{plain} {} {}", next.repeat(3), "14 04 61626364 2f 00".repeat(3))),
        seed(
            "replayed",
            format!("{plain} {next} 11 00 04 61626364 2f 00 15 00 04 61626364 2f 00 11 00 04 61626364 2f 00"),
        ),
        seed(
            "late",
            format!("{plain} 12 0100 04 61626364 2f 00 14 00 3b 00 {}", "11 9c 04 61626364 2f 00".repeat(4)),
        ),
        seed("too-old", "01 02 02 00 12 0100 00 2f 00 15 80 00 2f 00 11 80 00 2f 00".to_owned()),
        seed(
            "esn-wraps",
            format!("02 00 09 01 00000001 fffffff0 {} 12 0020 04 61626364 04 00", next.repeat(3)),
        ),
        seed("esn-far", format!("{esn} 13 00000002 00000005 04 61626364 2f 00 {next}")),
        seed("esn-last", format!("00 00 09 00 ffffffff fffffff0 {}", "11 08 00 29 00".repeat(4))),
        seed("no-window", format!("00 02 00 {next} 13 00000000 00000000 00 2f 00 {next}")),
        seed("zero", format!("{plain} 13 00000000 00000000 00 2f 00")),
        seed("hard-limit", format!("00 00 12 04 02 {}", "14 00 2f 00".repeat(4))),
        seed(
            "bad-padding",
            format!(
                "{plain} 00 08 61626364 01020402 00 00 08 61626364 0102ff2f 00 00 08 6162636401020304 00"
            ),
        ),
        seed("dummy", format!("{plain} 10 00 3b 00 10 08 6162636465666768 3b 00")),
        seed(
            "damaged",
            format!(
                "{plain} d0 04 61626364 2f 00 0010 01 d0 04 61626364 2f 00 0000 01 d0 04 61626364 2f 00 0008 80"
            ),
        ),
        seed(
            "cut",
            format!("{plain} f0 04 61626364 2f 00 0010 f0 04 61626364 2f 00 0003 f0 04 61626364 2f 00 0020"),
        ),
        seed("misaligned", format!("{plain} 00 05 6162636465 00 00 00 00 00 02 002f 00")),
        seed("long", format!("01 01 06 07 18 0400 {} 2f 00", "5a".repeat(1024))),
    ]
}
