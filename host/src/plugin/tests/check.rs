//! Results of a part in the numbers of the whole call; lies are tried with real plugins in `tests/returning.rs`.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type};

use super::*;

fn plan() -> PluginPlan {
    let port = |name: &str, new_rows| PluginPort {
        name: name.into(),
        adds: vec![Arc::new(Field::new("y", DataType::Int64, false))],
        new_rows,
    };
    PluginPlan {
        reads: vec![],
        ports: vec![port("main", false), port("fired", true)],
    }
}

fn ints(values: &[i64]) -> Column {
    Column {
        values: wire::Values::Int64(values.to_vec()),
        validity: None,
    }
}

/// Rows 10..13 of 20, groups 4 and 6 of the whole call.
fn place() -> Place<'static> {
    Place {
        rows: 10..13,
        rows_of_call: 20,
        groups: Groups::Some(&[4, 6]),
    }
}

fn refusal(row: u32) -> Refusal {
    Refusal {
        row,
        reason: "line\nbreak".into(),
    }
}

#[test]
fn rows_refusals_and_origins_get_the_numbers_of_the_whole_call() {
    let fired = Output::Rows(NewRows {
        batch: BatchOut {
            rows: 3,
            columns: vec![ints(&[1, 2, 3])],
        },
        origin: vec![2, 3, 4],
        times: None,
    });
    let ports = vec![Output::Extend(vec![ints(&[7, 8, 9])]), fired];
    let said = said(ports, vec![refusal(2), refusal(0)], &plan(), &place()).unwrap();
    let Some(PortRows::Kept { rows, added }) = &said.ports[0] else {
        panic!("{said:?}");
    };
    assert_eq!(rows, &[11]);
    assert_eq!(
        added[0].as_primitive::<Int64Type>(),
        &Int64Array::from(vec![8])
    );
    let Some(PortRows::New { origin, .. }) = &said.ports[1] else {
        panic!("{said:?}");
    };
    assert_eq!(origin, &[12, 24, 26]);
    let refused = said.refused.iter().map(|(row, why)| (*row, why.as_str()));
    assert!(refused.eq([(10, "line\\nbreak"), (12, "line\\nbreak")]));
}

#[test]
fn a_selection_moves_with_its_part() {
    let selection = Selection {
        rows: vec![0, 2],
        added: vec![ints(&[7, 9])],
    };
    let ports = vec![Output::Select(selection), Output::Nothing];
    let said = said(ports, vec![], &plan(), &place()).unwrap();
    let Some(PortRows::Kept { rows, .. }) = &said.ports[0] else {
        panic!("{said:?}");
    };
    assert_eq!(rows, &[10, 12]);
    assert!(said.ports[1].is_none());
}

#[test]
fn a_great_count_of_rows_with_nothing_behind_it_is_a_lie() {
    let rows = NewRows {
        batch: BatchOut {
            rows: u32::MAX,
            columns: vec![ints(&[])],
        },
        origin: vec![],
        times: None,
    };
    let ports = vec![Output::Nothing, Output::Rows(rows)];
    let error = said(ports, vec![], &plan(), &place()).unwrap_err();
    assert!(
        error.contains("4294967295 new rows have 0 origins"),
        "{error}"
    );
}
