//! Cost against size, a line for each side. Greys and colours that can be read on light and on dark.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::prelude::*;

use crate::figures::Figures;
use crate::table::{count, time};

const GREY: RGBColor = RGBColor(125, 125, 125);
const FAINT: RGBAColor = RGBAColor(125, 125, 125, 0.25);
/// Ours, and the peers in their order.
const COLOURS: [RGBColor; 4] =
    [RGBColor(59, 130, 246), RGBColor(217, 119, 6), RGBColor(22, 163, 74), RGBColor(192, 80, 220)];
const PANEL: (u32, u32) = (430, 330);

/// A file for each kind of size, with a panel for each measure.
const FILES: [(&str, &str, &[&str]); 4] = [
    ("inputs.svg", "inputs", &["any_of: make", "any_of: check", "any_of: await"]),
    ("waiters.svg", "waiters", &["one cancel, parked waiters", "one cancel, parked tasks, until all have ended"]),
    ("threads.svg", "threads", &["request, threads on one root"]),
    ("depth.svg", "levels", &["chain: make", "chain: cancel", "chain: drop", "value lookup"]),
];

pub(crate) fn draw(figures: &Figures, directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    for (file, size, measures) in FILES {
        let path = directory.join(file);
        let columns = measures.len().min(2);
        let rows = measures.len().div_ceil(columns);
        let whole = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
        let root = SVGBackend::new(&path, whole).into_drawing_area();
        for (measure, area) in measures.iter().zip(root.split_evenly((rows, columns))) {
            panel(figures, measure, size, &area)?;
        }
        root.present()?;
    }
    Ok(())
}

fn panel<DB: DrawingBackend>(
    figures: &Figures,
    measure: &str,
    size: &str,
    area: &DrawingArea<DB, plotters::coord::Shift>,
) -> Result<(), Box<dyn Error>>
where
    DB::ErrorType: 'static,
{
    let lines = lines(figures, measure);
    let points = || lines.iter().flat_map(|(_, points)| points);
    if points().next().is_none() {
        return Ok(());
    }
    let (least, most) = bounds(points().map(|point| point.0));
    let (low, high) = bounds(points().map(|point| point.1));
    // Whole powers of ten, and one above for the names of the lines.
    let (low, high) = (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil() + 1.0));
    let base = if most / least < 100.0 { 2.0 } else { 10.0 };
    let text = |points: i32| ("sans-serif", points).into_font().color(&GREY);

    let mut chart = ChartBuilder::on(area)
        .caption(measure, text(19))
        .margin(10)
        .margin_right(32)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d((least..most).log_scale().base(base), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .axis_style(GREY)
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .label_style(text(15))
        .axis_desc_style(text(15))
        .x_desc(size)
        .x_label_formatter(&|size| if size.fract() == 0.0 { count(*size as u64) } else { String::new() })
        .y_label_formatter(&|nanoseconds| time(*nanoseconds).replace(".00", "").replace(".0", ""))
        .draw()?;
    for ((side, points), colour) in lines.iter().zip(COLOURS) {
        let style = ShapeStyle { color: colour.to_rgba(), filled: true, stroke_width: 2 };
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(side)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, style)))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).label_font(text(15)).draw()?;
    Ok(())
}

type Line = (String, Vec<(f64, f64)>);

/// Of each side, the median at each size; ours first.
fn lines(figures: &Figures, measure: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for of in figures.0.keys().filter(|of| of.measure == measure) {
        let point = figures.median(of).map(|median| (of.size as f64, median));
        match lines.last_mut() {
            Some((side, points)) if *side == of.side => points.extend(point),
            _ => lines.push((of.side.clone(), point.into_iter().collect())),
        }
    }
    lines.sort_by_key(|(side, _)| !side.starts_with("ours"));
    lines
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(least, most), value| (least.min(value), most.max(value)))
}
