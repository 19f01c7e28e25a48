//! The shape of the tree: order of modules, lengths, headers, purity, bans, dead files.
//!
//! All checks are functions of a tree of texts, so each has small trees that it must accept or
//! refuse (tests/cases/tidy.txt); the last test is the project itself. The only reading of Rust
//! that is needed is to know code from comments and literals, and test code from the rest.

use std::collections::BTreeMap;
use std::path::Path;

/// A file's lines, whatever is in them.
const LINES_MAX: usize = 500;
/// A function's lines, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line; lines of test code that hold a literal are data, and let off.
const COLUMNS_MAX: usize = 100;
/// Lines of ARCHITECTURE.md.
const ARCHITECTURE_LINES_MAX: usize = 120;

/// Modules without I/O, clock or async, and the files in them that are let off: they load rules.
const PURE: [&str; 5] = ["src/event", "src/rule", "src/engine", "src/alert", "src/sinks/encode"];
const LET_OFF: [&str; 2] = ["src/rule/load.rs", "src/rule/shipped.rs"];
/// What the outside world is reached by: paths, and other code.
const IMPURE_PATHS: &str = "tokio:: std::fs std::net::Tcp std::net::Udp std::env std::process \
    std::thread std::time::Instant std::time::SystemTime crate::clock";
const IMPURE_CODE: [&str; 5] = ["async fn", "async move", ".await", "println!", "eprintln!"];
/// Names of files that say nothing about what is inside.
const NOT_NOUNS: [&str; 9] =
    ["utils", "util", "common", "helpers", "helper", "types", "manager", "misc", "prelude"];
/// Never, not even in a comment; spelled in halves so that this file holds none of them.
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
/// Never in code.
const BANNED: [&str; 6] =
    ["todo!", "unimplemented!", "#[ignore", "#[should_panic", "#[path", "extern crate"];
/// Only in tests.
const TESTS_ONLY: [&str; 3] = [".unwrap()", "super::", "panic!"];

/// Texts by path, `/` between directories.
type Tree = BTreeMap<String, String>;

/// A Rust file: `code` has comments and literals blanked, `live` the test items too. Blanking keeps
/// every byte that is left where it was.
struct File<'t> {
    path: &'t str,
    text: &'t str,
    code: String,
    live: String,
}

impl<'t> File<'t> {
    fn new(path: &'t str, text: &'t str, is_test: bool) -> File<'t> {
        let code = without(text, |_| true);
        let live = if is_test { blanked(&code) } else { without_tests(&code) };
        File { path, text, code, live }
    }

    /// The top-level module, where the file is of the library.
    fn module(&self) -> Option<&'t str> {
        let inside = self.path.strip_prefix("src/")?;
        inside.split('/').next().map(|first| first.trim_end_matches(".rs"))
    }
}

fn violations(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    let reached = reach(tree, &mut out);
    let lib = File::new("src/lib.rs", tree.get("src/lib.rs").map_or("", String::as_str), false);
    let modules: Vec<String> = declared(&lib).into_iter().map(|(_, name, _)| name).collect();
    for (path, text) in tree.iter().filter(|(path, _)| path.ends_with(".rs")) {
        let Some(is_test) = reached.get(path) else {
            out.push(format!("{path}:1: no `mod` declares this file"));
            continue;
        };
        let file = File::new(path, text, *is_test);
        header(&file, &mut out);
        lengths(&file, &mut out);
        words(&file, &mut out);
        order(&file, &modules, &mut out);
        purity(&file, &mut out);
    }
    lists(tree, &lib, &modules, &mut out);
    out
}

/// Follows `mod` from the roots; a file that is not in the result is dead. The value says whether
/// the file is test code. Declarations without exactly one file are violations.
fn reach(tree: &Tree, out: &mut Vec<String>) -> BTreeMap<String, bool> {
    let mut reached = BTreeMap::new();
    let roots = tree.keys().filter(|path| is_root(path)).cloned();
    let mut open: Vec<(String, bool)> =
        roots.map(|path| (path.clone(), !path.starts_with("src/"))).collect();
    while let Some((path, is_test)) = open.pop() {
        let file = File::new(&path, &tree[&path], is_test);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let inside = if is_root(&path) || name == "mod.rs" {
            folder.to_owned()
        } else {
            path.trim_end_matches(".rs").to_owned()
        };
        for (line, module, is_test_module) in declared(&file) {
            let places = [format!("{inside}/{module}.rs"), format!("{inside}/{module}/mod.rs")];
            let before = open.len();
            let found = places.into_iter().filter(|place| tree.contains_key(place));
            open.extend(found.map(|place| (place, is_test || is_test_module)));
            if open.len() == before {
                out.push(format!("{path}:{line}: `mod {module}` has no file"));
            }
        }
        reached.insert(path, is_test);
    }
    reached
}

