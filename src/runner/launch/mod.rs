//! Runs one command line so that it outlives the conductor and nothing of it outlives its end.
