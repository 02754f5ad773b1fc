//! Line charts as SVG, readable on light and dark pages.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Around the axes: left, top, right, bottom.
const MARGIN: [f64; 4] = [64.0, 44.0, 96.0, 44.0];
const COLORS: [&str; 5] = ["#d9480f", "#868e96", "#1971c2", "#2f9e44", "#9c36b5"];

/// A chart whose points are at the same places of the x axis in every line.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What is at each place.
    pub(crate) places: Vec<String>,
    /// Names, and a value for each place that has one.
    pub(crate) lines: Vec<(String, Vec<Option<f64>>)>,
    /// Whether the y axis shows powers of ten.
    pub(crate) is_logarithmic: bool,
}

impl Chart {
    /// The whole picture.
    pub(crate) fn svg(&self) -> String {
        let (low, high) = self.range();
        let mut svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#868e96"><text x="{}" y="24" font-size="14">{}</text>"##,
            MARGIN[0], self.title
        );
        for tick in self.ticks(low, high) {
            let y = self.y(tick, low, high);
            let _ = write!(
                svg,
                r##"<path d="M{} {y:.1}H{}" stroke="#868e96" stroke-opacity=".3"/><text x="{}" y="{:.1}" text-anchor="end">{tick}</text>"##,
                MARGIN[0],
                WIDTH - MARGIN[2],
                MARGIN[0] - 8.0,
                y + 4.0
            );
        }
        for (at, place) in self.places.iter().enumerate() {
            let (x, y) = (self.x(at), HEIGHT - MARGIN[3] + 20.0);
            let _ = write!(svg, r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{place}</text>"#);
        }
        let mut labels = Vec::new();
        for ((name, values), color) in self.lines.iter().zip(COLORS) {
            let points =
                values.iter().enumerate().filter_map(|(at, value)| Some((self.x(at), self.y((*value)?, low, high))));
            let points: Vec<_> = points.collect();
            let Some((_, last)) = points.last() else { continue };
            let joined: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let joined = joined.join(" ");
            let _ = write!(svg, r#"<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="2"/>"#);
            for (x, y) in &points {
                let _ = write!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{color}"/>"#);
            }
            labels.push((*last, name, color));
        }
        // Names that would overlap move down.
        labels.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut free = 0.0_f64;
        for (y, name, color) in labels {
            free = free.max(y + 4.0);
            let x = WIDTH - MARGIN[2] + 8.0;
            let _ = write!(svg, r#"<text x="{x}" y="{free:.1}" fill="{color}">{name}</text>"#);
            free += 14.0;
        }
        svg + "</svg>\n"
    }

    fn range(&self) -> (f64, f64) {
        let values = || self.lines.iter().flat_map(|(_, values)| values).flatten().copied();
        let high = values().fold(f64::MIN_POSITIVE, f64::max);
        if !self.is_logarithmic {
            return (0.0, high);
        }
        let low = values().fold(high, f64::min);
        (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()))
    }

    fn ticks(&self, low: f64, high: f64) -> Vec<f64> {
        if self.is_logarithmic {
            return std::iter::successors(Some(low), |tick| Some(tick * 10.0))
                .take_while(|tick| *tick <= high * 1.01)
                .collect();
        }
        let power = 10_f64.powf(high.log10().floor());
        let step = if high / power < 2.5 { power / 2.0 } else { power };
        std::iter::successors(Some(low), |tick| Some(tick + step)).take_while(|tick| *tick <= high * 1.01).collect()
    }

    #[allow(clippy::cast_precision_loss, reason = "a handful of places")]
    fn x(&self, at: usize) -> f64 {
        let share = (at as f64 + 0.5) / self.places.len() as f64;
        MARGIN[0] + share * (WIDTH - MARGIN[0] - MARGIN[2])
    }

    fn y(&self, value: f64, low: f64, high: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value / low).log10() / (high / low).log10()
        } else {
            (value - low) / (high - low)
        };
        HEIGHT - MARGIN[3] - share * (HEIGHT - MARGIN[1] - MARGIN[3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_values_are_higher_up_and_a_missing_one_is_left_out() {
        let lines = vec![("ours".to_owned(), vec![Some(1.0), None, Some(100.0)])];
        let chart =
            Chart { title: "t".into(), places: ["a", "b", "c"].map(str::to_owned).into(), lines, is_logarithmic: true };
        assert!(chart.y(100.0, 1.0, 100.0) < chart.y(1.0, 1.0, 100.0));
        assert_eq!(chart.svg().matches("<circle").count(), 2);
        assert_eq!(chart.ticks(1.0, 100.0), [1.0, 10.0, 100.0]);
    }
}
