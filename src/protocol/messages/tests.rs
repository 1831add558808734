//! Our messages against the codec crate, byte for byte, and hostile bytes.
