//! What is tried out before anything depends on it.

use auditlake::archive::identity;
use auditlake::archive::s3::{Probe, S3Options};
use auditlake_test_servers::{Answer, aws as servers};

use super::{Bucket, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_bucket_passes_every_probe_again_and_again() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    for _ in 0..2 {
        for probe in Probe::ALL {
            archive.probe(probe).await.unwrap();
        }
    }
    assert_eq!(bucket.uploads().await, 0);
    assert!(identity::look(&archive).await.unwrap().is_none(), "what the probes put keeps no archive from being made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_notice_of_the_condition_is_refused() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    let deaf = |operation| bucket.proxy.on(operation).edit_request(|request| request.headers.remove("if-none-match"));
    let fault = deaf("PutObject");
    let said = refusal(&archive.probe(Probe::PutOnce).await.unwrap_err());
    assert!(said.contains("takes no notice of `If-None-Match: *` on PutObject and would overwrite"), "{said}");
    fault.heal();
    archive.probe(Probe::PutOnce).await.unwrap();

    deaf("CompleteMultipartUpload");
    let said = refusal(&archive.probe(Probe::PutPartsOnce).await.unwrap_err());
    assert!(said.contains("takes no notice of `If-None-Match: *` on CompleteMultipartUpload"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_probe_names_the_permission_that_is_missing() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    for (probe, operation, permission) in [
        (Probe::List, "ListObjectsV2", "s3:ListBucket"),
        (Probe::Read, "GetObject", "s3:GetObject"),
        (Probe::PutOnce, "PutObject", "s3:PutObject"),
        (Probe::PutPartsOnce, "UploadPart", "s3:PutObject"),
        (Probe::PutPartsOnce, "AbortMultipartUpload", "s3:AbortMultipartUpload"),
    ] {
        archive.probe(Probe::PutOnce).await.unwrap();
        let fault = bucket.proxy.on(operation).answer(Answer::s3_access_denied());
        let said = refusal(&archive.probe(probe).await.unwrap_err());
        assert!(said.contains(&format!("allow {permission} on arn:aws:s3:::{}", bucket.name)), "{said}");
        fault.heal();
    }
    let nowhere = S3Options { bucket: servers::unique_name("nowhere"), ..bucket.options() };
    let said = refusal(&bucket.archive_with(nowhere).probe(Probe::List).await.unwrap_err());
    assert!(said.contains("there is no bucket `nowhere-"), "{said}");
}
