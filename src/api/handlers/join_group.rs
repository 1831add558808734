//! JoinGroup (key 11), v0-9. Enters a group, or its next generation; the answer comes when all members have joined.
//! Versions: v1 rebalance timeout - v4 MEMBER_ID_REQUIRED (KIP-394) - v5 static members (KIP-345) - v6 flexible -
//! v7 protocol type in the answer, nullable protocol name - v8 reason - v9 skip assignment (KIP-814).

use std::net::IpAddr;

use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use crate::api::RequestContext;
use crate::group::ClientInfo;

pub async fn handle(context: RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    let client = ClientInfo {
        client_id: context.client_id().into(),
        client_host: java_host(context.connection.peer.ip()).into(),
    };
    context
        .services
        .groups
        .join_group(client, context.version, request)
        .await
}

/// `InetAddress.toString` of an address without a name: IPv6 is never shortened there.
fn java_host(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let segments = address.segments().map(|segment| format!("{segment:x}"));
            format!("/{}", segments.join(":"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_written_as_java_does() {
        for (address, expected) in [
            ("127.0.0.1", "/127.0.0.1"),
            ("::ffff:10.0.0.1", "/10.0.0.1"),
            ("::1", "/0:0:0:0:0:0:0:1"),
        ] {
            assert_eq!(java_host(address.parse().expect("an address")), expected);
        }
    }
}
