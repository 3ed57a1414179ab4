//! `--fast`: what the store tells of each object, held against its manifest. No object is read.

use futures_util::stream::{self, StreamExt as _};

use super::inventory::{Job, other_size};
use super::report::{Kind, Report};
use crate::archive::manifest::ManifestObject;
use crate::archive::{ArchiveError, ArchiveStore, Stat};

/// Questions under way at once.
const AT_ONCE: usize = 32;

/// What an object was compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The SHA-256 that the store worked out when the object came, and its size.
    Checksum,
    /// The size alone: the store keeps no digest of the whole object.
    Size,
}

/// Compares the objects of the `wanted` jobs, and writes into the report what comes of it; `done` is told of each.
pub(super) async fn compare_all(
    store: &dyn ArchiveStore,
    jobs: &[Job],
    wanted: Vec<usize>,
    report: &mut Report,
    done: &mut dyn FnMut(usize),
) -> Result<(), ArchiveError> {
    let ask = |number: usize| async move { (number, store.stat(&jobs[number].object.key).await) };
    let mut answers = stream::iter(wanted).map(ask).buffered(AT_ONCE);
    while let Some((number, stat)) = answers.next().await {
        let job = &jobs[number];
        match compare(&job.object, stat?) {
            Ok(By::Checksum) => report.by_checksum += 1,
            Ok(By::Size) => report.by_size_only += 1,
            Err((kind, detail)) => report.findings.push(job.finding(kind, detail)),
        }
        done(number);
    }
    Ok(())
}

fn compare(object: &ManifestObject, stat: Option<Stat>) -> Result<By, (Kind, String)> {
    let Some(stat) = stat else {
        let detail = "its manifest lists it; it was there when the archive was listed, and is gone".to_owned();
        return Err((Kind::MissingObject, detail));
    };
    if stat.bytes != object.bytes {
        return Err((Kind::AlteredObject, other_size(stat.bytes, object)));
    }
    match stat.sha256 {
        None => Ok(By::Size),
        Some(sha256) if sha256 == object.sha256 => Ok(By::Checksum),
        Some(sha256) => {
            let detail = format!("the store says that its SHA-256 is {sha256}, its manifest says {}", object.sha256);
            Err((Kind::AlteredObject, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::ObjectKind;
    use crate::digest::Digest;

    #[test]
    fn an_object_is_held_against_all_that_the_store_tells_of_it() {
        let sha256 = Digest::of(b"body");
        let key = "events/a".to_owned();
        let kind = ObjectKind::Events;
        let object = ManifestObject { key, kind, rows: 1, bytes: 4, sha256, min_emit_time: None, max_emit_time: None };
        let stat = |bytes, sha256| compare(&object, Some(Stat { bytes, sha256 })).map_err(|(kind, _)| kind);
        assert_eq!(stat(4, Some(sha256)), Ok(By::Checksum));
        assert_eq!(stat(4, None), Ok(By::Size));
        assert_eq!(stat(5, Some(sha256)), Err(Kind::AlteredObject));
        assert_eq!(stat(4, Some(Digest::of(b"ydob"))), Err(Kind::AlteredObject));
        assert_eq!(compare(&object, None).unwrap_err().0, Kind::MissingObject);
    }
}
