//! What must not change by accident: files beside these tests say how it is. `UPDATE_GOLDEN=1` rewrites them, so that the
//! review of a change sees what it does to the command line, to authorization, to errors and to drivers.

mod callers;
mod conformance;
mod golden;
mod histograms;
mod matrix;
mod names;
mod recorded;
mod reference;
mod surface;
