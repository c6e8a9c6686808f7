//! Pages of lists (AIP-158): opaque tokens bound to the arguments, sizes with a default and a maximum.

use pavior_core::Fault;
use pavior_core::page::{self, PageTokens};
use serde_json::Value;

use crate::mask::ReadMask;
use crate::problem::{ErrorReason, Problem};

/// How many bytes of results a page holds: below the 4 MiB that clients take by default. One result always fits.
pub const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024;

/// A page that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// How many results at most.
    pub size: u64,
    /// The sort keys of the last result of the page before; `None` for the first page.
    pub after: Option<Value>,
    /// Which fields of each result are wanted.
    pub fields: ReadMask,
    args_hash: [u8; 32],
}

impl Page {
    /// Checks page size and token. `args` are all arguments that must stay the same from page to page: method, parent,
    /// filter, order and so on, in a fixed order.
    pub fn open(
        tokens: &PageTokens,
        page_size: i32,
        page_token: &str,
        args: &[&str],
    ) -> Result<Self, Problem> {
        let size = page::page_size(page_size)
            .map_err(|err| Problem::invalid_field("page_size", Fault::OutOfRange, err.to_string()))?;
        let args_hash = args_hash(args);
        let after = match page_token {
            "" => None,
            token => Some(tokens.decode(token, &args_hash).map_err(|err| {
                Problem::invalid_reason(
                    ErrorReason::InvalidPageToken,
                    "page_token",
                    Fault::Token,
                    err.to_string(),
                )
            })?),
        };
        Ok(Self { size, after, fields: ReadMask::default(), args_hash })
    }

    /// The same page with no other fields of its results than these.
    #[must_use]
    pub fn with_fields(self, fields: ReadMask) -> Self {
        Self { fields, ..self }
    }

    /// How many rows to read: one more than the page holds, to know whether another page follows.
    pub fn limit(&self) -> u64 {
        self.size + 1
    }

    /// Cuts `rows` (read with [`Page::limit`]) to the page and makes the token of the next one; empty at the end.
    pub fn close<T>(&self, tokens: &PageTokens, rows: &mut Vec<T>, keys: impl Fn(&T) -> Value) -> String {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        if rows.len() <= size {
            return String::new();
        }
        rows.truncate(size);
        rows.last().map(|last| self.token(tokens, &keys(last))).unwrap_or_default()
    }

    /// As [`Page::close`], and ends the page before its results are larger than `max_bytes`.
    pub fn close_within<T>(
        &self,
        tokens: &PageTokens,
        rows: &mut Vec<T>,
        max_bytes: usize,
        bytes: impl Fn(&T) -> usize,
        keys: impl Fn(&T) -> Value,
    ) -> String {
        let mut total = 0;
        let fits = |row: &&T| {
            total += bytes(row);
            total <= max_bytes
        };
        let fitting = rows.iter().take_while(fits).count().max(1);
        if rows.len() <= fitting {
            return self.close(tokens, rows, keys);
        }
        rows.truncate(fitting.min(usize::try_from(self.size).unwrap_or(usize::MAX)));
        rows.last().map(|last| self.token(tokens, &keys(last))).unwrap_or_default()
    }

    /// The token that continues after `last`.
    pub fn token(&self, tokens: &PageTokens, last: &Value) -> String {
        tokens.encode(&self.args_hash, last)
    }
}

/// A digest of the arguments of a list; no two different lists of arguments have the same.
pub fn args_hash(args: &[&str]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(args.iter().map(|arg| arg.len() + 8).sum());
    for arg in args {
        bytes.extend_from_slice(&(arg.len() as u64).to_be_bytes());
        bytes.extend_from_slice(arg.as_bytes());
    }
    pavior_core::digest::sha256(&bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_continue_and_are_bound_to_the_arguments() {
        let tokens = PageTokens::new([7; 32]);
        let args = ["ListX", "organizations/acme", "", ""];
        let first = Page::open(&tokens, 2, "", &args).unwrap();
        assert_eq!((first.size, first.limit(), &first.after), (2, 3, &None));
        let mut rows = vec![1, 2, 3];
        let token = first.close(&tokens, &mut rows, |row| json!([row]));
        assert_eq!(rows, [1, 2]);
        let second = Page::open(&tokens, 500, &token, &args).unwrap();
        assert_eq!(second.after, Some(json!([2])));
        let mut rows = vec![3];
        assert_eq!(second.close(&tokens, &mut rows, |row| json!([row])), "");

        let err = Page::open(&tokens, 2, &token, &["ListX", "organizations/other", "", ""]).unwrap_err();
        assert_eq!((err.code, err.reason), (tonic::Code::InvalidArgument, ErrorReason::InvalidPageToken));
        let err = Page::open(&tokens, -1, "", &args).unwrap_err();
        assert_eq!(err.violations[0].field, "page_size");
    }

    #[test]
    fn a_page_ends_before_it_is_too_large() {
        let tokens = PageTokens::new([7; 32]);
        let third = MAX_PAGE_BYTES / 3;
        for (page_size, sizes, kept) in [
            (10, vec![third; 3], 3),
            (10, vec![third; 4], 3),
            (2, vec![third; 4], 2),
            (2, vec![1; 3], 2),
            (10, vec![MAX_PAGE_BYTES + 1, 1], 1),
            (10, vec![MAX_PAGE_BYTES + 1], 1),
            (10, vec![], 0),
        ] {
            let page = Page::open(&tokens, page_size, "", &["ListX"]).unwrap();
            let mut rows: Vec<(usize, usize)> = sizes.iter().copied().enumerate().collect();
            let token =
                page.close_within(&tokens, &mut rows, MAX_PAGE_BYTES, |row| row.1, |row| json!([row.0]));
            assert_eq!(rows.len(), kept, "{page_size} {sizes:?}");
            assert_eq!(token.is_empty(), kept == sizes.len(), "{page_size} {sizes:?}");
            if kept < sizes.len() {
                let next = Page::open(&tokens, page_size, &token, &["ListX"]).unwrap();
                assert_eq!(next.after, Some(json!([kept - 1])));
            }
        }
    }

    #[test]
    fn moving_text_between_arguments_changes_the_hash() {
        assert_ne!(args_hash(&["ab", "c"]), args_hash(&["a", "bc"]));
    }
}
