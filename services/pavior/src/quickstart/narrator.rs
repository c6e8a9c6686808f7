//! Tells the story at the terminal, with the time each chapter took.

use std::time::Instant;

/// Prints chapters and what happens in them.
#[derive(Debug)]
pub(crate) struct Narrator {
    started: Instant,
    chapter: u32,
}

impl Narrator {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), chapter: 0 }
    }

    /// Begins a chapter.
    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        println!("\n[{:>5.1}s] {}. {title}", self.started.elapsed().as_secs_f64(), self.chapter);
    }

    /// A name and a value.
    pub(crate) fn fact(&self, name: &str, value: &str) {
        println!("         {name}: {value}");
    }

    /// Something longer, indented.
    pub(crate) fn quote(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("           | {line}");
        }
    }
}
