//! The task behind an observer: finds the leader, fetches, appends, takes snapshots.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ParseResponseErrorCode;
use kafka_protocol::messages::fetch_snapshot_request::{
    PartitionSnapshot, SnapshotId, TopicSnapshot,
};
use kafka_protocol::messages::fetch_snapshot_response::PartitionSnapshot as SnapshotPiece;
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, DescribeClusterRequest, FetchSnapshotRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::super::LeaderAndEpoch;
use super::super::peers::Peers;
use super::super::store::lock;
use super::super::types::VoterEndpoint;
use super::Inner;
use super::log::CheckpointId;
use crate::protocol::ErrorCode;
use crate::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData, ReplicaState,
};
use crate::rpc::{Peer, Settings};
use crate::types::{
    BrokerId, CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, LeaderEpoch, Offset, Uuid,
};

const FETCH_VERSION: i16 = 18;
const SNAPSHOT_VERSION: i16 = 1;
const DESCRIBE_CLUSTER_VERSION: i16 = 1;
/// The endpoint type of DescribeCluster that controllers answer.
const CONTROLLERS: i8 = 2;
/// How long the leader may hold a fetch (`KafkaRaftClient.MAX_FETCH_WAIT_MS`).
const FETCH_WAIT: Duration = Duration::from_millis(500);
/// Rest after what does not go away by asking somebody else.
const TROUBLE_REST: Duration = Duration::from_secs(1);
/// Connections are made again at least so often: a controller that is back is wanted at once.
const CONNECT_BACKOFF_MAX: Duration = Duration::from_millis(200);

/// Where the loop goes on.
enum Next {
    /// The leader has answered; there may be more.
    Fetch,
    /// Another controller may know more.
    AskAnother,
    /// Nothing helps but time, or a human.
    Rest,
}

type Answer = PartitionData<Bytes>;

pub(super) struct Follower {
    inner: Arc<Inner>,
    /// One connection a controller, by address.
    peers: Peers<(String, u16)>,
    /// Whom to fetch from, and the newest epoch heard of.
    leader: Option<BrokerId>,
    epoch: LeaderEpoch,
    /// Which of the known controllers is asked next.
    candidate: usize,
    last_success: Instant,
}

