//! Brokers: registration, heartbeats, fencing and controlled shutdown (`ClusterControlManager`, `BrokerHeartbeatManager`).
//!
//! ```text
//! state                 heartbeat asks for          next
//! fenced                shutdown                    shutdown now
//! fenced                to be unfenced, caught up   unfenced; leaderless partitions may elect it
//! fenced                anything, first since its listener was gone   fenced: a process that died may have said it
//! unfenced              fencing                     fenced; leaves ISRs
//! unfenced              shutdown, leads nothing     shutdown now
//! unfenced              shutdown, leads something   controlled shutdown; leaves ISRs
//! controlled shutdown   any, leads nothing and all others have seen that   shutdown now
//! unfenced              nothing for a session timeout, or its listener is gone   fenced
//! ```

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::{
    BrokerRegistrationRequest, BrokerRegistrationResponse, UnregisterBrokerRequest,
    UnregisterBrokerResponse,
};

use super::batches::fits_one_batch;
use super::broker_watch::Gone;
use super::failure;
use super::outcome::{Outcome, Turn};
use super::partition_control::{BrokerEvent, in_elr, in_isr, update_partitions, without_leader};
use crate::metadata::features::{CORDONED_DIRS_SINCE, KRAFT_VERSION, METADATA_VERSION};
use crate::metadata::{BrokerRegistration, MetadataImage, PartitionRegistration};
use crate::protocol::messages::broker_heartbeat::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse,
};
use crate::protocol::metadata_records::{
    BrokerEndpoint, BrokerFeature, BrokerRegistrationChangeRecord, MetadataRecord,
    RegisterBrokerRecord, UnregisterBrokerRecord,
};
use crate::protocol::{Error, ErrorCode};
use crate::types::{BrokerId, Offset, Uuid};

const FENCE: i8 = 1;
const UNFENCE: i8 = -1;
const IN_CONTROLLED_SHUTDOWN: i8 = 1;
/// Directory ids below this one have a meaning of their own (`DirectoryId.reserved`).
const FIRST_DIRECTORY_ID: u128 = 100;

/// What is known of a broker beyond its registration; lost with the leadership.
#[derive(Clone, Copy, Debug)]
struct Contact {
    /// When the broker was heard of, or when this controller took over.
    last_contact_ms: i64,
    /// How often this controller has heard of it. Once may be what a process said before it died, see [`may_be_last_word`].
    heard: u32,
    /// Nobody listened where it did, and it was not heard of since.
    doubted: bool,
    /// Offset of its registration record.
    registered_at: Offset,
    /// How far the broker has applied the metadata.
    metadata_offset: Offset,
    /// The offset that all others must have seen before the broker may stop.
    controlled_shutdown_at: Offset,
}

/// When brokers were heard of.
#[derive(Debug, Default)]
pub struct Heartbeats {
    contacts: BTreeMap<BrokerId, Contact>,
}

impl Heartbeats {
    /// Gives every registered broker a full session from `now_ms` on.
    pub fn start(image: &MetadataImage, now_ms: i64) -> Self {
        let contact = |broker: &BrokerRegistration| Contact {
            last_contact_ms: now_ms,
            heard: 0,
            doubted: false,
            registered_at: broker.epoch,
            metadata_offset: -1,
            controlled_shutdown_at: Offset::MAX,
        };
        let brokers = image.cluster.brokers.values();
        let contacts = brokers.map(|broker| (broker.id, contact(broker))).collect();
        Self { contacts }
    }

    /// When the next session of an unfenced broker expires.
    pub fn next_expiry_ms(&self, image: &MetadataImage, session_timeout_ms: i64) -> Option<i64> {
        let alive = self
            .contacts
            .iter()
            .filter(|(id, _)| image.cluster.is_alive(**id));
        alive
            .map(|(_, contact)| contact.last_contact_ms + session_timeout_ms)
            .min()
    }

