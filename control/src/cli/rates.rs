// SPDX-License-Identifier: Apache-2.0
//! What counters did between two looks.

/// How much a counter grew. A dataplane that was restarted begins at zero.
pub(super) fn growth(before: u64, after: u64) -> u64 {
    if after >= before { after - before } else { after }
}

/// Growth a second.
pub(super) fn rate(before: u64, after: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let growth = growth(before, after) as f64;
    if seconds > 0.0 { growth / seconds } else { 0.0 }
}

/// Share of `total` cycles that were `busy`, from 0 to 1.
pub(super) fn load(busy: u64, total: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let share = busy as f64 / total as f64;
    if total == 0 { 0.0 } else { share.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_counts_from_zero() {
        assert_eq!((growth(5, 9), growth(9, 5), growth(5, 5)), (4, 5, 0));
    }

    #[test]
    fn rates_and_loads_of_nothing_are_zero() {
        assert_eq!((rate(0, 10, 0.0), load(5, 0)), (0.0, 0.0));
        assert_eq!((rate(10, 30, 2.0), load(1, 4), load(5, 4)), (10.0, 0.25, 1.0));
    }
}
