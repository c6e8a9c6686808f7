//! What one transaction of the writer takes: which records of which submissions, and what each submitter hears.

use std::collections::{BTreeMap, BTreeSet};

use super::hash::Hash;

/// A record ready to be stored, but for its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) log: String,
    pub(crate) seq: i64,
    pub(crate) leaf: Hash,
    /// The canonical bytes: what the leaf hash is over.
    pub(crate) body: Vec<u8>,
    pub(crate) index_fields: IndexFields,
}

/// What of a record stands in columns, to be found by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct IndexFields {
    pub(crate) event_id: String,
    /// Microseconds since 1970.
    pub(crate) receive_time: i64,
    /// Microseconds since 1970.
    pub(crate) event_time: i64,
    pub(crate) class: String,
    pub(crate) action: String,
    pub(crate) actor: String,
    pub(crate) object: String,
    pub(crate) object_type: String,
    pub(crate) project: String,
    pub(crate) effect: String,
    pub(crate) status: String,
    pub(crate) request_id: String,
    pub(crate) operation: String,
}

/// A service and the epoch in which its sequence numbers have no gap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Producer {
    pub(crate) service: String,
    pub(crate) epoch: String,
}

/// What a producer handed over in one call.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    pub(crate) producer: Producer,
    pub(crate) entries: Vec<Entry>,
}

/// A number was skipped: records before it are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) expected: i64,
    pub(crate) found: i64,
}

/// What a producer hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The highest number that is durable, with all below it.
    pub(crate) acknowledged: i64,
    /// How many records of the call were there already.
    pub(crate) repeated: usize,
    pub(crate) gap: Option<Gap>,
}

/// Submissions that share a transaction.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) submissions: Vec<Submission>,
}

/// A record with the producer that it came from.
pub(crate) type Taken<'a> = (&'a Producer, &'a Entry);
/// For each log its new records, in order.
pub(crate) type TakenByLog<'a> = BTreeMap<&'a str, Vec<Taken<'a>>>;

impl Batch {
    /// The logs that the batch may write to.
    pub(crate) fn logs(&self) -> BTreeSet<&str> {
        self.submissions.iter().flat_map(|s| &s.entries).map(|entry| entry.log.as_str()).collect()
    }

    /// The producers in the batch.
    pub(crate) fn producers(&self) -> BTreeSet<&Producer> {
        self.submissions.iter().map(|s| &s.producer).collect()
    }

    /// Takes from each submission what follows its producer's last number: repeats are passed over, and at a gap the
    /// rest is left. `last` holds the last number of each producer and is advanced.
    pub(crate) fn take<'a>(&'a self, last: &mut BTreeMap<&'a Producer, i64>) -> (TakenByLog<'a>, Vec<Ack>) {
        let mut taken = TakenByLog::new();
        let mut acks = Vec::with_capacity(self.submissions.len());
        for submission in &self.submissions {
            let mut acknowledged = last.get(&submission.producer).copied().unwrap_or(0);
            let (mut repeated, mut gap) = (0, None);
            for entry in &submission.entries {
                if entry.seq <= acknowledged {
                    repeated += 1;
                } else if entry.seq == acknowledged + 1 {
                    acknowledged = entry.seq;
                    taken.entry(&entry.log).or_default().push((&submission.producer, entry));
                } else {
                    gap = Some(Gap { expected: acknowledged + 1, found: entry.seq });
                    break;
                }
            }
            last.insert(&submission.producer, acknowledged);
            acks.push(Ack { acknowledged, repeated, gap });
        }
        (taken, acks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(log: &str, seq: i64) -> Entry {
        let index_fields = IndexFields::default();
        Entry { log: log.into(), seq, leaf: [0; 32], body: vec![], index_fields }
    }

    fn submission(service: &str, entries: &[(&str, i64)]) -> Submission {
        let producer = Producer { service: service.into(), epoch: "e".into() };
        Submission { producer, entries: entries.iter().map(|(log, seq)| entry(log, *seq)).collect() }
    }

    fn seqs(taken: &TakenByLog<'_>, log: &str) -> Vec<i64> {
        taken.get(log).map(|t| t.iter().map(|(_, e)| e.seq).collect()).unwrap_or_default()
    }

    #[test]
    fn only_what_follows_is_taken() {
        // submitted, last before -> acknowledged, repeated, gap
        type Case<'a> = (&'a [i64], i64, i64, usize, Option<(i64, i64)>);
        let table: [Case<'_>; 7] = [
            (&[1, 2, 3], 0, 3, 0, None),
            (&[1, 2, 3], 2, 3, 2, None),
            (&[1, 2], 5, 5, 2, None),
            (&[2], 0, 0, 0, Some((1, 2))),
            (&[1, 3, 4], 0, 1, 0, Some((2, 3))),
            (&[3, 1, 2], 0, 0, 0, Some((1, 3))),
            (&[], 4, 4, 0, None),
        ];
        for (seqs, before, acknowledged, repeated, gap) in table {
            let entries: Vec<_> = seqs.iter().map(|s| ("acme", *s)).collect();
            let batch = Batch { submissions: vec![submission("catalog", &entries)] };
            let producer = batch.submissions[0].producer.clone();
            let mut last = BTreeMap::from([(&producer, before)]);
            let (_, acks) = batch.take(&mut last);
            let gap = gap.map(|(expected, found)| Gap { expected, found });
            assert_eq!(acks, [Ack { acknowledged, repeated, gap }], "{seqs:?} after {before}");
            assert_eq!(last[&producer], acknowledged);
        }
    }

    #[test]
    fn submissions_of_one_producer_follow_each_other_over_logs() {
        let batch = Batch {
            submissions: vec![
                submission("catalog", &[("acme", 1), ("umbrella", 2)]),
                submission("policy", &[("acme", 1)]),
                submission("catalog", &[("umbrella", 2), ("acme", 3)]),
            ],
        };
        let (taken, acks) = batch.take(&mut BTreeMap::new());
        assert_eq!(seqs(&taken, "acme"), [1, 1, 3]);
        assert_eq!(seqs(&taken, "umbrella"), [2]);
        assert_eq!(acks.iter().map(|a| a.acknowledged).collect::<Vec<_>>(), [2, 1, 3]);
        assert_eq!(acks[2].repeated, 1);
        assert_eq!(batch.logs().into_iter().collect::<Vec<_>>(), ["acme", "umbrella"]);
        assert_eq!(batch.producers().len(), 2);
    }
}
