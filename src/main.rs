//! The command `auditlake`.

use std::process::ExitCode;

/// What one thread decodes another frees: the system's allocator waits at locks for that. `.cargo/config.toml` has the settings of this one.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    auditlake::cli::main()
}
