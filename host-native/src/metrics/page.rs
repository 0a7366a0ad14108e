//! The text that monitoring reads: Prometheus exposition format, version 0.0.4. Knows no metric by name.

use std::fmt::{Display, Write};
use std::sync::Arc;

/// Something that is shown as the samples of one metric.
pub trait Metric {
    /// `counter`, `gauge` or `histogram`.
    const TYPE: &'static str;

    /// Writes its samples, each with at least these labels.
    fn write(&self, samples: &mut Samples<'_>, labels: &str);
}

/// The text so far.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Adds a metric. `help` is one line without backslashes.
    pub fn metric<M: Metric>(&mut self, name: &str, help: &str, metric: &M) {
        push(
            &mut self.text,
            format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", M::TYPE),
        );
        let mut samples = Samples {
            text: &mut self.text,
            name,
        };
        metric.write(&mut samples, "");
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Samples<'_> {
    /// Adds a sample; `suffix` follows the metric's name, `labels` are as `with_label` makes them.
    pub fn add(&mut self, suffix: &str, labels: &str, value: impl Display) {
        let name = self.name;
        if labels.is_empty() {
            push(self.text, format_args!("{name}{suffix} {value}\n"));
        } else {
            push(
                self.text,
                format_args!("{name}{suffix}{{{labels}}} {value}\n"),
            );
        }
    }
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(more);
}

/// Labels with one more.
pub(super) fn with_label(labels: &str, name: &str, value: &str) -> String {
    let mut out = String::with_capacity(labels.len() + name.len() + value.len() + 4);
    out.push_str(labels);
    if !labels.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for char in value.chars() {
        match char {
            '\\' => out.push_str(r"\\"),
            '"' => out.push_str(r#"\""#),
            '\n' => out.push_str(r"\n"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

impl Metric for u64 {
    const TYPE: &'static str = "gauge";

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        samples.add("", labels, self);
    }
}

impl Metric for f64 {
    const TYPE: &'static str = "gauge";

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        samples.add("", labels, self);
    }
}

/// A reading that only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Total(pub f64);

impl Metric for Total {
    const TYPE: &'static str = "counter";

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        samples.add("", labels, self.0);
    }
}

/// A reading that a system may not have.
impl<M: Metric> Metric for Option<M> {
    const TYPE: &'static str = M::TYPE;

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        if let Some(metric) = self {
            metric.write(samples, labels);
        }
    }
}

impl<M: Metric> Metric for Arc<M> {
    const TYPE: &'static str = M::TYPE;

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        M::write(self, samples, labels);
    }
}

/// Words, shown as the labels of a 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info(pub Vec<(&'static str, String)>);

impl Metric for Info {
    const TYPE: &'static str = "gauge";

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        let labels = self
            .0
            .iter()
            .fold(labels.to_owned(), |labels, (name, value)| {
                with_label(&labels, name, value)
            });
        samples.add("", &labels, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped() {
        let mut page = Page::default();
        page.metric(
            "i",
            "help",
            &Info(vec![("a", "\"\\\n😀".to_owned()), ("b", String::new())]),
        );
        assert_eq!(
            page.into_text(),
            "# HELP i help\n# TYPE i gauge\ni{a=\"\\\"\\\\\\n😀\",b=\"\"} 1\n"
        );
    }
}
