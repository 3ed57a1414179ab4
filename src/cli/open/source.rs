//! Opening the source.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use crate::cli::Failure;
use crate::config::Config;
use crate::ops::clock::Clock;
use crate::source::file::{FileOptions, FileSource};

/// The source, if there is anything at its path.
pub(in crate::cli) fn open_source(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<FileSource>, Failure> {
    let Some(path) = config.source.file.path.clone() else {
        return Err(Failure::configuration(anyhow!(
            "source.file.path: is required: the file or directory to archive; is --config missing?"
        )));
    };
    readable(&path).with_context(|| format!("source.file.path: {}", path.display())).map_err(Failure::configuration)?;
    let options = FileOptions {
        path,
        window: config.batch.window.get(),
        settle: config.source.file.settle.get(),
        max_payload_bytes: config.limits.max_payload_bytes.as_u64(),
    };
    Ok(Arc::new(FileSource::new(options, clock)))
}

fn readable(path: &Path) -> std::io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        std::fs::read_dir(path).map(drop)
    } else {
        std::fs::File::open(path).map(drop)
    }
}
