//! Orders: which are good, what they come to, and where the others went.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use super::{Example, WORKERS, Windows, cents, float, millis, object, text};
use crate::support::times::{HOUR, MINUTE, time, windows};
use crate::support::{assert_same_rows, oracle::shown};

const REGIONS: [&str; 4] = ["north", "south", "east", "west"];

/// What should come of the orders in the file.
#[derive(Default)]
struct Expected {
    sold: Vec<Value>,
    invalid: Vec<Value>,
    unknown: Vec<Value>,
    broken: Vec<Value>,
}

pub fn agrees() {
    for workers in WORKERS {
        let (example, _) = Example::after_run("sales", workers);
        let expected = expected(&example);
        let large = |row: &&Value| float(row, "amount") >= 1500.0;
        let alerts: Vec<Value> = expected.sold.iter().filter(large).cloned().collect();
        for (what, rows) in [
            ("alerts", &alerts),
            ("invalid", &expected.invalid),
            ("unknown", &expected.unknown),
            ("broken", &expected.broken),
        ] {
            assert!(!rows.is_empty(), "the data hold no {what}");
        }
        assert_same_rows("alerts", example.rows("output/alerts.jsonl"), alerts);
        assert_same_rows(
            "categories",
            example.cells("output/categories.csv"),
            categories(&expected.sold),
        );
        assert_same_rows(
            "regions",
            example.rows("output/regions.jsonl"),
            regions(&expected.sold),
        );
        let rejected = |step| example.rows_of("output/rejected.jsonl", step);
        assert_same_rows("invalid", rejected("invalid"), expected.invalid);
        assert_same_rows(
            "unknown_product",
            rejected("unknown_product"),
            expected.unknown,
        );
        let dead = example.rows("output/dead-letters.jsonl");
        let raw = dead
            .iter()
            .map(|letter| serde_json::from_str(text(letter, "raw")).unwrap());
        assert_same_rows("dead letters", raw.collect(), expected.broken);
    }
}

fn expected(example: &Example) -> Expected {
    let products = fs::read_to_string(example.path("products.csv")).unwrap();
    let products: BTreeMap<&str, (&str, f64)> = products
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            (cells[0], (cells[1], cells[2].parse().unwrap()))
        })
        .collect();
    let mut all = Expected::default();
    for order in example.rows("orders.jsonl") {
        let (Some(quantity), true) = (order["quantity"].as_i64(), order["ordered_at"].is_string())
        else {
            all.broken.push(order);
            continue;
        };
        let rejected = |wrong: &str| {
            object([
                ("order_id", order["order_id"].clone()),
                ("region", order["region"].clone()),
                ("product_id", order["product_id"].clone()),
                ("quantity", json!(quantity)),
                ("wrong", json!(wrong)),
            ])
        };
        let known_region = order["region"]
            .as_str()
            .is_some_and(|r| REGIONS.contains(&r));
        if !known_region || !(1..=100).contains(&quantity) {
            all.invalid.push(rejected("quantity or region"));
            continue;
        }
        let Some((category, price)) = products.get(text(&order, "product_id")) else {
            all.unknown.push(rejected("product"));
            continue;
        };
        all.sold.push(object([
            ("order_id", order["order_id"].clone()),
            ("customer", order["customer"].clone()),
            ("region", order["region"].clone()),
            ("category", json!(category)),
            ("quantity", json!(quantity)),
            ("amount", json!(cents(quantity as f64 * price))),
            ("ordered_at", json!(shown(text(&order, "ordered_at")))),
        ]));
    }
    all
}

/// The orders by a text column and window.
fn by<'a>(sold: &'a [Value], column: &str, size: i64, every: i64) -> Windows<&'a str, &'a Value> {
    let mut groups = Windows::new();
    for order in sold {
        for (start, end) in windows(millis(&order["ordered_at"]), size, every) {
            let key = (text(order, column), start, end);
            groups.entry(key).or_insert_with(Vec::new).push(order);
        }
    }
    groups
}

fn amounts<'a>(orders: &'a [&Value]) -> impl Iterator<Item = f64> + 'a {
    orders.iter().map(|order| float(order, "amount"))
}

fn categories(sold: &[Value]) -> Vec<Value> {
    let row = |((category, start, end), orders): ((&str, i64, i64), Vec<&Value>)| {
        object([
            ("category", json!(category)),
            ("window_start", time(start)),
            ("window_end", time(end)),
            ("revenue", json!(cents(amounts(&orders).sum()))),
            ("orders", json!(orders.len())),
            (
                "small_orders",
                json!(amounts(&orders).filter(|a| *a < 50.0).count()),
            ),
            ("largest", json!(amounts(&orders).fold(f64::MIN, f64::max))),
        ])
    };
    by(sold, "category", HOUR, HOUR)
        .into_iter()
        .map(row)
        .collect()
}

fn regions(sold: &[Value]) -> Vec<Value> {
    let row = |((region, start, end), orders): ((&str, i64, i64), Vec<&Value>)| {
        let customers: BTreeSet<&str> =
            orders.iter().map(|order| text(order, "customer")).collect();
        object([
            ("region", json!(region)),
            ("window_start", time(start)),
            ("window_end", time(end)),
            ("revenue", json!(cents(amounts(&orders).sum()))),
            ("orders", json!(orders.len())),
            ("customers", json!(customers.len())),
        ])
    };
    by(sold, "region", 30 * MINUTE, 10 * MINUTE)
        .into_iter()
        .map(row)
        .collect()
}
