//! The one binary: services, quickstart and client commands.

use std::process::ExitCode;

use clap::Parser as _;
use pavior::cli::{args::Cli, failure, run};

/// The hidden subcommand under which workloads are started: it must come before anything else is set up.
const SHIM: &str = "__shim";

fn main() -> ExitCode {
    pavior_runtime::process::keep_files_private();
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == SHIM) {
        return pavior_drivers::shim::main(arguments.collect());
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("error: another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", failure::describe(&error));
            ExitCode::from(failure::exit_of(&error).code())
        }
    }
}
