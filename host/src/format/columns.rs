//! Columns under construction whose last rows can be taken back: Arrow's builders cannot be truncated, these can.
//!
//! Knows no format: decoders put values in, one row at a time.
//! Invariant: between two records every column has [`Rows::rows`] values; within one it has that or one more.

mod kind;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array,
    Float64Array, Int64Array, NullBufferBuilder, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, SchemaRef};

use super::{decimal, shown, timestamp};
use crate::time::{Micros, NO_TIME};
pub(super) use kind::Kind;

/// The columns of a batch that a decoder fills.
pub(super) struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    event_time: Option<usize>,
}

/// One column: values, validity and what to call it in a reason.
pub(super) struct Column {
    /// "field `city`", with its path in the record where that differs.
    label: String,
    kind: Kind,
    nullable: bool,
    valid: NullBufferBuilder,
    /// Values, nulls included: asked for at every member of a record, so kept here rather than computed.
    len: usize,
    values: Values,
}

enum Values {
    Runs(Runs),
    Numbers(Vec<i64>),
    Floats(Vec<f64>),
    Bits(BooleanBufferBuilder),
    /// Decimals without their point.
    Wide(Vec<i128>),
    Days(Vec<i32>),
}

/// Texts or byte strings laid end to end.
struct Runs {
    /// 0, then the end of each run in `data`.
    ends: Vec<i32>,
    data: Vec<u8>,
}

impl Rows {
    /// Empty columns of `schema`; `paths[i]` is where column `i` stands in a record. Errors name a column of a type
    /// that records cannot hold.
    pub fn new(
        schema: &SchemaRef,
        paths: &[Vec<String>],
        event_time: Option<usize>,
    ) -> Result<Self, String> {
        if paths.len() != schema.fields().len() {
            return Err(format!(
                "{} fields but {} paths to them",
                schema.fields().len(),
                paths.len()
            ));
        }
        let columns = schema
            .fields()
            .iter()
            .zip(paths)
            .map(|(field, path)| Column::new(field, path))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(column) = event_time {
            let known = columns
                .get(column)
                .ok_or_else(|| format!("event time is column {column}, which does not exist"))?;
            if known.kind != Kind::Time {
                return Err(format!("{}: event time must be a timestamp", known.label));
            }
        }
        Ok(Self {
            schema: schema.clone(),
            columns,
            rows: 0,
            event_time,
        })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    pub fn bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum()
    }

    /// The column, ready for this record's value; one that the record gave before is dropped: the last one wins.
    #[inline]
    pub fn open(&mut self, column: usize) -> &mut Column {
        let column = &mut self.columns[column];
        if column.len() > self.rows {
            column.truncate(self.rows);
        }
        column
    }

    /// Ends a row: fields without a value become null. Returns the row's event time. After an error the row is still
    /// open: [`roll_back`](Self::roll_back).
    #[inline]
    pub fn complete(&mut self) -> Result<Micros, String> {
        for column in &mut self.columns {
            if column.len() == self.rows {
                if !column.nullable {
                    return Err(column.missing());
                }
                column.put_absent();
            }
        }
        let time = match self.event_time {
            Some(column) => self.columns[column].last_time()?,
            None => NO_TIME,
        };
        self.rows += 1;
        Ok(time)
    }

    /// Drops what an unfinished row has left.
    pub fn roll_back(&mut self) {
        for column in &mut self.columns {
            if column.len() > self.rows {
                column.truncate(self.rows);
            }
        }
    }

    /// Drops the last row, if there is one.
    pub fn undo(&mut self) {
        self.rows = self.rows.saturating_sub(1);
        self.roll_back();
    }

    /// The rows as a batch; nothing is left.
    pub fn finish(&mut self) -> RecordBatch {
        self.rows = 0;
        let arrays = self.columns.iter_mut().map(Column::finish).collect();
        RecordBatch::try_new(self.schema.clone(), arrays)
            .expect("columns have the schema's types and one length")
    }
}

