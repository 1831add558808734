//! What can be sent as a request: the codec crate's messages and our own. The version is always the caller's choice: between
//! brokers it follows from the metadata version, not from asking.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, HeaderVersion};

use crate::protocol::messages::{
    add_raft_voter, broker_heartbeat, fetch, list_offsets, write_txn_markers,
};

/// A request with a response of its own.
pub trait Request {
    const KEY: i16;
    type Response;

    /// Whether headers have tagged fields in this version.
    fn is_flexible(version: i16) -> bool;
    /// Fails where a field is set that `version` cannot carry.
    fn encode_body(&self, buffer: &mut BytesMut, version: i16) -> Result<(), String>;
    fn decode_response(body: &mut Bytes, version: i16) -> Result<Self::Response, String>;
}

impl<T: kafka_protocol::protocol::Request> Request for T {
    const KEY: i16 = <T as kafka_protocol::protocol::Request>::KEY;
    type Response = T::Response;

    fn is_flexible(version: i16) -> bool {
        <T as HeaderVersion>::header_version(version) >= 2
    }

    fn encode_body(&self, buffer: &mut BytesMut, version: i16) -> Result<(), String> {
        self.encode(buffer, version).map_err(|e| e.to_string())
    }

    fn decode_response(body: &mut Bytes, version: i16) -> Result<Self::Response, String> {
        T::Response::decode(body, version).map_err(|e| e.to_string())
    }
}

/// Our own messages: key, first flexible version, request, response.
macro_rules! own_requests {
    ($($key:literal, flexible $flexible:literal, $request:ty, $response:ty;)*) => {$(
        impl Request for $request {
            const KEY: i16 = $key;
            type Response = $response;

            fn is_flexible(version: i16) -> bool {
                version >= $flexible
            }

            fn encode_body(&self, buffer: &mut BytesMut, version: i16) -> Result<(), String> {
                self.encode(buffer, version).map_err(|e| e.to_string())
            }

            fn decode_response(body: &mut Bytes, version: i16) -> Result<Self::Response, String> {
                <$response>::decode(body, version).map_err(|e| e.to_string())
            }
        }
    )*};
}

own_requests! {
    1, flexible 12, fetch::FetchRequest, fetch::FetchResponse<Bytes>;
    2, flexible 6, list_offsets::ListOffsetsRequest, list_offsets::ListOffsetsResponse;
    27, flexible 1, write_txn_markers::WriteTxnMarkersRequest, write_txn_markers::WriteTxnMarkersResponse;
    63, flexible 0, broker_heartbeat::BrokerHeartbeatRequest, broker_heartbeat::BrokerHeartbeatResponse;
    80, flexible 0, add_raft_voter::AddRaftVoterRequest, add_raft_voter::AddRaftVoterResponse;
}
