//! The store as its users in this process see it; several processes at once are in the crate's `tests` folder.

use super::*;
use crate::ui::Ui;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().join("store"));
    (folder, store)
}

/// Puts a model of these bytes into the store.
fn put(store: &Store, name: &str, bytes: &[u8]) -> Manifest {
    let writer = Writer::open(store, Ui::Silent).unwrap();
    let manifest = Manifest::new(
        writer.add_bytes(b"{}", media::CONFIG).unwrap(),
        vec![writer.add_bytes(bytes, media::MODEL).unwrap()],
    );
    writer.publish(&name.parse().unwrap(), &manifest).unwrap();
    manifest
}

fn names(store: &Store) -> Vec<String> {
    store.list().unwrap().0.iter().map(|e| e.name.to_string()).collect()
}

fn blobs(store: &Store) -> usize {
    read_folder(&store.blobs()).unwrap().len()
}

#[test]
fn an_absent_store_is_empty() {
    let (_folder, store) = store();
    assert!(names(&store).is_empty());
    store.tidy().unwrap();
    assert_eq!(store.model(&"x".parse().unwrap()).unwrap(), None);
    assert!(matches!(store.remove(&"x".parse().unwrap()), Err(Error::NotInStore(_))));
    assert!(!store.root().exists(), "looking made something");
}

#[test]
fn put_list_find_remove() {
    let (_folder, store) = store();
    put(&store, "one", b"GGUF one");
    put(&store, "me/two:q4", b"GGUF two");
    assert_eq!(names(&store), ["me/two:q4", "one:latest"]);
    let path = store.model(&"ONE".parse().unwrap()).unwrap().unwrap();
    assert_eq!(fs::read(path).unwrap(), b"GGUF one");
    store.remove(&"one".parse().unwrap()).unwrap();
    assert_eq!(names(&store), ["me/two:q4"]);
    // The configuration is shared and stays.
    assert_eq!(blobs(&store), 2);
    store.remove(&"me/two:q4".parse().unwrap()).unwrap();
    assert_eq!(blobs(&store), 0);
    assert_eq!(read_folder(&store.manifests()).unwrap().len(), 0, "empty folders stay");
}

#[test]
fn a_shared_blob_outlives_one_of_its_names() {
    let (_folder, store) = store();
    put(&store, "a", b"GGUF same");
    put(&store, "b", b"GGUF same");
    store.remove(&"a".parse().unwrap()).unwrap();
    assert!(store.model(&"b".parse().unwrap()).unwrap().is_some());
}

#[test]
fn blobs_are_kept_while_somebody_writes() {
    let (_folder, store) = store();
    put(&store, "a", b"GGUF a");
    let writer = Writer::open(&store, Ui::Silent).unwrap();
    let layer = writer.add_bytes(b"GGUF not named yet", media::MODEL).unwrap();
    store.remove(&"a".parse().unwrap()).unwrap();
    assert!(store.has(&layer));
    drop(writer);
    store.tidy().unwrap();
    assert_eq!(blobs(&store), 0);
}

#[test]
fn wrong_bytes_get_no_name() {
    let (_folder, store) = store();
    let writer = Writer::open(&store, Ui::Silent).unwrap();
    let add = |bytes: &[u8], digest: Option<Digest>, size: Option<u64>| {
        let mut blob = writer.blob(Expected { digest, size }, "it")?;
        blob.copy(&mut &bytes[..], &Ui::Silent.bar("", None, 0), Error::io("cannot read", Path::new("it")))?;
        blob.finish(media::MODEL)
    };
    let right = Digest::of(b"right");
    assert!(matches!(add(b"wrong", Some(right), None), Err(Error::Checksum { expected, .. }) if expected == right));
    assert!(matches!(add(b"right, and more", Some(right), Some(5)), Err(Error::Size { expected: 5, .. })));
    assert!(matches!(add(b"rig", Some(right), Some(5)), Err(Error::Size { expected: 5, .. })));
    assert_eq!(blobs(&store), 0, "something was kept");
    assert_eq!(add(b"right", Some(right), Some(5)).unwrap().digest, right);
    assert_eq!(blobs(&store), 1);
}

#[test]
fn a_manifest_needs_its_blobs() {
    let (_folder, store) = store();
    let writer = Writer::open(&store, Ui::Silent).unwrap();
    let config = writer.add_bytes(b"{}", media::CONFIG).unwrap();
    let missing = Layer { media_type: media::MODEL.into(), digest: Digest::of(b"?"), size: 1 };
    let manifest = Manifest::new(config, vec![missing]);
    assert!(matches!(writer.publish(&"x".parse().unwrap(), &manifest), Err(Error::Blob { .. })));
    assert!(names(&store).is_empty());
}

