//! Process entry: parse the command line, call `cli::run`, turn the result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubewitness::cli::run()
}
