//! The runtime of our own message definitions: primitive types on the wire and the `message!` macro.
//!
//! The codec crate is one release behind and knows no records of the internal topics. What it lacks is defined as
//! tables (see `messages/`, `metadata_records.rs`): one line a field with type, versions, nullable versions and tag.
//!
//! ```text
//! message! {
//!     Name(0..=3, flexible 2) {              // served versions; the first flexible version, if any
//!         group_id: StrBytes, 0..;           // type, versions that carry the field
//!         epoch: i32 = -1, 1..=2;            // default of a field that is absent (else the type's)
//!         topics: Option<Vec<Topic>>, 0.., null 2..;   // Option = nullable, `null` limits the versions
//!         host: StrBytes, 2.., tag 0;        // tagged field, written unless it is the default
//!     }
//!     Topic { name: StrBytes, 0..; }         // structs used above
//! }
//! ```
//!
//! Decoding is bounded by the input: array counts are checked against the bytes that are left and memory grows only
//! with elements really read. Strings of type `StrBytes` and `Bytes` are slices of the input.

use std::ops::RangeBounds;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use thiserror::Error;
use uuid::Uuid;

/// Why bytes are not the message they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("message ends in the middle of a field")]
    Truncated,
    #[error("variable-length integer is too long")]
    BadVarint,
    #[error("negative or excessive length")]
    BadLength,
    #[error("null where the version allows none")]
    UnexpectedNull,
    #[error("string is not UTF-8")]
    BadString,
    #[error("tagged fields out of order")]
    BadTags,
    #[error("version {0} is not known")]
    UnknownVersion(i16),
    #[error("record type {0} is not known")]
    UnknownType(i32),
    #[error("record frame version {0} is not known")]
    UnknownFrame(u32),
}

/// Why a message has no form in a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    #[error("null where the version allows none")]
    UnexpectedNull,
    #[error("value is too long for its length field")]
    TooLong,
    #[error("version {0} is not known")]
    UnknownVersion(i16),
}

/// The version a message is written or read in.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    pub number: i16,
    /// Compact lengths and tagged fields (KIP-482).
    pub flexible: bool,
}

/// Whether a field's versions hold `version`.
#[inline]
pub fn within(versions: impl RangeBounds<i16>, version: i16) -> bool {
    versions.contains(&version)
}

/// Whether a tagged field must be written.
pub fn differs<T: PartialEq>(value: &T, default: T) -> bool {
    *value != default
}

/// A value that can be written.
pub trait Encode {
    fn write(&self, out: &mut Encoder<'_>, version: Version);
    fn is_null(&self) -> bool {
        false
    }
}

/// A value that can be read.
pub trait Decode: Sized {
    fn read(from: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError>;
}

/// Where `len` bytes are to be sent between `position` and the next byte of an encoded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splice {
    pub position: usize,
    pub len: usize,
}

/// Appends values to a buffer. The first failure sticks and is reported by [`Encoder::finish`].
pub struct Encoder<'a> {
    buf: &'a mut BytesMut,
    splices: Vec<Splice>,
    error: Option<EncodeError>,
}

impl<'a> Encoder<'a> {
    pub fn new(buf: &'a mut BytesMut) -> Self {
        Self {
            buf,
            splices: Vec::new(),
            error: None,
        }
    }

    /// The places where bytes kept outside the buffer belong, in order.
    pub fn finish(self) -> Result<Vec<Splice>, EncodeError> {
        self.error.map_or(Ok(self.splices), Err)
    }

    pub fn fail(&mut self, error: EncodeError) {
        self.error.get_or_insert(error);
    }

    pub fn uvarint(&mut self, value: u32) {
        put_uvarint(self.buf, value);
    }

    /// A length in front of a string, `bytes` or an array; `None` is null.
    fn length(&mut self, len: Option<usize>, width: Width, version: Version) {
        let limit = match width {
            Width::Short if !version.flexible => i16::MAX as usize,
            _ => i32::MAX as usize - 1,
        };
        if len.is_some_and(|len| len > limit) {
            return self.fail(EncodeError::TooLong);
        }
        match (version.flexible, width) {
            (true, _) => self.uvarint(len.map_or(0, |len| len as u32 + 1)),
            (false, Width::Short) => self.buf.put_i16(len.map_or(-1, |len| len as i16)),
            (false, Width::Long) => self.buf.put_i32(len.map_or(-1, |len| len as i32)),
        }
    }

