//! Raft (key 1000, private), v0. From one controller to another; `quorum` knows what is in it.

use std::sync::Arc;

use bytes::Bytes;
use tracing::debug;

use crate::api::RequestContext;
use crate::api::reply::{Chunk, Malformed, Reply, ResponseFrame};

pub fn handle(context: RequestContext, body: &mut Bytes) -> Result<Reply, Malformed> {
    let Some(voter) = context.services.voter.clone() else {
        let reason = "this node is not a controller".to_owned();
        return Err(Malformed {
            api: "raft",
            reason,
        });
    };
    let body = std::mem::take(body);
    let (framing, connection) = (context.framing, Arc::clone(&context.connection));
    Ok(Reply::Later(Box::pin(async move {
        match voter.handle_raft(body).await {
            Ok(answer) => Some(ResponseFrame::from_chunks(
                framing,
                vec![Chunk::Bytes(answer)],
            )),
            Err(error) => {
                debug!(peer = %connection.peer, %error, "raft request cannot be read");
                None
            }
        }
    })))
}
