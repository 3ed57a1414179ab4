//! The contract of [`ArchiveStore`].
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use auditlake::archive::{ArchiveError, ArchiveStore, Listed, LocalArchive, MemoryArchive, Put, Stat};
use auditlake::digest::Digest;
use auditlake::encode::Pieces;
use bytes::Bytes;
use tokio::task::JoinSet;

/// All that every archive keeps to. `store` is empty.
pub(crate) async fn keeps_the_contract(store: Arc<dyn ArchiveStore>) {
    an_empty_archive_lists_and_gives_nothing(&*store).await;
    an_object_is_put_once_and_never_changed(&*store).await;
    a_listing_is_sorted_by_whole_keys_and_takes_any_prefix(&*store).await;
    bodies_of_any_size_come_back_as_they_were(&*store).await;
    what_is_put_in_pieces_stands_whole(&*store).await;
    keys_with_odd_characters_are_kept_as_they_are(&*store).await;
    what_is_told_of_an_object_is_true(&*store).await;
    the_beginning_of_a_listing_is_that_of_the_whole(&*store).await;
    what_is_no_key_is_refused(&*store).await;
    of_concurrent_puts_of_one_key_exactly_one_creates_it(store).await;
}

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn what_is_put_in_pieces_stands_whole(store: &dyn ArchiveStore) {
    let (none, three) = (Pieces::default(), Pieces::from_iter(["one ", "", "object"].map(body)));
    for (key, pieces, whole) in [("pieces/none", none, ""), ("pieces/three", three, "one object")] {
        assert_eq!(store.put_pieces_if_absent(key, &pieces).await.unwrap(), Put::Created);
        assert_eq!(store.put_pieces_if_absent(key, &Pieces::from(body("other"))).await.unwrap(), Put::Exists);
        assert_eq!(store.get(key).await.unwrap(), Some(body(whole)));
    }
}

async fn keys(store: &dyn ArchiveStore, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|object| object.key).collect()
}

async fn an_empty_archive_lists_and_gives_nothing(store: &dyn ArchiveStore) {
    assert_eq!(store.list("").await.unwrap(), []);
    assert_eq!(store.list("events/").await.unwrap(), []);
    assert_eq!(store.get("events/dt=2026-11-21/a").await.unwrap(), None);
}

async fn an_object_is_put_once_and_never_changed(store: &dyn ArchiveStore) {
    assert_eq!(store.put_if_absent("once/a", body("first")).await.unwrap(), Put::Created);
    assert_eq!(store.put_if_absent("once/a", body("second")).await.unwrap(), Put::Exists);
    assert_eq!(store.put_if_absent("once/a", body("first")).await.unwrap(), Put::Exists);
    assert_eq!(store.get("once/a").await.unwrap(), Some(body("first")));
    assert_eq!(store.get("once/b").await.unwrap(), None);
    assert_eq!(store.get("once").await.unwrap(), None, "a folder is no object");
    assert_eq!(store.get("once/a/b").await.unwrap(), None, "there is nothing below an object");
    assert_eq!(store.list("once/").await.unwrap(), [Listed { key: "once/a".to_owned(), bytes: 5 }]);
}

async fn a_listing_is_sorted_by_whole_keys_and_takes_any_prefix(store: &dyn ArchiveStore) {
    for key in ["l/b/2", "l/b-1", "l/b/1", "l/a/x/y/z", "l/b.1", "lb"] {
        store.put_if_absent(key, body(key)).await.unwrap();
    }
    assert_eq!(keys(store, "l/").await, ["l/a/x/y/z", "l/b-1", "l/b.1", "l/b/1", "l/b/2"]);
    assert_eq!(keys(store, "l").await, ["l/a/x/y/z", "l/b-1", "l/b.1", "l/b/1", "l/b/2", "lb"]);
    assert_eq!(keys(store, "l/b").await, ["l/b-1", "l/b.1", "l/b/1", "l/b/2"]);
    assert_eq!(keys(store, "l/b/").await, ["l/b/1", "l/b/2"]);
    assert_eq!(keys(store, "l/b/1").await, ["l/b/1"]);
    assert_eq!(keys(store, "l/a/x/").await, ["l/a/x/y/z"]);
    assert_eq!(keys(store, "l/c").await, [""; 0]);
    assert_eq!(keys(store, "l/b/1/").await, [""; 0]);
    assert!(keys(store, "").await.is_sorted());
}

async fn bodies_of_any_size_come_back_as_they_were(store: &dyn ArchiveStore) {
    for (key, size) in [("size/empty", 0), ("size/one", 1), ("size/large", 10 << 20)] {
        let body: Bytes = (0..size).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(store.put_if_absent(key, body.clone()).await.unwrap(), Put::Created);
        assert!(store.get(key).await.unwrap().unwrap() == body, "{key}");
        assert_eq!(store.list(key).await.unwrap(), [Listed { key: key.to_owned(), bytes: u64::from(size) }]);
    }
}

