//! A table of one figure for each sort of work and each number of rules.

use std::fmt::Write;

use super::RULES;

/// Figures by work, in the order in which work was first named.
#[derive(Default)]
pub(crate) struct Table(Vec<(String, [Option<f64>; RULES.len()])>);

impl Table {
    pub(crate) fn put(&mut self, work: &str, rules: usize, figure: f64) {
        let at = self.0.iter().position(|(known, _)| known == work).unwrap_or_else(|| {
            self.0.push((work.to_owned(), Default::default()));
            self.0.len() - 1
        });
        let column = RULES.iter().position(|known| *known == rules);
        let cell = column.and_then(|column| self.0.get_mut(at).and_then(|(_, figures)| figures.get_mut(column)));
        if let Some(cell) = cell {
            *cell = Some(figure);
        }
    }

    /// Not a number where there is none.
    pub(crate) fn figure(&self, work: &str, rules: usize) -> f64 {
        let row = self.0.iter().find(|(known, _)| known == work);
        let column = RULES.iter().position(|known| *known == rules);
        row.zip(column).and_then(|((_, figures), column)| figures.get(column).copied().flatten()).unwrap_or(f64::NAN)
    }

    /// As Markdown, under a title.
    pub(crate) fn section(&self, title: &str) -> String {
        let mut text = format!("{title}\n\n| |");
        RULES.iter().for_each(|rules| text.push_str(&format!(" {} rules |", thousands(*rules))));
        text.push_str("\n|---|");
        RULES.iter().for_each(|_| text.push_str("---:|"));
        for (work, figures) in &self.0 {
            let _ = write!(text, "\n| {work} |");
            for figure in figures {
                let figure = figure.map_or_else(|| "–".to_owned(), digits);
                let _ = write!(text, " {figure} |");
            }
        }
        text.push('\n');
        text
    }
}

fn thousands(count: usize) -> String {
    if count >= 1000 { format!("{}k", count / 1000) } else { count.to_string() }
}

/// Small ones to a hundredth.
pub(crate) fn digits(figure: f64) -> String {
    match figure {
        small if small < 10.0 => format!("{small:.2}"),
        middle if middle < 100.0 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_stands_under_its_rules_and_others_are_no_number() {
        let mut table = Table::default();
        table.put("a", 1_000, 1.234);
        table.put("b", 10, 123.4);
        table.put("a", 7, 9.0);
        assert_eq!(table.figure("a", 1_000).to_bits(), 1.234_f64.to_bits());
        assert!(table.figure("a", 10).is_nan() && table.figure("c", 10).is_nan() && table.figure("a", 7).is_nan());
        let text = table.section("t");
        assert!(text.contains("| a | – | 1.23 | – | – |") && text.contains("| b | 123 | – | – | – |"), "{text}");
    }
}
