//! One file per API, named after it. Each turns a decoded request into calls on the modules below and builds the
//! response.

pub mod alter_configs;
pub mod api_versions;
pub mod delete_records;
pub mod describe_configs;
pub mod fetch;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod list_config_resources;
pub mod list_offsets;
pub mod offset_for_leader_epoch;
pub mod produce;
