//! Each kind of damage, done to a real archive by somebody who knows how to hide it, is reported under its name.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Plan, Workspace, digest, read_json};

const SHARD: &str = "part-0.ndjson";

/// An archive of one shard and some batches, to be damaged.
struct Victim(Workspace);

impl Victim {
    fn new() -> Self {
        let mut workspace = Workspace::new();
        workspace.set("batch.max_records", "200").set("archive.partition_by", "[]");
        Plan { seed: 40, lines: 1_000, files: 1, pad: 0 }.corpus().write_to(&workspace.input());
        workspace.catch_up();
        workspace.verify();
        assert_eq!(workspace.manifests(), 5);
        Self(workspace)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.archive().join(key)
    }

    /// Objects are read-only files: whoever changes one puts another in its place.
    fn replace(&self, key: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(key);
        let _ = fs::remove_file(&path);
        fs::write(path, bytes).unwrap();
    }

    fn manifest_key(number: u64) -> String {
        format!("_manifests/{SHARD}/{number:08}.json")
    }

    fn manifest(&self, number: u64) -> Value {
        read_json(&self.path(&Self::manifest_key(number)))
    }

    /// The key of a batch's events.
    fn events(&self, number: u64) -> String {
        let manifest = self.manifest(number);
        let mut objects = manifest["objects"].as_array().unwrap().iter();
        objects.find(|object| object["kind"] == "events").unwrap()["key"].as_str().unwrap().to_owned()
    }

    fn last(&self) -> u64 {
        self.0.manifests() as u64 - 1
    }

    /// Changes a manifest, and nothing else.
    fn edit(&self, number: u64, change: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest(number);
        change(&mut manifest);
        self.replace(&Self::manifest_key(number), serde_json::to_vec_pretty(&manifest).unwrap());
    }

    /// Makes the chain whole again from a manifest on, up to the lease row.
    fn rehash(&self, from: u64) {
        let digest_of = |number| digest(&fs::read(self.path(&Self::manifest_key(number))).unwrap());
        for number in from.max(1)..=self.last() {
            self.edit(number, |manifest| manifest["previous"] = json!(digest_of(number - 1)));
        }
        let path = self.0.state().join(format!("leases/{SHARD}.json"));
        let mut row = read_json(&path);
        row["chain_head"] = json!(digest_of(self.last()));
        row["batch_seq"] = json!(self.last() + 1);
        fs::write(path, serde_json::to_vec_pretty(&row).unwrap()).unwrap();
    }

    /// Gives an object other lines, and its manifest the digest and size of them.
    fn rewrite_rows(&self, number: u64, change: impl FnOnce(&mut Vec<String>)) {
        let key = self.events(number);
        let mut lines: Vec<String> = fs::read_to_string(self.path(&key)).unwrap().lines().map(str::to_owned).collect();
        change(&mut lines);
        let text = lines.join("\n") + "\n";
        self.replace(&key, &text);
        self.edit(number, |manifest| {
            let objects = manifest["objects"].as_array_mut().unwrap();
            let object = objects.iter_mut().find(|object| object["key"] == key.as_str()).unwrap();
            object["sha256"] = json!(digest(text.as_bytes()));
            object["bytes"] = json!(text.len());
        });
    }

    /// `verify` reports this and nothing else.
    #[track_caller]
    fn expect(&self, kind: &str, key: &str, words: &str) {
        let done = self.0.run(&["verify", "--json"]);
        let report = done.json();
        let findings = report["findings"].as_array().unwrap();
        let [finding] = &findings[..] else { panic!("not one finding: {report:#}") };
        assert_eq!((finding["kind"].as_str(), finding["key"].as_str()), (Some(kind), Some(key)), "{finding:#}");
        assert!(finding["detail"].as_str().unwrap().contains(words), "{finding:#}");
        assert_eq!(done.code, Some(1));
        let text = self.0.run(&["verify"]).expect(1).stdout;
        assert!(text.contains(&format!("{kind:<17} {key}\n")) && text.ends_with("DAMAGED: 1 finding\n"), "{text}");
    }
}

#[test]
fn an_untouched_archive_gives_no_finding() {
    let text = Victim::new().0.run(&["verify"]).expect(0).stdout;
    assert!(text.ends_with("no damage found\n"), "{text}");
}

#[test]
fn an_object_that_was_taken_away() {
    let victim = Victim::new();
    let key = victim.events(2);
    fs::remove_file(victim.path(&key)).unwrap();
    victim.expect("missing_object", &key, "it is not there");
}

