//! What was measured, beside what it must reach: a table for people, JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::spread::Spread;

/// Everything one run says.
pub(crate) struct Report {
    machine: Value,
    settings: Vec<(String, Value)>,
    notes: Vec<String>,
    sections: Vec<Section>,
}

/// Rows under one heading.
struct Section {
    title: &'static str,
    rows: Vec<Row>,
}

/// One number.
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    spread: Spread,
    /// What a release must reach.
    target: Option<Bound>,
    /// What the design aims at.
    goal: Option<Bound>,
}

/// A limit in words, and whether the median keeps it.
pub(crate) struct Bound {
    text: String,
    met: bool,
}

impl Report {
    pub(crate) fn new(machine: Value) -> Self {
        Self {
            machine,
            settings: Vec::new(),
            notes: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// Records how a part was measured.
    pub(crate) fn setting(&mut self, name: &str, value: Value) {
        self.settings.push((name.into(), value));
    }

    /// Says something a reader must know, at once and in the report.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        eprintln!("note: {text}");
        self.notes.push(text);
    }

    pub(crate) fn section(&mut self, title: &'static str, rows: Vec<Row>) {
        self.sections.push(Section { title, rows });
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        for (name, value) in self.machine.as_object().into_iter().flatten() {
            writeln!(out, "{:<24}{}", name.replace('_', " "), plain(value))?;
        }
        for (name, value) in &self.settings {
            writeln!(out, "{name:<24}{}", plain(value))?;
        }
        for note in &self.notes {
            writeln!(out, "{:<24}{note}", "NOTE")?;
        }
        for section in &self.sections {
            writeln!(
                out,
                "\n{:<62} {:>10}  {:<8} {:>21}   {:<34} goal",
                section.title, "median", "", "lowest .. highest", "target"
            )?;
            for row in &section.rows {
                writeln!(out, "{}", row.text().trim_end())?;
            }
        }
        Ok(())
    }

    pub(crate) fn json(&self) -> String {
        let sections: Vec<Value> = self
            .sections
            .iter()
            .map(|section| {
                let rows: Vec<Value> = section.rows.iter().map(Row::json).collect();
                json!({ "title": section.title, "rows": rows })
            })
            .collect();
        let settings: serde_json::Map<String, Value> = self.settings.iter().cloned().collect();
        let report = json!({
            "machine": self.machine, "settings": settings, "notes": self.notes, "sections": sections,
        });
        format!("{report:#}\n")
    }
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, spread: Spread) -> Self {
        Self {
            what: what.into(),
            unit,
            spread,
            target: None,
            goal: None,
        }
    }

    /// Sets what a release must reach.
    pub(crate) fn target(mut self, bound: Bound) -> Self {
        self.target = Some(bound);
        self
    }

    /// Sets what the design aims at.
    pub(crate) fn goal(mut self, bound: Bound) -> Self {
        self.goal = Some(bound);
        self
    }

    /// The median, to compare with a bound.
    pub(crate) fn median(&self) -> f64 {
        self.spread.median
    }

    fn text(&self) -> String {
        let Spread { median, low, high } = self.spread;
        format!(
            "  {:<60} {:>10}  {:<8} {:>21}   {:<34} {}",
            self.what,
            number(median),
            self.unit,
            format!("{} .. {}", number(low), number(high)),
            words(self.target.as_ref()),
            words(self.goal.as_ref()),
        )
    }

    fn json(&self) -> Value {
        let bound = |bound: &Bound| json!({ "bound": bound.text, "met": bound.met });
        json!({
            "what": self.what, "unit": self.unit, "median": self.spread.median,
            "low": self.spread.low, "high": self.spread.high,
            "target": self.target.as_ref().map(bound), "goal": self.goal.as_ref().map(bound),
        })
    }
}

impl Bound {
    /// A limit described in words.
    pub(crate) fn new(text: impl Into<String>, met: bool) -> Self {
        Self {
            text: text.into(),
            met,
        }
    }

    pub(crate) fn at_least(row: &Row, limit: f64) -> Self {
        Self::new(format!(">= {limit}"), limit <= row.median())
    }

    pub(crate) fn at_most(row: &Row, limit: f64) -> Self {
        Self::new(format!("<= {limit}"), row.median() <= limit)
    }
}

fn words(bound: Option<&Bound>) -> String {
    bound.map_or_else(String::new, |bound| {
        format!(
            "{} {}",
            bound.text,
            if bound.met { "met" } else { "MISSED" }
        )
    })
}

/// Three significant digits, thousands apart.
fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if 0 < index && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(number(0.314_15), "0.31");
        assert_eq!(number(42.24), "42.2");
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(100.0), "100");
    }

    #[test]
    fn a_missed_target_is_shouted() {
        let row = Row::new("ratio", "", Spread::of([1.0]));
        let bound = Bound::at_least(&row, 2.0);
        assert!(row.target(bound).text().contains(">= 2 MISSED"));
    }
}
