//! What a load found: a table for people, JSON for programs.

use std::fmt::Write;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::checker::Faults;
use super::machine;

/// Everything one load says.
pub struct Report {
    bench: &'static str,
    settings: Map<String, Value>,
    results: Vec<Line>,
    rows: Vec<Line>,
    notes: Vec<String>,
    faults: Faults,
}

/// One number.
struct Line {
    key: String,
    label: String,
    unit: &'static str,
    value: f64,
}

impl Report {
    /// Of the load with this name.
    pub fn new(bench: &'static str) -> Self {
        Self {
            bench,
            settings: Map::new(),
            results: Vec::new(),
            rows: Vec::new(),
            notes: Vec::new(),
            faults: Faults::default(),
        }
    }

    /// Records how it was measured.
    pub fn setting(&mut self, name: &str, value: Value) {
        self.settings.insert(name.into(), value);
    }

    /// Something that the reader must know.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// A number.
    pub fn number(&mut self, key: &str, label: &str, unit: &'static str, value: f64) {
        self.results.push(Line {
            key: key.into(),
            label: label.into(),
            unit,
            value,
        });
    }

    /// A number, where it is known.
    pub fn maybe(&mut self, key: &str, label: &str, unit: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.number(key, label, unit, value);
        }
    }

    /// A number of things.
    pub fn count(&mut self, key: &str, label: &str, value: u64) {
        self.number(key, label, "", value as f64);
    }

    /// What went wrong, and why connections ended.
    pub fn faults(&mut self, faults: Faults, ended: &[String]) {
        self.faults += faults;
        self.count("lost", "lost", faults.lost);
        self.count("duplicated", "duplicated", faults.duplicated);
        self.count("misordered", "misordered", faults.misordered);
        if let Some(reason) = ended.first() {
            let number = ended.len();
            self.note(format!(
                "{number} connections ended, the first because: {reason}"
            ));
        }
    }

    /// One cell of a table of many: in JSON under `rows`.
    pub fn row(&mut self, label: String, unit: &'static str, value: f64) {
        self.rows.push(Line {
            key: String::new(),
            label,
            unit,
            value,
        });
    }

    /// Shows it: a table, and JSON where it is wanted (`-` is standard output, instead of the table). Fails if anything went wrong.
    pub fn show(&self, json_to: Option<&Path>) -> io::Result<()> {
        match json_to {
            Some(path) if path == Path::new("-") => print!("{}", self.json()),
            Some(path) => {
                print!("{}", self.text());
                std::fs::write(path, self.json()).map_err(|error| {
                    io::Error::other(format!("--json {}: {error}", path.display()))
                })?;
            }
            None => print!("{}", self.text()),
        }
        if self.faults.is_clean() {
            return Ok(());
        }
        let Faults {
            lost,
            duplicated,
            misordered,
        } = self.faults;
        Err(io::Error::other(format!(
            "the server broke its promise: {lost} lost, {duplicated} duplicated, {misordered} misordered"
        )))
    }

    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let settings: Vec<String> = self
            .settings
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => format!("{name} {text}"),
                other => format!("{name} {other}"),
            })
            .collect();
        writeln!(out, "{}: {}", self.bench, settings.join(", "))?;
        for line in self.rows.iter().chain(&self.results) {
            let row = format!(
                "  {:<48} {:>12} {}",
                line.label,
                number(line.value),
                line.unit
            );
            writeln!(out, "{}", row.trim_end())?;
        }
        for note in &self.notes {
            writeln!(out, "  note: {note}")?;
        }
        Ok(())
    }

    fn json(&self) -> String {
        let value = |line: &Line| {
            // Counts are integers.
            if line.value.fract() == 0.0 && line.unit.is_empty() {
                json!(line.value as u64)
            } else {
                json!(line.value)
            }
        };
        let results: Map<String, Value> = self
            .results
            .iter()
            .map(|line| (line.key.clone(), value(line)))
            .collect();
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|line| json!({ "what": line.label, "unit": line.unit, "value": line.value }))
            .collect();
        let report = json!({
            "bench": self.bench,
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine::describe(),
            "settings": self.settings,
            "results": results,
            "rows": rows,
            "notes": self.notes,
        });
        format!("{report:#}\n")
    }
}

/// Three digits where there are fewer, thousands apart where there are more.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        whole if whole.fract() == 0.0 => 0,
        below if below < 10.0 => 2,
        below if below < 100.0 => 1,
        _ => 0,
    };
    let plain = format!("{value:.decimals$}");
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if 0 < index && (whole.len() - index).is_multiple_of(3) && out != "-" {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
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
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn a_fault_fails_the_run() {
        let mut report = Report::new("fanout");
        report.count("delivered", "delivered", 7);
        report.faults(Faults::default(), &[]);
        assert!(report.show(None).is_ok());
        let lost = Faults {
            lost: 1,
            ..Faults::default()
        };
        report.faults(lost, &["closed with 4008".into()]);
        assert!(report.show(None).is_err());
        assert!(report.text().contains("closed with 4008"));
        let json: Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["results"]["delivered"], 7);
        assert_eq!(json["results"]["lost"], 1);
    }
}
