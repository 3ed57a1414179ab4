//! The command `auditlake`.

use std::process::ExitCode;

/// The system's allocator keeps an arena a thread, and what one thread frees another can't use: a shard's task that moves
/// between two threads took up to half as much memory again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    auditlake::cli::main()
}
