//! What a worker says of itself. Source: worker protocol, section 4.

use iii_stream_core::fields::{FieldError, Fields};

/// Longest name and description that are kept, in characters.
const TEXT_CHARS_MAX: usize = 280;

/// What a worker says of itself in `engine::workers::register`; all of it may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// What people call it. Two workers may have the same name.
    pub name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// `node`, `python`, `rust`.
    pub runtime: Option<String>,
    /// The version of its SDK.
    pub version: Option<String>,
    /// Its operating system.
    pub os: Option<String>,
    /// How it is kept apart from others.
    pub isolation: Option<String>,
    /// A label: functions are found by id alone.
    pub namespace: Option<String>,
    /// Its process, as JSON text.
    pub pid: Option<String>,
}

impl Profile {
    /// Reads the input of `engine::workers::register`; `null` is taken as `{}`.
    ///
    /// Errors: [`FieldError`].
    pub(super) fn read(input: &str) -> Result<Self, FieldError> {
        if input == "null" {
            return Ok(Self::default());
        }
        let fields = Fields::read(
            input,
            &[
                "name",
                "description",
                "runtime",
                "version",
                "os",
                "isolation",
                "namespace",
                "pid",
            ],
        )?;
        let text = |index| Ok(fields.optional_string(index)?.map(|text| clean(&text)));
        Ok(Self {
            name: text(0)?.filter(|name| !name.is_empty()),
            description: text(1)?,
            runtime: text(2)?,
            version: text(3)?,
            os: text(4)?,
            isolation: text(5)?,
            namespace: text(6)?.filter(|namespace| !namespace.is_empty()),
            pid: fields.optional_u64(7)?.map(|pid| pid.to_string()),
        })
    }
}

/// Text that is shown to people: not too long, and without characters that change how other text looks.
fn clean(text: &str) -> String {
    let is_override = |char: char| matches!(char, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}');
    text.chars()
        .filter(|char| !char.is_control() && !is_override(*char))
        .take(TEXT_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_cleaned() {
        let long = "x".repeat(300);
        let input =
            format!(r#"{{"name":"a\u202eb\nc","description":"{long}","pid":7,"telemetry":{{}}}}"#);
        let profile = Profile::read(&input).expect("a profile");
        assert_eq!(profile.name.as_deref(), Some("abc"));
        assert_eq!(
            profile.description.map(|text| text.len()),
            Some(TEXT_CHARS_MAX)
        );
        assert_eq!(profile.pid.as_deref(), Some("7"));
        assert_eq!(Profile::read("null"), Ok(Profile::default()));
        assert!(Profile::read(r#"{"name":7}"#).is_err());
    }
}