impl Follower {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let epoch = inner.leader.borrow().epoch;
        Self {
            inner,
            peers: Peers::default(),
            leader: None,
            epoch,
            candidate: 0,
            last_success: Instant::now(),
        }
    }

    /// Ends when the observer stops.
    pub(super) async fn run(mut self) {
        let stop = self.inner.stop.clone();
        stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        loop {
            let rest = match self.turn().await {
                Next::Fetch => continue,
                Next::AskAnother => {
                    self.candidate = self.candidate.wrapping_add(1);
                    self.inner.params.timing.retry_backoff
                }
                Next::Rest => TROUBLE_REST,
            };
            if self.last_success.elapsed() > self.inner.params.timing.fetch_timeout {
                self.announce(None).await;
            }
            tokio::time::sleep(rest).await;
        }
    }

    /// One fetch and what follows from it.
    async fn turn(&mut self) -> Next {
        let Some(endpoint) = self.target() else {
            return Next::Rest;
        };
        let peer = self.peer(&endpoint);
        let request = self.fetch_request();
        let timeout = FETCH_WAIT + self.inner.params.timing.request_timeout;
        let response = match peer.call(FETCH_VERSION, &request, timeout).await {
            Ok(response) => response,
            Err(error) => {
                debug!(%error, "no answer to a fetch of the metadata log");
                self.inner.asked.note(&endpoint, error.to_string());
                self.leader = None;
                return Next::AskAnother;
            }
        };
        if let Some(code) = response.error_code.err() {
            let why = self.why_refused(code, &peer).await;
            self.inner.asked.note(&endpoint, why);
            self.leader = None;
            self.candidate = self.candidate.wrapping_add(1);
            return Next::Rest;
        }
        let known_epoch = self.epoch;
        let Some(answer) = self.take_leader(response, &endpoint) else {
            let why = "it answers without the metadata log";
            self.inner.asked.note(&endpoint, why);
            return Next::Rest;
        };
        if answer.current_leader.leader_id == self.inner.params.node_id {
            // Kafka stops here too: who leads cannot be told from who follows.
            let id = self.inner.params.node_id;
            let why = format!("the leading controller has this broker's node.id {id}");
            self.inner.asked.note(&endpoint, why);
            self.leader = None;
            return Next::Rest;
        }
        match answer.error_code.err() {
            None => self.take_answer(answer, &peer).await,
            // Where the leader is has just been said, or somebody else knows.
            Some(_)
                if self.leader.is_some()
                    && (self.epoch > known_epoch || self.target().as_ref() != Some(&endpoint)) =>
            {
                Next::Fetch
            }
            Some(code) => {
                let why = format!("it knows no leader: {code:?}");
                self.inner.asked.note(&endpoint, why);
                self.leader = None;
                Next::AskAnother
            }
        }
    }

    /// The code says all, but for which cluster the controller is of.
    async fn why_refused(&self, code: ErrorCode, peer: &Peer) -> String {
        let target = peer.target();
        if code != ErrorCode::InconsistentClusterId {
            return format!("{target} refuses with {code:?}");
        }
        let own = &self.inner.params.cluster_id;
        let request = DescribeClusterRequest::default().with_endpoint_type(CONTROLLERS);
        let timeout = self.inner.params.timing.request_timeout;
        let asked = peer.call(DESCRIBE_CLUSTER_VERSION, &request, timeout).await;
        let theirs = asked.map(|response| response.cluster_id.to_string());
        let theirs = theirs.unwrap_or_else(|error| error.to_string());
        format!("this node is of cluster {own}, but {target} of {theirs}")
    }

    /// The leader, or while there is none each of the known controllers in turn.
    fn target(&self) -> Option<VoterEndpoint> {
        let endpoints = lock(&self.inner.endpoints);
        if let Some(known) = self.leader.and_then(|id| endpoints.get(&id)) {
            return Some(known.clone());
        }
        let bootstrap = self.inner.params.bootstrap.iter();
        let candidates: Vec<_> = bootstrap.chain(endpoints.values()).collect();
        let at = self.candidate.checked_rem(candidates.len())?;
        Some(candidates[at].clone())
    }

    fn peer(&mut self, endpoint: &VoterEndpoint) -> Peer {
        let address = (endpoint.host.clone(), endpoint.port);
        let params = &self.inner.params;
        self.peers.of(address, endpoint, || {
            let settings = Settings {
                client_id: format!("observer-{}", params.node_id).into(),
                connect_timeout: params.timing.connect_timeout,
                connect_timeout_max: params.timing.connect_timeout,
                backoff_max: CONNECT_BACKOFF_MAX,
                ..Settings::default()
            };
            Peer::new(&endpoint.host, endpoint.port, settings)
        })
    }

    fn fetch_request(&self) -> FetchRequest {
        let params = &self.inner.params;
        let log = lock(&self.inner.log);
        let partition = FetchPartition {
            current_leader_epoch: self.epoch,
            fetch_offset: log.end_offset(),
            last_fetched_epoch: log.last_epoch(),
            log_start_offset: log.start_offset(),
            partition_max_bytes: params.timing.fetch_bytes_max,
            replica_directory_id: params.log_dir.directory_id().unwrap_or(Uuid::nil()),
            high_watermark: *self.inner.high_watermark.borrow(),
            ..FetchPartition::default()
        };
        FetchRequest {
            cluster_id: Some(StrBytes::from_string(params.cluster_id.to_string())),
            replica_state: ReplicaState {
                replica_id: params.node_id,
                ..ReplicaState::default()
            },
            max_wait_ms: FETCH_WAIT.as_millis() as i32,
            max_bytes: params.timing.fetch_bytes_max,
            topics: vec![FetchTopic {
                topic_id: CLUSTER_METADATA_TOPIC_ID,
                partitions: vec![partition],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        }
    }

    /// Learns who leads and where, and takes the one partition out of the answer.
    fn take_leader(
        &mut self,
        response: FetchResponse<Bytes>,
        asked: &VoterEndpoint,
    ) -> Option<Answer> {
        {
            let mut endpoints = lock(&self.inner.endpoints);
            for node in response.node_endpoints {
                let endpoint = VoterEndpoint {
                    name: asked.name.clone(),
                    host: node.host.to_string(),
                    port: u16::try_from(node.port).ok()?,
                };
                endpoints.insert(node.node_id, endpoint);
            }
        }
        let mut partitions = response.responses.into_iter().flat_map(|it| it.partitions);
        let answer = partitions.next()?;
        let current = &answer.current_leader;
        if current.leader_epoch > self.epoch {
            self.epoch = current.leader_epoch;
            self.leader = None;
        }
        if current.leader_epoch == self.epoch {
            let known = Some(current.leader_id).filter(|id| *id >= 0);
            // Without its address it cannot be asked.
            self.leader = known.filter(|id| lock(&self.inner.endpoints).contains_key(id));
        }
        Some(answer)
    }

    async fn take_answer(&mut self, answer: Answer, peer: &Peer) -> Next {
        let taken = if answer.snapshot_id.end_offset >= 0 {
            let id = (answer.snapshot_id.end_offset, answer.snapshot_id.epoch);
            self.take_snapshot(id, peer).await
        } else if answer.diverging_epoch.end_offset >= 0 {
            let diverging = (
                answer.diverging_epoch.epoch,
                answer.diverging_epoch.end_offset,
            );
            self.truncate(diverging).await
        } else {
            let high_watermark = answer.high_watermark;
            let records = answer.records.0.unwrap_or_default();
            self.append(records, high_watermark).await
        };
        match taken {
            Ok(()) => {
                self.last_success = Instant::now();
                self.announce(self.leader).await;
                Next::Fetch
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                error!(%error, "the metadata log cannot be followed");
                Next::Rest
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                warn!(%error, "no metadata snapshot");
                Next::AskAnother
            }
            Err(error) => {
                self.inner.fail(error);
                Next::Rest
            }
        }
    }

    async fn append(&self, records: Bytes, leader_high_watermark: Offset) -> io::Result<()> {
        let inner = &self.inner;
        if !records.is_empty() {
            let now_ms = inner.params.clock.wall_ms();
            inner
                .on_disk(move |log| log.append(records, now_ms))
                .await?;
            inner.learn_voters();
        }
        let end_offset = lock(&inner.log).end_offset();
        *lock(&inner.leader_high_watermark) = leader_high_watermark;
        inner.advance(leader_high_watermark.min(end_offset));
        Ok(())
    }

    async fn truncate(&self, (epoch, end_offset): (LeaderEpoch, Offset)) -> io::Result<()> {
        let committed = *self.inner.high_watermark.borrow();
        let cut = self
            .inner
            .on_disk(move |log| log.truncate_to_epoch(epoch, end_offset, committed))
            .await?;
        info!(
            epoch,
            offset = cut,
            "the metadata log was cut where the leader's differs"
        );
        Ok(())
    }

    /// Fetches a snapshot in pieces and begins anew behind it.
    async fn take_snapshot(&self, id: CheckpointId, peer: &Peer) -> io::Result<()> {
        let inner = &self.inner;
        let committed = *inner.high_watermark.borrow();
        if id.0 <= committed {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the leader has nothing but a snapshot up to {}, but everything before {committed} was committed",
                    id.0
                ),
            ));
        }
        let _held = inner.checkpointing.lock().await;
        info!(offset = id.0, epoch = id.1, "fetching a metadata snapshot");
        let part = lock(&inner.log)
            .path_of(id)
            .with_extension("checkpoint.part");
        self.download(id, peer, &part).await?;
        inner.on_disk(move |log| log.install(id, &part)).await?;
        inner.learn_voters();
        inner.advance(id.0);
        Ok(())
    }

    async fn download(&self, id: CheckpointId, peer: &Peer, part: &Path) -> io::Result<()> {
        let timeout = self.inner.params.timing.request_timeout;
        let mut file = File::create(part)?;
        let (mut position, mut size) = (0, None);
        loop {
            let request = self.snapshot_request(id, position);
            let response = peer.call(SNAPSHOT_VERSION, &request, timeout).await;
            let response = response.map_err(|error| interrupted(error.to_string()))?;
            let mut partitions = response.topics.into_iter().flat_map(|it| it.partitions);
            let piece = match (response.error_code.err(), partitions.next()) {
                (None, Some(piece)) => piece,
                (code, _) => return Err(interrupted(format!("refused: {code:?}"))),
            };
            if let Some(code) = piece.error_code.err() {
                return Err(interrupted(format!("refused: {code:?}")));
            }
            position = behind_piece(&piece, position, *size.get_or_insert(piece.size))?;
            let is_last = position == piece.size;
            let written = tokio::task::spawn_blocking(move || {
                file.write_all(&piece.unaligned_records)?;
                if is_last {
                    file.sync_data()?;
                }
                Ok(file)
            });
            file = written.await.map_err(io::Error::other).flatten()?;
            if is_last {
                return Ok(());
            }
        }
    }

    fn snapshot_request(&self, id: CheckpointId, position: i64) -> FetchSnapshotRequest {
        let params = &self.inner.params;
        let snapshot = SnapshotId::default().with_end_offset(id.0).with_epoch(id.1);
        let partition = PartitionSnapshot::default()
            .with_current_leader_epoch(self.epoch)
            .with_snapshot_id(snapshot)
            .with_position(position)
            .with_replica_directory_id(params.log_dir.directory_id().unwrap_or(Uuid::nil()));
        let topic = TopicSnapshot::default()
            .with_name(TopicName(StrBytes::from_static_str(CLUSTER_METADATA_TOPIC)))
            .with_partitions(vec![partition]);
        FetchSnapshotRequest::default()
            .with_cluster_id(Some(StrBytes::from_string(params.cluster_id.to_string())))
            .with_replica_id(WireBrokerId(params.node_id))
            .with_max_bytes(params.timing.snapshot_bytes_max)
            .with_topics(vec![topic])
    }

    async fn announce(&self, leader_id: Option<BrokerId>) {
        let now = LeaderAndEpoch {
            leader_id,
            epoch: self.epoch,
        };
        self.inner.announce(now).await;
    }
}