    fn has_valid_session(&self, id: BrokerId, now_ms: i64, session_timeout_ms: i64) -> bool {
        self.contacts.get(&id).is_some_and(|contact| {
            contact.heard > 0 && contact.last_contact_ms + session_timeout_ms > now_ms
        })
    }

    /// The lowest offset that an active broker has applied.
    fn lowest_active_offset(&self, image: &MetadataImage) -> Offset {
        let active = self
            .contacts
            .iter()
            .filter(|(id, _)| image.cluster.is_active(**id));
        active
            .map(|(_, contact)| contact.metadata_offset)
            .min()
            .unwrap_or(Offset::MAX)
    }
}

/// The broker's registration; code 77 when there is none, or `epoch` is not its epoch.
pub(super) fn check_broker_epoch(
    image: &MetadataImage,
    id: BrokerId,
    epoch: i64,
) -> Result<&BrokerRegistration, Error> {
    let Some(broker) = image.cluster.broker(id) else {
        let message = format!("broker {id} is not registered");
        return Err(Error::new(ErrorCode::StaleBrokerEpoch, message));
    };
    if broker.epoch != epoch {
        let message = format!("broker {id} has epoch {}, not {epoch}", broker.epoch);
        return Err(Error::new(ErrorCode::StaleBrokerEpoch, message));
    }
    Ok(broker)
}

fn session_timeout_ms(turn: &Turn<'_>) -> i64 {
    i64::from(turn.settings.config.broker_session_timeout_ms)
}

/// BrokerRegistration: a broker process introduces itself; it gets its epoch and starts fenced.
pub fn register_broker(
    turn: &mut Turn<'_>,
    request: &BrokerRegistrationRequest,
) -> Outcome<BrokerRegistrationResponse> {
    let (records, epoch) = match registration_records(turn, request) {
        Ok(registered) => registered,
        Err(error) => {
            tracing::warn!(broker_id = request.broker_id.0, %error, "refused a broker registration");
            let response = BrokerRegistrationResponse::default().with_broker_epoch(-1);
            return Outcome::unchanged(response.with_error_code(error.code()));
        }
    };
    let contact = Contact {
        last_contact_ms: turn.now_ms,
        heard: 1,
        doubted: false,
        registered_at: turn.last_offset(records.len()),
        metadata_offset: -1,
        controlled_shutdown_at: Offset::MAX,
    };
    turn.heartbeats
        .contacts
        .insert(request.broker_id.0, contact);
    let response = BrokerRegistrationResponse::default().with_broker_epoch(epoch);
    Outcome::new(records, response)
}

/// The records, the registration last, and the broker epoch.
fn registration_records(
    turn: &Turn<'_>,
    request: &BrokerRegistrationRequest,
) -> Result<(Vec<MetadataRecord>, i64), Error> {
    let id = request.broker_id.0;
    let existing = turn.image.cluster.broker(id);
    let same_process = existing.is_some_and(|b| b.incarnation_id == request.incarnation_id);
    check_registration(turn, request, same_process)?;
    let mut records = Vec::new();
    let mut record = registration_record(request);
    match existing {
        Some(existing) if same_process => {
            record.fenced = existing.fenced;
            record.in_controlled_shutdown = existing.in_controlled_shutdown;
            record.broker_epoch = existing.epoch;
        }
        _ => {
            record.broker_epoch = turn.next_offset;
            let stopped_cleanly =
                existing.is_some_and(|b| b.epoch == request.previous_broker_epoch);
            shutdown_records(turn, request, stopped_cleanly, &mut records);
        }
    }
    let epoch = record.broker_epoch;
    records.push(record.into());
    Ok((records, epoch))
}

