//! Ottla.
