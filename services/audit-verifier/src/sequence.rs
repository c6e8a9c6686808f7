//! The sequence numbers of producers, over all logs. A Merkle tree proves that nothing was altered; numbers without
//! a gap prove that nothing was left out.

use std::collections::{BTreeMap, HashMap};

/// A run of numbers, both ends included.
type Run = (u64, u64);

/// What one log holds of each producer, as runs: memory grows with gaps, not with records.
#[derive(Debug, Default)]
pub(crate) struct LogSequences {
    places: HashMap<(String, String), usize>,
    producers: Vec<((String, String), Vec<Run>)>,
    /// The producer of the record before: most often that of the next one too.
    last: usize,
    /// Numbers that an operator accepted as lost, as the log says.
    accepted: Vec<((String, String), Run)>,
}

impl LogSequences {
    /// Takes numbers that a record says were accepted as lost.
    pub(crate) fn accept(&mut self, service: &str, epoch: &str, first: u64, last: u64) {
        self.accepted.push(((service.to_owned(), epoch.to_owned()), (first, last)));
    }

    /// Takes the next record's number; says what is wrong when it does not follow the ones before it in this log.
    pub(crate) fn push(&mut self, service: &str, epoch: &str, seq: u64) -> Result<(), String> {
        let is_last = self.producers.get(self.last).is_some_and(|((s, e), _)| s == service && e == epoch);
        if !is_last {
            let producer = (service.to_owned(), epoch.to_owned());
            self.last = *self.places.entry(producer.clone()).or_insert(self.producers.len());
            if self.last == self.producers.len() {
                self.producers.push((producer, Vec::new()));
            }
        }
        let runs = &mut self.producers[self.last].1;
        match runs.last_mut() {
            Some((_, end)) if seq <= *end => Err(format!(
                "producer `{service}` epoch `{epoch}`: sequence {seq} stands after {end}, so records were swapped or repeated"
            )),
            Some((_, end)) if seq == *end + 1 => {
                *end = seq;
                Ok(())
            }
            _ => {
                runs.push((seq, seq));
                Ok(())
            }
        }
    }
}

/// All logs together.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    runs: BTreeMap<(String, String), Vec<Run>>,
    accepted: BTreeMap<(String, String), Vec<Run>>,
}

/// A number that is missing or there twice, and the number at which that shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) service: String,
    pub(crate) epoch: String,
    /// The first record after the gap; none when the end is missing.
    pub(crate) shows_at: Option<u64>,
    pub(crate) why: String,
}

impl Sequences {
    pub(crate) fn add(&mut self, log: LogSequences) {
        for (producer, runs) in log.producers {
            self.runs.entry(producer).or_default().extend(runs);
        }
        for (producer, run) in log.accepted {
            self.accepted.entry(producer).or_default().push(run);
        }
    }

    pub(crate) fn producers(&self) -> usize {
        self.runs.len()
    }

    /// Compares with the last number that the log acknowledged to each producer. Producers with records are looked at
    /// first: what is wrong with one of them can be shown at a record. Gives how many numbers are missing that an operator
    /// accepted as lost.
    pub(crate) fn check(mut self, acknowledged: &BTreeMap<(String, String), u64>) -> Result<u64, Gap> {
        let mut lost = 0;
        let absent = |producer: &&(String, String)| !self.runs.contains_key(*producer);
        let without: Vec<_> =
            acknowledged.keys().filter(absent).map(|key| (key.clone(), Vec::new())).collect();
        for runs in self.runs.values_mut() {
            runs.sort_unstable();
        }
        for (producer, runs) in self.runs.into_iter().chain(without) {
            let accepted = self.accepted.remove(&producer).unwrap_or_default();
            let checked = check_producer(&runs, accepted, acknowledged.get(&producer).copied());
            lost += checked.map_err(|(shows_at, why)| {
                let (service, epoch) = producer;
                let why = format!("producer `{service}` epoch `{epoch}`: {why}");
                Gap { service, epoch, shows_at, why }
            })?;
        }
        Ok(lost)
    }
}

