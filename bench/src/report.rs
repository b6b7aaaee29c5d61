//! The report of measurements: one line for each comparison, and the remarks that belong to it.

use std::fmt::Write;

/// What a line is to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Ours to theirs.
    Ratio(f64),
    /// Ours alone, in the line's unit.
    Rate(f64),
    /// Ours alone, in the line's unit: less is better.
    AtMost(f64),
    /// Ours to theirs, where less is better.
    Times(f64),
    /// Theirs to ours, where less is better.
    Faster(f64),
    /// None: it explains another line.
    None,
}

/// One comparison. Both figures are rates, where more is better, unless the target says that less is.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) work: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) peer: &'static str,
    /// None: there is no peer, or it is not installed.
    pub(crate) theirs: Option<f64>,
    pub(crate) ours: f64,
    pub(crate) target: Target,
}

/// What a row found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) lines: Vec<Line>,
    pub(crate) notes: Vec<String>,
    /// Tables of their own, with the titles that they stand under.
    pub(crate) sections: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, other: Self) {
        self.lines.extend(other.lines);
        self.notes.extend(other.notes);
        self.sections.extend(other.sections);
    }

    /// Lines as a Markdown table, remarks as a list below it, then the other tables.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| work | unit | peer or floor | theirs | ours | ratio | target | |\n\
             |---|---|---|---:|---:|---:|---|---|\n",
        );
        for line in &self.lines {
            let Line { work, unit, peer, ours, .. } = line;
            let theirs = line.theirs.map_or_else(|| "–".to_owned(), figure);
            let ratio = line.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
            let (target, met) = line.judged();
            let ours = figure(*ours);
            let _ = writeln!(text, "| {work} | {unit} | {peer} | {theirs} | {ours} | {ratio} | {target} | {met} |");
        }
        text.push('\n');
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        for section in &self.sections {
            let _ = write!(text, "\n{section}");
        }
        text
    }
}

impl Line {
    /// Ours to theirs, but for lines that ask how much faster ours is.
    fn ratio(&self) -> Option<f64> {
        let faster = matches!(self.target, Target::Faster(_));
        self.theirs.map(|theirs| if faster { theirs / self.ours } else { self.ours / theirs })
    }

    /// The target in words, and whether it was reached.
    fn judged(&self) -> (String, &'static str) {
        let word = |met| if met { "met" } else { "**not met**" };
        match self.target {
            Target::Ratio(at_least) => {
                let met = self.ratio().map_or("not compared", |ratio| word(ratio >= at_least));
                (format!("≥ {at_least} ×"), met)
            }
            Target::Times(at_most) => {
                let met = self.ratio().map_or("not compared", |ratio| word(ratio <= at_most));
                (format!("≤ {at_most} ×"), met)
            }
            Target::Faster(at_least) => {
                let met = self.ratio().map_or("not compared", |ratio| word(ratio >= at_least));
                (format!("≥ {at_least} × faster"), met)
            }
            Target::Rate(at_least) => (format!("≥ {}", figure(at_least)), word(self.ours >= at_least)),
            Target::AtMost(at_most) => (format!("≤ {}", figure(at_most)), word(self.ours <= at_most)),
            Target::None => ("–".to_owned(), ""),
        }
    }
}

fn figure(rate: f64) -> String {
    if rate >= 100.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(theirs: Option<f64>, ours: f64, target: Target) -> &'static str {
        Line { work: "w", unit: "u", peer: "p", theirs, ours, target }.judged().1
    }

    #[test]
    fn a_target_is_met_at_its_figure_and_not_below() {
        assert_eq!(judged(Some(100.0), 120.0, Target::Ratio(1.2)), "met");
        assert_eq!(judged(Some(100.0), 119.0, Target::Ratio(1.2)), "**not met**");
        assert_eq!(judged(None, 500.0, Target::Rate(500.0)), "met");
        assert_eq!(judged(None, 499.0, Target::Rate(500.0)), "**not met**");
        assert_eq!(judged(None, 100.0, Target::AtMost(100.0)), "met");
        assert_eq!(judged(None, 101.0, Target::AtMost(100.0)), "**not met**");
        assert_eq!(judged(None, f64::NAN, Target::AtMost(100.0)), "**not met**");
        assert_eq!(judged(None, 1.0, Target::Ratio(1.2)), "not compared");
        assert_eq!(judged(Some(2.0), 3.0, Target::Times(1.5)), "met");
        assert_eq!(judged(Some(2.0), 3.1, Target::Times(1.5)), "**not met**");
        assert_eq!(judged(Some(100.0), 10.0, Target::Faster(10.0)), "met");
        assert_eq!(judged(Some(100.0), 10.1, Target::Faster(10.0)), "**not met**");
        assert_eq!(judged(None, 1.0, Target::Faster(10.0)), "not compared");
        assert_eq!(judged(Some(1.0), 2.0, Target::None), "");
    }
}
