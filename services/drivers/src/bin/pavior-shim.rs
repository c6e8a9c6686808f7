//! The shim as a program of its own, for tests; the product reaches it as a hidden subcommand of `pavior`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pavior_drivers::shim::main(std::env::args_os().skip(1).collect())
}