/// Whether cargo compiles the file without any `mod`.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let is_target = match parts.as_slice() {
        ["src", file] => ["lib.rs", "main.rs"].contains(file),
        ["tests" | "benches" | "examples", _] => true,
        ["tests" | "benches" | "examples", _, file] => *file == "main.rs",
        [file] => *file == "build.rs",
        _ => false,
    };
    is_target && path.ends_with(".rs")
}

fn header(file: &File<'_>, out: &mut Vec<String>) {
    let first = file.text.lines().next().unwrap_or_default();
    let is_map = file.path == "src/lib.rs" && first.starts_with("#![doc = include_str!(");
    let is_sentence = first.strip_prefix("//! ").is_some_and(|words| !words.trim().is_empty());
    if !is_map && !is_sentence {
        out.push(format!("{}:1: does not start with `//! ` and what it holds", file.path));
    }
    let stem = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    let folders = file.path.split('/').rev().skip(1);
    if let Some(name) = folders.chain([stem]).find(|name| NOT_NOUNS.contains(name)) {
        out.push(format!("{}:1: `{name}` is not the name of a thing", file.path));
    }
}

fn lengths(file: &File<'_>, out: &mut Vec<String>) {
    let path = file.path;
    let lines = file.text.lines().count();
    if lines > LINES_MAX {
        out.push(format!("{path}:{lines}: {lines} lines, of {LINES_MAX}"));
    }
    let without_literals = without(file.text, |aside| !aside.starts_with('/'));
    let each = file.text.lines().zip(without_literals.lines()).zip(file.live.lines());
    for (index, ((line, without_literals), live)) in each.enumerate() {
        let columns = line.chars().count();
        let is_data = live.trim().is_empty() && line != without_literals;
        if columns > COLUMNS_MAX && !is_data {
            out.push(format!("{path}:{}: {columns} columns, of {COLUMNS_MAX}", index + 1));
        }
    }
    for (line, name, lines) in functions(&file.code) {
        if lines > FUNCTION_LINES_MAX {
            out.push(format!("{path}:{line}: `{name}` has {lines} lines, of {FUNCTION_LINES_MAX}"));
        }
    }
}

fn words(file: &File<'_>, out: &mut Vec<String>) {
    let mut ban = |text: &str, words: &[&str], place: &str| {
        for (index, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                out.push(format!("{}:{}: `{word}` {place}", file.path, index + 1));
            }
        }
    };
    ban(file.text, &UNFINISHED, "is never committed");
    ban(&file.code, &BANNED, "is never committed");
    ban(&file.live, &TESTS_ONLY, "outside of tests");
}

fn order(file: &File<'_>, modules: &[String], out: &mut Vec<String>) {
    let place = |name: &str| modules.iter().position(|module| module == name);
    let Some(own) = file.module().and_then(place) else { return };
    for (line, path) in paths(&file.live, "crate") {
        let name = path.split("::").nth(1).unwrap_or_default();
        let why = match place(name) {
            Some(other) if other <= own => continue,
            Some(_) => format!("which lib.rs declares below `{}`", modules[own]),
            None => "which lib.rs does not declare".to_owned(),
        };
        out.push(format!("{}:{line}: names `crate::{name}`, {why}", file.path));
    }
}

fn purity(file: &File<'_>, out: &mut Vec<String>) {
    let is_inside = |module: &&str| {
        file.path.strip_prefix(*module).is_some_and(|rest| rest.starts_with(['/', '.']))
    };
    let Some(module) = PURE.iter().find(|module| is_inside(module)) else { return };
    if LET_OFF.contains(&file.path) {
        return;
    }
    let named = ["std", "tokio", "crate"].into_iter().flat_map(|root| paths(&file.live, root));
    for (line, path) in named {
        if IMPURE_PATHS.split(' ').any(|banned| path.starts_with(banned)) {
            out.push(format!("{}:{line}: `{path}` in `{module}`, which is pure", file.path));
        }
    }
    for (index, line) in file.live.lines().enumerate() {
        for word in IMPURE_CODE.iter().filter(|word| has_word(line, word)) {
            out.push(format!("{}:{}: `{word}` in `{module}`, which is pure", file.path, index + 1));
        }
    }
}