impl Column {
    fn new(field: &Field, path: &[String]) -> Result<Self, String> {
        let name = field.name();
        let label = match path {
            [only] if only == name => format!("field `{name}`"),
            _ => format!("field `{name}` (`{}`)", path.join(".")),
        };
        let kind = Kind::of(field).ok_or_else(|| {
            format!(
                "{label}: records cannot hold the type {}",
                field.data_type()
            )
        })?;
        let values = match kind {
            Kind::Text | Kind::Bytes => Values::Runs(Runs::with_capacity(0, 0)),
            Kind::Int | Kind::Time => Values::Numbers(Vec::new()),
            Kind::Float => Values::Floats(Vec::new()),
            Kind::Bool => Values::Bits(BooleanBufferBuilder::new(0)),
            Kind::Decimal(..) => Values::Wide(Vec::new()),
            Kind::Date => Values::Days(Vec::new()),
        };
        Ok(Self {
            label,
            kind,
            nullable: field.is_nullable(),
            valid: NullBufferBuilder::new(0),
            len: 0,
            values,
        })
    }

    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn nullable(&self) -> bool {
        self.nullable
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    #[inline]
    fn len(&self) -> usize {
        self.len
    }

    /// A null; refused where the column cannot hold one.
    pub fn put_null(&mut self) -> Result<(), String> {
        if !self.nullable {
            return Err(format!(
                "{}: expected {}, found null (the type `{}?` would allow null)",
                self.label,
                self.kind.expected(),
                self.kind.name()
            ));
        }
        self.put_absent();
        Ok(())
    }

    #[inline]
    pub fn put_text(&mut self, text: &str) -> Result<(), String> {
        self.put_run(|data| {
            data.extend_from_slice(text.as_bytes());
            Ok(())
        })
    }

    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.put_run(|data| {
            data.extend_from_slice(bytes);
            Ok(())
        })
    }

    /// `text` is base64 with or without padding.
    pub fn put_base64(&mut self, text: &str) -> Result<(), String> {
        use base64::Engine as _;
        use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
        const LENIENT: GeneralPurpose = GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        self.put_run(|data| {
            LENIENT
                .decode_vec(text, data)
                .map_err(|cause| format!("not base64: {cause}"))
        })
    }

    #[inline]
    pub fn put_number(&mut self, number: i64) {
        if let Values::Numbers(numbers) = &mut self.values {
            numbers.push(number);
            self.count_valid();
        }
    }

    #[inline]
    pub fn put_float(&mut self, float: f64) {
        if let Values::Floats(floats) = &mut self.values {
            floats.push(float);
            self.count_valid();
        }
    }

    pub fn put_bool(&mut self, bit: bool) {
        if let Values::Bits(bits) = &mut self.values {
            bits.append(bit);
            self.count_valid();
        }
    }

    /// The decimal that `text` writes, exactly; refused if it has more digits than the column.
    pub fn put_decimal(&mut self, text: &str) -> Result<(), String> {
        let (Values::Wide(wide), Kind::Decimal(precision, scale)) = (&mut self.values, self.kind)
        else {
            return Ok(());
        };
        let value = decimal::parse(text, precision, scale)
            .map_err(|cause| format!("{}: {} {cause}", self.label, shown(text)))?;
        wide.push(value);
        self.count_valid();
        Ok(())
    }

    /// The day that `text` writes as `2026-01-31`.
    pub fn put_date(&mut self, text: &str) -> Result<(), String> {
        let Values::Days(days) = &mut self.values else {
            return Ok(());
        };
        let day = timestamp::parse_date(text.as_bytes()).ok_or_else(|| {
            format!(
                "{}: {} is not a date such as 2026-01-31",
                self.label,
                shown(text)
            )
        })?;
        days.push(day);
        self.count_valid();
        Ok(())
    }

