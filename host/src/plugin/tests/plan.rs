//! Plans that a well-behaved SDK would not make; the common mistakes are tried with real plugins in `tests/loading.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField};

use super::*;

fn input() -> SchemaRef {
    Arc::new(Schema::new(vec![
        ArrowField::new("a", DataType::Int64, false),
        ArrowField::new("d", DataType::Date32, true),
        ArrowField::new("s", DataType::Utf8, true),
    ]))
}

fn said(reads: &[&str], ports: &[(&str, &[&str])]) -> wire::Plan {
    let added = |name: &&str| wire::Field {
        name: name.to_string(),
        ty: wire::ValueType::Utf8,
        nullable: true,
    };
    wire::Plan {
        reads: reads.iter().map(|r| r.to_string()).collect(),
        ports: ports
            .iter()
            .map(|(name, adds)| wire::Port {
                name: name.to_string(),
                adds: adds.iter().map(added).collect(),
                new_rows: false,
            })
            .collect(),
    }
}

#[test]
fn reads_become_positions_and_the_time_is_reserved() {
    let plan = plan(
        said(&["s", "_time", "a"], &[("main", &["x"]), ("alerts", &[])]),
        &input(),
    )
    .unwrap();
    assert_eq!(plan.reads, [Some(2), None, Some(0)]);
    assert_eq!(plan.ports[0].adds[0].data_type(), &DataType::Utf8);
    assert_eq!(plan.ports[1].name, "alerts");
}

#[test]
fn columns_that_cannot_cross_are_not_offered() {
    let offered: Vec<_> = input_fields(&input()).into_iter().map(|f| f.name).collect();
    assert_eq!(offered, ["a", "s"]);
}

#[test]
fn impossible_plans_are_refused() {
    let many: Vec<&str> = vec!["a"; PLUGIN_COLUMNS_MAX + 1];
    let cases: [(wire::Plan, &str); 6] = [
        (
            said(&["d"], &[("main", &[])]),
            "of type date, which cannot be given to a plugin",
        ),
        (
            said(&["b\n"], &[("main", &[])]),
            "the column `b\\n`, which the input does not have; the input has a, d, s",
        ),
        (
            said(&many, &[("main", &[])]),
            "it has 1025 reads, at most 1024",
        ),
        (
            said(&[], &[("main", &["_time"])]),
            "`_time`, which is a reserved name",
        ),
        (
            said(&[], &[("main", &[""])]),
            "is not a text of 1 to 128 bytes",
        ),
        (
            said(&[], &[("main", &[]), ("Port", &[])]),
            "port `Port` is not named [a-z]",
        ),
    ];
    for (said, expected) in cases {
        let error = plan(said, &input()).unwrap_err();
        assert!(error.contains(expected), "{error} lacks {expected:?}");
    }
}

#[test]
fn impossible_descriptions_are_refused() {
    let said = |name: &str, state| wire::Description {
        name: name.into(),
        version: "1".into(),
        config_schema: String::new(),
        state,
        state_version: 1,
        alarms: wire::AlarmClock::None,
        order: wire::RowOrder::Arrival,
    };
    let fixed = wire::StateLayout::Fixed;
    for (name, state, kind, expected) in [
        (
            "",
            wire::StateLayout::None,
            Kind::Keyed,
            "the name `` is not a text",
        ),
        (
            "a\u{7}",
            wire::StateLayout::None,
            Kind::Keyed,
            "the name `a\\u{7}`",
        ),
        ("a", fixed(0), Kind::Keyed, "0 words a key"),
        ("a", fixed(u32::MAX), Kind::Keyed, "4294967295 words a key"),
        (
            "a",
            fixed(1),
            Kind::Transform,
            "which only a keyed plugin has",
        ),
    ] {
        let error = description(said(name, state), kind).unwrap_err();
        assert!(error.contains(expected), "{error} lacks {expected:?}");
    }
    assert!(description(said("a", fixed(1)), Kind::Keyed).is_ok());
}