/// The first number from `from` up to `to` that was not accepted as lost.
fn unaccepted(accepted: &[Run], from: u64, to: u64) -> Option<u64> {
    let mut next = from;
    for (first, last) in accepted {
        if *first <= next && next <= *last {
            next = last + 1;
        }
    }
    (next <= to).then_some(next)
}

fn check_producer(
    runs: &[Run],
    mut accepted: Vec<Run>,
    acknowledged: Option<u64>,
) -> Result<u64, (Option<u64>, String)> {
    accepted.sort_unstable();
    let (mut last, mut lost) = (0, 0);
    for (start, end) in runs.iter().copied() {
        if start <= last {
            return Err((Some(start), format!("sequence {start} stands in more than one place")));
        }
        if let Some(missing) = unaccepted(&accepted, last + 1, start - 1) {
            return Err((Some(start), format!("sequence {missing} is missing before {start}")));
        }
        lost += start - 1 - last;
        last = end;
    }
    match acknowledged {
        Some(known) if known >= last => match unaccepted(&accepted, last + 1, known) {
            None => Ok(lost + known - last),
            Some(_) => Err((None, format!("{known} was acknowledged, but the records end at {last}"))),
        },
        Some(known) => {
            Err((Some(known + 1), format!("records go to {last}, but only {known} was acknowledged")))
        }
        None => Err((Some(1), "it is not among the known producers".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(seqs: &[u64]) -> LogSequences {
        let mut log = LogSequences::default();
        seqs.iter().for_each(|s| log.push("catalog", "e", *s).unwrap());
        log
    }

    fn check(logs: &[&[u64]], known: u64) -> Result<u64, Gap> {
        let mut all = Sequences::default();
        logs.iter().for_each(|seqs| all.add(log(seqs)));
        all.check(&BTreeMap::from([(("catalog".to_owned(), "e".to_owned()), known)]))
    }

    #[test]
    fn numbers_spread_over_logs_are_gapless_together() {
        assert_eq!(check(&[&[1, 4, 5], &[2, 3, 6]], 6), Ok(0));
        assert_eq!(check(&[&[1, 4, 5], &[2, 6]], 6).unwrap_err().shows_at, Some(4));
        assert_eq!(check(&[&[1, 2], &[2, 3]], 3).unwrap_err().shows_at, Some(2));
        assert_eq!(check(&[&[1, 2]], 3).unwrap_err().shows_at, None);
        assert_eq!(check(&[&[1, 2, 3]], 2).unwrap_err().shows_at, Some(3));
        assert_eq!(check(&[&[2]], 2).unwrap_err().shows_at, Some(2));
        assert!(check(&[], 1).is_err());
    }

    #[test]
    fn numbers_that_were_accepted_as_lost_are_counted_and_no_others() {
        let check = |accepted: &[Run]| {
            let mut log = log(&[1, 2, 6, 7]);
            accepted.iter().for_each(|(first, last)| log.accept("catalog", "e", *first, *last));
            let mut all = Sequences::default();
            all.add(log);
            all.check(&BTreeMap::from([(("catalog".to_owned(), "e".to_owned()), 9)]))
        };
        assert_eq!(check(&[(3, 5), (8, 9)]), Ok(5));
        assert_eq!(check(&[(8, 9), (3, 3), (3, 5), (4, 5)]), Ok(5));
        assert_eq!(
            check(&[(3, 4), (8, 9)]).unwrap_err().why,
            "producer `catalog` epoch `e`: sequence 5 is missing before 6"
        );
        assert_eq!(check(&[(4, 5), (8, 9)]).unwrap_err().shows_at, Some(6));
        assert_eq!(check(&[(3, 5), (8, 8)]).unwrap_err().shows_at, None);
        assert_eq!(check(&[]).unwrap_err().shows_at, Some(6));
    }

    #[test]
    fn swapped_numbers_within_a_log_are_found_at_once() {
        let mut log = log(&[1, 3]);
        assert!(log.push("catalog", "e", 2).is_err());
    }
}