/// What stands in two places and must agree: lib.rs, rustfmt.toml, ARCHITECTURE.md.
fn lists(tree: &Tree, lib: &File<'_>, modules: &[String], out: &mut Vec<String>) {
    let text = |path: &str| tree.get(path).map_or("", String::as_str);
    for (index, _) in lib.live.lines().enumerate().filter(|(_, line)| has_word(line, "pub use")) {
        out.push(format!("src/lib.rs:{}: re-exports; name things where they live", index + 1));
    }
    if !text("rustfmt.toml").lines().any(|line| line == "reorder_modules = false") {
        out.push("rustfmt.toml:1: wants `reorder_modules = false`: the order has a meaning".into());
    }
    let architecture = text("ARCHITECTURE.md");
    let lines = architecture.lines().count();
    if lines > ARCHITECTURE_LINES_MAX {
        out.push(format!("ARCHITECTURE.md:{lines}: {lines} lines, of {ARCHITECTURE_LINES_MAX}"));
    }
    let section = architecture.split("\n## ").find(|part| part.starts_with("Modules\n"));
    let listed: Vec<&str> = section
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("- `")?.split('`').next())
        .collect();
    if listed != modules {
        let (listed, declared) = (listed.join(", "), modules.join(", "));
        out.push(format!(
            "ARCHITECTURE.md:1: `## Modules` lists {listed}; lib.rs declares {declared}"
        ));
    }
}

/// The text with those of its comments and literals blanked that `is_unwanted` names.
fn without(text: &str, is_unwanted: fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_inside_word = out.ends_with(is_word);
        let length = if is_inside_word && first != '"' { 0 } else { aside(rest) };
        let (head, tail) = rest.split_at(length.max(first.len_utf8()));
        let is_blank = length > 0 && is_unwanted(head);
        out.push_str(&if is_blank { blanked(head) } else { head.to_owned() });
        rest = tail;
    }
    out
}

/// Length of the comment or literal that the text begins with; 0 where it begins with code.
fn aside(text: &str) -> usize {
    let until = |end: &str, from: usize| {
        text[from..].find(end).map_or(text.len(), |found| from + found + end.len())
    };
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until("*/", 2);
    }
    let prefix = text.find(|letter| !"bcr".contains(letter)).unwrap_or(0);
    let (letters, rest) = text.split_at(prefix);
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if letters.ends_with('r') && rest[hashes..].starts_with('"') {
        return until(&format!("\"{}", &rest[..hashes]), prefix + hashes + 1);
    }
    let mut letters_of = rest.chars();
    match (letters_of.next(), letters_of.next(), letters_of.next()) {
        (Some('"'), ..) => prefix + quoted(rest, '"'),
        (Some('\''), Some('\\'), _) | (Some('\''), _, Some('\'')) => prefix + quoted(rest, '\''),
        _ => 0,
    }
}

/// Length of a literal between quotes, escapes skipped.
fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        if letter == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    text.len()
}

fn blanked(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// The code with every item under `#[cfg(test)]` blanked.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(start);
        let end = item_end(item);
        out.push_str(before);
        out.push_str(&blanked(&item[..end]));
        rest = &item[end..];
    }
    out + rest
}

/// Where an item ends: behind its `;`, or behind the brace that closes what it opens.
fn item_end(code: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in code.char_indices() {
        match letter {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (letter == ';' || letter == '}') {
            return at + 1;
        }
    }
    code.len()
}

/// Line, name and length in lines of every function with a body.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut out = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..].chars().take_while(|letter| is_word(*letter)).collect();
        let item = &code[at..at + item_end(&code[at..])];
        if !code[..at].ends_with(is_word) && !name.is_empty() && item.ends_with('}') {
            out.push((line_of(code, at), name, item.lines().count()));
        }
    }
    out
}

/// Line and name of every `mod name;`, and whether it is under `#[cfg(test)]`.
fn declared(file: &File<'_>) -> Vec<(usize, String, bool)> {
    let mut out = Vec::new();
    for (index, (line, live)) in file.code.lines().zip(file.live.lines()).enumerate() {
        let bare = line.trim().trim_start_matches("#[cfg(test)]").trim_start();
        let bare = bare.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        if let Some(name) = bare.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            out.push((index + 1, name.to_owned(), live.trim().is_empty()));
        }
    }
    out
}

/// Line and path of everything named under `root`, groups taken apart: `crate::{a, b::C}` names
/// `crate::a` and `crate::b::C`.
fn paths(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (at, _) in code.match_indices(&format!("{root}::")) {
        if !code[..at].ends_with(|letter: char| is_word(letter) || letter == ':') {
            let mut found = Vec::new();
            expand(&code[at + root.len() + 2..], root, &mut found);
            out.extend(found.into_iter().map(|path| (line_of(code, at), path)));
        }
    }
    out
}

