//! Which file of the crate uses which: by `use`, by inline path, and through re-exports.

use super::{code, is_test, module_path};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A path to a name: the modules from the crate's root, then the name.
type Full = Vec<String>;

/// Something that a file brings into its scope.
struct Import {
    /// The name in this file; `*` for all that the module has.
    name: String,
    /// What it leads to, as far as it could be made absolute.
    path: Full,
}

struct Source {
    file: PathBuf,
    defined: BTreeSet<String>,
    imports: Vec<Import>,
    /// Paths within the code.
    inline: Vec<Vec<String>>,
}

/// The files of the crate by their module.
pub struct Crate(BTreeMap<Full, Source>);

/// A crate's files, each with those that it uses.
pub type Uses = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

impl Crate {
    pub fn new(sources: Vec<(PathBuf, String)>) -> Self {
        let sources = sources.into_iter().filter(|(path, _)| !is_test(path));
        let read = sources.map(|(file, text)| {
            let module = module_path(&file);
            let source = Source::read(file, &code(&text), &module);
            (module, source)
        });
        Self(read.collect())
    }

    /// Returns the files that each file uses. A module that is only named leads nowhere; what is
    /// used of it does.
    pub fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (module, source) in &self.0 {
            let mut used = BTreeSet::new();
            for import in &source.imports {
                used.extend(self.file_of(&import.path, 0));
            }
            for path in &source.inline {
                let absolute = absolute(path, module).or_else(|| {
                    let is_own = self.0.contains_key(&extend(module, &path[..1]));
                    is_own.then(|| extend(module, path))
                });
                match absolute {
                    Some(path) => used.extend(self.file_of(&path, 0)),
                    None => used.extend(self.file_in(source, path, 0)),
                }
            }
            used.remove(&source.file);
            uses.insert(source.file.clone(), used);
        }
        uses
    }

    /// Returns the file that defines what the path names; `None` for a module or what is elsewhere.
    fn file_of(&self, path: &[String], depth: usize) -> Option<PathBuf> {
        let length = (0..=path.len()).rev();
        let length = length
            .into_iter()
            .find(|length| self.0.contains_key(&path[..*length]))?;
        let source = &self.0[&path[..length]];
        let rest = &path[length..];
        let first = rest.first()?;
        if source.defined.contains(first) {
            return Some(source.file.clone());
        }
        self.file_in(source, rest, depth)
    }

    /// Returns the file that a name in the scope of this file leads to.
    fn file_in(&self, source: &Source, path: &[String], depth: usize) -> Option<PathBuf> {
        let (first, rest) = path.split_first()?;
        if depth > 8 || source.defined.contains(first) {
            return None;
        }
        source.imports.iter().find_map(|import| {
            let target = match import.name.as_str() {
                "*" => extend(&import.path[..import.path.len() - 1], path),
                name if name == first => extend(&import.path, rest),
                _ => return None,
            };
            self.file_of(&target, depth + 1)
        })
    }
}

impl Source {
    fn read(file: PathBuf, code: &str, module: &[String]) -> Self {
        let mut source = Self {
            file,
            defined: BTreeSet::new(),
            imports: Vec::new(),
            inline: Vec::new(),
        };
        let mut body = String::new();
        let mut rest = code;
        // Uses, each up to its semicolon; all else is the body.
        while let Some(line) = rest.split_inclusive('\n').next() {
            let declared = without_visibility(line);
            if let Some(tree) = declared.strip_prefix("use ") {
                let start = line.len() - tree.len();
                let end = rest.find(';').unwrap_or(rest.len());
                let mut found = Vec::new();
                expand(&rest[start..end], &[], &mut found);
                let absolute = found.into_iter().map(|(name, path)| Import {
                    name,
                    path: absolute(&path, module).unwrap_or_else(|| extend(module, &path)),
                });
                source.imports.extend(absolute);
                rest = rest[end..].trim_start_matches(';').trim_start_matches('\n');
                continue;
            }
            source.defined.extend(defined(declared));
            body.push_str(line);
            rest = &rest[line.len()..];
        }
        source.inline = paths(&body);
        source
    }
}

fn without_visibility(line: &str) -> &str {
    match line.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ").map_or(line, |(_, rest)| rest),
        None => line.strip_prefix("pub ").unwrap_or(line),
    }
}

