//! Filter, then project: the rows for which a condition holds, with the columns of a select list.
//!
//! Keeps no state. Emits with the input, in its order, with its times and origins; late input is like any other. A row at
//! which an expression fails is refused, the others go on.

use super::{Output, Step, StepError};
use crate::batch::Batch;
use crate::expr::{Predicate, Projection};

/// `where` and `select` of a step; without either, rows pass as they are.
#[derive(Debug)]
pub struct Project {
    filter: Option<Predicate>,
    projection: Option<Projection>,
}

impl Project {
    pub fn new(filter: Option<Predicate>, projection: Option<Projection>) -> Self {
        Self { filter, projection }
    }
}

impl Step for Project {
    fn process(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<(), StepError> {
        let mut rows = batch;
        if let Some(filter) = &self.filter {
            rows = run(rows, out, |rows, refused| filter.filter(rows, refused));
        }
        if let Some(projection) = &self.projection {
            rows = run(rows, out, |rows, refused| projection.apply(rows, refused));
        }
        out.push(0, rows);
        Ok(())
    }
}

fn run(
    rows: Batch,
    out: &mut Output,
    work: impl FnOnce(&Batch, &mut Vec<(u32, String)>) -> Batch,
) -> Batch {
    let mut refused = Vec::new();
    let done = work(&rows, &mut refused);
    for (row, reason) in refused {
        // A copy: a slice would keep the whole batch alive in the dead letters.
        out.refuse(reason, rows.take(&[row]));
    }
    done
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;
    use crate::batch::Origins;

    fn batch(values: Vec<i64>) -> Batch {
        let rows = values.len() as i64;
        let schema = Arc::new(Schema::new(vec![Field::new("y", DataType::Int64, false)]));
        Batch {
            columns: RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values))])
                .unwrap(),
            times: (0..rows).map(|i| i * 100).collect(),
            origins: Some(Origins {
                inputs: (0..rows).map(|_| 7).collect(),
                offsets: (0..rows).map(|i| 1_000 + i).collect(),
            }),
        }
    }

    #[test]
    fn refused_rows_leave_with_their_origin_and_the_others_go_on() {
        let input = batch(vec![5, 0, -1, 10]);
        let schema = input.schema();
        let filter = Predicate::compile("y >= 0", &schema).unwrap();
        let projection = Projection::compile(&["100 / y as share".to_string()], &schema).unwrap();
        let mut step = Project::new(Some(filter), Some(projection));
        let mut out = Output::new(1);
        step.process(0, input, &mut out).unwrap();

        let rows = &out.ports[0][0];
        let shares = rows.columns.column(0).as_primitive::<Int64Type>().values();
        assert_eq!(&shares[..], [20, 10]);
        assert_eq!(&rows.times[..], [0, 300]);
        assert_eq!(&rows.origins.as_ref().unwrap().offsets[..], [1_000, 1_003]);

        let [refused] = &out.refused[..] else {
            panic!("{:?}", out.refused)
        };
        assert_eq!(refused.reason, "`100 / y`: division by zero");
        let row = refused.row.as_ref().unwrap();
        assert_eq!(
            row.columns.column(0).as_primitive::<Int64Type>().value(0),
            0
        );
        assert_eq!(row.origins.as_ref().unwrap().offsets[0], 1_001);
        assert_eq!(row.times[0], 100);
    }

    #[test]
    fn without_expressions_rows_pass_and_nothing_gives_nothing() {
        let mut step = Project::new(None, None);
        let mut out = Output::new(1);
        step.process(0, batch(vec![1, 2]), &mut out).unwrap();
        step.process(0, batch(vec![]), &mut out).unwrap();
        assert_eq!(out.ports[0].len(), 1);
        assert_eq!(out.ports[0][0].rows(), 2);
    }
}
