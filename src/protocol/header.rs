//! Headers in front of every request and response body.
//!
//! ```text
//! request:  api key i16 | version i16 | correlation id i32 | client id nullable string | tagged fields (v2)
//! response: correlation id i32 | tagged fields (v1)
//! ```
//! The client id never has the compact form. ApiVersions always answers in response header version 0, because a
//! client may not know yet what the broker speaks (KIP-511).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::wire::{Decode, DecodeError, Reader, Version};

/// What stands in front of a request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    /// Invalid UTF-8 is replaced, as Java does.
    pub client_id: Option<StrBytes>,
}

impl RequestHeader {
    /// Takes the header from the front of `frame`. `flexible` selects header version 2.
    pub fn decode(frame: &mut Bytes, flexible: bool) -> Result<Self, DecodeError> {
        // The fixed part and the client id keep their old form in header version 2.
        let plain = Version {
            number: 1,
            flexible: false,
        };
        let mut reader = Reader::new(frame);
        let mut header = Self {
            api_key: i16::read(&mut reader, plain)?,
            api_version: i16::read(&mut reader, plain)?,
            correlation_id: i32::read(&mut reader, plain)?,
            client_id: None,
        };
        let len = i16::read(&mut reader, plain)?;
        if len < -1 {
            return Err(DecodeError::BadLength);
        }
        if let Ok(len) = usize::try_from(len) {
            let client_id = reader.slice(len)?;
            header.client_id = Some(StrBytes::from_utf8(client_id.clone()).unwrap_or_else(|_| {
                StrBytes::from_string(String::from_utf8_lossy(&client_id).into_owned())
            }));
        }
        if flexible {
            reader.tagged_fields(|_, _| Ok(()))?;
        }
        let read = reader.position();
        frame.advance(read);
        Ok(header)
    }
}

/// Appends a response header; `flexible` selects version 1 and is never set for ApiVersions.
pub fn encode_response_header(buf: &mut BytesMut, correlation_id: i32, flexible: bool) {
    buf.put_i32(correlation_id);
    if flexible {
        buf.put_u8(0);
    }
}
