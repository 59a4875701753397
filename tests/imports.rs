//! Imports point one way, as the diagram in DESIGN.md has it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DESIGN: &str = include_str!("../DESIGN.md");
/// Where the integrations end.
const FIRST_OF_THE_CRATE: &str = "explain";

/// The lines of the diagram, the lowest one last.
fn diagram() -> Vec<Vec<&'static str>> {
    let starts = DESIGN.find("```text\naxum").expect("the diagram") + "```text\n".len();
    let lines = DESIGN[starts..].lines().take_while(|line| *line != "```");
    lines.map(|line| line.split(", ").collect()).collect()
}

/// The modules of the crate that a file names, and "" for the crate itself.
fn imported(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).expect("a source file");
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .map(|path| path.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect())
        .collect()
}

/// The files of each module, however deep.
fn files(module: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join(module).with_extension("rs")];
    let mut folders = vec![src.join(module)];
    while let Some(folder) = folders.pop() {
        let children = fs::read_dir(folder).into_iter().flatten().map(|child| child.expect("a file").path());
        let (inner, sources): (Vec<_>, Vec<_>) = children.partition(|child| child.is_dir());
        folders.extend(inner);
        files.extend(sources);
    }
    files
}

#[test]
fn imports_point_downwards() {
    let diagram = diagram();
    let level = |module: &str| diagram.iter().position(|line| line.contains(&module));
    let crates_own = level(FIRST_OF_THE_CRATE).expect("in the diagram");
    for (at, module) in diagram.iter().enumerate().flat_map(|(at, line)| line.iter().map(move |module| (at, *module))) {
        for used in files(module).iter().flat_map(|file| imported(file)).filter(|used| used != module) {
            if used.is_empty() {
                assert!(at < crates_own, "{module} takes from the crate's root");
                continue;
            }
            let below = level(&used).unwrap_or_else(|| panic!("{module} imports {used}, which the diagram has not"));
            assert!(below > at, "{module} imports {used}, which is not below it");
            assert!(at >= crates_own || below < crates_own, "{module} is an integration: it takes {used} as users do");
        }
    }
}

#[test]
fn the_diagram_has_every_module() {
    let diagram = diagram().concat();
    let root = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("lib.rs");
    let modules =
        root.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    for module in modules {
        assert!(diagram.contains(&module), "{module}");
    }
}
