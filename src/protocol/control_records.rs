//! The payloads of control records: those of the metadata log and its snapshots, and transaction markers.
//!
//! A control record's key is a version and a type, both int16 (`ControlRecordType`).

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::wire::{Decode, DecodeError, Reader, Version, message};

/// What a control record means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecordType {
    Abort,
    Commit,
    LeaderChange,
    SnapshotHeader,
    SnapshotFooter,
    KRaftVersion,
    KRaftVoters,
    /// A type of a later release, to be skipped.
    Unknown(i16),
}

impl ControlRecordType {
    /// The number on disk.
    pub fn number(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KRaftVersion => 5,
            Self::KRaftVoters => 6,
            Self::Unknown(number) => number,
        }
    }

    /// The key of a control record of this type.
    pub fn to_key(self) -> Bytes {
        let mut buf = BytesMut::with_capacity(4);
        buf.put_i16(0);
        buf.put_i16(self.number());
        buf.freeze()
    }

    pub fn from_key(key: &Bytes) -> Result<Self, DecodeError> {
        let plain = Version {
            number: 0,
            flexible: false,
        };
        let mut reader = Reader::new(key);
        let version = i16::read(&mut reader, plain)?;
        if version < 0 {
            return Err(DecodeError::UnknownVersion(version));
        }
        Ok(match i16::read(&mut reader, plain)? {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KRaftVersion,
            6 => Self::KRaftVoters,
            number => Self::Unknown(number),
        })
    }
}

message! {
    /// First record of a leader's epoch in the metadata log.
    LeaderChangeMessage(0..=1, flexible 0) {
        version: i16, 0..;
        leader_id: i32, 0..;
        voters: Vec<Voter>, 0..;
        granting_voters: Vec<Voter>, 0..;
    }
    Voter {
        voter_id: i32, 0..;
        voter_directory_id: Uuid, 1..;
    }
}

message! {
    SnapshotHeaderRecord(0..=0, flexible 0) {
        version: i16, 0..;
        last_contained_log_timestamp: i64, 0..;
    }
}

message! {
    SnapshotFooterRecord(0..=0, flexible 0) {
        version: i16, 0..;
    }
}

message! {
    KRaftVersionRecord(0..=0, flexible 0) {
        version: i16, 0..;
        kraft_version: i16, 0..;
    }
}

message! {
    /// The voters of the controller quorum.
    VotersRecord(0..=0, flexible 0) {
        version: i16, 0..;
        voters: Vec<VoterRecord>, 0..;
    }
    VoterRecord {
        voter_id: i32, 0..;
        voter_directory_id: Uuid, 0..;
        endpoints: Vec<VoterEndpoint>, 0..;
        kraft_version_feature: KRaftVersionFeature, 0..;
    }
    VoterEndpoint {
        name: String, 0..;
        host: String, 0..;
        port: u16, 0..;
    }
    KRaftVersionFeature {
        min_supported_version: i16, 0..;
        max_supported_version: i16, 0..;
    }
}

message! {
    /// Value of a commit or abort marker. Its version stands in front of it, as int16.
    EndTxnMarker(0..=0) {
        coordinator_epoch: i32, 0..;
    }
}
