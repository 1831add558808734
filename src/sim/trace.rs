//! What happened, line by line: always as a number that two runs of one seed share, as text when somebody asks.

use std::fmt::{self, Write};

/// The trace of one run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    line: String,
    /// `None` unless the text is wanted.
    text: Option<String>,
}

impl Trace {
    pub fn new(keeps_text: bool) -> Self {
        Self {
            text: keeps_text.then(String::new),
            ..Self::default()
        }
    }

    /// Adds a line.
    pub fn note(&mut self, now_ms: i64, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string does not fail.
        let _ = write!(self.line, "{now_ms:>6} {what}");
        for chunk in self.line.as_bytes().chunks(8) {
            let word = chunk
                .iter()
                .fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
            self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        if let Some(text) = &mut self.text {
            text.push_str(&self.line);
            text.push('\n');
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn into_text(self) -> String {
        self.text.unwrap_or_default()
    }
}
