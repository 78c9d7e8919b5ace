//! When to try again: exponential backoff with full jitter, so that a fleet does not come back as one.

use std::time::Duration;

use crate::entropy::Entropy;

/// Delays that grow: each is drawn from zero up to a bound that doubles.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Bounds that start at `first` and end at `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// How often it was asked.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The delay after one more failure.
    pub fn next(&mut self, entropy: &dyn Entropy) -> Duration {
        let bound = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(entropy.fraction())
    }

    /// Starts again, after a success.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(u8);

    impl Entropy for Fixed {
        fn bits(&self) -> [u8; 16] {
            [self.0; 16]
        }
    }

    #[test]
    fn delays_double_up_to_the_longest_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let delays: Vec<_> = (0..5).map(|_| backoff.next(&Fixed(0xff)).as_secs_f64().round()).collect();
        assert_eq!(delays, [1.0, 2.0, 4.0, 5.0, 5.0]);
        backoff.reset();
        assert_eq!(backoff.next(&Fixed(0xff)).as_secs_f64().round(), 1.0);
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::new(Duration::from_secs(8), Duration::from_secs(8));
        assert_eq!(backoff.next(&Fixed(0)), Duration::ZERO);
        assert_eq!(backoff.next(&Fixed(0x80)).as_secs_f64().round(), 4.0);
    }
}