    #[inline]
    fn put_run(
        &mut self,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), String>,
    ) -> Result<(), String> {
        let Values::Runs(runs) = &mut self.values else {
            return Ok(());
        };
        let start = runs.data.len();
        let end = fill(&mut runs.data).and_then(|()| {
            i32::try_from(runs.data.len())
                .map_err(|_| "the batch would hold more than 2 GiB of this column".to_owned())
        });
        match end {
            Ok(end) => {
                runs.ends.push(end);
                self.count_valid();
                Ok(())
            }
            Err(cause) => {
                runs.data.truncate(start);
                Err(format!("{}: {cause}", self.label))
            }
        }
    }

    #[inline]
    fn count_valid(&mut self) {
        self.valid.append_non_null();
        self.len += 1;
    }

    /// A null, and the value that stands under it.
    fn put_absent(&mut self) {
        self.valid.append_null();
        self.len += 1;
        match &mut self.values {
            Values::Runs(runs) => runs.ends.push(runs.end()),
            Values::Numbers(numbers) => numbers.push(0),
            Values::Floats(floats) => floats.push(0.0),
            Values::Bits(bits) => bits.append(false),
            Values::Wide(wide) => wide.push(0),
            Values::Days(days) => days.push(0),
        }
    }

    fn truncate(&mut self, len: usize) {
        self.valid.truncate(len);
        self.len = len;
        match &mut self.values {
            Values::Runs(runs) => {
                runs.ends.truncate(len + 1);
                runs.data.truncate(runs.end() as usize);
            }
            Values::Numbers(numbers) => numbers.truncate(len),
            Values::Floats(floats) => floats.truncate(len),
            Values::Bits(bits) => bits.truncate(len),
            Values::Wide(wide) => wide.truncate(len),
            Values::Days(days) => days.truncate(len),
        }
    }

    #[cold]
    fn missing(&self) -> String {
        format!(
            "{} is missing (the type `{}?` would allow that)",
            self.label,
            self.kind.name()
        )
    }

    fn last_time(&self) -> Result<Micros, String> {
        match &self.values {
            Values::Numbers(times) if self.valid.is_valid(times.len() - 1) => {
                Ok(times[times.len() - 1])
            }
            _ => Err(format!("{}: null, but it is the event time", self.label)),
        }
    }

    fn bytes(&self) -> usize {
        match &self.values {
            Values::Runs(runs) => runs.data.len() + runs.ends.len() * size_of::<i32>(),
            Values::Numbers(numbers) => size_of_val(numbers.as_slice()),
            Values::Floats(floats) => size_of_val(floats.as_slice()),
            Values::Bits(bits) => bits.len() / 8,
            Values::Wide(wide) => size_of_val(wide.as_slice()),
            Values::Days(days) => size_of_val(days.as_slice()),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        let valid: Option<NullBuffer> = self.valid.finish();
        self.len = 0;
        match &mut self.values {
            Values::Runs(runs) => {
                let (ends, data) = runs.take();
                if self.kind == Kind::Text {
                    Arc::new(StringArray::new(ends, data, valid))
                } else {
                    Arc::new(BinaryArray::new(ends, data, valid))
                }
            }
            Values::Numbers(numbers) => {
                let numbers = ScalarBuffer::from(take_keeping_size(numbers));
                if self.kind == Kind::Time {
                    Arc::new(TimestampMicrosecondArray::new(numbers, valid).with_timezone("UTC"))
                } else {
                    Arc::new(Int64Array::new(numbers, valid))
                }
            }
            Values::Floats(floats) => {
                Arc::new(Float64Array::new(take_keeping_size(floats).into(), valid))
            }
            Values::Bits(bits) => Arc::new(BooleanArray::new(bits.finish(), valid)),
            Values::Wide(wide) => {
                let values = Decimal128Array::new(take_keeping_size(wide).into(), valid);
                let Kind::Decimal(precision, scale) = self.kind else {
                    unreachable!("only decimals are wide");
                };
                let typed = values.with_precision_and_scale(precision, scale);
                Arc::new(typed.expect("the schema's type is a valid one"))
            }
            Values::Days(days) => Arc::new(Date32Array::new(take_keeping_size(days).into(), valid)),
        }
    }
}

impl Runs {
    fn with_capacity(runs: usize, bytes: usize) -> Self {
        let mut ends = Vec::with_capacity(runs + 1);
        ends.push(0);
        Self {
            ends,
            data: Vec::with_capacity(bytes),
        }
    }

    fn end(&self) -> i32 {
        *self.ends.last().expect("the first end is always there")
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let next = Self::with_capacity(self.ends.len(), self.data.len());
        let full = std::mem::replace(self, next);
        (OffsetBuffer::new(full.ends.into()), full.data.into())
    }
}

/// Takes the values and leaves room for as many: batches of one source resemble each other.
fn take_keeping_size<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next)
}
