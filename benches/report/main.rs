//! One table of what the last run of the benchmarks measured, and plots of it.
//!
//! `report` prints the table; `report --write` puts it into BENCHMARKS.md too, and draws `plots/`.

mod figures;
mod rows;
mod table;

use figures::Figures;

fn main() {
    let figures = Figures::read();
    print!("{}", table::table(&rows::rows(&figures)));
}
