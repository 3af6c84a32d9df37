//! Formats: which one a file or topic has, and whether the fields can be read out of it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::Resolver;
use crate::format::compression::{Compression, format_extension};
use crate::format::decoder;
use crate::format::parquet::{ParquetFile, Unreadable};
use crate::pipeline::plan::{Format, RecordPart};
use crate::pipeline::spec::{self, FieldType};
use crate::pipeline::text::{Span, Spanned};

/// Where records come from, as far as it matters to their format.
#[derive(Debug, Clone, Copy)]
pub enum Place<'s> {
    File(&'s Spanned<String>),
    Kafka,
}

/// The Arrow type of a field.
pub fn data_type(ty: FieldType) -> DataType {
    match ty {
        FieldType::String => DataType::Utf8,
        FieldType::Int => DataType::Int64,
        FieldType::Float => DataType::Float64,
        FieldType::Bool => DataType::Boolean,
        FieldType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        FieldType::Bytes => DataType::Binary,
        FieldType::Date => DataType::Date32,
        FieldType::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
    }
}

pub fn schema(fields: &[spec::Field]) -> SchemaRef {
    let fields: Vec<_> = fields
        .iter()
        .map(|f| Field::new(&f.name.value, data_type(f.ty), f.nullable))
        .collect();
    Arc::new(Schema::new(fields))
}

impl Resolver<'_> {
    /// The format written, or the one that the file's extension tells; JSON where there is no file.
    pub(super) fn format(
        &mut self,
        written: Option<&Spanned<Format>>,
        place: Place,
    ) -> Option<Format> {
        let told = match place {
            Place::Kafka => Some(Format::Json),
            Place::File(path) => match format_extension(Path::new(&path.value)) {
                Some("json" | "jsonl" | "ndjson") => Some(Format::Json),
                Some("csv") => Some(Format::Csv),
                Some("parquet") => Some(Format::Parquet),
                _ => None,
            },
        };
        let span = match (written, place) {
            (Some(written), _) => written.span,
            (None, Place::File(path)) => path.span,
            (None, Place::Kafka) => Span::default(),
        };
        let Some(format) = written.map(|w| w.value).or(told) else {
            self.findings
                .error(span, "the format of this file is unknown")
                .help("add format = \"json\", \"csv\", \"text\" or \"parquet\"");
            return None;
        };
        let wrong = match (format, place) {
            (Format::Csv, Place::Kafka) => {
                "a topic has no header line that names the columns of CSV"
            }
            (Format::Parquet, Place::Kafka) => "Parquet is a format of files, not of records",
            (Format::Parquet, Place::File(path))
                if Compression::of(Path::new(&path.value)) != Compression::None =>
            {
                "a compressed Parquet file cannot be read: Parquet compresses its columns itself"
            }
            _ => return Some(format),
        };
        self.findings.error(span, wrong);
        None
    }

    /// Refuses columns of parts of a record that records of this place do not have.
    pub(super) fn parts_known(
        &mut self,
        fields: &[spec::Field],
        known: &[RecordPart],
        place: Place,
    ) -> Option<()> {
        let unknown = |f: &&spec::Field| f.part.is_some_and(|part| !known.contains(&part));
        let mut good = Some(());
        for field in fields.iter().filter(unknown) {
            let message = format!("there is no `{}` here", field.name.value);
            let help = match (place, known) {
                (_, []) => "a table has the columns of its records only",
                (Place::File(_), _) => "of a file's records `_offset`, the line or row, is known",
                (Place::Kafka, _) => "remove it",
            };
            self.findings.error(field.name.span, message).help(help);
            good = None;
        }
        good
    }

    /// Refuses fields that the format, or the file itself where it is there and says what it holds, cannot fill.
    pub(super) fn fields_fit(
        &mut self,
        fields: &[spec::Field],
        format: Format,
        place: Place,
    ) -> Option<()> {
        let of_record: Vec<_> = fields
            .iter()
            .filter(|f| f.part.is_none())
            .cloned()
            .collect();
        match (format, place) {
            (Format::Text, _) => self.text_fields(&of_record, fields),
            (Format::Parquet, Place::File(path)) => self.parquet_fields(&of_record, path),
            (Format::Json, _) => self.json_fields(&of_record),
            _ => Some(()),
        }
    }

    fn text_fields(&mut self, of_record: &[spec::Field], all: &[spec::Field]) -> Option<()> {
        let wrong = match of_record {
            [line] if line.ty == FieldType::String => return Some(()),
            [line] => line,
            [_, second, ..] => second,
            [] => all.first()?,
        };
        self.findings
            .error(
                wrong.name.span,
                "text has one field, a \"string\": the whole record",
            )
            .help("write fields = { line = \"string\" }");
        None
    }

    /// No two fields may read one value, or one a part of what another reads.
    fn json_fields(&mut self, fields: &[spec::Field]) -> Option<()> {
        for count in 1..=fields.len() {
            let some = &fields[..count];
            let paths: Vec<_> = some.iter().map(|f| f.path.clone()).collect();
            if let Err(cause) = decoder(Format::Json, &schema(some), &paths, None, None) {
                self.findings.error(fields[count - 1].name.span, cause);
                return None;
            }
        }
        Some(())
    }

    /// A file that is not there yet is no mistake: it is looked at again when the pipeline starts.
    fn parquet_fields(&mut self, fields: &[spec::Field], path: &Spanned<String>) -> Option<()> {
        let Ok(file) = File::open(self.spec.dir.join(&path.value)) else {
            return Some(());
        };
        let paths: Vec<_> = fields.iter().map(|f| f.path.clone()).collect();
        match ParquetFile::open(file, &schema(fields), &paths) {
            Ok(_) => return Some(()),
            Err(Unreadable::File(cause)) => {
                self.findings.error(path.span, cause);
            }
            Err(Unreadable::Fields(wrong)) => {
                for (index, cause) in wrong {
                    self.findings.error(fields[index].name.span, cause);
                }
            }
        }
        None
    }
}