fn check_registration(
    turn: &Turn<'_>,
    request: &BrokerRegistrationRequest,
    same_process: bool,
) -> Result<(), Error> {
    let id = request.broker_id.0;
    let cluster_id = &turn.settings.cluster_id;
    if **cluster_id != *request.cluster_id {
        let message = format!("this is cluster {cluster_id}, not {}", &*request.cluster_id);
        return Err(Error::new(ErrorCode::InconsistentClusterId, message));
    }
    // A process holds a lock on its log directories: whoever has all of them now has outlived the other. Kafka lets the
    // session run out first.
    let existing = turn.image.cluster.broker(id);
    let has_its_dirs = existing.is_some_and(|broker| {
        let mut dirs = broker.log_dirs.iter();
        !broker.log_dirs.is_empty() && dirs.all(|dir| request.log_dirs.contains(dir))
    });
    let timeout_ms = session_timeout_ms(turn);
    if !same_process
        && !has_its_dirs
        && turn
            .heartbeats
            .has_valid_session(id, turn.now_ms, timeout_ms)
    {
        let message = format!("another process has the broker id {id}, or had it moments ago");
        return Err(Error::new(ErrorCode::DuplicateBrokerRegistration, message));
    }
    let invalid = |message: String| Err(Error::new(ErrorCode::InvalidRegistration, message));
    if request.is_migrating_zk_broker {
        let message = "brokers under ZooKeeper cannot register";
        return Err(Error::new(ErrorCode::BrokerIdNotRegistered, message));
    }
    let mut dirs = request.log_dirs.clone();
    dirs.sort_unstable();
    dirs.dedup();
    if dirs.is_empty() || dirs.len() != request.log_dirs.len() {
        return invalid("log directories are missing or named twice".into());
    }
    if dirs.iter().any(|dir| dir.as_u128() < FIRST_DIRECTORY_ID) {
        return invalid("a log directory has a reserved id".into());
    }
    let others = turn
        .image
        .cluster
        .brokers
        .values()
        .filter(|broker| broker.id != id);
    for other in others {
        if let Some(dir) = dirs.iter().find(|dir| other.log_dirs.contains(*dir)) {
            return invalid(format!(
                "log directory {dir} belongs to broker {}",
                other.id
            ));
        }
    }
    check_features(turn.image, request)
}

/// Every finalized level must be in the broker's range.
fn check_features(image: &MetadataImage, request: &BrokerRegistrationRequest) -> Result<(), Error> {
    let refuse = |name: &str, level: i16| {
        let message = format!("the broker does not support the finalized level {level} of {name}");
        Err(Error::new(ErrorCode::UnsupportedVersion, message))
    };
    for feature in request
        .features
        .iter()
        .filter(|f| &*f.name != KRAFT_VERSION)
    {
        let level = image.features.level(&feature.name);
        if !(feature.min_supported_version..=feature.max_supported_version).contains(&level) {
            return refuse(&feature.name, level);
        }
    }
    let named = |name: &str| {
        request
            .features
            .iter()
            .any(|feature| &*feature.name == name)
    };
    if !named(METADATA_VERSION) {
        let message = "the broker does not tell which metadata.version it supports";
        return Err(Error::new(ErrorCode::InvalidRegistration, message));
    }
    let mut levels = image.features.finalized_levels();
    match levels.find(|(name, _)| !named(name)) {
        Some((name, level)) => refuse(name, level),
        None => Ok(()),
    }
}

