//! What the windows, the join and the running statistics of the e-commerce example must give, computed from scratch over
//! the whole input, without the engine and without the SDK.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Value, json};

use super::oracle::{enriched, shown};
use super::read_rows;
use super::times::{MINUTE, millis, time, windows};

/// The records of the example.
pub struct Shop {
    clicks: Vec<Value>,
    transactions: Vec<Value>,
    /// With the category of the product.
    purchases: Vec<Value>,
}

fn at(record: &Value) -> i64 {
    millis(record["timestamp"].as_str().expect("a time"))
}

fn amount(record: &Value) -> f64 {
    record["amount"].as_f64().expect("an amount")
}

impl Shop {
    /// Reads `clicks.jsonl` and `transactions.jsonl` of `dir`.
    pub fn read(dir: &Path, products: &Path) -> Self {
        let transactions = dir.join("transactions.jsonl");
        Self {
            clicks: read_rows(&dir.join("clicks.jsonl")),
            purchases: enriched(&transactions, products),
            transactions: read_rows(&transactions),
        }
    }

    fn with_action<'a>(&'a self, action: &'a str) -> impl Iterator<Item = &'a Value> {
        let fits =
            move |click: &&Value| click["action"] == action && click["product_id"].is_string();
        self.clicks.iter().filter(fits)
    }

    pub fn page_views(&self) -> Vec<Value> {
        let mut views: BTreeMap<(&str, i64, i64), Vec<&str>> = BTreeMap::new();
        for click in self.with_action("view") {
            let user = click["user_id"].as_str().unwrap();
            for (start, end) in windows(at(click), MINUTE, MINUTE) {
                let product = click["product_id"].as_str().unwrap();
                views.entry((product, start, end)).or_default().push(user);
            }
        }
        let row = |((product, start, end), users): (_, Vec<&str>)| {
            json!({
                "product_id": product, "window_start": time(start), "window_end": time(end),
                "page_views": users.len(), "users": users.iter().collect::<BTreeSet<_>>().len(),
            })
        };
        views.into_iter().map(row).collect()
    }

    pub fn revenue(&self) -> Vec<Value> {
        let mut sums: BTreeMap<(String, i64, i64), (f64, u64)> = BTreeMap::new();
        for purchase in &self.purchases {
            for (start, end) in windows(at(purchase), 5 * MINUTE, MINUTE) {
                let key = (purchase["category"].to_string(), start, end);
                let (revenue, count) = sums.entry(key).or_default();
                *revenue += amount(purchase);
                *count += 1;
            }
        }
        let row = |((category, start, end), (revenue, count)): ((String, _, _), (f64, u64))| {
            json!({
                "category": serde_json::from_str::<Value>(&category).unwrap(),
                "window_start": time(start), "window_end": time(end),
                "revenue": (revenue * 100.0).round() / 100.0, "purchases": count,
            })
        };
        sums.into_iter().map(row).collect()
    }

    /// Put into the cart, and bought at most ten minutes later.
    pub fn conversions(&self) -> Vec<Value> {
        let mut bought: HashMap<(String, String), Vec<&Value>> = HashMap::new();
        let key = |r: &Value| (r["user_id"].to_string(), r["product_id"].to_string());
        for transaction in &self.transactions {
            bought
                .entry(key(transaction))
                .or_default()
                .push(transaction);
        }
        let mut out = Vec::new();
        for click in self.with_action("add_to_cart") {
            let purchases = bought.get(&key(click)).into_iter().flatten();
            for purchase in purchases.filter(|p| (0..=10 * MINUTE).contains(&(at(p) - at(click)))) {
                out.push(json!({
                    "user_id": click["user_id"], "product_id": click["product_id"],
                    "added_at": shown(click["timestamp"].as_str().unwrap()),
                    "purchased_at": shown(purchase["timestamp"].as_str().unwrap()),
                    "transaction_id": purchase["transaction_id"], "amount": purchase["amount"],
                }));
            }
        }
        out
    }

    pub fn conversion_rates(&self) -> Vec<Value> {
        let mut counts: BTreeMap<(&str, i64, i64), [u64; 2]> = BTreeMap::new();
        let views = self.with_action("view").map(|click| (click, 0));
        let bought = self
            .transactions
            .iter()
            .filter(|t| t["product_id"].is_string());
        for (record, which) in views.chain(bought.map(|t| (t, 1))) {
            for (start, end) in windows(at(record), 10 * MINUTE, 10 * MINUTE) {
                let product = record["product_id"].as_str().unwrap();
                counts.entry((product, start, end)).or_default()[which] += 1;
            }
        }
        let row = |((product, start, end), [views, purchases]): (_, [u64; 2])| {
            let rate = (views > 0).then(|| purchases as f64 / views as f64);
            json!({
                "product_id": product, "window_start": time(start), "window_end": time(end),
                "views": views, "purchases": purchases,
                "conversion_rate": rate.map(|rate| (rate * 1000.0).round() / 1000.0),
            })
        };
        counts.into_iter().map(row).collect()
    }

    /// All purchases of a category until the end of each minute that has some.
    pub fn statistics(&self) -> Vec<Value> {
        let mut categories: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for purchase in &self.purchases {
            categories
                .entry(purchase["category"].to_string())
                .or_default()
                .push(purchase);
        }
        let mut out = Vec::new();
        for (category, purchases) in categories {
            let minutes: BTreeSet<i64> =
                purchases.iter().map(|p| at(p).div_euclid(MINUTE)).collect();
            for until in minutes.into_iter().map(|minute| (minute + 1) * MINUTE) {
                let so_far = purchases
                    .iter()
                    .filter(|p| at(p) < until)
                    .map(|p| amount(p));
                out.push(statistics(&category, until, &so_far.collect::<Vec<_>>()));
            }
        }
        out
    }
}

fn statistics(category: &str, until: i64, amounts: &[f64]) -> Value {
    let mean = amounts.iter().sum::<f64>() / amounts.len() as f64;
    let squares: f64 = amounts.iter().map(|a| (a - mean).powi(2)).sum();
    let deviation = (amounts.len() > 1).then(|| (squares / (amounts.len() - 1) as f64).sqrt());
    json!({
        "category": serde_json::from_str::<Value>(category).unwrap(), "until": time(until),
        "purchases": amounts.len(), "mean": mean, "deviation": deviation,
        "smallest": amounts.iter().copied().fold(f64::MAX, f64::min),
        "largest": amounts.iter().copied().fold(f64::MIN, f64::max),
    })
}