async fn keys_with_odd_characters_are_kept_as_they_are(store: &dyn ArchiveStore) {
    let odd =
        ["odd/dt=2026-11-21/a%2Fb", "odd/sp ace/+&?#", "odd/\u{e9}\u{1f980}", "odd/'\"\\", "odd/..a", "odd/.hidden"];
    for key in odd {
        assert_eq!(store.put_if_absent(key, body(key)).await.unwrap(), Put::Created, "{key}");
        assert_eq!(store.get(key).await.unwrap(), Some(body(key)), "{key}");
    }
    let mut sorted = odd;
    sorted.sort_unstable();
    assert_eq!(keys(store, "odd/").await, sorted);
}

async fn what_is_told_of_an_object_is_true(store: &dyn ArchiveStore) {
    assert_eq!(store.stat("stat/a").await.unwrap(), None);
    for text in ["", "body"] {
        let key = format!("stat/a{text}");
        store.put_if_absent(&key, body(text)).await.unwrap();
        let Stat { bytes, sha256 } = store.stat(&key).await.unwrap().unwrap();
        assert_eq!(bytes, text.len() as u64);
        assert!(sha256.is_none_or(|sha256| sha256 == Digest::of(text.as_bytes())), "a digest is of the whole object");
    }
    assert_eq!(store.stat("stat").await.unwrap(), None, "a folder is no object");
    assert_eq!(store.stat("stat/a/b").await.unwrap(), None, "there is nothing below an object");
}

async fn the_beginning_of_a_listing_is_that_of_the_whole(store: &dyn ArchiveStore) {
    let whole = store.list("l/").await.unwrap();
    assert!(whole.len() > 2);
    for at_most in [0, 1, 2, whole.len(), whole.len() + 1] {
        let some = store.list_some("l/", at_most).await.unwrap();
        assert_eq!(some, whole[..at_most.min(whole.len())]);
    }
}

async fn what_is_no_key_is_refused(store: &dyn ArchiveStore) {
    for key in ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", "./a", "a/.", ".tmp/a", "nul\0"] {
        let refused = |error: &ArchiveError| matches!(error, ArchiveError::Refused { .. });
        assert!(store.put_if_absent(key, body("x")).await.is_err_and(|e| refused(&e)), "{key:?}");
        assert!(store.get(key).await.is_err_and(|e| refused(&e)), "{key:?}");
        assert!(store.stat(key).await.is_err_and(|e| refused(&e)), "{key:?}");
    }
    for prefix in ["/", "../", "a/../", "a//", ".tmp/"] {
        assert!(store.list(prefix).await.is_err(), "{prefix:?}");
    }
}