    /// The length of a records field whose bytes are sent from elsewhere, and the place where they belong.
    pub fn spliced_records(&mut self, len: usize, version: Version) {
        self.length(Some(len), Width::Long, version);
        if len > 0 {
            let position = self.buf.len();
            self.splices.push(Splice { position, len });
        }
    }

    /// A tagged field: the size comes before the value but is known only after it, so the two are swapped.
    pub fn tagged(&mut self, tag: u32, value: &impl Encode, version: Version) {
        self.uvarint(tag);
        let start = self.buf.len();
        value.write(self, version);
        let len = self.buf.len() - start;
        self.uvarint(len as u32);
        self.buf[start..].rotate_left(len);
    }
}

/// Bytes in front of a length: two for strings, four for everything else, before flexible versions.
#[derive(Clone, Copy)]
enum Width {
    Short,
    Long,
}

pub fn put_uvarint(buf: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

/// Takes values from the front of a message.
pub struct Reader<'a> {
    bytes: &'a Bytes,
    position: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a Bytes) -> Self {
        Self {
            bytes,
            position: 0,
            end: bytes.len(),
        }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    #[inline]
    fn advance(&mut self, len: usize) -> Result<std::ops::Range<usize>, DecodeError> {
        if len > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        let start = self.position;
        self.position += len;
        Ok(start..self.position)
    }

    #[inline]
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let range = self.advance(len)?;
        Ok(&self.bytes[range])
    }

    /// A slice that shares the message's memory.
    pub fn slice(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        let range = self.advance(len)?;
        Ok(self.bytes.slice(range))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let range = self.advance(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        Ok(array)
    }

    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return Err(DecodeError::BadVarint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::BadVarint)
    }

    fn length(&mut self, width: Width, version: Version) -> Result<Option<usize>, DecodeError> {
        let len = match (version.flexible, width) {
            (true, _) => i64::from(self.uvarint()?) - 1,
            (false, Width::Short) => i64::from(i16::read(self, version)?),
            (false, Width::Long) => i64::from(i32::read(self, version)?),
        };
        match len {
            -1 => Ok(None),
            _ if len < 0 || len > self.remaining() as i64 => Err(DecodeError::BadLength),
            _ => Ok(Some(len as usize)),
        }
    }

    /// Reads the tagged fields behind a struct; `known` takes those it knows and leaves the others alone.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut last = None;
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            if last.is_some_and(|last| last >= tag) {
                return Err(DecodeError::BadTags);
            }
            last = Some(tag);
            let len = self.uvarint()? as usize;
            let range = self.advance(len)?;
            let mut value = Reader {
                bytes: self.bytes,
                position: range.start,
                end: range.end,
            };
            known(tag, &mut value)?;
        }
        Ok(())
    }
}

macro_rules! numbers {
    ($($type:ty),*) => { $(
        impl Encode for $type {
            #[inline]
            fn write(&self, out: &mut Encoder<'_>, _: Version) {
                out.buf.put_slice(&self.to_be_bytes());
            }
        }
        impl Decode for $type {
            #[inline]
            fn read(from: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
                Ok(<$type>::from_be_bytes(from.array()?))
            }
        }
    )* };
}
numbers!(i8, i16, i32, i64, u16, u32, f64);

impl Encode for bool {
    fn write(&self, out: &mut Encoder<'_>, _: Version) {
        out.buf.put_u8(u8::from(*self));
    }
}

impl Decode for bool {
    fn read(from: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
        Ok(from.array::<1>()? != [0])
    }
}

impl Encode for Uuid {
    fn write(&self, out: &mut Encoder<'_>, _: Version) {
        out.buf.put_slice(self.as_bytes());
    }
}

impl Decode for Uuid {
    fn read(from: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
        Ok(Uuid::from_bytes(from.array()?))
    }
}

/// Implements the two traits for a type with a length in front, and for its nullable form.
macro_rules! sized {
    ($type:ty, $width:expr, |$value:ident| $bytes:expr, |$from:ident, $len:ident| $read:expr) => {
        impl Encode for $type {
            fn write(&self, out: &mut Encoder<'_>, version: Version) {
                let $value = self;
                let bytes: &[u8] = $bytes;
                out.length(Some(bytes.len()), $width, version);
                out.buf.put_slice(bytes);
            }
        }
        impl Encode for Option<$type> {
            fn write(&self, out: &mut Encoder<'_>, version: Version) {
                match self {
                    Some(value) => value.write(out, version),
                    None => out.length(None, $width, version),
                }
            }
            fn is_null(&self) -> bool {
                self.is_none()
            }
        }
        impl Decode for Option<$type> {
            fn read($from: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
                let Some($len) = $from.length($width, version)? else {
                    return Ok(None);
                };
                $read.map(Some)
            }
        }
        impl Decode for $type {
            fn read(from: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
                Option::<Self>::read(from, version)?.ok_or(DecodeError::UnexpectedNull)
            }
        }
    };
}

