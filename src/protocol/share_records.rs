//! The records of `__share_group_state`, in Kafka's schemas. Only shown (`ottla dump-log`): nothing here writes them.

use uuid::Uuid;

use super::wire::message;

message! {
    /// Key of a snapshot (type 0) and of an update (type 1).
    ShareGroupKey(0..=0) {
        group_id: String, 0..;
        topic_id: Uuid, 0..;
        partition: i32, 0..;
    }
}

message! {
    ShareSnapshotValue(0..=0, flexible 0) {
        snapshot_epoch: i32, 0..;
        state_epoch: i32, 0..;
        leader_epoch: i32, 0..;
        start_offset: i64, 0..;
        delivery_complete_count: i32 = -1, 0.., tag 0;
        create_timestamp: i64, 0..;
        write_timestamp: i64, 0..;
        state_batches: Vec<StateBatch>, 0..;
    }
    StateBatch {
        first_offset: i64, 0..;
        last_offset: i64, 0..;
        delivery_state: i8, 0..;
        delivery_count: i16, 0..;
    }
}

message! {
    ShareUpdateValue(0..=0, flexible 0) {
        snapshot_epoch: i32, 0..;
        leader_epoch: i32, 0..;
        start_offset: i64, 0..;
        delivery_complete_count: i32 = -1, 0.., tag 0;
        state_batches: Vec<StateBatch>, 0..;
    }
}
