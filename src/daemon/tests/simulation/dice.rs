//! Chance: whatever is drawn of a seed.

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From `least` to `most`.
    pub(super) fn from(&mut self, least: i64, most: i64) -> i64 {
        let span = u64::try_from(most - least + 1).unwrap();
        least + i64::try_from(self.roll() % span).unwrap()
    }

    /// Small numbers as often as large ones.
    pub(super) fn span(&mut self, least: i64, most: i64) -> i64 {
        let (low, high) = ((least as f64).ln(), (most as f64).ln());
        let part = (self.roll() >> 11) as f64 / (1_u64 << 53) as f64;
        (low + (high - low) * part).exp() as i64
    }

    pub(super) fn percent(&mut self, chance: i64) -> bool {
        self.from(0, 99) < chance
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        let last = i64::try_from(of.len()).unwrap() - 1;
        of[usize::try_from(self.from(0, last)).unwrap()]
    }
}
