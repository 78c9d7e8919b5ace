//! Randomness, as a value that is put in: attempt ids and jitter. Keys come from the cryptographic library itself.

use std::fmt;

/// What gives the agent random bits.
pub trait Entropy: fmt::Debug + Send + Sync + 'static {
    /// 128 random bits.
    fn bits(&self) -> [u8; 16];

    /// A number from 0 up to, not including, 1.
    fn fraction(&self) -> f64 {
        let [a, b, c, d, ..] = self.bits();
        f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
    }
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn bits(&self) -> [u8; 16] {
        let mut bits = [0; 16];
        aws_lc_rs::rand::fill(&mut bits).expect("the system's generator of random numbers answers");
        bits
    }
}
