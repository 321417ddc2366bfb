//! SQLite: journal of facts, summaries, queries; checkpoints out and in.
