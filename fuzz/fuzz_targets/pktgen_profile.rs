// SPDX-License-Identifier: Apache-2.0
//! `greyhound_fuzz::pktgen_profile` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| greyhound_fuzz::pktgen_profile(data));
