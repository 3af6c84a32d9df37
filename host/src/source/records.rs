//! The generator's data: visitors come for some minutes, look at a few products and buy some of them.
//!
//! About 2 % of the records are up to four minutes out of order, one purchase in a thousand has forty times its price.
//! Knows no clock and no file. Invariant: record `i` is a function of the seed and `i` alone, so reading may begin
//! anywhere.

use crate::format::timestamp;
use crate::pipeline::plan::{Generate, GenerateKind};
use crate::time::{MICROS_PER_MS, MICROS_PER_SECOND};

/// How far out of order a record can be.
const OUT_OF_ORDER_MS_MAX: u64 = 240_000;
const OUT_OF_ORDER_IN: u64 = 50;
const ANOMALY_IN: u64 = 1_000;
const ANOMALY_FACTOR: f64 = 40.0;
/// A visit, and how many products it looks at.
const VISIT_MS: u64 = 12 * 60_000;
const VISIT_PRODUCTS: u64 = 4;
/// One user in so many is visiting at any time.
const USERS_PER_VISIT: u64 = 20;
const CATEGORIES: [&str; 8] = [
    "electronics",
    "books",
    "toys",
    "garden",
    "fashion",
    "food",
    "sport",
    "beauty",
];
/// Actions and their shares in percent.
const ACTIONS: [(&str, u64); 5] = [
    ("view", 58),
    ("search", 12),
    ("add_to_cart", 18),
    ("purchase_complete", 7),
    ("logout", 5),
];
const DEVICES: [&str; 3] = ["mobile", "desktop", "tablet"];

/// The products that records name, as CSV with a header: `product_id,category,price`.
pub fn products_csv(generate: &Generate) -> String {
    let records = Records::new(generate);
    let mut text = "product_id,category,price\n".to_owned();
    for product in 0..records.products {
        let category = CATEGORIES[(product % CATEGORIES.len() as u64) as usize];
        let price = records.price_cents(product) as f64 / 100.0;
        text += &format!("p{product:05},{category},{price:.2}\n");
    }
    text
}

/// Makes records.
#[derive(Debug, Clone)]
pub struct Records {
    kind: GenerateKind,
    seed: u64,
    /// Event time of record 0, and between two records, in ms.
    start_ms: i64,
    step_ms: f64,
    users: u64,
    products: u64,
}

/// What chance decides, kept apart so that one draw says nothing about another.
#[derive(Debug, Clone, Copy)]
enum Draw {
    OutOfOrder = 1,
    Visit,
    VisitStart,
    VisitUser,
    VisitProduct,
    Price,
    Action,
    Device,
    Product,
    Quantity,
    Noise,
    Anomaly,
}

impl Records {
    pub fn new(generate: &Generate) -> Self {
        Self {
            kind: generate.kind,
            seed: generate.seed,
            start_ms: generate.start / MICROS_PER_MS,
            step_ms: generate.speed * 1_000.0 / generate.per_second,
            users: generate.users.max(1),
            products: generate.products.max(1),
        }
    }

    /// Appends record `index` as a JSON object, without a newline.
    pub fn write(&self, index: u64, out: &mut Vec<u8>) {
        let since_start = self.since_start_ms(index);
        let visit = self.visit(index, since_start);
        match self.kind {
            GenerateKind::Clicks => {
                put(out, b"{\"event_id\":\"c");
                put_number(out, index, 9);
            }
            GenerateKind::Transactions => {
                put(out, b"{\"transaction_id\":\"t");
                put_number(out, index, 9);
            }
        }
        put(out, b"\",\"user_id\":\"u");
        put_number(out, visit.user, 7);
        put(out, b"\",\"product_id\":\"p");
        put_number(out, visit.product, 5);
        match self.kind {
            GenerateKind::Clicks => self.write_click(index, since_start, visit.product, out),
            GenerateKind::Transactions => {
                self.write_purchase(index, since_start, visit.product, out)
            }
        }
    }

    fn write_click(&self, index: u64, since_start: i64, product: u64, out: &mut Vec<u8>) {
        put(out, b"\",\"action\":\"");
        put(out, self.action(index).as_bytes());
        put(out, b"\",\"timestamp\":\"");
        self.put_time(since_start, out);
        put(out, b"\",\"page\":\"/product/p");
        put_number(out, product, 5);
        put(out, b"\",\"device\":\"");
        let device = self.draw(Draw::Device, index, 0) % DEVICES.len() as u64;
        put(out, DEVICES[device as usize].as_bytes());
        put(out, b"\"}");
    }

