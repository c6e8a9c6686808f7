//! What one transaction of the writer takes: which records of which submissions, and what each submitter hears.

use std::collections::{BTreeMap, BTreeSet};

use pavior_core::audit::AuditEvent;
use time::OffsetDateTime;

use super::hash::Hash;

/// A record ready to be stored, but for its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) log: String,
    pub(crate) seq: i64,
    pub(crate) leaf: Hash,
    /// The canonical bytes: what the leaf hash is over.
    pub(crate) body: Vec<u8>,
    pub(crate) receive_time: OffsetDateTime,
    /// What the bytes say of the event, to be found by.
    pub(crate) event: AuditEvent,
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

/// What the log has of a producer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// The last number of the epoch; 0 when there is none.
    pub(crate) last_seq: i64,
    /// The id of that event.
    pub(crate) last_event: Option<String>,
    /// The newest epoch of the service, whichever was asked for.
    pub(crate) newest_epoch: Option<String>,
}

/// Which event it is: what two submissions of the same number must have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The id of the event.
    pub event_id: String,
    /// SHA-256 over what the event says. Absent when what is stored was damaged and tells no more than its id.
    pub content: Option<Hash>,
}

impl Identity {
    /// Whether an event that is offered is this one, as far as can be told.
    fn is(&self, offered: &Self) -> bool {
        self.event_id == offered.event_id && (self.content.is_none() || self.content == offered.content)
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.content {
            Some(content) => write!(f, "{} (sha256:{})", self.event_id, hex::encode(content)),
            None => write!(f, "{} (damaged)", self.event_id),
        }
    }
}

/// What a producer hears when its call is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The highest number that is durable, with all below it.
    pub(crate) acknowledged: i64,
    /// How many records of the call were there already.
    pub(crate) repeated: usize,
}

/// Why nothing of a call is taken: the sequence numbers of the producer do not fit to those of the log, as after one of
/// their databases was set back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SequenceConflict {
    /// A number was skipped: records before it are missing.
    #[error("{expected} was expected and {found} came")]
    Gap {
        /// The next number.
        expected: i64,
        /// What came.
        found: i64,
    },
    /// The number was given to two events.
    #[error("{sequence} is event {} in the log and event {offered} now", name(.stored.as_ref()))]
    Diverged {
        /// The number.
        sequence: i64,
        /// The event in the log; absent when the record itself is gone.
        stored: Option<Identity>,
        /// The event that came.
        offered: Identity,
    },
}

/// An event in errors.
pub(crate) fn name(event: Option<&Identity>) -> String {
    event.map_or_else(|| "none".to_owned(), Identity::to_string)
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
/// A producer's number.
type Place<'a> = (&'a Producer, i64);
/// What the log has under numbers.
pub(crate) type Stored<'a> = BTreeMap<Place<'a>, Identity>;

impl Batch {
    /// The logs that the batch may write to.
    pub(crate) fn logs(&self) -> BTreeSet<&str> {
        self.submissions.iter().flat_map(|s| &s.entries).map(|entry| entry.log.as_str()).collect()
    }

    /// The producers in the batch.
    pub(crate) fn producers(&self) -> BTreeSet<&Producer> {
        self.submissions.iter().map(|s| &s.producer).collect()
    }

