//! Clicks, purchases and products with what random data hardly ever has: equal times, gaps of exactly the timeout, null and
//! missing members, products the table lacks, a user whose purchases do not vary.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// 2026-01-01T00:00:00Z in milliseconds.
const START_MS: i64 = 1_767_225_600_000;

/// The files of a data set.
pub struct Data {
    pub clicks: PathBuf,
    pub transactions: PathBuf,
    pub products: PathBuf,
    pub seed: u64,
}

impl Data {
    /// `clicks` clicks, a quarter as many purchases; the same seed gives the same bytes.
    pub fn write(dir: &Path, clicks: usize, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let users = (clicks / 40).max(10);
        let data = Self {
            clicks: dir.join("clicks.jsonl"),
            transactions: dir.join("transactions.jsonl"),
            products: dir.join("products.csv"),
            seed,
        };
        let mut text = String::from("product_id,category,price\n");
        for p in (0..100).filter(|p| p % 10 != 3) {
            let price = match p % 7 {
                0 => 20.0,
                1 => 100.0,
                _ => f64::from(rng.random_range(100..20_000)) / 100.0,
            };
            writeln!(
                text,
                "p{p},{},{price:.2}",
                ["books", "toys", "food"][p as usize % 3]
            )
            .unwrap();
        }
        std::fs::write(&data.products, text).unwrap();
        std::fs::write(&data.clicks, click_lines(clicks, users, &mut rng)).unwrap();
        std::fs::write(
            &data.transactions,
            purchase_lines(clicks / 4, users, &mut rng),
        )
        .unwrap();
        data
    }

    /// `[sources.clicks]`, with further keys.
    pub fn clicks(&self, more: &str) -> String {
        format!(
            "[sources.clicks]\nfile = {{ path = \"{}\" }}\nfields = {{ event_id = \"string\", user_id = \"string\", \
             product_id = \"string?\", action = \"string\", timestamp = \"timestamp\" }}\n\
             event_time = {{ field = \"timestamp\", lateness = \"5m\" }}\n{more}\n",
            self.clicks.display()
        )
    }

    /// `[sources.transactions]`, with further keys.
    pub fn transactions(&self, more: &str) -> String {
        format!(
            "[sources.transactions]\nfile = {{ path = \"{}\" }}\nfields = {{ transaction_id = \"string\", \
             user_id = \"string\", product_id = \"string?\", quantity = \"int?\", amount = \"float\", \
             timestamp = \"timestamp\" }}\nevent_time = {{ field = \"timestamp\", lateness = \"5m\" }}\n{more}\n",
            self.transactions.display()
        )
    }

    pub fn products(&self) -> String {
        format!(
            "[tables.products]\nfile = {{ path = \"{}\" }}\nkey = \"product_id\"\nfields = {{ product_id = \"string\", \
             category = \"string\", price = \"float\" }}\n",
            self.products.display()
        )
    }
}

fn time(ms: i64) -> String {
    let (day, in_day) = (ms - START_MS)
        .div_euclid(86_400_000)
        .checked_add(1)
        .zip(Some((ms - START_MS).rem_euclid(86_400_000)))
        .unwrap();
    let (h, m, s, f) = (
        in_day / 3_600_000,
        in_day / 60_000 % 60,
        in_day / 1_000 % 60,
        in_day % 1_000,
    );
    assert!((1..=31).contains(&day), "the data lie within January 2026");
    format!("2026-01-{day:02}T{h:02}:{m:02}:{s:02}.{f:03}Z")
}

/// Two hours of event time from one day on, 2 % up to four minutes late, half of the times on multiples of 15 s.
fn event_time(i: usize, of: usize, rng: &mut StdRng) -> String {
    let on_time = START_MS + 86_400_000 + (i as i64 * 7_200_000) / of as i64;
    let late = if rng.random_ratio(1, 50) {
        rng.random_range(0..240_000)
    } else {
        0
    };
    let t = on_time - late;
    time(if rng.random() { t - t % 15_000 } else { t })
}

fn skewed(n: usize, rng: &mut StdRng) -> usize {
    ((n as f64 * rng.random::<f64>().powf(2.2)) as usize).min(n - 1)
}

fn product(rng: &mut StdRng) -> String {
    match rng.random_range(0..40) {
        0 => "\"product_id\":null,".into(),
        1 => String::new(),
        _ => format!("\"product_id\":\"p{}\",", skewed(100, rng)),
    }
}

fn click_lines(n: usize, users: usize, rng: &mut StdRng) -> String {
    const ACTIONS: [&str; 8] = [
        "view",
        "view",
        "view",
        "view",
        "search",
        "add_to_cart",
        "add_to_cart",
        "logout",
    ];
    let mut text = String::new();
    for i in 0..n {
        let (user, action) = (skewed(users, rng), ACTIONS[rng.random_range(0..8)]);
        let (product, time) = (product(rng), event_time(i, n, rng));
        writeln!(text, "{{\"event_id\":\"c{i:07}\",\"user_id\":\"u{user}\",{product}\"action\":\"{action}\",\"timestamp\":\"{time}\",\"page\":\"/x\"}}").unwrap();
    }
    text
}

fn purchase_lines(n: usize, users: usize, rng: &mut StdRng) -> String {
    let mut text = String::new();
    for i in 0..n {
        let user = match i {
            20..40 => users,
            // The busiest user spends far too much now and then, so that small data hold something as well.
            _ if i % 97 == 96 => 0,
            _ => skewed(users, rng),
        };
        let planted = if rng.random_ratio(1, 300) { 40.0 } else { 1.0 };
        let amount = match i {
            20..30 => 50.0,
            30..40 => 60.0,
            _ if i % 97 == 96 => 900.0,
            _ if i % 50 == 5 => 250.0,
            _ => (rng.random_range(1_000..6_000) as f64 * planted).round() / 100.0,
        };
        let quantity = if rng.random_ratio(1, 20) {
            "null".into()
        } else {
            rng.random_range(1..4).to_string()
        };
        let (product, time) = (product(rng), event_time(i, n, rng));
        writeln!(text, "{{\"transaction_id\":\"t{i:07}\",\"user_id\":\"u{user}\",{product}\"quantity\":{quantity},\"amount\":{amount:.2},\"timestamp\":\"{time}\"}}").unwrap();
    }
    text
}