fn expand(code: &str, prefix: &str, out: &mut Vec<String>) {
    let code = code.trim_start();
    if let Some(group) = code.strip_prefix('{') {
        let mut rest = &group[..item_end(code).saturating_sub(2).min(group.len())];
        while !rest.trim().is_empty() {
            expand(rest, prefix, out);
            let mut depth = 0;
            let comma = rest.find(|letter| {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                letter == ',' && depth == 0
            });
            rest = comma.map_or("", |comma| &rest[comma + 1..]);
        }
        return;
    }
    let end = code.find(|letter| !is_word(letter)).unwrap_or(code.len());
    let path = format!("{prefix}::{}", if end == 0 { "*" } else { &code[..end] });
    match code[end..].strip_prefix("::") {
        Some(rest) if end > 0 && !rest.starts_with('<') => expand(rest, &path, out),
        _ => out.push(path),
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Whether a line holds the word and not a longer one that ends or begins with it.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let joins = |outer: Option<char>, inner: Option<char>| {
            outer.is_some_and(is_word) && inner.is_some_and(is_word)
        };
        !joins(line[..at].chars().next_back(), word.chars().next())
            && !joins(line[at + word.len()..].chars().next(), word.chars().next_back())
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The sound tree of tests/cases/tidy.txt, and its cases: a path, a text, a violation.
fn read_cases() -> (Tree, Vec<(String, String, String)>) {
    let (mut sound, mut cases) = (Tree::new(), Vec::new());
    for block in include_str!("cases/tidy.txt").split("\n@@ ").skip(1) {
        let (path, body) = block.split_once('\n').expect("a path and a text");
        match body.split_once("\n=> ") {
            Some((text, violation)) => {
                let text = format!("{text}\n");
                cases.push((path.to_owned(), text, violation.trim().to_owned()));
            }
            None => {
                sound.insert(path.to_owned(), format!("{}\n", body.trim_end()));
            }
        }
    }
    (sound, cases)
}

#[test]
fn each_check_refuses_what_it_is_for_and_nothing_else() {
    let (sound, cases) = read_cases();
    assert_eq!(violations(&sound), [""; 0]);
    assert!(cases.len() > 30, "{} cases", cases.len());
    for (path, text, violation) in cases {
        let mut tree = sound.clone();
        tree.insert(path.clone(), text.clone());
        let found = violations(&tree);
        let expected = Vec::from_iter((violation != "fine").then_some(violation));
        assert_eq!(found, expected, "{path}\n{text}");
    }
}

#[test]
fn limits_are_exact() {
    let body = |lines: usize| format!("//! E.\nfn f() {{\n{}}}\n", "a();\n".repeat(lines - 2));
    let wide = |columns: usize| format!("//! {}\n", "ä".repeat(columns - 4));
    let long = |lines: usize| format!("//! E.\n{}", "a!();\n".repeat(lines - 1));
    let data = |tail: &str| format!("//! E.\n#[cfg(test)]\nfn f() {{ {:99}{tail} }}\n", "");
    let note = |word: &str| format!("//! E.\n// {word}: later\n");
    let never = |word: &str| format!("2: `{word}` is never committed");
    for (text, violation) in [
        (body(70), ""),
        (body(71), "2: `f` has 71 lines, of 70"),
        (wide(100), ""),
        (wide(101), "1: 101 columns, of 100"),
        (long(500), ""),
        (long(501), "501: 501 lines, of 500"),
        (data("\"a\""), ""),
        (data("abc"), "3: 113 columns, of 100"),
        (note(UNFINISHED[0]), &never(UNFINISHED[0])),
        (note(UNFINISHED[1]), &never(UNFINISHED[1])),
    ] {
        let mut tree = read_cases().0;
        tree.insert("src/engine.rs".to_owned(), text);
        let found = violations(&tree).join("\n");
        assert_eq!(found.strip_prefix("src/engine.rs:").unwrap_or(&found), violation);
    }
}

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tree = Tree::new();
    for path in ["build.rs", "rustfmt.toml", "ARCHITECTURE.md"] {
        tree.insert(path.to_owned(), std::fs::read_to_string(root.join(path)).expect(path));
    }
    for folder in ["src", "tests", "benches", "examples"] {
        collect(root, folder, &mut tree);
    }
    assert!(tree.len() > 50, "the tree was read: {} files", tree.len());
    let found = violations(&tree);
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

/// Reads every Rust file below a directory, which need not be there.
fn collect(root: &Path, folder: &str, tree: &mut Tree) {
    for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten() {
        let entry = entry.expect("readable");
        let path = format!("{folder}/{}", entry.file_name().to_str().expect("UTF-8"));
        if entry.path().is_dir() {
            collect(root, &path, tree);
        } else if path.ends_with(".rs") {
            tree.insert(path, std::fs::read_to_string(entry.path()).expect("readable"));
        }
    }
}
