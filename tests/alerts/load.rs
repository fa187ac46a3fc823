//! A real guest under a real load.
