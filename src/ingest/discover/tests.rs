//! Discovery: files, directories, globs, standard input, and what is refused.

use std::io::Write;

use super::*;

const EVENT: &str = "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"a\"}\n";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn tree(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    for (name, bytes) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
    root
}

fn find(root: &Path, paths: &[&str]) -> Result<Discovery, Error> {
    let paths: Vec<PathBuf> = paths
        .iter()
        .map(|path| if *path == "-" { PathBuf::from("-") } else { root.join(path) })
        .collect();
    discover(&paths, InputFormat::Auto, || Box::new(Cursor::new(EVENT)))
}

fn names(root: &Path, found: &Discovery) -> Vec<String> {
    let name =
        |file: &LogFile| file.path.strip_prefix(root).unwrap_or(&file.path).display().to_string();
    found.files.iter().map(name).collect()
}

#[test]
fn a_directory_is_scanned_and_strangers_are_counted() {
    let hole = [vec![0; 200_000], EVENT.into()].concat();
    let root = tree(&[
        ("audit.log", EVENT.into()),
        ("audit-1.log", EVENT.into()),
        ("audit-1.log.gz", gzip(EVENT)),
        ("audit-2.log", Vec::new()),
        ("audit-2.log.gz", gzip(EVENT)),
        ("b/hole.log", hole),
        ("b/ground-truth.jsonl", b"{\"auditID\":\"a\",\"class\":\"attack\"}\n".to_vec()),
        ("b/policy.yaml", b"apiVersion: audit.k8s.io/v1\nkind: Policy\n".to_vec()),
        ("empty", Vec::new()),
    ]);
    std::os::unix::fs::symlink(root.path(), root.path().join("b/loop")).expect("a link");
    std::os::unix::fs::symlink(root.path().join("audit.log"), root.path().join("same.log"))
        .expect("a link");
    std::os::unix::fs::symlink("nowhere", root.path().join("dangling")).expect("a link");
    let found = find(root.path(), &["."]).expect("logs");
    let expected = ["./audit-1.log", "./audit-2.log.gz", "./audit.log", "./b/hole.log"];
    assert_eq!(
        names(root.path(), &found),
        expected.map(|name| name.trim_start_matches("./").to_owned())
    );
    assert_eq!((found.skipped, found.unreadable.len()), (3, 1));
}

#[test]
fn what_is_named_must_be_a_log() {
    let late = [vec![b'x'; 3 << 20], b"\n".to_vec(), EVENT.into()].concat();
    let root = tree(&[
        ("a.log", EVENT.into()),
        ("late.log", late),
        ("policy.yaml", b"apiVersion: audit.k8s.io/v1\nkind: Policy\n".to_vec()),
        ("empty.log", Vec::new()),
        ("x.bz2", b"BZh91AY".to_vec()),
        ("sub/note.txt", b"hello".to_vec()),
    ]);
    for (paths, expected) in [
        (&["a.log"][..], Ok(1)),
        (&["a.log", "a.log"], Ok(1)),
        (&["*.log"], Ok(1)),
        (&["late.log"], Ok(1)),
        (&["-"], Ok(1)),
        (&["a.log", "-"], Ok(2)),
        (&["policy.yaml"], Err("holds no audit event in any known form; name an audit log")),
        (&["empty.log"], Err("is empty")),
        (&["x.bz2"], Err("is compressed with bzip2: decompress it first")),
        (&["none.log"], Err("check the path")),
        (&["*.none"], Err("matches no file")),
        (&["sub"], Err("no audit log found (1 files hold none, 0 could not be read)")),
    ] {
        match (find(root.path(), paths), expected) {
            (Ok(found), Ok(count)) => assert_eq!(found.files.len(), count, "{paths:?}"),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, _) => panic!("{paths:?}: {found:?}"),
        }
    }
}
