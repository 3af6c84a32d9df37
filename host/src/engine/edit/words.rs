//! Signatures of steps in the words of the pipeline file: what a step keeps, and what changed from what to what.
//!
//! A signature it does not know is shown as it stands: nothing is hidden because an operator is new.

use serde_json::{Map, Value};

use crate::pipeline::show_duration;

/// What giving up the state of a step loses; `None` if a step of this signature keeps nothing.
pub fn kept(signature: &Value) -> Option<&'static str> {
    let is = |key: &str, value: &str| signature[key] == value;
    Some(match signature["operator"].as_str().unwrap_or_default() {
        "project" | "lookup" => return None,
        "plugin" if is("kind", "stateless") => return None,
        "plugin" if is("state", "none") && is("alarms", "none") && is("order", "arrival") => {
            return None;
        }
        "plugin" => "the state of its keys",
        "window" if signature["window"].get("session").is_some() => "its open sessions",
        "window" => "its open windows",
        "top" => "the rows that it has not ranked yet",
        "join" => "the rows that wait for their match",
        "deduplicate" => "the keys that it has seen",
        _ => "its state",
    })
}

/// Each difference of two signatures that are not the same; never empty.
pub fn differences(old: &Value, new: &Value) -> Vec<String> {
    let (Value::Object(was), Value::Object(is)) = (old, new) else {
        return vec![format!("it was {}, is {}", toml(old), toml(new))];
    };
    if kind(old) != kind(new) {
        return vec![format!("it was {}, is {}", kind(old), kind(new))];
    }
    let mut all = Vec::new();
    let added = is.keys().filter(|key| !was.contains_key(*key));
    for key in was.keys().chain(added) {
        if was.get(key) != is.get(key) {
            all.extend(difference(key, was, is));
        }
    }
    all
}

/// What the step is, for a person.
fn kind(signature: &Value) -> String {
    match signature["operator"].as_str().unwrap_or_default() {
        "project" => "a filter (`where`, `select`)".into(),
        "lookup" => "a lookup".into(),
        "window" => "a window".into(),
        "join" => "a join".into(),
        "plugin" => match signature["kind"].as_str() {
            Some(kind) => format!("a {kind} plugin"),
            None => "a plugin".into(),
        },
        other => format!("`{other}`"),
    }
}

fn difference(key: &str, was: &Map<String, Value>, is: &Map<String, Value>) -> Vec<String> {
    let (old, new) = (was.get(key), is.get(key));
    match (key, old, new) {
        // A ranking says whose rows it ranks: the window has told its own changes.
        ("of", ..) => vec!["the window before it has changed".into()],
        ("aggregate", Some(Value::Array(old)), Some(Value::Array(new))) => aggregates(old, new),
        (_, Some(Value::Array(old)), Some(Value::Array(new))) if is_columns(old, new) => {
            columns(&place(key), old, new)
        }
        _ => {
            let show = |value: Option<&Value>| value.map_or("not set".into(), |v| shown(key, v));
            vec![format!(
                "{} was {}, is {}",
                place(key),
                show(old),
                show(new)
            )]
        }
    }
}

/// What a part of a signature is called in the file.
fn place(key: &str) -> String {
    match key {
        "left" | "right" => format!("what is kept of the {key} side"),
        "input" => "the columns of its input".into(),
        "rows" => "the columns of its rows".into(),
        "n" | "by" => format!("`{key}` of `top`"),
        "state" => "the plugin's state".into(),
        "state_version" => "the version of the plugin's state".into(),
        key => format!("`{key}`"),
    }
}

fn shown(key: &str, value: &Value) -> String {
    match (key, value.as_i64()) {
        ("before" | "after" | "within" | "allowed_lateness", Some(micros)) => {
            format!("\"{}\"", show_duration(micros))
        }
        _ => toml(value),
    }
}

fn is_columns(old: &[Value], new: &[Value]) -> bool {
    let column = |v: &Value| v.get("name").is_some() && v.get("type").is_some();
    old.iter().chain(new).all(column)
}

fn columns(place: &str, old: &[Value], new: &[Value]) -> Vec<String> {
    let names = |all: &[Value]| Value::Array(all.iter().map(|c| c["name"].clone()).collect());
    let (was, is) = (names(old), names(new));
    if was != is {
        return vec![format!("{place} was {}, is {}", toml(&was), toml(&is))];
    }
    let changed = old.iter().zip(new).filter(|(a, b)| a != b);
    let word = |v: &Value| v.as_str().map_or_else(|| toml(v), str::to_owned);
    changed
        .map(|(a, b)| {
            let (name, was, is) = (word(&a["name"]), word(&a["type"]), word(&b["type"]));
            format!("column `{name}` in {place} was of type {was}, is of type {is}")
        })
        .collect()
}

fn aggregates(old: &[Value], new: &[Value]) -> Vec<String> {
    let texts = |all: &[Value]| -> Vec<String> {
        let text = |v: &Value| {
            v["aggregate"]
                .as_str()
                .map_or_else(|| toml(v), str::to_owned)
        };
        all.iter().map(text).collect()
    };
    let (was, is) = (texts(old), texts(new));
    if was != is {
        let list = |all: &[String]| match all {
            [] => "nothing".to_owned(),
            all => all.join(", "),
        };
        return vec![format!(
            "`aggregate` kept {}, now {}",
            list(&was),
            list(&is)
        )];
    }
    let changed = old.iter().zip(new).zip(&is).filter(|((a, b), _)| a != b);
    changed
        .map(|((a, b), text)| {
            if a["of"] == b["of"] {
                return format!("this version of tidemill keeps {text} in another form");
            }
            format!(
                "{text} was of {}, is of {}",
                types(&a["of"]),
                types(&b["of"])
            )
        })
        .collect()
}

