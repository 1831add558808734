//! How the records of one decision are cut into batches of the metadata log.
//!
//! More than one batch has room for goes in a metadata transaction (KIP-868), so that who reads the log takes all of it or
//! nothing, also if the controller dies in between: the next one aborts what was begun. Only what the controller decides by itself
//! can be so large, such as the fencing of a broker with many partitions; Kafka 4.3 cuts that by count. What users ask for is
//! refused instead ([`super::outcome::Outcome::atomic`]).

use crate::metadata::MetadataImage;
use crate::metadata::features::{METADATA_VERSION, TRANSACTIONS_SINCE};
use crate::protocol::metadata_records::{
    AbortTransactionRecord, BeginTransactionRecord, EndTransactionRecord, MetadataRecord,
};
use crate::quorum::RECORDS_PER_BATCH_MAX;

/// Whether `count` records are too many for one batch and go in a transaction, which takes two more. Below metadata.version
/// 3.6-IV1 there are none; there whoever takes over finds records of which each is sound by itself.
pub(super) fn needs_transaction(image: &MetadataImage, count: usize) -> bool {
    count > RECORDS_PER_BATCH_MAX && image.features.level(METADATA_VERSION) >= TRANSACTIONS_SINCE
}

/// Whether an operation that is all or nothing may write so much.
pub(super) fn fits_one_batch(records: &[MetadataRecord]) -> bool {
    records.len() <= RECORDS_PER_BATCH_MAX
}

/// Batches of `records`, in order; none of none.
pub(super) fn split(
    image: &MetadataImage,
    mut records: Vec<MetadataRecord>,
) -> Vec<Vec<MetadataRecord>> {
    if needs_transaction(image, records.len()) {
        let name = Some("Large operation".to_owned());
        records.insert(0, BeginTransactionRecord { name }.into());
        records.push(EndTransactionRecord::default().into());
    }
    let mut batches = Vec::with_capacity(records.len() / RECORDS_PER_BATCH_MAX + 1);
    let mut records = records.into_iter();
    loop {
        let batch: Vec<_> = records.by_ref().take(RECORDS_PER_BATCH_MAX).collect();
        if batch.is_empty() {
            return batches;
        }
        batches.push(batch);
    }
}

/// Ends what another controller began and did not finish.
pub(super) fn abort() -> Vec<MetadataRecord> {
    let reason = Some("Controller failover".to_owned());
    vec![AbortTransactionRecord { reason }.into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::MetadataDelta;
    use crate::protocol::metadata_records::{FeatureLevelRecord, NoOpRecord};

    /// Lengths of the batches, and whether the first and the last record are brackets.
    fn check(level: i16, count: usize, expected: &[usize], brackets: bool) {
        let mut image = MetadataImage::default();
        let version = FeatureLevelRecord {
            name: METADATA_VERSION.to_owned(),
            feature_level: level,
        };
        let version = version.into();
        image
            .apply(&version, &mut MetadataDelta::default())
            .unwrap();
        let records = vec![MetadataRecord::NoOp(NoOpRecord::default()); count];
        let batches = split(&image, records);
        let lengths: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(lengths, expected, "{count} records at level {level}");
        let first = batches.first().and_then(|it| it.first());
        let last = batches.last().and_then(|it| it.last());
        let begins = matches!(first, Some(MetadataRecord::BeginTransaction(_)));
        let ends = matches!(last, Some(MetadataRecord::EndTransaction(_)));
        assert_eq!((begins, ends), (brackets, brackets));
        assert_eq!(needs_transaction(&image, count), brackets);
    }

    #[test]
    fn what_does_not_fit_one_batch_goes_in_a_transaction() {
        const MAX: usize = RECORDS_PER_BATCH_MAX;
        check(TRANSACTIONS_SINCE, 0, &[], false);
        check(TRANSACTIONS_SINCE, 1, &[1], false);
        check(TRANSACTIONS_SINCE, MAX, &[MAX], false);
        check(TRANSACTIONS_SINCE, MAX + 1, &[MAX, 3], true);
        check(TRANSACTIONS_SINCE, 2 * MAX - 2, &[MAX, MAX], true);
        check(TRANSACTIONS_SINCE, 2 * MAX, &[MAX, MAX, 2], true);
        check(TRANSACTIONS_SINCE - 1, MAX + 1, &[MAX, 1], false);
    }
}
