//! `rebuild-state`: leases, checkpoints and claims from the archive alone.

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use super::open::{claim_options, open_state, read_archive, remake_claims, state_failure};
use super::{Failure, Reporting, block_on, output};
use crate::lease::LeaseStore as _;
use crate::lease::embedded::EmbeddedLeases;
use crate::ops::clock::{Clock, SystemClock};
use crate::verify::rebuild;

#[derive(Serialize)]
struct Rebuilt {
    shards: u64,
    objects: u64,
    claims: u64,
    /// Records without `log_id` whose raw text the archive does not keep: a copy of one would be archived again.
    unclaimable: u64,
}

pub(super) fn run(reporting: &Reporting) -> Result<ExitCode, Failure> {
    let config = reporting.load()?;
    crate::ops::telemetry::start("info");
    let rebuilt = block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let (archive, archive_id) = read_archive(&config, clock.clone()).await?;
        // The lock of the state directory is what says that no worker holds a lease.
        let state = open_state(&config)?;
        state.bind(archive_id).map_err(state_failure)?;
        let rows = rebuild::lease_rows(archive.as_ref(), archive_id).await?;
        let now = clock.now();
        let done = remake_claims(&state, claim_options(&config), archive.as_ref(), archive_id, now).await?;
        state.forget_leases()?;
        let leases = EmbeddedLeases::open(state.leases())?;
        for row in &rows {
            leases.create(row).await?;
        }
        Ok(Rebuilt {
            shards: rows.len() as u64,
            objects: done.objects,
            claims: done.records,
            unclaimable: done.unclaimable,
        })
    })?;
    reporting.print(&rebuilt, Rebuilt::render)?;
    Ok(ExitCode::SUCCESS)
}

impl Rebuilt {
    fn render(&self) -> String {
        let [shards, objects, claims, unclaimable] =
            [self.shards, self.objects, self.claims, self.unclaimable].map(output::thousands);
        format!(
            "state made anew: {shards} shards, {claims} claims from {objects} objects, {unclaimable} records that could \
             not claim"
        )
    }
}
