use super::*;

fn disk(root: &Path, hard_links: bool) -> Disk {
    Disk { root: root.to_owned(), durable: Mutex::default(), hard_links }
}

fn temps(root: &Path) -> usize {
    fs::read_dir(root.join(TEMP)).unwrap().filter(|e| e.as_ref().unwrap().file_name() != "lock").count()
}

#[test]
fn a_crash_before_the_link_leaves_nothing_visible_and_is_tidied_up() {
    let root = tempfile::tempdir().unwrap();
    let staged = disk(root.path(), true).stage(&[b"half a batch"]).unwrap();
    // A crash runs no destructors and gives up all locks.
    let left = root.path().join(TEMP).join("1-0");
    fs::copy(&staged.path, &left).unwrap();
    drop(staged);

    assert_eq!(temps(root.path()), 1);
    assert!(disk(root.path(), true).list("").unwrap().is_empty());
    LocalArchive::open(root.path()).unwrap();
    assert_eq!(temps(root.path()), 0);
}

#[test]
fn the_file_that_a_living_writer_has_staged_is_spared() {
    let root = tempfile::tempdir().unwrap();
    let writer = disk(root.path(), true);
    let staged = writer.stage(&[b"whole"]).unwrap();
    LocalArchive::open(root.path()).unwrap();
    assert_eq!(writer.publish(&staged, &root.path().join("key")).unwrap(), Put::Created);
}

#[test]
fn an_object_is_never_replaced_with_links_or_without() {
    for hard_links in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let disk = disk(root.path(), hard_links);
        assert_eq!(disk.put("a/b", &[b"first"]).unwrap(), Put::Created, "links: {hard_links}");
        assert_eq!(disk.put("a/b", &[b"second"]).unwrap(), Put::Exists);
        // The link has the last word: whoever looked before the object stood finds it there.
        let late = disk.stage(&[b"late"]).unwrap();
        assert_eq!(disk.publish(&late, &root.path().join("a/b")).unwrap(), Put::Exists);
        drop(late);
        assert_eq!(disk.get("a/b").unwrap().unwrap(), "first");
        assert_eq!(temps(root.path()), 0);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a lock is waited for in real time")]
fn without_links_whoever_comes_second_waits_and_finds_what_the_first_has_put() {
    let root = tempfile::tempdir().unwrap();
    let (second, key) = (disk(root.path(), false), root.path().join("key"));
    let staged = second.stage(&[b"second"]).unwrap();
    let lock = File::create(root.path().join(TEMP).join("lock")).unwrap();
    lock.lock().unwrap();
    let put = std::thread::scope(|threads| {
        let putting = threads.spawn(|| second.publish(&staged, &key).unwrap());
        // The first has looked, and is about to rename.
        std::thread::sleep(std::time::Duration::from_millis(100));
        fs::write(&key, "first").unwrap();
        drop(lock);
        putting.join().unwrap()
    });
    assert_eq!((put, fs::read_to_string(&key).unwrap().as_str()), (Put::Exists, "first"));
}

#[test]
fn what_another_process_of_the_same_number_has_staged_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let disk = disk(root.path(), true);
    drop(disk.stage(&[b""]).unwrap());
    // Other tests of this process take numbers, too.
    let next = TEMP_NUMBER.load(Ordering::Relaxed);
    let taken = (next..next + 100).map(|n| root.path().join(TEMP).join(format!("{}-{n}", std::process::id())));
    let taken: Vec<PathBuf> = taken.collect();
    for path in &taken {
        fs::write(path, "another's").unwrap();
    }
    let staged = disk.stage(&[b"ours"]).unwrap();
    assert!(!taken.contains(&staged.path));
    assert!(taken.iter().all(|path| fs::read_to_string(path).unwrap() == "another's"));
}

#[test]
fn an_object_is_read_only() {
    let root = tempfile::tempdir().unwrap();
    disk(root.path(), true).put("a", &[b"body"]).unwrap();
    assert!(fs::metadata(root.path().join("a")).unwrap().permissions().readonly());
}

#[test]
fn a_link_in_the_archive_is_shown_and_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let disk = disk(root.path(), true);
    disk.put("events/a", &[b"body"]).unwrap();
    std::os::unix::fs::symlink("..", root.path().join("events/loop")).unwrap();
    let keys: Vec<_> = disk.list("").unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(keys, ["events/a", "events/loop"]);
}

#[test]
fn a_disk_that_mkfs_made_is_an_empty_archive() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join(LOST_AND_FOUND)).unwrap();
    fs::write(root.path().join(LOST_AND_FOUND).join("#12"), "").unwrap();
    assert!(disk(root.path(), true).list("").unwrap().is_empty());
}

#[test]
fn opening_and_reading_makes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("archive");
    LocalArchive::open(&root).unwrap();
    assert!(disk(&root, true).list("").unwrap().is_empty());
    assert!(disk(&root, true).get("a").unwrap().is_none());
    assert!(!root.exists());
    assert_eq!(disk(&root, true).put("a", &[b""]).unwrap(), Put::Created);
}

#[test]
fn a_file_in_the_archives_place_is_refused_by_its_path() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("archive");
    fs::write(&root, "").unwrap();
    let error = LocalArchive::open(&root).unwrap_err();
    assert!(error.to_string().contains("archive is not a folder"), "{error}");
}
