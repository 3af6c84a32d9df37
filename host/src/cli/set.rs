//! `--set path.to.key=value`.

use std::str::FromStr;

/// One value over the pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    path: String,
    value: String,
}

impl Set {
    pub fn into_pair(self) -> (String, String) {
        (self.path, self.value)
    }
}

impl FromStr for Set {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((path, value)) if !path.trim().is_empty() => Ok(Self {
                path: path.trim().to_owned(),
                value: value.trim().to_owned(),
            }),
            _ => Err("expected path.to.key=value, for example host.workers=2".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_value() {
        for (text, expected) in [
            ("host.workers=2", Some(("host.workers", "2"))),
            ("a.b = x=y", Some(("a.b", "x=y"))),
            ("a=", Some(("a", ""))),
            ("host.workers", None),
            ("=2", None),
        ] {
            let pair = text.parse::<Set>().ok().map(Set::into_pair);
            let expected = expected.map(|(p, v)| (p.to_owned(), v.to_owned()));
            assert_eq!(pair, expected, "{text:?}");
        }
    }
}
