//! Who a client is, and its form in an Envelope (Kafka's `DefaultPrincipalData`, behind a version).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::wire::message;

const VERSION: i16 = 0;

message! {
    Principal(0..=0, flexible 0) {
        kind: StrBytes, 0..;
        name: StrBytes, 0..;
        token_authenticated: bool, 0..;
    }
}

impl Principal {
    /// Of a client that was not asked who it is (`User:ANONYMOUS`).
    pub fn anonymous() -> Self {
        Self {
            kind: StrBytes::from_static_str("User"),
            name: StrBytes::from_static_str("ANONYMOUS"),
            token_authenticated: false,
        }
    }

    /// `type:name`, as logs and ACLs have it.
    pub fn text(&self) -> String {
        format!("{}:{}", self.kind, self.name)
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(32);
        buffer.put_i16(VERSION);
        self.encode(&mut buffer, VERSION)
            .expect("names of principals are short");
        buffer.freeze()
    }

    /// `None` for bytes of another form.
    pub fn from_bytes(mut bytes: Bytes) -> Option<Self> {
        let version = bytes.try_get_i16().ok()?;
        Self::decode(&mut bytes, version).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_survives_the_wire() {
        let alice = Principal {
            name: StrBytes::from_static_str("alice"),
            token_authenticated: true,
            ..Principal::anonymous()
        };
        // As `DefaultKafkaPrincipalBuilder.serialize` writes it: version, compact strings, flag, no tagged fields.
        assert_eq!(&alice.to_bytes()[..], b"\0\0\x05User\x06alice\x01\0");
        assert_eq!(Principal::from_bytes(alice.to_bytes()), Some(alice.clone()));
        assert_eq!(alice.text(), "User:alice");
        for cut in 0..alice.to_bytes().len() {
            let bytes = alice.to_bytes().slice(..cut);
            assert_eq!(Principal::from_bytes(bytes), None, "{cut} bytes");
        }
        assert_eq!(Principal::from_bytes(Bytes::from_static(b"\0\x09")), None);
    }
}
