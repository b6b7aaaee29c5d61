//! The self-checked table: the step, the expected result, the actual result, and the time it took.

use std::time::Instant;

use serde_json::json;

struct Row {
    step: &'static str,
    expected: &'static str,
    seen: String,
    agrees: bool,
    millis: u128,
}

/// Rows are printed as they come, and again as a table in the end.
pub(super) struct Table {
    rows: Vec<Row>,
    json: bool,
    last: Instant,
}

/// The result of a step: its text, and whether it is the expected one.
pub(super) struct Seen {
    pub(super) text: String,
    pub(super) agrees: bool,
}

impl Seen {
    pub(super) fn new(agrees: bool, text: impl Into<String>) -> Self {
        Self { agrees, text: text.into() }
    }

    /// Agrees if the text holds the word.
    pub(super) fn holding(word: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { agrees: text.contains(word), text }
    }
}

impl Table {
    pub(super) fn new(json: bool) -> Self {
        Self { rows: Vec::new(), json, last: Instant::now() }
    }

    /// Time counts from here to the next row.
    pub(super) fn begin(&mut self) {
        self.last = Instant::now();
    }

    pub(super) fn row(&mut self, step: &'static str, expected: &'static str, seen: Seen) {
        let millis = self.last.elapsed().as_millis();
        if !self.json {
            let mark = if seen.agrees { "ok  " } else { "FAIL" };
            println!("{mark} {step}: {} ({millis} ms)", seen.text);
        }
        self.rows.push(Row { step, expected, seen: seen.text, agrees: seen.agrees, millis });
        self.last = Instant::now();
    }

    /// Prints the whole; returns how many rows do not agree.
    pub(super) fn end(self) -> usize {
        let agree = self.rows.iter().filter(|row| row.agrees).count();
        let all = agree == self.rows.len() && !self.rows.is_empty();
        if self.json {
            let rows: Vec<_> = self
                .rows
                .iter()
                .map(|r| {
                    let millis = u64::try_from(r.millis).unwrap_or(u64::MAX);
                    json!({"step": r.step, "expected": r.expected, "seen": r.seen, "agrees": r.agrees, "ms": millis})
                })
                .collect();
            println!("{}", json!({"rows": rows, "agrees": all}));
        } else {
            self.print();
            println!("\n{agree} of {} rows agree", self.rows.len());
        }
        if all { 0 } else { (self.rows.len() - agree).max(1) }
    }

    fn print(&self) {
        let width = |cell: &dyn Fn(&Row) -> usize| self.rows.iter().map(cell).max().unwrap_or(0);
        let (step, expected) = (width(&|r| r.step.len()).max(4), width(&|r| r.expected.len()).max(8));
        println!("\n     {:step$}  {:expected$}  {:>6}  seen", "step", "expected", "ms");
        for row in &self.rows {
            let mark = if row.agrees { "ok" } else { "FAIL" };
            println!("{mark:4} {:step$}  {:expected$}  {:>6}  {}", row.step, row.expected, row.millis, row.seen);
        }
    }
}