sized!(
    StrBytes,
    Width::Short,
    |value| value.as_bytes(),
    |from, len| StrBytes::from_utf8(from.slice(len)?).map_err(|_| DecodeError::BadString)
);
sized!(
    String,
    Width::Short,
    |value| value.as_bytes(),
    |from, len| {
        std::str::from_utf8(from.raw(len)?)
            .map(str::to_owned)
            .map_err(|_| DecodeError::BadString)
    }
);
sized!(Bytes, Width::Long, |value| value, |from, len| from
    .slice(len));

impl<T: Encode> Encode for Vec<T> {
    fn write(&self, out: &mut Encoder<'_>, version: Version) {
        out.length(Some(self.len()), Width::Long, version);
        for element in self {
            element.write(out, version);
        }
    }
}

impl<T: Encode> Encode for Option<Vec<T>> {
    fn write(&self, out: &mut Encoder<'_>, version: Version) {
        match self {
            Some(elements) => elements.write(out, version),
            None => out.length(None, Width::Long, version),
        }
    }
    fn is_null(&self) -> bool {
        self.is_none()
    }
}

/// Memory reserved ahead of the elements, as a multiple of the bytes that are left. Longer arrays grow as they are read.
const RESERVE_FACTOR: usize = 8;

impl<T: Decode> Decode for Option<Vec<T>> {
    fn read(from: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        // `length` has refused a count above the bytes left: every element takes at least one.
        let Some(count) = from.length(Width::Long, version)? else {
            return Ok(None);
        };
        let affordable = from.remaining().saturating_mul(RESERVE_FACTOR) / size_of::<T>().max(1);
        let mut elements = Vec::with_capacity(count.min(affordable));
        for _ in 0..count {
            elements.push(T::read(from, version)?);
        }
        Ok(Some(elements))
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn read(from: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        Option::<Self>::read(from, version)?.ok_or(DecodeError::UnexpectedNull)
    }
}

/// Records that lie outside the encoded message, in a file for example.
pub trait Payload {
    fn size_bytes(&self) -> usize;
}

impl Payload for Bytes {
    fn size_bytes(&self) -> usize {
        self.len()
    }
}

/// A records field: only its length enters the buffer, see [`Encoder::spliced_records`]. None are written as empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Records<R>(pub Option<R>);

impl<R> Default for Records<R> {
    fn default() -> Self {
        Self(None)
    }
}

impl<R: Payload> Encode for Records<R> {
    fn write(&self, out: &mut Encoder<'_>, version: Version) {
        let len = self.0.as_ref().map_or(0, Payload::size_bytes);
        out.spliced_records(len, version);
    }
}

impl<R: Payload + From<Bytes>> Decode for Records<R> {
    fn read(from: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        let bytes = Option::<Bytes>::read(from, version)?;
        Ok(Self(bytes.filter(|bytes| !bytes.is_empty()).map(R::from)))
    }
}

/// Writes a whole message; used by `message!`.
pub fn encode(
    message: &impl Encode,
    buf: &mut BytesMut,
    version: Version,
) -> Result<Vec<Splice>, EncodeError> {
    let mut out = Encoder::new(buf);
    message.write(&mut out, version);
    out.finish()
}

/// Reads a message from the front of `bytes`; what follows it stays. Used by `message!`.
pub fn decode<T: Decode>(bytes: &mut Bytes, version: Version) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = T::read(&mut reader, version)?;
    let read = reader.position();
    bytes.advance(read);
    Ok(message)
}

