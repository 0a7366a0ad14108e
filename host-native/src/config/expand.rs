//! `${NAME:default}` in a configuration file. Knows no YAML.

/// Replaces each `${NAME:default}` by the variable's value, or by the default where it is not set or empty; without a
/// default, by nothing. Anything else with a dollar sign stays as it is.
pub(super) fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        match after
            .split_once('}')
            .and_then(|(inner, tail)| read(inner).map(|read| (read, tail)))
        {
            Some(((name, default), tail)) => {
                let value = variable(name).filter(|value| !value.is_empty());
                out.push_str(value.as_deref().unwrap_or(default));
                rest = tail;
            }
            None => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The name and the default of `NAME` or `NAME:default`.
fn read(inner: &str) -> Option<(&str, &str)> {
    let (name, default) = inner.split_once(':').unwrap_or((inner, ""));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!name.is_empty() && name.bytes().all(is_name)).then_some((name, default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_variable_or_the_default() {
        let variable = |name: &str| match name {
            "PORT" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let cases = [
            ("port: ${PORT:3112}", "port: 1"),
            ("port: ${OTHER:3112}", "port: 3112"),
            (
                "url: ${URL:redis://localhost:6379}",
                "url: redis://localhost:6379",
            ),
            ("a: ${EMPTY:x} ${NONE}", "a: x "),
            ("a: $5 ${ ${no name} ${", "a: $5 ${ ${no name} ${"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, variable), expected);
        }
    }
}
