//! A plan as people see it: the diagram and the explanation.

use super::planned;
use crate::pipeline::{diagram, explain};

const SHOP: &str = r#"
name = "shop"
[host]
workers = 2
[sources.clicks]
kafka = { topic = "clickstream", brokers = "localhost:9092" }
fields = { user_id = "string", product_id = "string", action = "string", at = "timestamp" }
event_time = { field = "at", lateness = "5m" }
[sources.buys]
file = { path = "a\"]b.jsonl" }
fields = { user_id = "string", product_id = "string?", amount = "float", at = "timestamp" }
event_time = { field = "at", lateness = "1m" }
[tables.products]
file = { path = "products.csv" }
key = "product_id"
fields = { product_id = "string", category = "string", price = "float" }
[steps.end]
from = "clicks"
where = "action = 'view'"
select = ["user_id"]
[steps.enriched]
from = "buys"
lookup = { table = "products", on = "product_id", add = ["category"] }
[steps.revenue]
from = "enriched"
key = ["category"]
window = { sliding = "5m", every = "1m" }
aggregate = { revenue = "sum(amount)", rows = "count(*)" }
top = { n = 3, by = "revenue desc, category" }
[steps.total]
from = "end"
window = { tumbling = "1m" }
aggregate = { views = "count(*)" }
[steps.bought]
join = { left = "clicks", right = "buys", on = ["user_id"], after = "10m", kind = "left" }
select = ["left.action", "right.amount"]
[steps.visits]
from = "bought"
key = ["action"]
window = { session = "30m" }
aggregate = { rows = "count(*)" }
[steps.once]
from = "clicks"
deduplicate = { on = ["user_id"], within = "1h" }
[sinks.all]
from = ["revenue", "total", "visits", "once"]
console = {}
[sinks.late]
from = ["revenue.late"]
file = { path = "late.jsonl" }
"#;

#[test]
fn a_flowchart_of_all_parts() {
    insta::assert_snapshot!(diagram(&planned(SHOP)), @r##"
    flowchart LR
        source_clicks(["clicks<br/>topic clickstream at localhost:9092"])
        source_buys(["buys<br/>file /here/a#quot;]b.jsonl"])
        table_products[("products<br/>file /here/products.csv")]
        step_end["end<br/>where and select"]
        step_enriched["enriched<br/>lookup in products"]
        step_revenue["revenue<br/>sliding window of 5m every 1m by category<br/>first 3 of each window by revenue desc, category"]
        step_total["total<br/>tumbling window of 1m"]
        step_bought["bought<br/>left join, right from 0s before to 10m after left by user_id"]
        step_visits["visits<br/>sessions with gaps below 30m by action"]
        step_once["once<br/>first row within 1h by user_id"]
        sink_all[["all<br/>console, 20 rows"]]
        sink_late[["late<br/>file /here/late.jsonl"]]
        source_clicks --> step_end
        source_buys --> step_enriched
        table_products -.->|"product_id"| step_enriched
        step_enriched --> step_revenue
        step_end --> step_total
        source_clicks -->|"left"| step_bought
        source_buys -->|"right"| step_bought
        step_bought --> step_visits
        source_clicks --> step_once
        step_revenue --> sink_all
        step_total --> sink_all
        step_visits --> sink_all
        step_once --> sink_all
        step_revenue -->|"late"| sink_late
    "##);
}

#[test]
fn an_explanation_of_each_step() {
    let text = explain(&planned(SHOP));
    for line in text.lines() {
        assert!(line.chars().count() <= 120, "{line}");
    }
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "pipeline shop: 2 sources, 7 steps, 2 sinks; 2 workers, a checkpoint every 1s",
        "source clicks: topic clickstream at localhost:9092 columns user_id string, product_id string, action string, at timestamp",
        "event time at; its watermark stays 5m behind the newest row of each partition",
        "step end: where and select reads clicks columns reads 2 of 4: user_id, action; the others go no further rows move not: each worker",
        "columns reads 1 of 4: product_id; all go on, with category of the table",
        "columns reads 2 of 5: amount, category; the others go no further rows move to the worker that owns their category (128 key groups",
        "keeps partial results of sum(amount), count(*), for each key and piece of 1m; a window's result is put together of its 5 pieces",
        "then the first 3 of each window by revenue desc, category; for that all rows of a window go to one worker",
        "event time window_end - 1ms read by sink all .late rows of windows whose result is out; read by sink late",
        "rows move all to one worker, for the step has no key",
        "clicks: reads 2 of 4: user_id, action, of which are kept: action. buys: reads 2 of 4: user_id, amount, of which are kept: amount",
        "left rows for 10m, right rows for 0s past their time; pairs go out at once; a left row without a match goes out then",
        "watermark the lowest of: the newest row of clicks - 5m; the newest row of buys - 1m;",
        "watermark the lowest of: the newest row of clicks - 15m; the newest row of buys - 11m;",
        "until the watermark is 30m past its last row",
        "keeps for each key the time of the row that passed, until the watermark is 1h past it",
        "in memory up to 262144 KB on each worker; keys that were not used lately leave it",
        ".late rows below the watermark: what they repeat may be forgotten; read by nothing, only counted",
        "sink all: console, 20 rows writes revenue, total, visits, once",
    ] {
        assert!(flat.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("revenue.top"), "{text}");
}

#[test]
fn what_has_no_event_time_waits_for_nothing() {
    let text = explain(&planned(
        "name = \"p\"\n[sources.s]\nfile = { path = \"s.jsonl\" }\nfields = { a = \"int\" }\n[steps.t]\nfrom = \"s\"\n",
    ));
    assert!(
        text.contains("none: no step that waits for time can read it"),
        "{text}"
    );
    assert!(text.contains("none: its input has none"), "{text}");
    assert!(text.contains("read by       nothing"), "{text}");
    assert!(!text.contains("watermark     the newest"), "{text}");
}