/// Defines messages from tables; the syntax stands at the top of this file.
macro_rules! message {
    (
        $(#[$meta:meta])*
        $name:ident $(<$g:ident>)? ($min:literal ..= $max:literal $(, flexible $flexible:literal)?) { $($fields:tt)* }
        $( $(#[$nested_meta:meta])* $nested:ident $(<$ng:ident>)? { $($nested_fields:tt)* } )*
    ) => {
        message!(@struct $(#[$meta])* $name $(<$g>)? { $($fields)* });
        $( message!(@struct $(#[$nested_meta])* $nested $(<$ng>)? { $($nested_fields)* }); )*

        impl $(<$g>)? $name $(<$g>)? {
            /// The versions that exist.
            pub const VERSIONS: kafka_protocol::protocol::VersionRange =
                kafka_protocol::protocol::VersionRange { min: $min, max: $max };

            fn version(number: i16) -> Option<$crate::protocol::wire::Version> {
                #[allow(unused_mut, unused_assignments, reason = "only some messages are flexible")]
                let mut flexible_from = i16::MAX;
                $( flexible_from = $flexible; )?
                let flexible = number >= flexible_from;
                ($min..=$max)
                    .contains(&number)
                    .then_some($crate::protocol::wire::Version { number, flexible })
            }
        }

        message!(@api $name $(<$g>)?);
    };

    // Messages with records outside the buffer have their own way to be written (see `messages/fetch.rs`).
    (@api $name:ident <$g:ident>) => {
        impl<$g: $crate::protocol::wire::Payload + From<bytes::Bytes>> $name<$g> {
            /// Takes the message from the front of `bytes`.
            pub fn decode(
                bytes: &mut bytes::Bytes,
                version: i16,
            ) -> Result<Self, $crate::protocol::wire::DecodeError> {
                let unknown = $crate::protocol::wire::DecodeError::UnknownVersion(version);
                $crate::protocol::wire::decode(bytes, Self::version(version).ok_or(unknown)?)
            }
        }
    };
    (@api $name:ident) => {
        impl $name {
            /// Appends the message to `buf`, which holds half a message after an error.
            pub fn encode(
                &self,
                buf: &mut bytes::BytesMut,
                version: i16,
            ) -> Result<(), $crate::protocol::wire::EncodeError> {
                let unknown = $crate::protocol::wire::EncodeError::UnknownVersion(version);
                $crate::protocol::wire::encode(self, buf, Self::version(version).ok_or(unknown)?).map(drop)
            }

            /// Takes the message from the front of `bytes`.
            pub fn decode(
                bytes: &mut bytes::Bytes,
                version: i16,
            ) -> Result<Self, $crate::protocol::wire::DecodeError> {
                let unknown = $crate::protocol::wire::DecodeError::UnknownVersion(version);
                $crate::protocol::wire::decode(bytes, Self::version(version).ok_or(unknown)?)
            }
        }
    };

    (@struct $(#[$meta:meta])* $name:ident $(<$g:ident>)? { $(
        $(#[$field_meta:meta])*
        $field:ident : $type:ty $(= $default:expr)?, $versions:expr
            $(, null $null:expr)? $(, tag $tag:literal)? ;
    )* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name $(<$g>)? {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $(<$g: $crate::protocol::wire::Payload>)? Default for $name $(<$g>)? {
            fn default() -> Self {
                Self { $( $field: message!(@default $($default)?), )* }
            }
        }

        #[cfg(test)]
        impl $(<$g: $crate::protocol::wire::Payload>)? $crate::protocol::sample::Sample for $name $(<$g>)?
        $( where $crate::protocol::wire::Records<$g>: $crate::protocol::sample::Sample )?
        {
            #[allow(unused_mut, unused_variables, reason = "a message may have no fields")]
            fn sample(rng: &mut $crate::protocol::sample::Rng, version: i16) -> Self {
                let mut this = Self::default();
                $( message!(@sample this.$field, $versions, rng, version $(, null $null)? $(, tag $tag)?); )*
                this
            }
        }

        impl $(<$g: $crate::protocol::wire::Payload>)? $crate::protocol::json::ToJson for $name $(<$g>)? {
            #[allow(unused_variables, reason = "a message may have no fields")]
            fn write_json(&self, out: &mut String, version: i16) {
                #[allow(unused_mut, reason = "a message may have no fields")]
                let mut object = $crate::protocol::json::Object::new(out);
                $( if message!(@in_json self.$field, $versions, version, message!(@default $($default)?) $(, tag $tag)?) {
                    object.field(stringify!($field), &self.$field, version);
                } )*
                object.end();
            }
        }

        impl $(<$g: $crate::protocol::wire::Payload>)? $crate::protocol::wire::Encode for $name $(<$g>)? {
            #[allow(unused_variables, reason = "a message may have no fields")]
            fn write(
                &self,
                out: &mut $crate::protocol::wire::Encoder<'_>,
                version: $crate::protocol::wire::Version,
            ) {
                $( message!(@put self.$field, $versions, out, version $(, null $null)? $(, tag $tag)?); )*
                if version.flexible {
                    #[allow(unused_mut, reason = "a struct may have no tagged fields")]
                    let mut tags = 0;
                    $( message!(@count self.$field, tags, $versions, version,
                        message!(@default $($default)?) $(, null $null)? $(, tag $tag)?); )*
                    out.uvarint(tags);
                    $( message!(@put_tagged self.$field, $versions, out, version,
                        message!(@default $($default)?) $(, null $null)? $(, tag $tag)?); )*
                }
            }
        }

        impl $(<$g: $crate::protocol::wire::Payload + From<bytes::Bytes>>)?
            $crate::protocol::wire::Decode for $name $(<$g>)?
        {
            #[allow(unused_mut, unused_variables, reason = "a message may have no fields")]
            fn read(
                from: &mut $crate::protocol::wire::Reader<'_>,
                version: $crate::protocol::wire::Version,
            ) -> Result<Self, $crate::protocol::wire::DecodeError> {
                let mut this = Self::default();
                $( message!(@take this.$field, $versions, from, version $(, null $null)? $(, tag $tag)?); )*
                if version.flexible {
                    from.tagged_fields(|tag, from| {
                        $( message!(@take_tagged this.$field, tag, $versions, from, version
                            $(, null $null)? $(, tag $tag)?); )*
                        Ok(())
                    })?;
                }
                Ok(this)
            }
        }
    };

    (@sample $value:expr, $versions:expr, $rng:ident, $version:ident $(, null $null:expr)? $(, tag $tag:literal)?) => {
        if $crate::protocol::wire::within($versions, $version) {
            $value = $crate::protocol::sample::Sample::sample($rng, $version);
            $( while $value.is_none() && !$crate::protocol::wire::within($null, $version) {
                $value = $crate::protocol::sample::Sample::sample($rng, $version);
            } )?
        }
    };

    (@default) => { Default::default() };
    (@default $default:expr) => { $default };

    (@in_json $value:expr, $versions:expr, $version:ident, $default:expr, tag $tag:literal) => {
        $crate::protocol::wire::within($versions, $version) && $crate::protocol::wire::differs(&$value, $default)
    };
    (@in_json $value:expr, $versions:expr, $version:ident, $default:expr) => {
        $crate::protocol::wire::within($versions, $version)
    };

    (@put $value:expr, $versions:expr, $out:ident, $version:ident $(, null $null:expr)?, tag $tag:literal) => {};
    (@put $value:expr, $versions:expr, $out:ident, $version:ident $(, null $null:expr)?) => {
        if $crate::protocol::wire::within($versions, $version.number) {
            $( if $value.is_none() && !$crate::protocol::wire::within($null, $version.number) {
                $out.fail($crate::protocol::wire::EncodeError::UnexpectedNull);
            } )?
            $crate::protocol::wire::Encode::write(&$value, $out, $version);
        }
    };

    (@count $value:expr, $tags:ident, $versions:expr, $version:ident, $default:expr
        $(, null $null:expr)?, tag $tag:literal) => {
        if $crate::protocol::wire::within($versions, $version.number) && $crate::protocol::wire::differs(&$value, $default) {
            $tags += 1;
        }
    };
    (@count $($rest:tt)*) => {};

    (@put_tagged $value:expr, $versions:expr, $out:ident, $version:ident, $default:expr
        $(, null $null:expr)?, tag $tag:literal) => {
        if $crate::protocol::wire::within($versions, $version.number) && $crate::protocol::wire::differs(&$value, $default) {
            $out.tagged($tag, &$value, $version);
        }
    };
    (@put_tagged $($rest:tt)*) => {};

    (@take $value:expr, $versions:expr, $from:ident, $version:ident $(, null $null:expr)?, tag $tag:literal) => {};
    (@take $value:expr, $versions:expr, $from:ident, $version:ident $(, null $null:expr)?) => {
        if $crate::protocol::wire::within($versions, $version.number) {
            $value = $crate::protocol::wire::Decode::read($from, $version)?;
            $( if $value.is_none() && !$crate::protocol::wire::within($null, $version.number) {
                return Err($crate::protocol::wire::DecodeError::UnexpectedNull);
            } )?
        }
    };

    (@take_tagged $value:expr, $got:ident, $versions:expr, $from:ident, $version:ident
        $(, null $null:expr)?, tag $tag:literal) => {
        if $got == $tag && $crate::protocol::wire::within($versions, $version.number) {
            $value = $crate::protocol::wire::Decode::read($from, $version)?;
        }
    };
    (@take_tagged $($rest:tt)*) => {};
}
pub(crate) use message;