    /// Takes from each submission what follows its producer's last number, all or nothing. A repeat is passed over when
    /// it is the same event as the one that stands there; nothing is taken for a repeat by its number alone. `last`
    /// holds the last number of each producer and is advanced; `stored` holds what the log has under the numbers that
    /// are offered again, and `identity` tells what an entry is.
    pub(crate) fn take<'a, E>(
        &'a self,
        last: &mut BTreeMap<&'a Producer, i64>,
        stored: &Stored<'a>,
        identity: impl Fn(&Entry) -> Result<Identity, E>,
    ) -> Result<(TakenByLog<'a>, Vec<Result<Ack, SequenceConflict>>), E> {
        let mut taken = TakenByLog::new();
        let mut new: BTreeMap<Place<'a>, &'a Entry> = BTreeMap::new();
        let mut answers = Vec::with_capacity(self.submissions.len());
        for Submission { producer, entries } in &self.submissions {
            let before = last.get(producer).copied().unwrap_or(0);
            let (mut acknowledged, mut repeated, mut refusal) = (before, 0, None);
            for entry in entries {
                let place = (producer, entry.seq);
                if entry.seq == acknowledged + 1 {
                    acknowledged = entry.seq;
                    new.insert(place, entry);
                } else if entry.seq > acknowledged {
                    refusal = Some(SequenceConflict::Gap { expected: acknowledged + 1, found: entry.seq });
                    break;
                } else {
                    let there = match new.get(&place) {
                        Some(there) => Some(identity(there)?),
                        None => stored.get(&place).cloned(),
                    };
                    let offered = identity(entry)?;
                    if !there.as_ref().is_some_and(|there| there.is(&offered)) {
                        refusal =
                            Some(SequenceConflict::Diverged { sequence: entry.seq, stored: there, offered });
                        break;
                    }
                    repeated += 1;
                }
            }
            let fresh = before + 1..=acknowledged;
            answers.push(match refusal {
                Some(refusal) => {
                    new.retain(|(of, seq), _| *of != producer || !fresh.contains(seq));
                    Err(refusal)
                }
                None => {
                    for entry in fresh.filter_map(|seq| new.get(&(producer, seq))) {
                        taken.entry(&entry.log).or_default().push((producer, entry));
                    }
                    last.insert(producer, acknowledged);
                    Ok(Ack { acknowledged, repeated })
                }
            });
        }
        Ok((taken, answers))
    }

    /// The numbers that are offered again, by producer.
    pub(crate) fn repeats<'a>(
        &'a self,
        last: &BTreeMap<&Producer, i64>,
    ) -> BTreeMap<&'a Producer, BTreeSet<i64>> {
        let mut repeats: BTreeMap<&Producer, BTreeSet<i64>> = BTreeMap::new();
        for Submission { producer, entries } in &self.submissions {
            let last = last.get(producer).copied().unwrap_or(0);
            let again = entries.iter().map(|entry| entry.seq).filter(|seq| *seq <= last);
            let mut again = again.peekable();
            if again.peek().is_some() {
                repeats.entry(producer).or_default().extend(again);
            }
        }
        repeats
    }
}

