//! Cuts each user's events into sessions: at a gap of `timeout` or more, and after an event of `end_on`.
//! Build it with `tidemill plugin build plugins/sessions`, test it with `cargo test -p sessions`.

use tidemill_guest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sessions {
    /// A gap this long or longer separates two sessions.
    timeout: Duration,
    /// Actions that end a session. Events at the very time of such a one still belong to it.
    #[serde(default)]
    end_on: Vec<String>,
    /// Actions that make a session a converted one.
    #[serde(default)]
    converted_by: Vec<String>,
}

#[derive(Row)]
struct Event<'a> {
    product_id: Option<&'a str>,
    action: &'a str,
    #[column("_time")]
    time: Timestamp,
}

#[derive(Columns)]
struct Session {
    session_start: Timestamp,
    session_end: Timestamp,
    events: i64,
    products: i64,
    converted: bool,
}

/// The session that is open; none while `events` is 0.
#[derive(Serialize, Deserialize, Default)]
struct Open {
    start: Timestamp,
    last: Timestamp,
    events: i64,
    products: StringSet,
    converted: bool,
    ended: bool,
}

impl Keyed for Sessions {
    type Row<'a> = Event<'a>;
    type Out = Rows<Session>;
    type State = Open;
    const ORDER: Order = Order::EventTime;
    const ALARMS: Alarms = Alarms::EventTime;

    fn setup(&mut self, _setup: &mut Setup<'_>) -> Result<(), String> {
        if self.timeout == Duration::default() {
            return Err("timeout must be longer than 0s".to_owned());
        }
        Ok(())
    }

    /// An event that is too late for the open session finds it closed: its alarm fires first.
    fn row(&mut self, event: Event<'_>, key: &mut Key<'_, Open>, _out: &mut Out<Rows<Session>>) {
        let open = &mut *key.state;
        if open.events == 0 {
            open.start = event.time;
        }
        open.last = event.time;
        open.events += 1;
        open.converted |= self
            .converted_by
            .iter()
            .any(|action| action == event.action);
        open.ended |= self.end_on.iter().any(|action| action == event.action);
        if let Some(product) = event.product_id {
            open.products.insert(product);
        }
        let end = open.last
            + if open.ended {
                Duration::MICROSECOND
            } else {
                self.timeout
            };
        key.wake_at(end);
    }

    fn alarm(&mut self, key: &mut Key<'_, Open>, out: &mut Out<Rows<Session>>) {
        out.emit(Session {
            session_start: key.state.start,
            session_end: key.state.last,
            events: key.state.events,
            products: key.state.products.len() as i64,
            converted: key.state.converted,
        });
        key.forget();
    }
}

plugin!(Sessions: Keyed);

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_guest::testing::{self, Json, json};

    const MINUTE: i64 = 60_000_000;

    /// The sessions of one user's events, given as (minute, action, product).
    fn sessions(events: &[(i64, &str, Option<&str>)]) -> Vec<Json> {
        let config = json!({ "timeout": "10m", "end_on": ["logout"], "converted_by": ["buy"] });
        let mut test = testing::keyed::<Sessions>(config).unwrap();
        for (minute, action, product) in events {
            let time = minute * MINUTE;
            test.push(
                "anna",
                json!({ "_time": time, "action": action, "product_id": product }),
            );
        }
        test.finish();
        test.output("main")
    }

    fn session(start: i64, end: i64, events: i64, products: i64, converted: bool) -> Json {
        json!({ "key": "anna", "session_start": start * MINUTE, "session_end": end * MINUTE, "events": events,
                "products": products, "converted": converted })
    }

    #[test]
    fn a_gap_of_the_timeout_starts_a_new_session() {
        let events = [
            (0, "view", None),
            (9, "view", None),
            (19, "view", None),
            (30, "view", None),
        ];
        let expected = [
            session(0, 9, 2, 0, false),
            session(19, 19, 1, 0, false),
            session(30, 30, 1, 0, false),
        ];
        assert_eq!(sessions(&events), expected);
    }

    #[test]
    fn an_ending_event_takes_all_of_its_time_with_it() {
        let events = [
            (0, "view", Some("cup")),
            (1, "logout", None),
            (1, "buy", Some("cup")),
            (1, "logout", Some("pan")),
            (2, "view", Some("cup")),
        ];
        assert_eq!(
            sessions(&events),
            [session(0, 1, 4, 2, true), session(2, 2, 1, 1, false)]
        );
    }

    #[test]
    fn events_may_arrive_in_any_order_and_calls() {
        let ordered = [
            (0, "view", Some("a")),
            (5, "buy", Some("b")),
            (11, "logout", None),
            (12, "view", None),
        ];
        let mut shuffled = ordered;
        shuffled.reverse();
        assert_eq!(sessions(&shuffled), sessions(&ordered));
        assert_eq!(
            sessions(&ordered),
            [session(0, 11, 3, 2, true), session(12, 12, 1, 0, false)]
        );
    }

    #[test]
    fn a_session_is_dated_by_the_alarm_that_closed_it() {
        let mut test = testing::keyed::<Sessions>(json!({ "timeout": "10m" })).unwrap();
        test.push("anna", json!({ "_time": 0, "action": "view" }));
        test.watermark(10 * MINUTE);
        assert_eq!(test.times("main"), [10 * MINUTE]);
        assert!(test.state("anna").is_none());
    }

    #[test]
    fn a_timeout_of_nothing_is_refused() {
        let refused = testing::keyed::<Sessions>(json!({ "timeout": "0s" }))
            .err()
            .unwrap();
        assert!(refused.contains("longer"), "{refused}");
    }
}
