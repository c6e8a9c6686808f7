//! Background work.

mod answer_sweeper;

pub(crate) use answer_sweeper::answer_sweeper;