#[cfg(test)]
impl Entry {
    /// One without an event to speak of.
    pub(crate) fn sample(log: &str, seq: i64, leaf: Hash, body: Vec<u8>) -> Self {
        use pavior_core::audit::{PrincipalKind, PrincipalRef};
        let (id, time) = (uuid::Uuid::nil(), OffsetDateTime::UNIX_EPOCH);
        let principal = PrincipalRef::new(PrincipalKind::User, "");
        let event = AuditEvent::new(id, time, "", principal);
        Self { log: log.to_owned(), seq, leaf, body, receive_time: time, event }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use uuid::Uuid;

    use super::*;

    fn entry(log: &str, seq: i64) -> Entry {
        Entry::sample(log, seq, [0; 32], vec![])
    }

    fn submission(service: &str, entries: &[(&str, i64)]) -> Submission {
        let producer = Producer { service: service.into(), epoch: "e".into() };
        Submission { producer, entries: entries.iter().map(|(log, seq)| entry(log, *seq)).collect() }
    }

    fn seqs(taken: &TakenByLog<'_>, log: &str) -> Vec<i64> {
        taken.get(log).map(|t| t.iter().map(|(_, e)| e.seq).collect()).unwrap_or_default()
    }

    fn identity(entry: &Entry) -> Result<Identity, Infallible> {
        Ok(Identity { event_id: entry.event.event_id.to_string(), content: Some(entry.leaf) })
    }

    fn stored<'a>(producer: &'a Producer, seqs: std::ops::RangeInclusive<i64>) -> Stored<'a> {
        seqs.map(|seq| ((producer, seq), identity(&entry("acme", seq)).unwrap())).collect()
    }

    #[test]
    fn only_what_follows_is_taken_and_all_or_nothing() {
        // submitted, last before -> acknowledged and repeated, or the gap
        type Case<'a> = (&'a [i64], i64, Result<(i64, usize), (i64, i64)>);
        let table: [Case<'_>; 7] = [
            (&[1, 2, 3], 0, Ok((3, 0))),
            (&[1, 2, 3], 2, Ok((3, 2))),
            (&[1, 2], 5, Ok((5, 2))),
            (&[2], 0, Err((1, 2))),
            (&[1, 3, 4], 0, Err((2, 3))),
            (&[3, 1, 2], 0, Err((1, 3))),
            (&[], 4, Ok((4, 0))),
        ];
        for (seqs, before, want) in table {
            let entries: Vec<_> = seqs.iter().map(|s| ("acme", *s)).collect();
            let batch = Batch { submissions: vec![submission("catalog", &entries)] };
            let producer = &batch.submissions[0].producer;
            let mut last = BTreeMap::from([(producer, before)]);
            let (taken, answers) = batch.take(&mut last, &stored(producer, 1..=before), identity).unwrap();
            let want = want
                .map(|(acknowledged, repeated)| Ack { acknowledged, repeated })
                .map_err(|(expected, found)| SequenceConflict::Gap { expected, found });
            assert_eq!(answers, std::slice::from_ref(&want), "{seqs:?} after {before}");
            assert_eq!(last[producer], want.as_ref().map_or(before, |ack| ack.acknowledged));
            assert!(want.is_ok() || taken.is_empty(), "{seqs:?} after {before}");
        }
    }

    #[test]
    fn another_event_under_the_same_number_is_no_repeat() {
        let mut other = submission("catalog", &[("acme", 2), ("acme", 3)]);
        other.entries[0].event.event_id = Uuid::max();
        let batch = Batch { submissions: vec![other, submission("catalog", &[("acme", 3)])] };
        let producer = &batch.submissions[0].producer;
        let mut last = BTreeMap::from([(producer, 2)]);
        let (taken, answers) = batch.take(&mut last, &stored(producer, 1..=2), identity).unwrap();
        let Err(SequenceConflict::Diverged { sequence: 2, stored: Some(there), offered }) = &answers[0]
        else {
            panic!("{answers:?}")
        };
        let ids = [Uuid::nil(), Uuid::max()].map(|id| id.to_string());
        assert_eq!([&there.event_id, &offered.event_id], [&ids[0], &ids[1]]);
        // Nothing of the refused call is taken, and the next one does not suffer.
        assert_eq!(answers[1], Ok(Ack { acknowledged: 3, repeated: 0 }));
        assert_eq!(seqs(&taken, "acme"), [3]);
        // What was damaged is the same event by its id alone.
        let damaged = |id: &str| Identity { event_id: id.into(), content: None };
        for (id, answer) in [(&*ids[0], Ok(Ack { acknowledged: 2, repeated: 1 })), (&*ids[1], Err(()))] {
            let batch = Batch { submissions: vec![submission("catalog", &[("acme", 2)])] };
            let producer = &batch.submissions[0].producer;
            let stored = Stored::from([((producer, 2), damaged(id))]);
            let (_, answers) = batch.take(&mut BTreeMap::from([(producer, 2)]), &stored, identity).unwrap();
            assert_eq!(answers[0].clone().map_err(|_| ()), answer, "{id}");
        }
        // Nor is what the log does not have any more.
        let (_, answers) =
            batch.take(&mut BTreeMap::from([(producer, 2)]), &Stored::new(), identity).unwrap();
        assert!(
            matches!(answers[0], Err(SequenceConflict::Diverged { sequence: 2, stored: None, .. })),
            "{answers:?}"
        );
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
        let (taken, answers) = batch.take(&mut BTreeMap::new(), &Stored::new(), identity).unwrap();
        assert_eq!(seqs(&taken, "acme"), [1, 1, 3]);
        assert_eq!(seqs(&taken, "umbrella"), [2]);
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().map(|a| a.acknowledged).collect::<Vec<_>>(), [2, 1, 3]);
        assert_eq!(answers[2].repeated, 1);
        assert_eq!(batch.logs().into_iter().collect::<Vec<_>>(), ["acme", "umbrella"]);
        assert_eq!(batch.producers().len(), 2);
    }
}