/// Returns the name that a line at the left margin defines.
fn defined(line: &str) -> Option<String> {
    let line = ["const fn ", "async fn ", "unsafe "]
        .iter()
        .find_map(|prefix| line.strip_prefix(prefix))
        .map_or_else(|| line.to_owned(), |rest| format!("fn {rest}"));
    let kinds = [
        "struct ", "enum ", "trait ", "type ", "fn ", "const ", "static ", "union ",
    ];
    let macros = line.strip_prefix("macro_rules! ");
    let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind));
    rest.or(macros).map(super::first_word)
}

fn extend(module: &[String], path: &[String]) -> Full {
    [module, path].concat()
}

/// Resolves `crate`, `self` and `super` at the beginning of a path.
fn absolute(path: &[String], module: &[String]) -> Option<Full> {
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some(extend(module, &path[1..])),
        "super" => {
            let up = path.iter().take_while(|part| *part == "super").count();
            let height = module.len().checked_sub(up)?;
            Some(extend(&module[..height], &path[up..]))
        }
        _ => None,
    }
}

/// Returns the names and paths of a tree of uses.
fn expand(tree: &str, before: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut prefix = before.to_vec();
        prefix.extend(parts(&tree[..open]));
        let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let mut depth = 0_usize;
        for one in inner.split(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0
        }) {
            expand(one, &prefix, found);
        }
        return;
    }
    let (path, alias) = match tree.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim().to_owned())),
        None => (tree, None),
    };
    let mut full = before.to_vec();
    full.extend(parts(path));
    if full.len() > 1 && full.last().is_some_and(|last| last == "self") {
        full.pop();
    }
    if let Some(last) = full.last() {
        found.push((alias.unwrap_or_else(|| last.clone()), full));
    }
}

fn parts(path: &str) -> impl Iterator<Item = String> {
    let parts = path.split("::").map(str::trim);
    parts.filter(|part| !part.is_empty()).map(str::to_owned)
}

/// Returns the paths of more than one part that stand in the code.
fn paths(code: &str) -> Vec<Vec<String>> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(|c| !is_part(c))
        .filter(|word| word.contains("::"))
        .map(|word| parts(word).collect::<Vec<_>>())
        .filter(|path| path.len() > 1)
        .collect()
}

/// Returns the files from which a way leads back to themselves.
pub fn in_circles(uses: &Uses) -> BTreeSet<PathBuf> {
    let leads_back = |start: &PathBuf| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&PathBuf> = uses[start].iter().collect();
        while let Some(file) = open.pop() {
            if file == start {
                return true;
            }
            if seen.insert(file) {
                open.extend(uses.get(file).into_iter().flatten());
            }
        }
        false
    };
    uses.keys()
        .filter(|file| leads_back(file))
        .cloned()
        .collect()
}

#[test]
fn a_circle_is_found_however_it_is_closed() {
    let circles = |files: &[(&str, &str)]| {
        let files = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()));
        let found = in_circles(&Crate::new(files.collect()).uses());
        let found: Vec<String> = found
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        found.join(" ")
    };
    let b = ("a/b.rs", "use super::c::C;\npub struct B;");
    let both = "a/b.rs a/c.rs";
    // By `use`, by an inline path, and through the re-export of a module.
    assert_eq!(
        circles(&[b, ("a/c.rs", "use crate::a::b::B;\npub struct C;")]),
        both
    );
    assert_eq!(
        circles(&[b, ("a/c.rs", "pub struct C(super::b::B);")]),
        both
    );
    let root = ("a/mod.rs", "mod b;\nmod c;\npub use b::{B as D, self};");
    assert_eq!(
        circles(&[root, b, ("a/c.rs", "use super::D;\npub struct C;")]),
        both
    );
    let named = "use crate::a::b;\npub struct C(b::B);";
    assert_eq!(circles(&[root, b, ("a/c.rs", named)]), both);
    // What a module defines itself makes a circle with what it uses.
    let parent = ("a.rs", "mod b;\nuse b::B;\npub struct A;");
    let child = ("a/b.rs", "use super::A;\npub struct B;");
    assert_eq!(circles(&[parent, child]), "a/b.rs a.rs");
    let inline = ("a.rs", "mod b;\nfn f() { b::go() }\npub struct A;");
    assert_eq!(
        circles(&[inline, ("a/b.rs", "use super::A;\npub fn go() {}")]),
        "a/b.rs a.rs"
    );
    // A re-export alone makes none.
    let exports = ("a.rs", "mod b;\nmod c;\npub use b::B;\npub use c::C;");
    assert_eq!(circles(&[exports, b, ("a/c.rs", "pub struct C;")]), "");
}