/// Types as the pipeline file calls them.
fn types(all: &Value) -> String {
    let word = |v: &Value| match v.as_str().unwrap_or_default() {
        "Utf8" => "string".to_owned(),
        "Int64" => "int".into(),
        "Float64" => "float".into(),
        "Boolean" => "bool".into(),
        "Binary" => "bytes".into(),
        "Date32" => "date".into(),
        time if time.starts_with("Timestamp") => "timestamp".into(),
        other => other.into(),
    };
    match all.as_array().map(Vec::as_slice) {
        Some([]) | None => "no column".into(),
        Some(all) => all.iter().map(word).collect::<Vec<_>>().join(", "),
    }
}

/// A value as one would write it in the file.
fn toml(value: &Value) -> String {
    match value {
        Value::Null => "not set".into(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let members = members.iter().map(|(k, v)| format!("{k} = {}", toml(v)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_in_the_words_of_the_file() {
        let column = |name: &str, ty: &str| json!({ "name": name, "type": ty });
        let sum = |of: &str, version: u32| json!({ "aggregate": "sum(n)", "of": [of], "version": version });
        for (old, new, expected) in [
            (
                json!({ "operator": "window", "window": { "tumbling": "1m" } }),
                json!({ "operator": "window", "window": { "sliding": "5m", "every": "1m" } }),
                r#"`window` was { tumbling = "1m" }, is { sliding = "5m", every = "1m" }"#,
            ),
            (
                json!({ "operator": "window", "key": [column("user", "string")] }),
                json!({ "operator": "window", "key": [column("user", "string"), column("page", "string")] }),
                r#"`key` was ["user"], is ["user", "page"]"#,
            ),
            (
                json!({ "operator": "window", "key": [column("user", "string")] }),
                json!({ "operator": "window", "key": [column("user", "int")] }),
                "column `user` in `key` was of type string, is of type int",
            ),
            (
                json!({ "operator": "window", "aggregate": [sum("Int64", 1)] }),
                json!({ "operator": "window", "aggregate": [sum("Int64", 1), { "aggregate": "count(*)" }] }),
                "`aggregate` kept sum(n), now sum(n), count(*)",
            ),
            (
                json!({ "operator": "window", "aggregate": [sum("Int64", 1)] }),
                json!({ "operator": "window", "aggregate": [sum("Float64", 1)] }),
                "sum(n) was of int, is of float",
            ),
            (
                json!({ "operator": "window", "aggregate": [sum("Int64", 1)] }),
                json!({ "operator": "window", "aggregate": [sum("Int64", 2)] }),
                "this version of tidemill keeps sum(n) in another form",
            ),
            (
                json!({ "operator": "join", "before": 0, "after": 600_000_000_i64 }),
                json!({ "operator": "join", "before": 0, "after": 1_500_000 }),
                r#"`after` was "10m", is "1500ms""#,
            ),
            (
                json!({ "operator": "join", "left": [column("a", "int")] }),
                json!({ "operator": "join", "left": [] }),
                r#"what is kept of the left side was ["a"], is []"#,
            ),
            (
                json!({ "operator": "deduplicate", "within": 1 }),
                json!({ "operator": "window", "within": 2 }),
                "it was `deduplicate`, is a window",
            ),
            (
                json!({ "operator": "plugin", "kind": "keyed", "state": { "fixed": 3 } }),
                json!({ "operator": "plugin", "kind": "keyed", "state": "blob" }),
                r#"the plugin's state was { fixed = 3 }, is "blob""#,
            ),
            (
                json!({ "operator": "plugin", "kind": "keyed" }),
                json!({ "operator": "plugin", "kind": "stateless" }),
                "it was a keyed plugin, is a stateless plugin",
            ),
            (
                json!({ "operator": "new", "x": 1 }),
                json!({ "operator": "new", "y": true }),
                "`x` was 1, is not set; `y` was not set, is true",
            ),
            (json!(1), json!([]), "it was 1, is []"),
        ] {
            assert_eq!(differences(&old, &new).join("; "), expected);
        }
    }

    #[test]
    fn what_keeps_nothing_is_known_and_what_is_unknown_keeps_something() {
        let plugin = |state: &str, alarms: &str, order: &str| json!({ "operator": "plugin", "kind": "keyed", "state": state, "alarms": alarms, "order": order });
        for (signature, keeps) in [
            (json!({ "operator": "project" }), false),
            (json!({ "operator": "lookup" }), false),
            (json!({ "operator": "plugin", "kind": "stateless" }), false),
            (plugin("none", "none", "arrival"), false),
            (plugin("none", "none", "event-time"), true),
            (plugin("none", "event-time", "arrival"), true),
            (plugin("blob", "none", "arrival"), true),
            (
                json!({ "operator": "window", "window": { "session": "1m" } }),
                true,
            ),
            (json!({ "operator": "of a later version" }), true),
            (Value::Null, true),
        ] {
            assert_eq!(kept(&signature).is_some(), keeps, "{signature}");
        }
    }
}
