//! What a file holds after crashes, rotations, and other people's renames.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::sinks::Outgoing;

fn sink(path: &Path, rotate: Rotation) -> File {
    File::new(Config { path: path.to_owned(), format: Format::Native, rotate })
}

async fn send(sink: &mut File, texts: &[&str]) -> Result<Delivered, SendError> {
    let items: Vec<Item<'_>> = texts
        .iter()
        .zip(1..)
        .map(|(text, seq)| Item { seq, outgoing: Outgoing::Alert(text.as_bytes()) })
        .collect();
    sink.send(&items).await
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn appends_lines_and_survives_renames_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alerts.jsonl");
    let mut file = sink(&path, Rotation::default());
    file.check().await.unwrap();
    assert!(!path.exists(), "a check creates nothing");
    send(&mut file, &["{\"a\":1}", "{\"b\":\n2}"]).await.unwrap();
    assert_eq!(text(&path), "{\"a\":1}\n{\"b\": 2}\n");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    std::fs::rename(&path, folder.path().join("old")).unwrap();
    send(&mut file, &["{}"]).await.unwrap();
    assert_eq!(text(&path), "{}\n");
    std::fs::remove_file(&path).unwrap();
    send(&mut file, &["[]"]).await.unwrap();
    assert_eq!(text(&path), "[]\n");

    let blocked = send(&mut sink(&path, Rotation::default()), &["{}"]).await.unwrap_err();
    assert!(matches!(&blocked, SendError::Block { cause, .. } if cause.contains("another")));
    drop(file);
    let mut again = sink(&path, Rotation::default());
    again.check().await.unwrap();
    send(&mut again, &["1"]).await.unwrap();
    assert_eq!(text(&path), "[]\n1\n");
}

#[tokio::test]
async fn an_unfinished_line_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(200_000);
    for (before, after) in [
        ("{\"a\":1}\n{\"b\"", "{\"a\":1}\nnew\n"),
        ("{\"b\"", "new\n"),
        ("{\"a\":1}\n", "{\"a\":1}\nnew\n"),
        ("", "new\n"),
        (&format!("a\n{long}"), "a\nnew\n"),
        (&format!("{long}\n{long}"), &format!("{long}\nnew\n")),
    ] {
        let path = folder.path().join("f");
        std::fs::write(&path, before).unwrap();
        send(&mut sink(&path, Rotation::default()), &["new"]).await.unwrap();
        assert!(text(&path) == after, "{before:.20}");
    }
}

#[tokio::test]
async fn rotates_by_size_and_keeps_so_many() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let rotate = Rotation { bytes: Some(Size(10)), age: None, keep: Some(2) };
    std::fs::write(folder.path().join("f.bak"), "not mine").unwrap();
    let mut file = sink(&path, rotate);
    for round in 0..5 {
        send(&mut file, &["123456", &round.to_string()]).await.unwrap();
    }
    assert_eq!(text(&path), "123456\n4\n");
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(text(&folder.path().join(&names[2])), "123456\n3\n");
}

#[tokio::test]
async fn says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for (path, part) in [
        (folder.path().join("none/f"), "create its directory"),
        (folder.path().to_owned(), "regular file"),
        (PathBuf::from("/dev/null"), "is no regular file; name a file"),
    ] {
        let mut file = sink(&path, Rotation::default());
        let checked = file.check().await.unwrap_err().to_string();
        assert!(checked.contains(part), "{checked}");
        send(&mut file, &["x"]).await.unwrap_err();
    }
}
