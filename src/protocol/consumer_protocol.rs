//! What members of a classic consumer group put into their opaque bytes: subscriptions and assignments. The broker only
//! shows them (`ottla dump-log`).

use bytes::Bytes;

use super::json;
use super::wire::{Decode, DecodeError, Reader, Version, message};

/// `protocol_type` of groups whose members speak this.
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// The version in front, and the body behind it.
fn split(bytes: &Bytes) -> Result<(i16, Bytes), DecodeError> {
    let plain = Version {
        number: 0,
        flexible: false,
    };
    let version = i16::read(&mut Reader::new(bytes), plain)?;
    Ok((version, bytes.slice(2..)))
}

/// A subscription as JSON.
pub fn subscription_json(bytes: &Bytes) -> Result<String, DecodeError> {
    let (version, mut body) = split(bytes)?;
    let decoded = ConsumerProtocolSubscription::decode(&mut body, version)?;
    Ok(json::text(&decoded, version))
}

/// An assignment as JSON.
pub fn assignment_json(bytes: &Bytes) -> Result<String, DecodeError> {
    let (version, mut body) = split(bytes)?;
    let decoded = ConsumerProtocolAssignment::decode(&mut body, version)?;
    Ok(json::text(&decoded, version))
}

message! {
    ConsumerProtocolSubscription(0..=3) {
        topics: Vec<String>, 0..;
        user_data: Option<Bytes>, 0..;
        owned_partitions: Vec<TopicPartitions>, 1..;
        generation_id: i32 = -1, 2..;
        rack_id: Option<String>, 3..;
    }
    TopicPartitions {
        topic: String, 0..;
        partitions: Vec<i32>, 0..;
    }
}

message! {
    ConsumerProtocolAssignment(0..=3) {
        assigned_partitions: Vec<TopicPartitions>, 0..;
        user_data: Option<Bytes>, 0..;
    }
}
