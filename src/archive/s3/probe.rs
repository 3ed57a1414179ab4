//! Trying out what a worker will need of the bucket, before anything depends on it.

use super::S3Archive;
use super::put::digest;
use crate::archive::trial::{BODY, refuses_a_second_put};
use crate::archive::{ArchiveError, ArchiveStore as _, Put};
use crate::encode::keys::{ACCESS_TEST_KEY, IDENTITY_KEY};

/// What can be tried out. In this order: each needs what comes before it, and the first two write nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Listing.
    List,
    /// Reading an object, or being told that it is not there.
    Read,
    /// Putting an object, and being refused the second time. A store that takes no notice of `If-None-Match` would
    /// overwrite, and with that the archive's every promise is void.
    PutOnce,
    /// The same of an object in parts, and clearing parts away.
    PutPartsOnce,
}

impl Probe {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::List, Self::Read, Self::PutOnce, Self::PutPartsOnce];

    /// Those that write nothing.
    pub const READING: [Self; 2] = [Self::List, Self::Read];

    /// Those that write.
    pub const WRITING: [Self; 2] = [Self::PutOnce, Self::PutPartsOnce];
}

impl S3Archive {
    /// Tries it out, on the object [`ACCESS_TEST_KEY`].
    ///
    /// # Errors
    /// What is missing, by its name, and what to do about it.
    pub async fn probe(&self, probe: Probe) -> Result<(), ArchiveError> {
        match probe {
            Probe::List => self.list_some("", 1).await.map(drop),
            Probe::Read => self.get(IDENTITY_KEY).await.map(drop),
            Probe::PutOnce => self.probe_put().await,
            Probe::PutPartsOnce => self.patiently(|| self.probe_parts()).await,
        }
    }

    async fn probe_put(&self) -> Result<(), ArchiveError> {
        if refuses_a_second_put(self, ACCESS_TEST_KEY).await? { Ok(()) } else { Err(self.overwrites("PutObject")) }
    }

    async fn probe_parts(&self) -> Result<(), ArchiveError> {
        let body = BODY;
        let upload = self.begin(ACCESS_TEST_KEY, digest(ACCESS_TEST_KEY, &body).await?).await?;
        let put = self.send(ACCESS_TEST_KEY, &upload, &body).await;
        let aborted = self.patiently(|| self.abort(ACCESS_TEST_KEY, &upload)).await;
        match put? {
            Put::Exists => aborted,
            Put::Created => Err(self.overwrites("CompleteMultipartUpload")),
        }
    }

    fn overwrites(&self, call: &str) -> ArchiveError {
        let reason = format!(
            "{} takes no notice of `If-None-Match: *` on {call} and would overwrite objects; an archive that promises to \
             change nothing can't be kept there: use a store that has conditional writes",
            self.place()
        );
        ArchiveError::Refused { key: ACCESS_TEST_KEY.to_owned(), reason }
    }
}
