//! Lists the shipped rules, so that the binary carries them: every `*.yml` below `detections/`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=detections");
    let mut files = Vec::new();
    collect(Path::new("detections"), &mut files)?;
    files.sort();
    let mut source = String::from("pub(crate) const FILES: &[(&str, &str)] = &[\n");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").map_err(std::io::Error::other)?);
    for file in files {
        let whole = root.join(&file);
        // Writing to a String cannot fail.
        let _ =
            writeln!(source, "    ({:?}, include_str!({:?})),", file.display(), whole.display());
    }
    source.push_str("];\n");
    let out = PathBuf::from(std::env::var("OUT_DIR").map_err(std::io::Error::other)?);
    std::fs::write(out.join("detections.rs"), source)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            files.push(path);
        }
    }
    Ok(())
}
