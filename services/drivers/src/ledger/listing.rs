//! What there is: a page at a time, or all of it. Both read files, so neither does it on an async thread.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use pavior_driver::{Failure, FailureCode, ListRequest, ListResponse, Listed};

use super::{ENTRIES, Ledger, LedgerEntry, broken};

impl Ledger {
    /// The driver's `list`: the things that `there` finds in the world.
    pub(crate) async fn list(
        self: &Arc<Self>,
        request: ListRequest,
        there: impl Fn(&LedgerEntry) -> bool + Send + 'static,
    ) -> Result<ListResponse, Failure> {
        let after = self.paging.after(&request)?;
        let (entries, more) = self.aside(move |ledger| ledger.page(&after, request.page_size, there)).await?;
        let last = entries.last().filter(|_| more);
        let next_page_token = last.map(|last| self.paging.token(&last.identity)).unwrap_or_default();
        Ok(ListResponse { resources: entries.into_iter().map(Listed::from).collect(), next_page_token })
    }

    /// Every thing, of every organization, in order of identity: for what the platform does, not for a caller.
    pub(crate) async fn all(self: &Arc<Self>) -> Result<Vec<LedgerEntry>, Failure> {
        self.aside(Self::read_all).await
    }

    async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let ledger = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || read(&ledger)).await;
        let found = found.map_err(|_| Failure::new(FailureCode::Internal, "reading broke off"))?;
        found.map_err(broken("read"))
    }

    pub(super) fn read_all(&self) -> std::io::Result<Vec<LedgerEntry>> {
        let mut entries: Vec<LedgerEntry> = Vec::new();
        for record in self.records(ENTRIES)? {
            entries.extend(self.read(&record)?);
        }
        entries.sort_by(|a, b| a.identity.cmp(&b.identity));
        Ok(entries)
    }

    /// The things of a page, and whether there are records behind it. Reads the records of the page, and others only the
    /// first time that they are met.
    fn page(
        &self,
        after: &str,
        page_size: usize,
        there: impl Fn(&LedgerEntry) -> bool,
    ) -> std::io::Result<(Vec<LedgerEntry>, bool)> {
        let mut entries = Vec::new();
        for identity in self.identities(after)? {
            if entries.len() >= page_size {
                return Ok((entries, true));
            }
            let entry: Option<LedgerEntry> = self.read(&self.path(ENTRIES, &identity))?;
            entries.extend(entry.filter(&there));
        }
        Ok((entries, false))
    }

    /// The identities behind `after`, in order.
    fn identities(&self, after: &str) -> std::io::Result<Vec<String>> {
        let records = self.records(ENTRIES)?;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: HashMap<PathBuf, String> = HashMap::with_capacity(records.len());
        for record in records {
            let identity = match names.remove(&record) {
                Some(identity) => Some(identity),
                None => self.read(&record)?.map(|entry: LedgerEntry| entry.identity),
            };
            if let Some(identity) = identity {
                known.insert(record, identity);
            }
        }
        let mut behind: Vec<String> =
            known.values().filter(|identity| identity.as_str() > after).cloned().collect();
        *names = known;
        behind.sort_unstable();
        Ok(behind)
    }

    pub(super) fn records(&self, part: &str) -> std::io::Result<Vec<PathBuf>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(self.root.join(part))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.push(path);
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::DAMAGED;
    use super::super::tests::{asked, call, ledger};
    use super::*;

    fn request(page_token: &str) -> ListRequest {
        ListRequest { page_size: 2, page_token: page_token.to_owned() }
    }

    async fn page(ledger: &Arc<Ledger>, token: &str) -> (Vec<String>, String) {
        let page = ledger.list(request(token), |entry| entry.identity != "c").await.unwrap();
        (page.resources.into_iter().map(|listed| listed.identity).collect(), page.next_page_token)
    }

    #[tokio::test]
    async fn a_page_reads_its_own_records_only() {
        let (ledger, _base) = ledger(Duration::from_secs(1));
        for name in ["d", "b", "a", "c", "e"] {
            drop(ledger.intend(&call(name, name), "t", name, &asked()).unwrap());
        }
        let (first, behind_b) = page(&ledger, "").await;
        assert_eq!(first, ["a", "b"]);
        assert_eq!(page(&ledger, &behind_b).await, (vec!["d".to_owned(), "e".to_owned()], String::new()));
        // What is not looked at is not read, and so not found to be damaged.
        std::fs::write(ledger.path(ENTRIES, "e"), "{").unwrap();
        let gone = ledger.owner("b").unwrap().unwrap();
        ledger.forget(&gone).unwrap();
        drop(ledger.intend(&call("aa", "aa"), "t", "aa", &asked()).unwrap());
        let (first, behind_aa) = page(&ledger, "").await;
        assert_eq!(first, ["a", "aa"]);
        assert_eq!(ledger.records(DAMAGED).unwrap(), Vec::<PathBuf>::new());
        // A token goes on where it stands, also when the thing that it was given for is gone.
        for token in [behind_b, behind_aa] {
            assert_eq!(page(&ledger, &token).await, (vec!["d".to_owned()], String::new()));
        }
        assert_eq!(ledger.records(DAMAGED).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn pages_may_end_with_an_empty_one() {
        let (ledger, _base) = ledger(Duration::from_secs(1));
        for name in ["a", "b", "c"] {
            drop(ledger.intend(&call(name, name), "t", name, &asked()).unwrap());
        }
        let (first, token) = page(&ledger, "").await;
        assert_eq!(first, ["a", "b"]);
        assert_eq!(page(&ledger, &token).await, (Vec::new(), String::new()));
    }

    #[tokio::test]
    async fn reading_holds_up_nothing_else() {
        let (ledger, _base) = ledger(Duration::from_secs(1));
        // Reading it does not end before somebody writes to it.
        let stuck = ledger.path(ENTRIES, "stuck");
        for whole in [false, true] {
            assert!(std::process::Command::new("mkfifo").arg(&stuck).status().unwrap().success());
            let asked = ledger.clone();
            let answer = tokio::spawn(async move {
                if whole {
                    asked.all().await.map(|all| all.len())
                } else {
                    asked.list(request(""), |_| true).await.map(|page| page.resources.len())
                }
            });
            tokio::task::yield_now().await;
            assert!(!answer.is_finished());
            std::fs::write(&stuck, "{").unwrap();
            assert_eq!(answer.await.unwrap().unwrap(), 0);
        }
    }
}
