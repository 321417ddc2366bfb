//! Chance without a generator: every draw is a hash of the seed and of what it is drawn for.
//!
//! So a draw needs no state, a decision can be taken again with the same result, and what was drawn is kept
//! by the fact that carries it (an absolute time).

use serde::Serialize;

use crate::model::{AttemptRef, Span};

/// The engine's seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Chance(pub(super) u64);

/// What a number is drawn for, so that two draws for one attempt do not go together.
#[derive(Debug, Clone, Copy)]
pub(super) enum Draw {
    /// The delay before the next attempt.
    Backoff = 1,
    /// The seconds after the reset of a limit.
    Reset = 2,
}

impl Chance {
    /// An even draw from [0, 1) for what follows on `attempt`.
    pub(super) fn unit(self, attempt: AttemptRef, draw: Draw) -> f64 {
        let words = [
            draw as u64,
            attempt.run.0.cast_unsigned(),
            u64::from(attempt.sheet.0),
            u64::from(attempt.attempt.0),
        ];
        let hash = words.into_iter().fold(mix(self.0), |hash, word| mix(hash ^ mix(word)));
        // The upper 53 bits are what an f64 can hold exactly.
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// An even draw from [0, `span`).
    pub(super) fn span(self, attempt: AttemptRef, draw: Draw, span: Span) -> Span {
        Span((span.0 as f64 * self.unit(attempt, draw)) as i64)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AttemptNo, RunId, SheetNo};

    fn attempt(n: u32) -> AttemptRef {
        AttemptRef {
            run: RunId(1),
            sheet: SheetNo(n),
            attempt: AttemptNo(1),
        }
    }

    #[test]
    fn draws_are_even_and_repeatable() {
        let chance = Chance(7);
        let draws: Vec<f64> = (1..=10_000).map(|n| chance.unit(attempt(n), Draw::Backoff)).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((0.48..0.52).contains(&mean), "{mean}");
        assert_eq!(draws[0], chance.unit(attempt(1), Draw::Backoff));
        assert_ne!(draws[0], Chance(8).unit(attempt(1), Draw::Backoff));
        assert_ne!(draws[0], chance.unit(attempt(1), Draw::Reset));
    }

    /// SplitMix64 from seed 0, as its authors' code gives it; and a draw by those numbers. A decision that is taken again
    /// by a later version draws the same.
    #[test]
    fn draws_stay_what_they_were() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
        let attempt = AttemptRef {
            run: RunId(3),
            sheet: SheetNo(7),
            attempt: AttemptNo(2),
        };
        let draws = [Draw::Backoff, Draw::Reset].map(|draw| Chance(42).unit(attempt, draw));
        assert_eq!(draws, [0.647_012_341_937_651, 0.892_323_763_169_532_1]);
    }
}