fn registration_record(request: &BrokerRegistrationRequest) -> RegisterBrokerRecord {
    let end_points = request.listeners.iter().map(|listener| BrokerEndpoint {
        name: listener.name.to_string(),
        host: listener.host.to_string(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    });
    let features = request.features.iter().map(|feature| BrokerFeature {
        name: feature.name.to_string(),
        min_supported_version: feature.min_supported_version,
        max_supported_version: feature.max_supported_version,
    });
    RegisterBrokerRecord {
        broker_id: request.broker_id.0,
        incarnation_id: request.incarnation_id,
        end_points: end_points.collect(),
        features: features.collect(),
        rack: request.rack.as_ref().map(ToString::to_string),
        log_dirs: request.log_dirs.clone(),
        fenced: true,
        ..RegisterBrokerRecord::default()
    }
}

/// What the end of a broker's former process means for its partitions.
fn shutdown_records(
    turn: &Turn<'_>,
    request: &BrokerRegistrationRequest,
    stopped_cleanly: bool,
    records: &mut Vec<MetadataRecord>,
) {
    let id = request.broker_id.0;
    if stopped_cleanly || !turn.image.features.is_elr_enabled() {
        // A sole replica that stopped cleanly lost nothing, and nobody else can lead: it stays the leader. Otherwise a
        // node with 10,000 partitions would write 20,000 records and 10,000 leader epochs whenever it starts. Not so in a
        // directory that did not come back.
        let in_isr = in_isr(id);
        let is_lost = |dir: Uuid| dir.as_u128() >= 2 && !request.log_dirs.contains(&dir);
        let shared = |p: &PartitionRegistration| {
            in_isr(p) && (p.replicas[..] != [id] || is_lost(p.directory(id)))
        };
        update_partitions(turn, BrokerEvent::Leaves(id), shared, records);
    } else {
        update_partitions(turn, BrokerEvent::LostRecords(id), in_isr(id), records);
        update_partitions(turn, BrokerEvent::LostRecords(id), in_elr(id), records);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fenced,
    Unfenced,
    ControlledShutdown,
    ShutdownNow,
}

/// BrokerHeartbeat: the broker lives, and asks for its next state.
pub fn broker_heartbeat(
    turn: &mut Turn<'_>,
    request: &BrokerHeartbeatRequest,
) -> Outcome<BrokerHeartbeatResponse> {
    if may_be_last_word(turn, request) {
        return Outcome::unchanged(BrokerHeartbeatResponse {
            is_fenced: true,
            ..BrokerHeartbeatResponse::default()
        });
    }
    match heartbeat_records(turn, request) {
        Ok((records, response)) => Outcome::new(records, response),
        Err(error) => Outcome::unchanged(failure::broker_heartbeat(&error)),
    }
}

/// What a process said before it died may come after its death was noticed, since the system sends it on: one heartbeat at
/// most, for brokers wait for each answer. Who lives says more.
fn may_be_last_word(turn: &mut Turn<'_>, request: &BrokerHeartbeatRequest) -> bool {
    let broker = check_broker_epoch(turn.image, request.broker_id, request.broker_epoch);
    let contact = turn.heartbeats.contacts.get_mut(&request.broker_id);
    broker.is_ok_and(|broker| broker.fenced)
        && contact.is_some_and(|contact| std::mem::take(&mut contact.doubted))
}

fn heartbeat_records(
    turn: &mut Turn<'_>,
    request: &BrokerHeartbeatRequest,
) -> Result<(Vec<MetadataRecord>, BrokerHeartbeatResponse), Error> {
    let id = request.broker_id;
    let image = turn.image;
    let broker = check_broker_epoch(image, id, request.broker_epoch)?;
    let contact = turn
        .heartbeats
        .contacts
        .get(&id)
        .copied()
        .unwrap_or(Contact {
            last_contact_ms: turn.now_ms,
            heard: 0,
            doubted: false,
            registered_at: broker.epoch,
            metadata_offset: -1,
            controlled_shutdown_at: Offset::MAX,
        });
    let state = match (broker.fenced, broker.in_controlled_shutdown) {
        (true, _) => State::Fenced,
        (false, true) => State::ControlledShutdown,
        (false, false) => State::Unfenced,
    };
    let next = if state == State::Fenced && broker.in_controlled_shutdown && !request.want_shut_down
    {
        // Overtaken by what it said later: who is stopping does not come back before it registers again.
        State::Fenced
    } else {
        next_state(turn, state, request, &contact)
    };
    let mut records = Vec::new();
    if next != state {
        tracing::info!(broker_id = id, from = ?state, to = ?next, "broker changes its state");
        match next {
            State::Fenced | State::ShutdownNow => fence(turn, broker, &mut records),
            State::Unfenced => unfence(turn, broker, &mut records),
            State::ControlledShutdown => {
                let mut change = unchanged_broker(broker);
                change.in_controlled_shutdown = IN_CONTROLLED_SHUTDOWN;
                records.push(change.into());
                update_partitions(turn, BrokerEvent::Leaves(id), in_isr(id), &mut records);
            }
        }
    }
    offline_directories(turn, broker, &request.offline_log_dirs, &mut records);
    if image.features.level(METADATA_VERSION) >= CORDONED_DIRS_SINCE {
        let cordoned = request.cordoned_log_dirs.as_deref();
        records.extend(cordoned.and_then(|dirs| cordoned_directories(broker, dirs)));
    }
    let contact = Contact {
        last_contact_ms: turn.now_ms,
        heard: contact.heard.saturating_add(1),
        doubted: false,
        metadata_offset: request.current_metadata_offset,
        controlled_shutdown_at: match next {
            State::ControlledShutdown if state != next => turn.last_offset(records.len()),
            _ => contact.controlled_shutdown_at,
        },
        ..contact
    };
    turn.heartbeats.contacts.insert(id, contact);
    let response = BrokerHeartbeatResponse {
        is_caught_up: request.current_metadata_offset >= contact.registered_at,
        is_fenced: matches!(next, State::Fenced | State::ShutdownNow),
        should_shut_down: next == State::ShutdownNow,
        ..BrokerHeartbeatResponse::default()
    };
    Ok((records, response))
}

fn next_state(
    turn: &Turn<'_>,
    state: State,
    request: &BrokerHeartbeatRequest,
    contact: &Contact,
) -> State {
    let id = request.broker_id;
    let leads = || {
        let mut topics = turn.image.topics.iter();
        topics.any(|topic| topic.partitions.values().any(|p| p.leader == id))
    };
    match state {
        State::Fenced if request.want_shut_down => State::ShutdownNow,
        State::Fenced if request.want_fence => State::Fenced,
        State::Fenced if request.current_metadata_offset >= contact.registered_at => {
            State::Unfenced
        }
        State::Fenced => State::Fenced,
        State::Unfenced if request.want_fence && request.want_shut_down => State::ShutdownNow,
        State::Unfenced if request.want_fence => State::Fenced,
        State::Unfenced if request.want_shut_down && leads() => State::ControlledShutdown,
        State::Unfenced if request.want_shut_down => State::ShutdownNow,
        State::Unfenced => State::Unfenced,
        State::ControlledShutdown => {
            let seen = turn.heartbeats.lowest_active_offset(turn.image);
            if !leads() && contact.controlled_shutdown_at <= seen {
                State::ShutdownNow
            } else {
                State::ControlledShutdown
            }
        }
        State::ShutdownNow => State::ShutdownNow,
    }
}

fn unchanged_broker(broker: &BrokerRegistration) -> BrokerRegistrationChangeRecord {
    BrokerRegistrationChangeRecord {
        broker_id: broker.id,
        broker_epoch: broker.epoch,
        ..BrokerRegistrationChangeRecord::default()
    }
}

/// Partitions first, the fencing last: should the controller fail in between, the next one does the rest.
fn fence(turn: &Turn<'_>, broker: &BrokerRegistration, records: &mut Vec<MetadataRecord>) {
    update_partitions(
        turn,
        BrokerEvent::Leaves(broker.id),
        in_isr(broker.id),
        records,
    );
    let mut change = unchanged_broker(broker);
    change.fenced = FENCE;
    records.push(change.into());
}

fn unfence(turn: &Turn<'_>, broker: &BrokerRegistration, records: &mut Vec<MetadataRecord>) {
    let mut change = unchanged_broker(broker);
    change.fenced = UNFENCE;
    records.push(change.into());
    update_partitions(
        turn,
        BrokerEvent::Returns(broker.id),
        without_leader,
        records,
    );
}

/// Takes the broker out of the partitions in directories that failed (KIP-858).
fn offline_directories(
    turn: &Turn<'_>,
    broker: &BrokerRegistration,
    offline: &[Uuid],
    records: &mut Vec<MetadataRecord>,
) {
    let failed: Vec<Uuid> = broker
        .log_dirs
        .iter()
        .copied()
        .filter(|dir| offline.contains(dir))
        .collect();
    if failed.is_empty() {
        return;
    }
    let id = broker.id;
    let affected =
        |p: &PartitionRegistration| p.isr.contains(&id) && failed.contains(&p.directory(id));
    update_partitions(turn, BrokerEvent::Leaves(id), affected, records);
    let mut change = unchanged_broker(broker);
    let online = broker.log_dirs.iter().copied();
    change.log_dirs = online.filter(|dir| !failed.contains(dir)).collect();
    tracing::warn!(
        broker_id = id,
        ?failed,
        "log directories of a broker went offline"
    );
    records.push(change.into());
}

/// A broker's listener refuses connections: its session is over, if it is the process that is registered, and it could be
/// connected to before or was heard of once at most. `fence_stale_broker` does the rest.
pub(super) fn end_session(turn: &mut Turn<'_>, gone: &Gone) {
    let id = gone.broker_id;
    if check_broker_epoch(turn.image, id, gone.broker_epoch).is_err() {
        return;
    }
    let ended_ms = turn.now_ms - session_timeout_ms(turn);
    if let Some(contact) = turn.heartbeats.contacts.get_mut(&id)
        && (gone.was_connected || contact.heard <= 1)
    {
        tracing::warn!(broker_id = id, "nobody listens where the broker did");
        contact.last_contact_ms = ended_ms;
        contact.doubted = true;
    }
}

/// Notes which directories get no new partitions (KIP-1066).
fn cordoned_directories(broker: &BrokerRegistration, cordoned: &[Uuid]) -> Option<MetadataRecord> {
    let known: BTreeSet<Uuid> = broker.cordoned_log_dirs.iter().copied().collect();
    let told: BTreeSet<Uuid> = cordoned.iter().copied().collect();
    if known == told {
        return None;
    }
    let mut change = unchanged_broker(broker);
    change.cordoned_log_dirs = Some(told.into_iter().collect());
    Some(change.into())
}

/// Fences one broker whose session has expired. Called by the loop's timer until it returns nothing.
pub fn fence_stale_broker(turn: &mut Turn<'_>) -> Vec<MetadataRecord> {
    let timeout_ms = session_timeout_ms(turn);
    let stale = turn.heartbeats.contacts.iter().find_map(|(id, contact)| {
        let expired = contact.last_contact_ms + timeout_ms <= turn.now_ms;
        let broker = turn.image.cluster.broker(*id)?;
        (expired && !broker.fenced).then_some(broker)
    });
    let mut records = Vec::new();
    if let Some(broker) = stale {
        tracing::warn!(
            broker_id = broker.id,
            "fencing a broker that was not heard of"
        );
        fence(turn, broker, &mut records);
    }
    records
}

/// UnregisterBroker: forgets a broker for good.
pub(super) fn unregister_broker(
    turn: &mut Turn<'_>,
    request: &UnregisterBrokerRequest,
) -> Outcome<UnregisterBrokerResponse> {
    let id = request.broker_id.0;
    let Some(broker) = turn.image.cluster.broker(id) else {
        let message = format!("Broker ID {id} is not currently registered");
        let error = Error::new(ErrorCode::BrokerIdNotRegistered, message);
        let response = UnregisterBrokerResponse::default().with_error_code(error.code());
        return Outcome::unchanged(response.with_error_message(error.text()));
    };
    let mut records = Vec::new();
    update_partitions(turn, BrokerEvent::Leaves(id), in_isr(id), &mut records);
    update_partitions(turn, BrokerEvent::Leaves(id), in_elr(id), &mut records);
    let record = UnregisterBrokerRecord {
        broker_id: id,
        broker_epoch: broker.epoch,
    };
    records.push(record.into());
    if fits_one_batch(&records) {
        turn.heartbeats.contacts.remove(&id);
    }
    Outcome::atomic(records, UnregisterBrokerResponse::default())
}