async fn of_concurrent_puts_of_one_key_exactly_one_creates_it(store: Arc<dyn ArchiveStore>) {
    for round in 0..10 {
        let key = format!("race/{round}/deep/er");
        let mut puts = JoinSet::new();
        for writer in 0..8 {
            let (store, key) = (Arc::clone(&store), key.clone());
            puts.spawn(
                async move { (writer, store.put_if_absent(&key, body(&format!("by {writer}"))).await.unwrap()) },
            );
        }
        let winners: Vec<_> = puts.join_all().await.into_iter().filter(|(_, put)| *put == Put::Created).collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(store.get(&key).await.unwrap(), Some(body(&format!("by {}", winners[0].0))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    keeps_the_contract(Arc::new(MemoryArchive::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    keeps_the_contract(Arc::new(LocalArchive::open(root.path()).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_archive_is_the_same_for_another_process() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (LocalArchive::open(root.path()).unwrap(), LocalArchive::open(root.path()).unwrap());
    assert_eq!(one.put_if_absent("a/b", body("one")).await.unwrap(), Put::Created);
    assert_eq!(two.put_if_absent("a/b", body("two")).await.unwrap(), Put::Exists);
    assert_eq!(two.get("a/b").await.unwrap(), Some(body("one")));
}

/// Runs `body` in a child process that has a tmpfs of its own with these mount options, and gives it the place.
///
/// The mount is the child's alone, so that nothing stays behind however the test ends. It takes root, or the right to
/// make user namespaces; where there is neither the test fails and says so, since a disk that is full can't be had
/// otherwise.
fn on_a_tmpfs(test: &str, mount: &str, body: impl AsyncFnOnce(&Path)) {
    on_a_tmpfs_as("", test, mount, body);
}

/// The same, by way of a command that starts the test as another.
fn on_a_tmpfs_as(wrapper: &str, test: &str, mount: &str, body: impl AsyncFnOnce(&Path)) {
    const PLACE: &str = "AUDITLAKE_TEST_TMPFS";
    if let Some(place) = std::env::var_os(PLACE) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(body(Path::new(&place)));
    }
    let place = tempfile::tempdir().unwrap();
    let run = |user_namespace: &[&str]| {
        Command::new("unshare")
            .args(user_namespace)
            .args([
                "--mount",
                "--",
                "sh",
                "-c",
                &format!("{mount} && exec {wrapper} \"$0\" --exact \"$1\" --nocapture"),
            ])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env(PLACE, place.path())
            .output()
            .expect("this test needs unshare (util-linux)")
    };
    let mut output = run(&[]);
    if output.stdout.is_empty() {
        output = run(&["--user", "--map-root-user"]);
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && out.contains("1 passed"),
        "{test} did not pass on a tmpfs; it needs root or user namespaces to mount one.\n{out}\n{err}"
    );
}

#[test]
fn a_full_disk_shows_nothing_and_takes_the_object_once_there_is_room() {
    let test = "archive_store::a_full_disk_shows_nothing_and_takes_the_object_once_there_is_room";
    let mount = "mount -t tmpfs -o size=256k tmpfs \"$AUDITLAKE_TEST_TMPFS\"";
    on_a_tmpfs(test, mount, async |root| {
        let store = LocalArchive::open(root).unwrap();
        let half = Bytes::from(vec![7; 150 << 10]);
        assert_eq!(store.put_if_absent("a/first", half.clone()).await.unwrap(), Put::Created);

        let full = store.put_if_absent("a/second", half.clone()).await.unwrap_err();
        assert!(matches!(&full, ArchiveError::OutOfSpace { key } if key == "a/second"), "{full:?}");
        assert_eq!(store.get("a/second").await.unwrap(), None);
        assert_eq!(keys(&store, "").await, ["a/first"]);
        assert_eq!(std::fs::read_dir(root.join(".tmp")).unwrap().count(), 0, "the room it took is given back");
        assert_eq!(store.put_if_absent("a/small", body("fits")).await.unwrap(), Put::Created);

        std::fs::remove_file(root.join("a/first")).unwrap();
        assert_eq!(store.put_if_absent("a/second", half.clone()).await.unwrap(), Put::Created);
        assert_eq!(store.get("a/second").await.unwrap(), Some(half));
    });
}

#[test]
fn a_disk_without_inodes_is_out_of_space_too() {
    let test = "archive_store::a_disk_without_inodes_is_out_of_space_too";
    // The root, `.tmp`, `a` and the object need four.
    let mount = "mount -t tmpfs -o size=256k,nr_inodes=3 tmpfs \"$AUDITLAKE_TEST_TMPFS\"";
    on_a_tmpfs(test, mount, async |root| {
        let store = LocalArchive::open(root).unwrap();
        let full = store.put_if_absent("a/object", body("x")).await.unwrap_err();
        assert!(matches!(full, ArchiveError::OutOfSpace { .. }), "{full:?}");
        assert_eq!(keys(&store, "").await, [""; 0]);
    });
}

#[test]
fn a_disk_mounted_for_reading_can_be_read_and_refuses_to_be_written() {
    let test = "archive_store::a_disk_mounted_for_reading_can_be_read_and_refuses_to_be_written";
    let place = "\"$AUDITLAKE_TEST_TMPFS\"";
    let mount = format!("mount -t tmpfs tmpfs {place} && echo -n x >{place}/a && mount -o remount,ro {place}");
    on_a_tmpfs(test, &mount, async |root| {
        let store = LocalArchive::open(root).unwrap();
        assert_eq!(store.get("a").await.unwrap(), Some(body("x")));
        let refused = store.put_if_absent("events/b", body("x")).await.unwrap_err();
        assert!(matches!(refused, ArchiveError::Refused { .. }), "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains("events") && said.contains("remount the disk for writing"), "{said}");
    });
}

#[test]
fn a_folder_without_permission_is_refused_with_its_path_and_what_to_do() {
    let test = "archive_store::a_folder_without_permission_is_refused_with_its_path_and_what_to_do";
    let place = "\"$AUDITLAKE_TEST_TMPFS\"";
    let mount = format!("mount -t tmpfs tmpfs {place} && mkdir -m 555 {place}/events");
    // Root may write anywhere, so the test gives that right away.
    let powerless = "setpriv --bounding-set=-all --inh-caps=-all";
    on_a_tmpfs_as(powerless, test, &mount, async |root| {
        let store = LocalArchive::open(root).unwrap();
        let refused = store.put_if_absent("events/dt=1/b", body("x")).await.unwrap_err();
        assert!(matches!(refused, ArchiveError::Refused { .. }), "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains("events/dt=1: ") && said.contains("let the user that runs auditlake"), "{said}");
        assert_eq!(store.put_if_absent("rejected/b", body("x")).await.unwrap(), Put::Created);
    });
}
