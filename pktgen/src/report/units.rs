// SPDX-License-Identifier: Apache-2.0
//! Units that fit the figures: kbit/s, Mbit/s or Gbit/s, and packets or thousands or millions of them a second.

/// What figures are divided by, and what they are called then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit {
    /// Its name.
    pub(super) name: &'static str,
    factor: f64,
}

const BITS: [Unit; 4] = [
    Unit { name: "Gbit/s", factor: 1e9 },
    Unit { name: "Mbit/s", factor: 1e6 },
    Unit { name: "kbit/s", factor: 1e3 },
    Unit { name: "bit/s", factor: 1.0 },
];
const PACKETS: [Unit; 3] = [
    Unit { name: "million packets/s", factor: 1e6 },
    Unit { name: "thousand packets/s", factor: 1e3 },
    Unit { name: "packets/s", factor: 1.0 },
];

impl Unit {
    /// The unit in which the largest of these bits a second is at least 1.
    pub(super) fn of_bits(values: impl Iterator<Item = f64>) -> Self {
        Self::among(&BITS, values)
    }

    /// As [`of_bits`](Self::of_bits), for packets a second.
    pub(super) fn of_packets(values: impl Iterator<Item = f64>) -> Self {
        Self::among(&PACKETS, values)
    }

    /// Bits a second with their unit.
    pub(super) fn bits(bps: f64) -> String {
        let unit = Self::of_bits(std::iter::once(bps));
        format!("{:.3} {}", unit.of(bps), unit.name)
    }

    /// A figure in this unit.
    pub(super) fn of(self, value: f64) -> f64 {
        value / self.factor
    }

    fn among(units: &[Self], values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(0.0, f64::max);
        let fits = units.iter().find(|unit| most >= unit.factor).or(units.last());
        fits.copied().unwrap_or(Self { name: "", factor: 1.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_figure_decides_on_the_unit() {
        let bits = |values: &[f64]| Unit::of_bits(values.iter().copied()).name;
        assert_eq!(
            [bits(&[2e9, 3.0]), bits(&[9e8]), bits(&[1e3]), bits(&[])],
            ["Gbit/s", "Mbit/s", "kbit/s", "bit/s"]
        );
        assert_eq!(Unit::of_packets([20_000.0].into_iter()).name, "thousand packets/s");
        assert_eq!([Unit::bits(1.5e7), Unit::bits(0.0)], ["15.000 Mbit/s", "0.000 bit/s"]);
    }
}
