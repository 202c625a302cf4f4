//! Runs extensions of any runtime in worker processes, and confines those with the means of Linux.
