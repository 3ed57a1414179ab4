//! The command `auditlake`.

use std::process::ExitCode;

fn main() -> ExitCode {
    auditlake::cli::main()
}
