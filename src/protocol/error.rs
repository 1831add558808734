//! The error that a request can end in: one of Kafka's codes and, where the API has a place for it, a text.

use std::borrow::Cow;
use std::fmt;

pub use kafka_protocol::error::ResponseError as ErrorCode;
use kafka_protocol::protocol::StrBytes;

/// A failed request, topic, partition or group operation. Branch on `code` only.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub code: ErrorCode,
    /// For people; `None` lets the client show its own text for the code.
    pub message: Option<Cow<'static, str>>,
}

impl Error {
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }

    /// The number on the wire.
    pub fn code(&self) -> i16 {
        self.code.code()
    }

    /// The text on the wire.
    pub fn text(&self) -> Option<StrBytes> {
        let text = self.message.as_ref()?;
        Some(StrBytes::from_string(text.to_string()))
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            message: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{:?}: {message}", self.code),
            None => write!(f, "{:?}", self.code),
        }
    }
}

impl std::error::Error for Error {}
