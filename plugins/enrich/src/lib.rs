//! Adds category, price band and a high-value mark to each purchase; high ones also leave through the port `alerts`.
//! Build it with `tidemill plugin build plugins/enrich`, test it with `cargo test -p enrich`.

use tidemill_guest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enrich {
    /// The reference table of products.
    table: String,
    /// Purchases above this amount are of high value.
    high_value: f64,
}

#[derive(Row)]
struct Purchase<'a> {
    #[expect(dead_code, reason = "only the key of the lookup")]
    product_id: Option<&'a str>,
    amount: f64,
    #[lookup(on = "product_id")]
    product: Product<'a>,
}

#[derive(Row)]
struct Product<'a> {
    category: Option<&'a str>,
    price: Option<f64>,
}

#[derive(Columns, Clone, Copy)]
struct Enriched<'a> {
    category: Option<&'a str>,
    price_band: Option<&'static str>,
    high_value: bool,
}

#[derive(Ports)]
struct Purchases {
    enriched: Extend<Enriched<'static>>,
    alerts: Select<Enriched<'static>>,
}

impl Transform for Enrich {
    type Row<'a> = Purchase<'a>;
    type Out = Purchases;

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), String> {
        setup.lookup("product", &self.table)
    }

    fn row(&mut self, row: Purchase<'_>, out: &mut Out<Purchases>) {
        let enriched = Enriched {
            category: row.product.category,
            price_band: row.product.price.map(price_band),
            high_value: row.amount > self.high_value,
        };
        out.enriched.extend(enriched);
        if enriched.high_value {
            out.alerts.keep(enriched);
        }
    }
}

fn price_band(price: f64) -> &'static str {
    match price {
        _ if price < 20.0 => "low",
        _ if price < 100.0 => "mid",
        _ => "high",
    }
}

plugin!(Enrich: Transform);

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_guest::testing::{self, json};

    fn enrich() -> testing::TransformTest<Enrich> {
        let products = json!([
            { "product_id": "cup", "category": "kitchen", "price": 19.99 },
            { "product_id": "pan", "category": "kitchen", "price": 20.0 },
            { "product_id": "oven", "category": null, "price": 100.0 },
        ]);
        testing::table("products", "product_id", products);
        testing::transform(json!({ "table": "products", "high_value": 250.0 })).unwrap()
    }

    #[test]
    fn the_price_decides_the_band() {
        let mut test = enrich();
        for (product, category, band) in [
            (json!("cup"), json!("kitchen"), json!("low")),
            (json!("pan"), json!("kitchen"), json!("mid")),
            (json!("oven"), json!(null), json!("high")),
            (json!("unknown"), json!(null), json!(null)),
            (json!(null), json!(null), json!(null)),
        ] {
            test.push(json!({ "product_id": product, "amount": 1.0 }));
            assert_eq!(
                test.output("enriched"),
                [
                    json!({ "product_id": product, "amount": 1.0, "category": category, "price_band": band, "high_value": false })
                ]
            );
        }
    }

    #[test]
    fn only_purchases_above_the_limit_are_alerts() {
        let mut test = enrich();
        for amount in [250.0, 250.01, 12.0] {
            test.push(json!({ "product_id": "pan", "amount": amount }));
        }
        assert_eq!(test.output("enriched").len(), 3);
        assert_eq!(
            test.output("alerts"),
            [
                json!({ "product_id": "pan", "amount": 250.01, "category": "kitchen", "price_band": "mid", "high_value": true })
            ]
        );
    }

    #[test]
    fn a_table_that_is_missing_refuses_the_pipeline() {
        let config = json!({ "table": "goods", "high_value": 1.0 });
        assert!(
            testing::transform::<Enrich>(config)
                .err()
                .unwrap()
                .contains("goods")
        );
    }
}
