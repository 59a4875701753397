//! Where the figures of a run are kept: with criterion's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

/// What a figure is of. Criterion knows it as `measure/side/size/round`.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub measure: String,
    pub side: String,
    pub size: usize,
    pub round: usize,
}

/// Where criterion writes, and the report reads.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/criterion")
}

impl Figure {
    pub(crate) fn parameter(&self) -> String {
        format!("{}/{}", self.size, self.round)
    }

    pub(crate) fn id(&self) -> String {
        format!("{}/{}/{}", self.measure, self.side, self.parameter())
    }

    /// Keeps a figure that criterion has not taken, in the files that it would have written.
    pub(crate) fn keep(&self, time: Duration) {
        let new = directory().join(self.id().replace(['/', ' '], "_")).join("new");
        fs::create_dir_all(&new).expect("a directory for the figures");
        let benchmark = json!({ "group_id": self.measure, "function_id": self.side, "value_str": self.parameter() });
        let estimates = json!({ "median": { "point_estimate": time.as_nanos() as f64 } });
        fs::write(new.join("benchmark.json"), benchmark.to_string()).expect("to write a figure");
        fs::write(new.join("estimates.json"), estimates.to_string()).expect("to write a figure");
    }
}

/// All figures of the last run, in nanoseconds.
pub fn read() -> Vec<(Figure, f64)> {
    let mut figures = Vec::new();
    let mut directories = vec![directory()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path());
        directories.extend(entries.filter(|path| path.is_dir()));
        if directory.ends_with("new") {
            figures.extend(figure(&directory));
        }
    }
    figures
}

fn figure(directory: &Path) -> Option<(Figure, f64)> {
    let read =
        |name: &str| -> Option<Value> { serde_json::from_str(&fs::read_to_string(directory.join(name)).ok()?).ok() };
    let (benchmark, estimates) = (read("benchmark.json")?, read("estimates.json")?);
    let text = |key: &str| benchmark[key].as_str().map(String::from);
    let (size, round) = text("value_str")?.split_once('/').map(|(size, round)| (size.parse(), round.parse()))?;
    let figure =
        Figure { measure: text("group_id")?, side: text("function_id")?, size: size.ok()?, round: round.ok()? };
    Some((figure, estimates["median"]["point_estimate"].as_f64()?))
}
