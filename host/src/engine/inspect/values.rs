//! The values of keyed state, as `docs/state-format.md` has them, in words and JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::message_pack;
use crate::format::timestamp;
use crate::state::value::Value as Stored;
use crate::time::Micros;

/// Start, last row and length of the partial results in front of each session.
const SESSION_HEADER: usize = 8 + 8 + 4;

/// What is kept of a key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// When the key wants to be called again, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
    /// When it is forgotten unless it is touched before, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<String>,
    /// Depends on the step: of a plugin with MessagePack its document; with a fixed layout each 64-bit word as integer and
    /// float, for a plugin does not say which it is; `{ "bytes": base64 }` where it cannot be told.
    pub state: Value,
}

/// The value of a key of a step with this signature.
pub fn read(signature: &Value, value: &[u8]) -> Kept {
    let Ok(stored) = Stored::read(value) else {
        return Kept {
            state: raw(value),
            ..Kept::default()
        };
    };
    let state = stored
        .state
        .map(|bytes| state(signature, bytes).unwrap_or_else(|| raw(bytes)));
    Kept {
        alarm: stored.alarm.map(timestamp::show),
        forgotten: stored.expiry.map(|expiry| timestamp::show(expiry.at)),
        state: state.unwrap_or_default(),
    }
}

/// A note on a window whose result was given: `window end | key`, and how often it was given anew.
pub fn correction(key: &[u8], value: &[u8]) -> Kept {
    let end = key.split_first_chunk::<8>();
    let end = end.map(|(end, _)| (u64::from_be_bytes(*end) ^ (1 << 63)) as Micros);
    let stored = Stored::read(value).ok().and_then(|stored| stored.state);
    let revision = stored
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes);
    let state = match (end, revision) {
        (Some(end), Some(revision)) => {
            json!({ "window_end": timestamp::show(end), "revision": revision })
        }
        _ => raw(value),
    };
    Kept {
        state,
        ..Kept::default()
    }
}

fn state(signature: &Value, bytes: &[u8]) -> Option<Value> {
    match signature["operator"].as_str()? {
        "deduplicate" => {
            let time = i64::from_le_bytes(bytes.try_into().ok()?);
            Some(json!({ "passed": timestamp::show(time) }))
        }
        "window" => sessions(bytes),
        "plugin" => match &signature["state"] {
            Value::String(layout) if layout == "blob" => message_pack::to_json(bytes),
            Value::Object(_) => words(bytes),
            _ => None,
        },
        _ => None,
    }
}

fn words(bytes: &[u8]) -> Option<Value> {
    let (words, []) = bytes.as_chunks::<8>() else {
        return None;
    };
    let word = |word: &[u8; 8]| {
        let bits = u64::from_le_bytes(*word);
        json!({ "int": bits as i64, "float": f64::from_bits(bits) })
    };
    Some(words.iter().map(word).collect())
}

fn sessions(mut bytes: &[u8]) -> Option<Value> {
    let mut sessions = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<SESSION_HEADER>() {
        let time = |at: usize| Some(i64::from_le_bytes(header[at..at + 8].try_into().ok()?));
        let length = u32::from_le_bytes(header[16..].try_into().ok()?) as usize;
        let partial = rest.get(..length)?;
        let mut session = Map::new();
        session.insert("start".into(), timestamp::show(time(0)?).into());
        session.insert("last_row".into(), timestamp::show(time(8)?).into());
        session.insert("partial_results_bytes".into(), partial.len().into());
        sessions.push(Value::Object(session));
        bytes = &rest[length..];
    }
    bytes.is_empty().then_some(Value::Array(sessions))
}

fn raw(bytes: &[u8]) -> Value {
    json!({ "bytes": STANDARD.encode(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(flags: u8, parts: &[&[u8]]) -> Vec<u8> {
        [&[flags][..], &parts.concat()].concat()
    }

    #[test]
    fn values_by_operator() {
        let (fixed, blob) = (json!({ "fixed": 2 }), json!("blob"));
        let plugin = |state: &Value| json!({ "operator": "plugin", "state": state });
        let session = json!({ "operator": "window", "window": { "session": "30m" } });
        let alarm = 1_767_225_600_000_000_i64.to_le_bytes();
        let mut open = [alarm, alarm].concat();
        open.extend([3, 0, 0, 0, 7, 7, 7]);
        for (signature, value, expected) in [
            (
                plugin(&fixed),
                value(1, &[&3_u64.to_le_bytes(), &1.5_f64.to_bits().to_le_bytes()]),
                json!({ "state": [{ "int": 3, "float": 1.5e-323 }, { "int": 1.5_f64.to_bits(), "float": 1.5 }] }),
            ),
            (
                plugin(&blob),
                value(3, &[&alarm, &[0x81, 0xA1, b'n', 0x02]]),
                json!({ "alarm": "2026-01-01T00:00:00Z", "state": { "n": 2 } }),
            ),
            (
                plugin(&json!("none")),
                value(2, &[&alarm]),
                json!({ "alarm": "2026-01-01T00:00:00Z", "state": null }),
            ),
            (
                json!({ "operator": "deduplicate" }),
                value(1, &[&alarm]),
                json!({ "state": { "passed": "2026-01-01T00:00:00Z" } }),
            ),
            (
                session.clone(),
                value(1, &[&open]),
                json!({ "state": [{ "start": "2026-01-01T00:00:00Z", "last_row": "2026-01-01T00:00:00Z", "partial_results_bytes": 3 }] }),
            ),
            // What cannot be told is shown all the same.
            (
                session,
                value(1, &[&[1, 2]]),
                json!({ "state": { "bytes": "AQI=" } }),
            ),
            (
                plugin(&fixed),
                value(1, &[&[1]]),
                json!({ "state": { "bytes": "AQ==" } }),
            ),
            (
                plugin(&blob),
                value(1, &[&[0xC1]]),
                json!({ "state": { "bytes": "wQ==" } }),
            ),
            (
                plugin(&blob),
                vec![0x80, 1],
                json!({ "state": { "bytes": "gAE=" } }),
            ),
            (
                plugin(&blob),
                vec![2, 1],
                json!({ "state": { "bytes": "AgE=" } }),
            ),
            (plugin(&blob), vec![], json!({ "state": { "bytes": "" } })),
            (
                json!({ "operator": "new" }),
                value(1, &[&[1]]),
                json!({ "state": { "bytes": "AQ==" } }),
            ),
        ] {
            let shown = serde_json::to_value(read(&signature, &value)).unwrap();
            assert_eq!(shown, expected, "{signature} {value:02x?}");
        }
    }

    #[test]
    fn corrections_tell_window_and_revision() {
        let key = [
            &0x8000_0000_0000_0000_u64.to_be_bytes()[..],
            &[1, b'u', 0, 0],
        ]
        .concat();
        let kept = correction(&key, &value(1, &[&2_u64.to_le_bytes()]));
        assert_eq!(
            kept.state,
            json!({ "window_end": "1970-01-01T00:00:00Z", "revision": 2 })
        );
    }
}