/// Where the next piece begins of a snapshot whose size was told with the first: that bounds what is written.
fn behind_piece(piece: &SnapshotPiece, position: i64, size: i64) -> io::Result<i64> {
    let end = position.saturating_add(piece.unaligned_records.len() as i64);
    if piece.position != position || end == position {
        return Err(interrupted("a piece is missing".to_owned()));
    }
    if piece.size != size || end > size {
        return Err(interrupted("its pieces are not of one size".to_owned()));
    }
    Ok(end)
}

/// A snapshot could not be had: not the disk's fault.
fn interrupted(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_snapshot_follow_each_other_up_to_its_size() {
        let behind = |at: i64, bytes: &'static [u8], size| {
            let piece = SnapshotPiece::default()
                .with_position(at)
                .with_size(size)
                .with_unaligned_records(Bytes::from_static(bytes));
            behind_piece(&piece, 3, 6).ok()
        };
        assert_eq!(behind(3, b"ab", 6), Some(5));
        assert_eq!(behind(3, b"abc", 6), Some(6));
        assert_eq!(behind(3, b"", 6), None, "nothing");
        assert_eq!(behind(4, b"ab", 6), None, "a gap");
        assert_eq!(behind(3, b"abcd", 6), None, "more than there is");
        assert_eq!(behind(3, b"ab", 7), None, "it grows");
    }
}
