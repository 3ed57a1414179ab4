//! What may befall a call on its way to the bucket and back, and what the bucket may say.

use std::time::Duration;

use auditlake::archive::s3::S3Options;
use auditlake::archive::{ArchiveError, ArchiveStore as _, Put};
use auditlake::ops::retry::RetryPolicy;
use auditlake_test_servers::Answer;
use bytes::Bytes;

use super::{Bucket, body, large, refusal};

/// What may befall any call and passes.
fn passing() -> Vec<(&'static str, Answer)> {
    vec![
        ("SlowDown", Answer::s3_slow_down()),
        ("InternalError", Answer::s3(500, "InternalError")),
        ("a gateway's 502", Answer::new(502).body("<html>Bad Gateway</html>")),
        ("a gateway's 504", Answer::new(504)),
        ("RequestTimeout", Answer::s3(400, "RequestTimeout")),
        ("expired credentials", Answer::s3(400, "ExpiredToken")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again_in_every_call() {
    let bucket = Bucket::new().await;
    let archive = bucket.parts();
    for (number, (what, answer)) in passing().into_iter().enumerate() {
        for operation in ["PutObject", "GetObject", "HeadObject", "ListObjectsV2", "UploadPart"] {
            bucket.proxy.on(operation).next(2).answer(answer.clone());
        }
        for operation in ["CreateMultipartUpload", "CompleteMultipartUpload"] {
            bucket.proxy.on(operation).next(1).answer(answer.clone());
        }
        let (small, parts) = (format!("small/{number}"), format!("parts/{number}"));
        assert_eq!(archive.put_if_absent(&small, body(&small)).await.unwrap(), Put::Created, "{what}");
        assert_eq!(archive.get(&small).await.unwrap(), Some(body(&small)), "{what}");
        assert_eq!(archive.stat(&small).await.unwrap().unwrap().bytes, 7, "{what}");
        assert_eq!(archive.list(&small).await.unwrap().len(), 1, "{what}");
        assert_eq!(archive.put_if_absent(&parts, large()).await.unwrap(), Put::Created, "{what}");
        assert!(archive.get(&parts).await.unwrap().unwrap() == large(), "{what}");
        bucket.proxy.heal();
    }
    assert_eq!(bucket.uploads().await, 0, "uploads that came to nothing were cleared away");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_soon_is_left_to_the_caller_to_try_again() {
    let bucket = Bucket::new().await;
    let archive = bucket.impatient();
    archive.put_if_absent("a", body("x")).await.unwrap();
    bucket.proxy.on_any().answer(Answer::s3_slow_down());
    let errors = [
        archive.put_if_absent("b", body("x")).await.unwrap_err(),
        archive.get("a").await.unwrap_err(),
        archive.stat("a").await.unwrap_err(),
        archive.list("").await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.may_pass() && matches!(error, ArchiveError::Unavailable { .. }), "{error:?}");
    }
    bucket.proxy.heal();
    assert_eq!(archive.put_if_absent("b", body("x")).await.unwrap(), Put::Created);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_resets_and_silence_end_in_one_object() {
    let bucket = Bucket::new().await;
    let archive = bucket.parts();
    bucket.proxy.on("PutObject").next(1).cut();
    assert_eq!(archive.put_if_absent("cut", body("cut")).await.unwrap(), Put::Created);

    // It took effect, and nobody was told: what is found standing is looked at by whoever put it.
    bucket.proxy.on("PutObject").next(1).lose_answer();
    assert_eq!(archive.put_if_absent("lost", body("lost")).await.unwrap(), Put::Exists);
    assert_eq!(archive.get("lost").await.unwrap(), Some(body("lost")));

    // Whoever completes an upload that is complete may be told so again, or that an object stands: either is true.
    let lost = bucket.proxy.on("CompleteMultipartUpload").next(1).lose_answer();
    archive.put_if_absent("parts", large()).await.unwrap();
    assert_eq!(lost.hits(), 1);
    assert_eq!(archive.put_if_absent("parts", body("another")).await.unwrap(), Put::Exists);
    assert!(archive.get("parts").await.unwrap().unwrap() == large());

    // Longer than a call may take.
    bucket.proxy.on("PutObject").next(1).delay_answer(Duration::from_secs(4));
    assert_eq!(archive.put_if_absent("slow", body("slow")).await.unwrap(), Put::Exists);
    bucket.proxy.on("GetObject").next(1).hang();
    assert_eq!(archive.get("slow").await.unwrap(), Some(body("slow")));
    assert_eq!(bucket.uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_read_again_and_never_taken_for_whole() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    archive.put_if_absent("a", large()).await.unwrap();
    bucket.proxy.on("GetObject").next(2).cut_answer_after(1 << 20);
    assert!(archive.get("a").await.unwrap().unwrap() == large());

    bucket.proxy.on("GetObject").cut_answer_after(1 << 20);
    let error = bucket.impatient().get("a").await.unwrap_err();
    assert!(matches!(error, ArchiveError::Unavailable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_changed_on_its_way_is_noticed_in_both_directions() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    let flip = |body: &mut Bytes| {
        let mut bytes = body.to_vec();
        bytes[2] ^= 1;
        *body = bytes.into();
    };
    bucket.proxy.on("PutObject").next(1).edit_request(move |request| flip(&mut request.body));
    assert_eq!(archive.put_if_absent("a", body("sound")).await.unwrap(), Put::Created);
    assert_eq!(bucket.proxy.count("PutObject"), 2, "the store refused the first");

    bucket.proxy.on("GetObject").next(1).edit_answer(move |answer| flip(&mut answer.body));
    assert_eq!(archive.get("a").await.unwrap(), Some(body("sound")));
    assert_eq!(bucket.proxy.count("GetObject"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_an_answer_of_200_is_a_failure_and_tried_again() {
    let bucket = Bucket::new().await;
    let archive = bucket.parts();
    for (key, answer) in [
        ("internal", Answer::s3_error_in_200()),
        ("slow", Answer::s3(200, "SlowDown")),
        ("unknown", Answer::s3(200, "SomethingNew")),
    ] {
        let fault = bucket.proxy.on("CompleteMultipartUpload").next(1).answer(answer);
        assert_eq!(archive.put_if_absent(key, large()).await.unwrap(), Put::Created, "{key}");
        assert_eq!(fault.hits(), 1);
        assert!(archive.get(key).await.unwrap().unwrap() == large(), "{key}");
    }
    bucket.proxy.on("CompleteMultipartUpload").answer(Answer::s3_error_in_200());
    let options = S3Options { multipart_above: 0, ..bucket.options() };
    let retry = RetryPolicy { give_up_after: Some(Duration::ZERO) };
    let error =
        bucket.archive_with(S3Options { retry, ..options }).put_if_absent("never", body("x")).await.unwrap_err();
    assert!(error.may_pass(), "{error:?}");
    assert_eq!(archive.get("never").await.unwrap(), None);
    assert_eq!(bucket.uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_tried_again_and_is_no_proof_that_an_object_stands() {
    let bucket = Bucket::new().await;
    let archive = bucket.parts();
    bucket.proxy.on("PutObject").next(2).answer(Answer::s3_conflict());
    bucket.proxy.on("CompleteMultipartUpload").next(1).answer(Answer::s3_conflict());
    assert_eq!(archive.put_if_absent("a", body("x")).await.unwrap(), Put::Created);
    assert_eq!(archive.put_if_absent("b", large()).await.unwrap(), Put::Created);
    assert_eq!(bucket.proxy.count("CreateMultipartUpload"), 2, "an upload that met a conflict is begun anew");
    assert_eq!(bucket.uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_refused_at_once_with_what_is_wrong_and_what_to_do() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    let (name, objects) = (&bucket.name, format!("arn:aws:s3:::{}/audit/logs/*", bucket.name));
    let whole = [
        (Answer::s3(404, "NoSuchBucket"), format!("there is no bucket `{name}` there")),
        (Answer::s3(403, "InvalidAccessKeyId"), "the credentials are not known there".into()),
        (Answer::s3(403, "SignatureDoesNotMatch"), "the credentials are not known there".into()),
        (
            Answer::s3(301, "PermanentRedirect").header("x-amz-bucket-region", "eu-west-3"),
            "the bucket's region is `eu-west-3`: correct archive.s3.region".into(),
        ),
        (Answer::s3(400, "AuthorizationHeaderMalformed"), "correct archive.s3.region".into()),
    ];
    let one = [
        (Answer::s3_access_denied(), format!("allow s3:PutObject on {objects}")),
        (Answer::s3(400, "KMS.DisabledException"), "see to the key of archive.s3.kms_key_id".into()),
        (Answer::s3(400, "InvalidStorageClass"), "correct archive.s3.storage_class".into()),
        (Answer::s3(400, "InvalidRequest"), "said by the fault proxy (HTTP 400)".into()),
        (Answer::s3(501, "NotImplemented"), "the store does not know what is asked of it".into()),
    ];
    let whole = whole.map(|(answer, expected)| (answer, expected, "the archive is out of reach: s3://"));
    let one = one.map(|(answer, expected)| (answer, expected, "the archive refuses events/a: s3://"));
    for (answer, expected, begins) in whole.into_iter().chain(one) {
        let fault = bucket.proxy.on("PutObject").answer(answer);
        let said = refusal(&archive.put_if_absent("events/a", body("x")).await.unwrap_err());
        assert_eq!(fault.hits(), 1, "no second try: {said}");
        assert!(said.starts_with(begins) && said.contains(&expected), "{said}");
        fault.heal();
    }
    bucket.proxy.on_any().answer(Answer::new(403));
    let said = refusal(&archive.stat("events/a").await.unwrap_err());
    assert!(said.contains(&format!("allow s3:GetObject on {objects}")), "{said}");
    let said = refusal(&archive.list("events/").await.unwrap_err());
    assert!(said.contains(&format!("allow s3:ListBucket on arn:aws:s3:::{name}")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_told_from_one_that_refuses() {
    let bucket = Bucket::new().await;
    bucket.proxy.on("PutObject").answer(Answer::s3(507, "XMinioStorageFull"));
    let error = bucket.impatient().put_if_absent("a", body("x")).await.unwrap_err();
    assert!(matches!(error, ArchiveError::OutOfSpace { .. }), "{error:?}");
}
