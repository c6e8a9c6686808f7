//! The wire side: decode, call, encode.

mod audit_service;
mod checkpoint;
mod name;
mod producer;
mod record;
mod recorder_service;
mod status;
mod tile;

use std::sync::Arc;
use std::time::Duration;

use pavior_core::clock::Clock;
use pavior_core::page::PageTokens;

use crate::Deps;
use crate::app::reader::Reader;
use crate::app::record_writer::Appender;
use crate::app::watch::Pace;
use crate::config::Config;

/// The gRPC services.
#[derive(Debug)]
pub(crate) struct Api {
    reader: Reader,
    appender: Appender,
    tokens: PageTokens,
    clock: Arc<dyn Clock>,
    pace: Pace,
    max_record_bytes: usize,
}

impl Api {
    pub(crate) fn new(
        config: &Config,
        deps: &Deps,
        reader: Reader,
        appender: Appender,
        tokens: PageTokens,
    ) -> Self {
        let pace = Pace {
            bookmark: Duration::from_millis(config.bookmark_interval_ms),
            poll: Duration::from_millis(config.poll_interval_ms),
        };
        let clock = deps.clock.clone();
        Self { reader, appender, tokens, clock, pace, max_record_bytes: config.max_record_bytes }
    }
}
