//! What the last run of the benchmarks measured, in one table, with the machine and the versions on top.
//!
//! `report` prints it, puts it into BENCHMARKS.md, and draws the plots; `report WORD` only prints what was measured, and
//! allocated, under a name that has the word in it.

mod figures;
mod machine;
mod memory;
mod plots;
mod rows;
mod table;

use std::fs;
use std::path::Path;

use figures::Figures;

const BEGIN: &str = "<!-- written by `just bench` -->\n";
const END: &str = "<!-- end -->\n";

fn main() {
    let filter = std::env::args().nth(1).filter(|word| !word.is_empty());
    let figures = Figures::read();
    let mut memory = memory::read();
    memory.retain(|of, _| filter.as_ref().is_none_or(|word| of.measure.contains(word)));
    let times = table::times(&rows::rows(&figures, &memory));
    let mut report = format!("{}\n{times}", machine::header());
    if !memory.is_empty() {
        report += &format!("\n{}", table::allocations(&memory));
    }
    println!("{report}");
    if filter.is_none() {
        let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = benches.join("../BENCHMARKS.md");
        let old = fs::read_to_string(&page).expect("BENCHMARKS.md");
        fs::write(&page, with_report(&old, &report)).expect("to write BENCHMARKS.md");
        plots::draw(&figures, &benches.join("plots")).expect("to draw the plots");
    }
}

/// The page with another report between its two marks.
fn with_report(page: &str, report: &str) -> String {
    let (before, rest) = page.split_once(BEGIN).expect("the mark before the report");
    let (_, after) = rest.split_once(END).expect("the mark after the report");
    format!("{before}{BEGIN}\n{report}\n{END}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = |report: &str| format!("# Title\n{BEGIN}{report}{END}\nText\n");
        assert_eq!(with_report(&page("old\n"), "new"), page("\nnew\n"));
        assert_eq!(with_report(&page("\nnew\n"), "new"), page("\nnew\n"));
    }
}
