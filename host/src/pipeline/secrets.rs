//! Secrets by reference: `${env:NAME}` and `${file:/path}`, and what must never be shown.
//!
//! Invariant: no error made here holds a resolved value.

use std::path::Path;

use super::text::{Span, Texts};

/// A file that holds a secret is no larger than this.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Words in the name of a setting whose value is a secret.
const WORDS: [&str; 8] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "private.key",
    "key.pem",
    "oauthbearer.config",
];
/// Words in the name of an HTTP header whose value is a secret, besides those.
const HEADER_WORDS: [&str; 4] = ["authorization", "api-key", "apikey", "cookie"];
/// Settings that such a word does not make a secret: they say where it is.
const PLACES: [&str; 3] = [".location", ".url", ".path"];

/// Whether the value of `name` has to be kept from view and may only be given by reference.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|w| name.contains(w)) && !PLACES.iter().any(|p| name.ends_with(p))
}

/// Whether the value of the HTTP header `name` has to be kept from view and may only be given by reference.
pub fn is_secret_header(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    is_secret(name) || HEADER_WORDS.iter().any(|w| lower.contains(w))
}

/// Whether a URL, or a connection string as libpq writes it, has a password written out. A password by reference is none.
pub fn has_password(url: &str) -> bool {
    let written = |value: &str| !value.is_empty() && !value.starts_with("${");
    let user = user_info(url).and_then(|range| url[range].split_once(':'));
    let parts = url.split(|c: char| c.is_whitespace() || matches!(c, '?' | '&'));
    let mut passwords = parts.filter_map(|part| part.trim_start().strip_prefix("password="));
    user.is_some_and(|(_, password)| written(password)) || passwords.any(written)
}

/// Where user and password stand in a URL that has them.
fn user_info(url: &str) -> Option<std::ops::Range<usize>> {
    let start = url.find("://")? + 3;
    let length = url[start..].find(['/', '?', '#']);
    let end = length.map_or(url.len(), |length| start + length);
    Some(start..start + url[start..end].rfind('@')?)
}

/// Where something like user and password stands in the next URL from `from` on: a password may hold unescaped what would
/// end it, so all up to the last `@` counts.
fn like_user_info(source: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let start = from + source[from..].find("://")? + 3;
    let length = source[start..].find(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
    let end = length.map_or(source.len(), |length| start + length);
    let at = source[start..end].rfind('@').unwrap_or(0);
    Some(start..start + at)
}

/// Whether `value` refers to a secret rather than holding one.
pub fn is_reference(value: &str) -> bool {
    value.contains("${env:") || value.contains("${file:")
}

/// `text` with its references replaced. An error names the reference, never a value.
pub fn resolve(text: &str, dir: &Path) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out += &rest[..at];
        let end = rest[at..]
            .find('}')
            .ok_or("a reference starts with `${` and has no `}`")?;
        out += &value_of(&rest[at + 2..at + end], dir)?;
        rest = &rest[at + end + 1..];
    }
    Ok(out + rest)
}

fn value_of(reference: &str, dir: &Path) -> Result<String, String> {
    match reference.split_once(':') {
        Some(("env", name)) => std::env::var(name).map_err(|e| match e {
            std::env::VarError::NotPresent => {
                format!("the environment variable {name} is not set")
            }
            std::env::VarError::NotUnicode(_) => {
                format!("the environment variable {name} is not UTF-8")
            }
        }),
        Some(("file", path)) => read(&dir.join(path)),
        _ => Err("there are `${env:NAME}` and `${file:/path}`, and no other references".into()),
    }
}

/// The text of a file without the line break at its end.
fn read(path: &Path) -> Result<String, String> {
    let failed = |cause: &dyn std::fmt::Display| format!("{}: {cause}", path.display());
    let size = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if size > FILE_BYTES_MAX {
        return Err(failed(&"too large for a secret"));
    }
    // The error of a file that is not UTF-8 says where, not what.
    let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_string())
}