    fn write_purchase(&self, index: u64, since_start: i64, product: u64, out: &mut Vec<u8>) {
        let quantity = 1 + self.draw(Draw::Quantity, index, 0) % 3;
        let cents = self.amount_cents(index, product, quantity);
        put(out, b"\",\"quantity\":");
        put_number(out, quantity, 1);
        put(out, b",\"amount\":");
        put_number(out, cents / 100, 1);
        put(out, b".");
        put_number(out, cents % 100, 2);
        put(out, b",\"timestamp\":\"");
        self.put_time(since_start, out);
        put(out, b"\",\"currency\":\"EUR\"}");
    }

    /// Event time in ms since the start; negative for records out of order near the start.
    fn since_start_ms(&self, index: u64) -> i64 {
        let in_order = (index as f64 * self.step_ms) as i64;
        let draw = self.draw(Draw::OutOfOrder, index, 0);
        if draw.is_multiple_of(OUT_OF_ORDER_IN) {
            in_order - (draw / OUT_OF_ORDER_IN % OUT_OF_ORDER_MS_MAX) as i64
        } else {
            in_order
        }
    }

    /// Whose visit the record belongs to, and the product it is about. Depends on the event time, not on the kind, so
    /// that clicks and purchases of one seed meet.
    fn visit(&self, index: u64, since_start_ms: i64) -> Visit {
        let places = (self.users / USERS_PER_VISIT).max(1);
        let place = self.draw(Draw::Visit, index, 0) % places;
        // Visits of different places begin at different times.
        let shift = self.draw(Draw::VisitStart, place, 0) % VISIT_MS;
        let now = (since_start_ms + OUT_OF_ORDER_MS_MAX as i64).max(0) as u64 + shift;
        let number = now / VISIT_MS;
        let looked_at = self.draw(Draw::Product, index, 0) % VISIT_PRODUCTS;
        Visit {
            user: skewed(self.draw(Draw::VisitUser, place, number), self.users),
            product: skewed(
                self.draw(
                    Draw::VisitProduct,
                    place,
                    number * VISIT_PRODUCTS + looked_at,
                ),
                self.products,
            ),
        }
    }

    fn action(&self, index: u64) -> &'static str {
        let mut percent = self.draw(Draw::Action, index, 0) % 100;
        for (action, share) in ACTIONS {
            if percent < share {
                return action;
            }
            percent -= share;
        }
        ACTIONS[0].0
    }

    /// Price times quantity, 8 % noise, and now and then far too much.
    fn amount_cents(&self, index: u64, product: u64, quantity: u64) -> u64 {
        let noise: f64 = (0..4)
            .map(|n| unit(self.draw(Draw::Noise, index, n)) - 0.5)
            .sum();
        let amount = (self.price_cents(product) * quantity) as f64 * (1.0 + 0.14 * noise);
        let anomaly = self
            .draw(Draw::Anomaly, index, 0)
            .is_multiple_of(ANOMALY_IN);
        let factor = if anomaly { ANOMALY_FACTOR } else { 1.0 };
        (amount * factor).round().max(1.0) as u64
    }

    /// Many cheap products, few dear ones: 2 to 502.
    fn price_cents(&self, product: u64) -> u64 {
        let draw = unit(self.draw(Draw::Price, product, 0));
        200 + (50_000.0 * draw * draw * draw * draw) as u64
    }

    fn put_time(&self, since_start_ms: i64, out: &mut Vec<u8>) {
        let ms = self.start_ms + since_start_ms;
        timestamp::write(ms.div_euclid(1_000) * MICROS_PER_SECOND, out);
        out.pop();
        put(out, b".");
        put_number(out, ms.rem_euclid(1_000) as u64, 3);
        put(out, b"Z");
    }

    /// A random number for one purpose: SplitMix64's mixing (Steele, Lea, Flood 2014) over everything it depends on.
    fn draw(&self, draw: Draw, a: u64, b: u64) -> u64 {
        mix(mix(mix(self.seed ^ (draw as u64) << 56) ^ a) ^ b)
    }
}

struct Visit {
    user: u64,
    product: u64,
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 0 to 1, without 1.
fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1u64 << 53) as f64
}

/// One of `count`, with a heavy head: a tenth of them has nearly a third of the draws.
fn skewed(draw: u64, count: u64) -> u64 {
    let unit = unit(draw);
    ((unit * unit * count as f64) as u64).min(count - 1)
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
}

/// Appends `number` with at least `digits` digits.
fn put_number(out: &mut Vec<u8>, number: u64, digits: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(number).as_bytes();
    const ZEROS: [u8; 20] = [b'0'; 20];
    out.extend_from_slice(&ZEROS[..digits.saturating_sub(text.len())]);
    out.extend_from_slice(text);
}
