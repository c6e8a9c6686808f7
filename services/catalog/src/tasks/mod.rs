//! Background work.

mod answer_sweeper;
mod outbox_relay;

pub(crate) use answer_sweeper::answer_sweeper;
pub(crate) use outbox_relay::outbox_relay;