#[test]
fn verify_finds_what_is_wrong() {
    let (_folder, store) = store();
    let cut = put(&store, "cut", b"GGUF cut");
    let changed = put(&store, "changed", b"GGUF changed");
    put(&store, "whole", b"GGUF whole");
    assert!(matches!(store.verify(None, Ui::Silent), Ok((3, problems)) if problems.is_empty()));
    fs::write(store.blob(&cut.model().unwrap().digest), b"GGUF c").unwrap();
    fs::write(store.blob(&changed.model().unwrap().digest), b"GGUF CHANGED").unwrap();
    fs::write(store.manifests().join("local/library/damaged"), b"{").unwrap();
    let (checked, problems) = store.verify(None, Ui::Silent).unwrap();
    let texts: Vec<String> = problems.iter().map(|p| p.error.to_string()).collect();
    assert_eq!((checked, texts.len()), (3, 3), "{texts:?}");
    assert!(texts.iter().any(|t| t.contains("missing or not a plain file of 8 bytes")));
    assert!(texts.iter().any(|t| t.contains("its content has the checksum")));
    assert!(texts.iter().any(|t| t.contains("is not at a path that a model name stands for")));
    assert!(matches!(store.verify(Some(&"whole".parse().unwrap()), Ui::Silent), Ok((1, p)) if p.is_empty()));
    assert!(matches!(store.verify(Some(&"gone".parse().unwrap()), Ui::Silent), Err(Error::NotInStore(_))));
}

#[test]
fn a_damaged_manifest_protects_all_blobs() {
    let (_folder, store) = store();
    put(&store, "a", b"GGUF a");
    put(&store, "b", b"GGUF b");
    fs::write(store.manifests().join("local/library/a/latest"), b"{ no json").unwrap();
    let before = blobs(&store);
    store.remove(&"b".parse().unwrap()).unwrap();
    assert_eq!(blobs(&store), before, "a blob went that the unreadable manifest may name");
    assert!(matches!(store.model(&"a".parse().unwrap()), Err(Error::Manifest { .. })));
}

#[test]
fn what_dead_writers_left_is_removed() {
    let (_folder, store) = store();
    put(&store, "a", b"GGUF a");
    let orphans = [store.blobs().join(".tmp-1"), store.manifests().join("local/library/a/.tmp-2")];
    for path in &orphans {
        fs::write(path, b"half").unwrap();
    }
    fs::write(store.downloads().join("00ff.lock"), b"").unwrap();
    fs::create_dir(store.downloads().join("0a0a")).unwrap();
    fs::write(store.downloads().join("0a0a.lock"), b"").unwrap();
    assert_eq!(names(&store), ["a:latest"], "temporary files count as models");
    store.tidy().unwrap();
    assert!(orphans.iter().all(|p| !p.exists()));
    assert!(!store.downloads().join("00ff.lock").exists());
    assert!(store.downloads().join("0a0a.lock").exists(), "the lock of an unfinished download is gone");
    assert!(store.downloads().join("0a0a").exists(), "a young unfinished download is gone");
    assert!(matches!(store.verify(None, Ui::Silent), Ok((1, problems)) if problems.is_empty()));
}

#[cfg(unix)]
#[test]
fn symbolic_links_are_not_followed() {
    let (folder, store) = store();
    let manifest = put(&store, "a", b"GGUF a");
    let outside = folder.path().join("outside");
    fs::write(&outside, b"GGUF a").unwrap();
    let blob = store.blob(&manifest.model().unwrap().digest);
    fs::remove_file(&blob).unwrap();
    std::os::unix::fs::symlink(&outside, &blob).unwrap();
    assert!(matches!(store.model(&"a".parse().unwrap()), Err(Error::Blob { .. })));
    let link = store.manifests().join("local/library/b");
    std::os::unix::fs::symlink(store.manifests().join("local/library/a"), &link).unwrap();
    let manifest = store.manifests().join("local/library/a/other");
    std::os::unix::fs::symlink("latest", &manifest).unwrap();
    assert_eq!(names(&store), ["a:latest"]);
    assert!(matches!(store.manifest(&"a:other".parse().unwrap()), Err(Error::Manifest { .. })));
}

#[test]
fn threads_that_write_the_same_and_different_things() {
    let (_folder, store) = store();
    std::thread::scope(|scope| {
        for i in 0..8u8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..10u8 {
                    put(store, "same", b"GGUF same");
                    put(store, &format!("own{i}"), &[b'G', b'G', b'U', b'F', i, round]);
                    store.tidy().unwrap();
                    if round % 3 == 0 {
                        store.remove(&format!("own{i}").parse().unwrap()).unwrap();
                    }
                }
            });
        }
    });
    store.tidy().unwrap();
    // The last round removes.
    assert_eq!(names(&store), ["same:latest"]);
    assert!(matches!(store.verify(None, Ui::Silent), Ok((1, problems)) if problems.is_empty()));
    assert_eq!(blobs(&store), 2);
}
