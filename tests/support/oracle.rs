//! What the plugins must give, computed from scratch over the whole input, without the engine and without the SDK.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Value, json};

use super::read_rows;
use super::times::millis;

/// Columns of a purchase as a step passes them on.
const PURCHASE: [&str; 6] = [
    "transaction_id",
    "user_id",
    "product_id",
    "quantity",
    "amount",
    "timestamp",
];

/// A timestamp as the host writes it: no fraction where there is none.
pub fn shown(text: &str) -> String {
    text.replace(".000Z", "Z")
}

fn purchase(x: &Value) -> serde_json::Map<String, Value> {
    let value = |c: &str| {
        if c == "timestamp" {
            json!(shown(x[c].as_str().unwrap()))
        } else {
            x[c].clone()
        }
    };
    PURCHASE.iter().map(|&c| (c.to_owned(), value(c))).collect()
}

/// `enrich` with `high_value` 250.
pub fn enriched(transactions: &Path, products: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(products).unwrap();
    let table: HashMap<String, (String, f64)> = text
        .lines()
        .skip(1)
        .map(|l| {
            let cells: Vec<&str> = l.split(',').collect();
            (
                cells[0].to_owned(),
                (cells[1].to_owned(), cells[2].parse().unwrap()),
            )
        })
        .collect();
    let row = |x: &Value| {
        let mut row = purchase(x);
        let found = x["product_id"].as_str().and_then(|p| table.get(p));
        let band = |price: f64| {
            if price < 20.0 {
                "low"
            } else if price < 100.0 {
                "mid"
            } else {
                "high"
            }
        };
        row.insert("category".into(), json!(found.map(|f| &f.0)));
        row.insert("price_band".into(), json!(found.map(|f| band(f.1))));
        row.insert(
            "high_value".into(),
            json!(x["amount"].as_f64().unwrap() > 250.0),
        );
        Value::Object(row)
    };
    read_rows(transactions).iter().map(row).collect()
}

/// `anomaly` with threshold 3 and `min_count` 5, in arrival order.
pub fn anomalies(transactions: &Path) -> Vec<Value> {
    let mut moments: HashMap<String, (f64, f64, f64)> = HashMap::new();
    let mut out = Vec::new();
    for x in read_rows(transactions) {
        let (n, mean, m2) = moments.entry(x["user_id"].to_string()).or_default();
        let amount = x["amount"].as_f64().unwrap();
        if *n >= 5.0 {
            let sd = (*m2 / (*n - 1.0)).sqrt();
            if sd > 0.0 && (amount - *mean).abs() > 3.0 * sd {
                let mut row = purchase(&x);
                row.insert("z_score".into(), json!((amount - *mean) / sd));
                out.push(Value::Object(row));
            }
        }
        *n += 1.0;
        let d = amount - *mean;
        *mean += d / *n;
        *m2 += d * (amount - *mean);
    }
    out
}

/// `sessions` with a timeout of 10 minutes, converted by `add_to_cart`, ended by the actions in `end_on`.
pub fn sessions(clicks: &Path, end_on: &[&str]) -> Vec<Value> {
    sessions_of(clicks, 600_000, end_on, "add_to_cart")
}

/// `sessions` of any timeout, in milliseconds.
pub fn sessions_of(clicks: &Path, timeout: i64, end_on: &[&str], converted_by: &str) -> Vec<Value> {
    let mut users: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for x in read_rows(clicks) {
        users
            .entry(x["user_id"].as_str().unwrap().to_owned())
            .or_default()
            .push(x);
    }
    let mut out = Vec::new();
    for (user, mut events) in users {
        events.sort_by_key(|x| millis(x["timestamp"].as_str().unwrap()));
        let mut open: Vec<Value> = Vec::new();
        let mut ended_at = None;
        for event in events {
            let at = millis(event["timestamp"].as_str().unwrap());
            let last = open
                .last()
                .map(|x| millis(x["timestamp"].as_str().unwrap()));
            if last.is_some_and(|l| at - l >= timeout) || ended_at.is_some_and(|e| at > e) {
                out.push(session(&user, &open, converted_by));
                open.clear();
                ended_at = None;
            }
            if end_on.contains(&event["action"].as_str().unwrap()) {
                ended_at = Some(at);
            }
            open.push(event);
        }
        out.push(session(&user, &open, converted_by));
    }
    out
}

fn session(user: &str, events: &[Value], converted_by: &str) -> Value {
    let products: BTreeSet<&str> = events
        .iter()
        .filter_map(|x| x["product_id"].as_str())
        .collect();
    let text = |x: Option<&Value>| {
        shown(
            x.expect("a session has events")["timestamp"]
                .as_str()
                .unwrap(),
        )
    };
    json!({
        "user_id": user,
        "session_start": text(events.first()),
        "session_end": text(events.last()),
        "events": events.len(),
        "products": products.len(),
        "converted": events.iter().any(|x| x["action"] == converted_by),
    })
}