#[test]
fn an_object_in_which_one_bit_was_flipped() {
    let victim = Victim::new();
    let key = victim.events(2);
    let mut bytes = fs::read(victim.path(&key)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    victim.replace(&key, bytes);
    victim.expect("altered_object", &key, "its SHA-256 is ");
}

#[test]
fn an_object_that_was_added() {
    let victim = Victim::new();
    let key = victim.events(2).replace("00000002", "00000099");
    fs::copy(victim.path(&victim.events(2)), victim.path(&key)).unwrap();
    victim.expect("unlisted_object", &key, "no manifest lists it");
}

#[test]
fn a_file_that_somebody_left_among_the_objects() {
    let victim = Victim::new();
    fs::write(victim.path("events/notes.txt"), "look at this later").unwrap();
    victim.expect("unlisted_object", "events/notes.txt", "it is not an object of this archive");
}

#[test]
fn a_manifest_that_was_taken_away() {
    let victim = Victim::new();
    fs::remove_file(victim.path(&Victim::manifest_key(2))).unwrap();
    victim.expect("missing_manifest", &Victim::manifest_key(2), "manifest 2 is missing");
}

#[test]
fn a_manifest_that_was_changed() {
    let victim = Victim::new();
    victim.edit(2, |manifest| manifest["read_through"] = json!("2026-11-21T00:00:00Z"));
    victim.expect("broken_chain", &Victim::manifest_key(2), "manifest 3 names ");
}

#[test]
fn the_newest_manifest_that_was_changed() {
    let victim = Victim::new();
    victim.edit(4, |manifest| manifest["read_through"] = json!("2026-11-21T00:00:00Z"));
    victim.expect("broken_chain", &Victim::manifest_key(4), "chain head of its lease row");
}

#[test]
fn a_batch_that_was_cut_out_and_the_chain_closed_over_it() {
    let victim = Victim::new();
    for object in victim.manifest(3)["objects"].as_array().unwrap() {
        fs::remove_file(victim.path(object["key"].as_str().unwrap())).unwrap();
    }
    // Batch 4 becomes batch 3, under batch 3's names.
    let mut manifest = victim.manifest(4);
    manifest["batch_seq"] = json!(3);
    for object in manifest["objects"].as_array_mut().unwrap() {
        let old = object["key"].as_str().unwrap().to_owned();
        let new = old.replace("-00000004.", "-00000003.");
        fs::rename(victim.path(&old), victim.path(&new)).unwrap();
        object["key"] = json!(new);
    }
    fs::remove_file(victim.path(&Victim::manifest_key(4))).unwrap();
    victim.replace(&Victim::manifest_key(3), serde_json::to_vec_pretty(&manifest).unwrap());
    victim.rehash(3);
    victim.expect("range_gap", &Victim::manifest_key(3), "batch 2 ends at ");
}

#[test]
fn a_batch_that_claims_what_the_one_before_it_has() {
    let victim = Victim::new();
    let after = victim.manifest(2)["after"].clone();
    victim.edit(3, |manifest| manifest["after"] = after);
    victim.rehash(3);
    victim.expect("range_overlap", &Victim::manifest_key(3), "batch 2 ends at ");
}

#[test]
fn rows_that_were_cut_out_and_their_object_hashed_anew() {
    let victim = Victim::new();
    let key = victim.events(2);
    victim.rewrite_rows(2, |lines| drop(lines.drain(3..5)));
    victim.rehash(2);
    victim.expect("count_mismatch", &key, "its manifest says ");
}

#[test]
fn a_count_that_was_changed() {
    let victim = Victim::new();
    victim.edit(2, |manifest| manifest["counts"]["records"] = json!(7));
    victim.rehash(2);
    victim.expect("count_mismatch", &Victim::manifest_key(2), "it counts 7 records");
}

#[test]
fn a_record_that_was_put_in_twice_and_counted() {
    let victim = Victim::new();
    let key = victim.events(2);
    victim.rewrite_rows(2, |lines| lines.push(lines[3].clone()));
    victim.edit(2, |manifest| {
        for count in ["records", "archived"] {
            manifest["counts"][count] = json!(manifest["counts"][count].as_u64().unwrap() + 1);
        }
        let objects = manifest["objects"].as_array_mut().unwrap();
        let object = objects.iter_mut().find(|object| object["key"] == key.as_str()).unwrap();
        object["rows"] = json!(object["rows"].as_u64().unwrap() + 1);
    });
    victim.rehash(2);
    victim.expect("duplicate_record", &key, "");
}

/// What `verify --json` prints, apart from what tells one history from another and one run from the next.
fn without_heads(report: &Value) -> Value {
    let mut report = report.clone();
    let fields = report.as_object_mut().unwrap();
    for field in ["began", "chain_heads", "archive_digest"] {
        assert!(fields.remove(field).is_some(), "no {field}");
    }
    report
}

#[test]
fn history_that_was_written_anew_with_all_digests_shows_against_the_heads_that_were_kept() {
    let victim = Victim::new();
    let kept = victim.0.run(&["verify", "--json"]).expect(0).json();
    let heads = serde_json::to_string(&kept["chain_heads"]).unwrap();
    assert_eq!(kept["archive_digest"], digest(heads.as_bytes()), "it can be made from the heads by anybody");
    // As docs/security.md says: the manifest that was the newest still has its digest.
    let kept_head_stands = || {
        let head = &kept["chain_heads"][SHARD];
        assert_eq!((&head["batches"], &head["manifest"]), (&json!(5), &json!(Victim::manifest_key(4))));
        head["head"] == digest(&fs::read(victim.path(&Victim::manifest_key(4))).unwrap())
    };
    assert!(kept_head_stands());
    victim.0.append(SHARD, crate::support::Record::new(1 << 53).line(0) + "\n");
    victim.0.catch_up();
    assert!(kept_head_stands(), "an archive that has grown is no other");
    let before = victim.0.run(&["verify", "--json"]).expect(0).json();
    assert_ne!(before["archive_digest"], kept["archive_digest"]);

    victim.rewrite_rows(2, |lines| {
        let (from, to) = ("\"operation\":\"", "\"operation\":\"X");
        let at = lines[3].find(from).unwrap() + to.len();
        lines[3].replace_range(at - 1..at, "X");
    });
    victim.rehash(3);
    let done = victim.0.run(&["verify", "--json"]).expect(0);
    let after = done.json();
    assert_eq!(without_heads(&before), without_heads(&after), "by all else it is the same");
    assert_ne!(before["archive_digest"], after["archive_digest"]);
    assert!(!kept_head_stands());
    let text = victim.0.run(&["verify"]).expect(0).stdout;
    let line = format!("digest    {} over 1 chain head\n", after["archive_digest"].as_str().unwrap());
    assert!(text.contains(&line) && text.contains("\nbegan     20"), "{text}");
    victim.0.run(&["verify", "--record"]).expect(0);
    let recorded = read_json(&victim.path(&victim.0.objects("_verify")[0]));
    for field in ["archive_digest", "chain_heads", "tail_proved"] {
        assert_eq!(recorded[field], after[field], "{field}");
    }
}

#[test]
fn a_shard_that_was_taken_away_with_its_lease_row_is_told_by_the_heads_that_were_kept_alone() {
    const OTHER: &str = "other.ndjson";
    let victim = Victim::new();
    victim.0.feed(OTHER, crate::support::Record::new(7).line(0) + "\n");
    victim.0.catch_up();
    let kept = victim.0.run(&["verify", "--json"]).expect(0).json();
    let manifest = kept["chain_heads"][OTHER]["manifest"].as_str().unwrap();
    for object in read_json(&victim.path(manifest))["objects"].as_array().unwrap() {
        fs::remove_file(victim.path(object["key"].as_str().unwrap())).unwrap();
    }
    fs::remove_file(victim.path(manifest)).unwrap();
    fs::remove_file(victim.0.state().join(format!("leases/{OTHER}.json"))).unwrap();

    let report = victim.0.verify();
    assert_eq!(report["tail_proved"], true, "nothing that is there tells of it");
    assert_ne!(report["archive_digest"], kept["archive_digest"]);
    let heads = |report: &Value| report["chain_heads"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((heads(&kept), heads(&report)), (vec![OTHER.to_owned(), SHARD.to_owned()], vec![SHARD.to_owned()]));
    assert_eq!(kept["chain_heads"][SHARD], report["chain_heads"][SHARD]);
}

#[test]
fn a_lease_row_that_cannot_be_read_does_not_switch_the_proof_off() {
    let victim = Victim::new();
    victim.0.feed("other.ndjson", crate::support::Record::new(7).line(0) + "\n");
    victim.0.catch_up();
    fs::write(victim.0.state().join(format!("leases/{SHARD}.json")), "{").unwrap();
    let folder = format!("_manifests/{SHARD}/");
    victim.expect("damaged_lease_row", &folder, &format!("the lease row of {SHARD} is damaged"));

    let altered = victim.events(2);
    victim.replace(&altered, "not what was put\n");
    let done = victim.0.run(&["verify", "--json", "--record"]).expect(1);
    let report = done.json();
    let kinds: Vec<_> = report["findings"].as_array().unwrap().iter().map(|finding| &finding["kind"]).collect();
    assert_eq!(kinds, ["damaged_lease_row", "altered_object"], "{report:#}");
    assert_eq!(report["tail_proved"], false);
    assert_eq!(victim.0.objects("_verify").len(), 1, "it is recorded");

    let status = victim.0.run(&["status", "--json"]).expect(1);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let shown: Vec<_> = status["shards"].as_array().unwrap().iter().map(|shard| &shard["state"]).collect();
    assert_eq!(shown, ["caught up", "damaged"], "{status:#}");
    assert_eq!((&status["shards"][1]["shard"], &status["shards"][1]["batches"]), (&json!(SHARD), &Value::Null));
    let text = victim.0.run(&["status"]).expect(1).stdout;
    assert!(text.contains(&format!("damaged: the lease row of {SHARD} is damaged")), "{text}");
    assert!(!text.contains("TRIM_HORIZON"), "{text}");
}

#[test]
fn the_newest_manifest_that_was_taken_away() {
    let victim = Victim::new();
    fs::remove_file(victim.path(&Victim::manifest_key(4))).unwrap();
    victim.expect("truncated_tail", &Victim::manifest_key(4), "the lease row counts 5 batches");
    let text = victim.0.run(&["verify"]).expect(1).stdout;
    assert!(text.contains("tail      compared with the lease rows: 1 shard cut\n"), "{text}");
}

#[test]
fn the_newest_batches_that_were_taken_away_with_all_their_objects() {
    let victim = Victim::new();
    for number in [3, 4] {
        for object in victim.manifest(number)["objects"].as_array().unwrap() {
            fs::remove_file(victim.path(object["key"].as_str().unwrap())).unwrap();
        }
        fs::remove_file(victim.path(&Victim::manifest_key(number))).unwrap();
    }
    victim.expect("truncated_tail", &Victim::manifest_key(3), "manifests 3 to 4 are missing");
}

#[test]
fn after_the_tail_was_taken_away_catch_up_does_not_pretend_that_all_is_well() {
    let victim = Victim::new();
    fs::remove_file(victim.path(&Victim::manifest_key(4))).unwrap();
    victim.0.append(SHARD, crate::support::Record::new(1 << 53).line(0) + "\n");
    victim.0.run(&["catch-up"]);
    let report = victim.0.run(&["verify", "--json"]).expect(1).json();
    assert!(
        report["findings"].as_array().unwrap().iter().any(|finding| finding["key"] == Victim::manifest_key(4).as_str())
    );
}

/// Feeds a file whose objects have the same keys in every archive.
fn feed_at_a_known_time(workspace: &Workspace) {
    let file = workspace.feed("a.ndjson", crate::support::Record::new(7).line(0) + "\n");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_hours(498_192);
    fs::File::options().append(true).open(file).unwrap().set_modified(time).unwrap();
}

#[test]
fn what_stands_where_an_object_should_is_named_and_never_overwritten() {
    let twin = Workspace::new();
    feed_at_a_known_time(&twin);
    twin.catch_up();
    for key in [twin.objects("events")[0].clone(), twin.objects("_manifests")[0].clone()] {
        let workspace = Workspace::new();
        workspace.catch_up();
        let path = workspace.archive().join(&key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{}\n").unwrap();
        feed_at_a_known_time(&workspace);

        let failed = if key.starts_with("events") {
            let summary = workspace.run(&["catch-up", "--json"]).expect(1).json();
            summary["failures"][0]["error"].as_str().unwrap().to_owned()
        } else {
            // A shard's manifests say how far it was read: one that can't be read stops the worker.
            workspace.run(&["catch-up", "--json"]).expect(1).stderr
        };
        assert!(failed.contains(&key), "{failed}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n", "it stands as it was");

        fs::remove_file(&path).unwrap();
        workspace.catch_up();
        assert_eq!(workspace.archived_rows(), 1);
        workspace.verify();
    }
}
