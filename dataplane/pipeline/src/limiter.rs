// SPDX-License-Identifier: Apache-2.0
//! Rate limit of originated ICMP errors (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f): a token bucket for each worker.

/// Errors that may go at once.
const BURST: u64 = 64;
/// Nanoseconds for a new token: 1,000 errors a second.
const TOKEN_NS: u64 = 1_000_000;

/// A token bucket over a clock that the caller reads.
#[derive(Default)]
pub(crate) struct Limiter {
    /// Time up to which tokens were used; it never lags more than a full bucket behind.
    used_until_ns: u64,
}

impl Limiter {
    /// Takes a token if there is one.
    pub(crate) fn allow(&mut self, now_ns: u64) -> bool {
        let start = self.used_until_ns.max(now_ns.saturating_sub(BURST * TOKEN_NS));
        if start + TOKEN_NS > now_ns {
            return false;
        }
        self.used_until_ns = start + TOKEN_NS;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn allowed(limiter: &mut Limiter, attempts: usize, now_ns: u64) -> usize {
        (0..attempts).filter(|_| limiter.allow(now_ns)).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut limiter = Limiter::default();
        assert_eq!(allowed(&mut limiter, 1_000, SECOND), 64);
        assert_eq!(allowed(&mut limiter, 1_000, SECOND), 0);
        assert_eq!(allowed(&mut limiter, 1_000, SECOND + 10_000_000), 10);
    }

    #[test]
    fn over_a_second_of_pressure_the_rate_holds() {
        let mut limiter = Limiter::default();
        let passed: usize = (0..10_000).map(|i| allowed(&mut limiter, 1, SECOND + i * 100_000)).sum();
        assert!((1_000..=1_064).contains(&passed), "{passed}");
    }
}