/// Keeps from view whatever follows `=` after the name of a secret, in text that may not even be TOML.
pub fn hide(texts: &mut Texts, text: u16) {
    let source = texts.get(text).map_or("", |t| t.text.as_str());
    let lower = source.to_ascii_lowercase();
    let mut hidden = Vec::new();
    for word in WORDS.iter().chain(&HEADER_WORDS) {
        for (at, _) in lower.match_indices(word) {
            hidden.extend(value_after(source, at + word.len()));
        }
    }
    let mut from = 0;
    while let Some(range) = like_user_info(source, from) {
        from = range.end;
        if !is_reference(&source[range.clone()]) {
            hidden.push(range);
        }
    }
    for range in hidden {
        texts.hide(Span::new(text, range));
    }
}

/// The value after the next `=` of the line, if it is written out; up to its closing quote or to the end of the line.
fn value_after(source: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let line_end = source[from..].find('\n').map_or(source.len(), |i| from + i);
    let line = &source[from..line_end];
    let after = line.find('=')? + 1;
    // Another key on the way: the word was part of some value.
    let skipped = line[after..].len() - line[after..].trim_start().len();
    let start = from + after + skipped;
    let value = &source[start..line_end];
    let quote = value.chars().next()?;
    if quote == '{'
        || quote == '['
        || is_reference(value.get(..8.min(value.len())).unwrap_or(value))
    {
        return None;
    }
    if quote != '"' && quote != '\'' {
        let end = value.find([',', '}', '#']).unwrap_or(value.len());
        return Some(start..start + end);
    }
    let mut escaped = false;
    for (i, c) in value.char_indices().skip(1) {
        match c {
            '\\' if quote == '"' && !escaped => escaped = true,
            c if c == quote && !escaped => return Some(start + 1..start + i),
            _ => escaped = false,
        }
    }
    Some(start + 1..line_end)
}

#[cfg(test)]
mod tests {
    use super::super::text::Text;
    use super::*;

    #[test]
    fn names_of_secrets() {
        for secret in [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "SASL.Password",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for open in [
            "sasl.username",
            "ssl.key.location",
            "sasl.oauthbearer.token.endpoint.url",
        ] {
            assert!(!is_secret(open), "{open}");
        }
    }

    #[test]
    fn headers_and_passwords_in_urls() {
        for secret in ["Authorization", "X-Api-Key", "Cookie", "X-Token"] {
            assert!(is_secret_header(secret), "{secret}");
        }
        assert!(!is_secret_header("Content-Type"));
        for written in [
            "postgres://app:hunter2@db/x",
            "host=db password=hunter2",
            "postgres://db/x?user=a&password=hunter2",
        ] {
            assert!(has_password(written), "{written}");
        }
        for open in [
            "postgres://app@db/x",
            "postgres://app:${env:PASSWORD}@db/x",
            "host=db password=${env:PASSWORD}",
            "https://h:80/x?y=a@b",
            "${env:URL}",
        ] {
            assert!(!has_password(open), "{open}");
        }
    }

    #[test]
    fn references_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pass"), "s3cret\n").unwrap();
        let resolved = resolve("a-${file:pass}-b", dir.path());
        assert_eq!(resolved.as_deref(), Ok("a-s3cret-b"));
        assert_eq!(resolve("plain $x", dir.path()).as_deref(), Ok("plain $x"));
        let missing = resolve("${env:TIDEMILL_NO_SUCH_VARIABLE}", dir.path()).unwrap_err();
        assert!(missing.contains("TIDEMILL_NO_SUCH_VARIABLE is not set"));
        assert!(resolve("${file:none}", dir.path()).is_err());
        assert!(resolve("${env:X", dir.path()).is_err());
        assert!(resolve("${vault:x}", dir.path()).is_err());
    }

    #[test]
    fn secrets_written_out_are_hidden_even_where_the_text_is_broken() {
        let source = "p = { \"sasl.password\" = \"hun\\\"ter\", a = 1 }\nsasl.password = 'open\nssl.key.password = \"${env:X}\"\nurl = \"https://u:hunter@h/a\"\nAuthorization = \"Bearer x\"";
        let mut texts = Texts::default();
        texts.add(Text::new("p.toml", source));
        hide(&mut texts, 0);
        let shown: String = source
            .char_indices()
            .map(|(i, c)| if texts.is_hidden(0, i) { '*' } else { c })
            .collect();
        assert_eq!(
            shown,
            "p = { \"sasl.password\" = \"********\", a = 1 }\nsasl.password = '****\nssl.key.password = \"${env:X}\"\nurl = \"https://********@h/a\"\nAuthorization = \"********\""
        );
    }
}
