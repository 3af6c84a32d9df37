//! Flags rows to whose place the key would have had to travel faster than `kmh_max` from the place of its row before.
//! Build it with `tidemill plugin build plugins/travel`, test it with `cargo test -p travel`.

use tidemill_guest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Travel {
    /// The fastest that anyone travels, in kilometres an hour.
    kmh_max: f64,
    /// Shorter ways are not judged: places are vague and clocks differ.
    #[serde(default)]
    km_min: f64,
}

#[derive(Row)]
struct Place {
    latitude: f64,
    longitude: f64,
    #[column("_time")]
    time: Timestamp,
}

#[derive(Columns)]
struct Jump {
    km: f64,
    minutes: f64,
}

/// Where and when the key was last; nowhere while `rows` is 0.
#[derive(State, Default)]
struct Last {
    rows: u64,
    latitude: f64,
    longitude: f64,
    time: Timestamp,
}

impl Keyed for Travel {
    type Row<'a> = Place;
    type Out = Jump;
    type State = Last;
    const ORDER: Order = Order::EventTime;

    fn setup(&mut self, _setup: &mut Setup<'_>) -> Result<(), String> {
        let fits = |limit: f64| limit.is_finite() && limit >= 0.0;
        if !fits(self.km_min) || !fits(self.kmh_max) || self.kmh_max == 0.0 {
            return Err("kmh_max must be above 0 and km_min not below it".to_owned());
        }
        Ok(())
    }

    fn row(&mut self, row: Place, key: &mut Key<'_, Last>, out: &mut Out<Jump>) {
        if row.latitude.abs() > 90.0 || row.longitude.abs() > 180.0 {
            let place = format!("{}, {}", row.latitude, row.longitude);
            return out.refuse(format!("no place on earth: latitude, longitude {place}"));
        }
        let last = &mut *key.state;
        if last.rows > 0 {
            let km = distance_km(
                (last.latitude, last.longitude),
                (row.latitude, row.longitude),
            );
            let minutes = (row.time - last.time).micros() as f64 / 60e6;
            if km >= self.km_min && km > self.kmh_max * minutes / 60.0 {
                out.keep(Jump { km, minutes });
            }
        }
        *last = Last {
            rows: last.rows + 1,
            latitude: row.latitude,
            longitude: row.longitude,
            time: row.time,
        };
    }
}

plugin!(Travel: Keyed);

/// Along the great circle between two places (latitude, longitude in degrees) on a sphere of the earth's mean radius, by
/// the haversine formula.
fn distance_km(from: (f64, f64), to: (f64, f64)) -> f64 {
    let half = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
    let narrower = from.0.to_radians().cos() * to.0.to_radians().cos();
    let h = half(from.0, to.0) + narrower * half(from.1, to.1);
    2.0 * 6_371.0 * h.min(1.0).sqrt().asin()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_guest::testing::{self, Json, json};

    const HOUR: i64 = 3_600_000_000;
    const BERLIN: (f64, f64) = (52.52, 13.405);
    const HAMBURG: (f64, f64) = (53.551, 9.994);
    const SYDNEY: (f64, f64) = (-33.869, 151.209);

    fn travel() -> testing::KeyedTest<Travel> {
        testing::keyed(json!({ "kmh_max": 900.0, "km_min": 100.0 })).unwrap()
    }

    fn payment(at: i64, (latitude, longitude): (f64, f64)) -> Json {
        json!({ "_time": at, "latitude": latitude, "longitude": longitude })
    }

    /// Times, in hours, of the payments of one card that are flagged.
    fn flagged(payments: &[(i64, (f64, f64))], rows_per_call: usize) -> Vec<i64> {
        let mut test = travel().rows_per_call(rows_per_call);
        for (hour, place) in payments {
            test.push("card", payment(hour * HOUR, *place));
        }
        test.finish();
        test.times("main").iter().map(|time| time / HOUR).collect()
    }

    #[test]
    fn distances_are_those_of_an_atlas() {
        for (from, to, km) in [
            (BERLIN, HAMBURG, 255.0),
            (BERLIN, SYDNEY, 16_094.0),
            (BERLIN, BERLIN, 0.0),
            // A quarter of the way round, and half of it.
            ((0.0, 0.0), (0.0, 90.0), 10_007.5),
            ((90.0, 0.0), (-90.0, 0.0), 20_015.1),
            // Across the date line.
            ((0.0, 179.5), (0.0, -179.5), 111.2),
        ] {
            let found = distance_km(from, to);
            assert!(
                (found - km).abs() < 1.0 + km * 0.001,
                "{from:?} {to:?}: {found}"
            );
        }
    }

    #[test]
    fn faster_than_anyone_travels_is_flagged() {
        for (hours, expected) in [(0, vec![0]), (1, vec![1]), (17, vec![17]), (18, vec![])] {
            assert_eq!(
                flagged(&[(0, BERLIN), (hours, SYDNEY)], 9),
                expected,
                "{hours} h"
            );
        }
    }

    #[test]
    fn short_ways_and_the_first_place_are_not_judged() {
        let next_door = (BERLIN.0 + 0.5, BERLIN.1);
        assert!(flagged(&[(0, BERLIN), (0, next_door), (0, BERLIN)], 9).is_empty());
    }

    #[test]
    fn the_place_before_counts_not_the_usual_one() {
        let there_and_back = [
            (0, BERLIN),
            (1, SYDNEY),
            (2, SYDNEY),
            (3, BERLIN),
            (4, HAMBURG),
        ];
        for rows_per_call in [1, 2, 9] {
            assert_eq!(flagged(&there_and_back, rows_per_call), [1, 3]);
        }
    }

    #[test]
    fn payments_are_judged_in_the_order_of_their_times() {
        assert_eq!(
            flagged(&[(40, SYDNEY), (0, BERLIN), (1, HAMBURG)], 9),
            [0i64; 0]
        );
    }

    #[test]
    fn what_goes_out_says_how_far_and_how_soon() {
        let mut test = travel();
        test.push("card", payment(0, (0.0, 0.0)));
        test.push("card", payment(HOUR / 2, (0.0, 90.0)));
        test.finish();
        let found = test.output("main");
        assert!(
            (found[0]["km"].as_f64().unwrap() - 10_007.5).abs() < 0.1,
            "{found:?}"
        );
        assert_eq!(found[0]["minutes"], json!(30.0));
    }

    #[test]
    fn a_place_that_is_none_is_refused_and_forgotten() {
        let mut test = travel();
        test.push("card", payment(0, BERLIN));
        test.push("card", payment(HOUR, (91.0, 0.0)));
        test.push("card", payment(HOUR, (0.0, -180.5)));
        test.push("card", payment(2 * HOUR, HAMBURG));
        test.finish();
        assert!(test.output("main").is_empty());
        let refused = test.refused();
        assert_eq!(refused.len(), 2);
        assert!(refused[0].1.contains("91"), "{}", refused[0].1);
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for config in [
            json!({ "kmh_max": 0.0 }),
            json!({ "kmh_max": -5.0 }),
            json!({ "kmh_max": 900.0, "km_min": -1.0 }),
        ] {
            assert!(testing::keyed::<Travel>(config).is_err());
        }
    }
}
