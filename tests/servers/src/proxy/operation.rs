//! What a request asks for, by the name that the service's documentation gives it.

use super::message::Headers;

/// The name of an operation: from `X-Amz-Target` (Kinesis, `DynamoDB`, Glue), else of S3. What S3 has beyond the listed
/// is named by the method alone.
pub(super) fn operation(method: &str, target: &str, headers: &Headers) -> String {
    if let Some(target) = headers.get("x-amz-target") {
        return target.rsplit('.').next().unwrap_or(target).to_owned();
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let mut segments = path.trim_start_matches('/').splitn(2, '/');
    let has_bucket = segments.next().is_some_and(|bucket| !bucket.is_empty());
    let has_key = segments.next().is_some_and(|key| !key.is_empty());
    let is_copy = headers.get("x-amz-copy-source").is_some();
    let name = match (method, has_bucket, has_key) {
        ("GET", false, _) => "ListBuckets",
        ("GET", true, false) if query.is_empty() || has("list-type") => "ListObjectsV2",
        ("GET", true, false) if has("uploads") => "ListMultipartUploads",
        ("HEAD", true, false) => "HeadBucket",
        ("PUT", true, false) if query.is_empty() => "CreateBucket",
        ("POST", true, false) if has("delete") => "DeleteObjects",
        ("HEAD", true, true) => "HeadObject",
        ("GET", true, true) if has("uploadId") => "ListParts",
        ("GET", true, true) if has("tagging") => "GetObjectTagging",
        ("GET", true, true) => "GetObject",
        ("POST", true, true) if has("uploads") => "CreateMultipartUpload",
        ("POST", true, true) if has("uploadId") => "CompleteMultipartUpload",
        ("PUT", true, true) if has("uploadId") && is_copy => "UploadPartCopy",
        ("PUT", true, true) if has("uploadId") => "UploadPart",
        ("PUT", true, true) if has("tagging") => "PutObjectTagging",
        ("PUT", true, true) if is_copy => "CopyObject",
        ("PUT", true, true) => "PutObject",
        ("DELETE", true, true) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", true, true) => "DeleteObject",
        _ => method,
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_names_of_the_documentation() {
        let none = Headers::default();
        for (method, target, name) in [
            ("GET", "/", "ListBuckets"),
            ("GET", "/b?list-type=2&prefix=a%2F", "ListObjectsV2"),
            ("GET", "/b/?list-type=2", "ListObjectsV2"),
            ("HEAD", "/b", "HeadBucket"),
            ("PUT", "/b", "CreateBucket"),
            ("PUT", "/b/a/b?x-id=PutObject", "PutObject"),
            ("GET", "/b/a/b?x-id=GetObject", "GetObject"),
            ("HEAD", "/b/a", "HeadObject"),
            ("POST", "/b/a?uploads", "CreateMultipartUpload"),
            ("PUT", "/b/a?x-id=UploadPart&partNumber=1&uploadId=u", "UploadPart"),
            ("POST", "/b/a?uploadId=u", "CompleteMultipartUpload"),
            ("DELETE", "/b/a?x-id=AbortMultipartUpload&uploadId=u", "AbortMultipartUpload"),
            ("DELETE", "/b/a?x-id=DeleteObject", "DeleteObject"),
            ("POST", "/b?delete", "DeleteObjects"),
            ("OPTIONS", "/b", "OPTIONS"),
        ] {
            assert_eq!(operation(method, target, &none), name, "{method} {target}");
        }
        let mut kinesis = Headers::default();
        kinesis.add("X-Amz-Target", "Kinesis_20131202.GetRecords");
        assert_eq!(operation("POST", "/", &kinesis), "GetRecords");
    }
}
