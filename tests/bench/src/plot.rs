//! A plot of one series: a bar for each contender's median, a line from the least to the most of its rounds.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::series::{Series, number};
use crate::stats::percentile;

const WIDTH: u32 = 900;
const ROW: u32 = 46;

/// Draws it as a PNG. Names that begin with `zue` stand out.
pub fn bars(series: &Series, path: &Path) -> Result<()> {
    // A second time changes nothing.
    plotters::style::register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| anyhow!("the font is not one"))?;
    draw(series, path).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn draw(series: &Series, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let count = series.runs.len();
    let height = 110 + ROW * u32::try_from(count)?;
    let area = BitMapBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = series.runs.iter().flat_map(|(_, values)| values).copied().fold(0.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(&area)
        .caption(&series.title, ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(150)
        .build_cartesian_2d(0.0..most, 0.0..count as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .x_desc(series.unit)
        .x_label_formatter(&|value| number(*value))
        .draw()?;
    let mark = |row: usize, from: f64, to: f64| {
        let bottom = (count - 1 - row) as f64;
        [(0.0, bottom + from), (0.0, bottom + to)]
    };
    for (row, (name, values)) in series.runs.iter().enumerate() {
        let [least, median, greatest] = [0.0, 0.5, 1.0].map(|share| percentile(values, share));
        let [(_, bottom), (_, top)] = mark(row, 0.2, 0.8);
        let colour = if name.starts_with("zue") { RGBColor(31, 119, 180) } else { RGBColor(160, 160, 160) };
        chart.draw_series([Rectangle::new([(0.0, bottom), (median, top)], colour.filled())])?;
        let middle = f64::midpoint(bottom, top);
        chart.draw_series([PathElement::new([(least, middle), (greatest, middle)], BLACK.stroke_width(2))])?;
        let text = format!("{name}  {}", number(median));
        let (x, y) = chart.backend_coord(&(0.0, middle));
        area.draw(&Text::new(text, (x - 150, y - 8), ("sans-serif", 15)))?;
    }
    area.present()?;
    Ok(())
}
