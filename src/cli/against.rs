//! `--against`: the report of an earlier proof, kept where the archive's writers have no access.

use std::path::PathBuf;

use anyhow::Context as _;
use uuid::Uuid;

use super::Failure;
use crate::verify::Kept;

#[derive(clap::Args)]
pub(super) struct Against {
    /// Compares the archive with what an earlier `verify --json` printed, kept elsewhere: every chain must still go through
    /// where it ended then.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

impl Against {
    /// The report, which must be this archive's.
    pub(super) fn read(&self, archive_id: Uuid) -> Result<Option<Kept>, Failure> {
        let Some(path) = &self.against else { return Ok(None) };
        let kept = || -> anyhow::Result<Kept> { Ok(Kept::parse(&std::fs::read(path)?, archive_id)?) };
        kept().with_context(|| format!("--against {}", path.display())).map(Some).map_err(Failure::configuration)
    }
}
