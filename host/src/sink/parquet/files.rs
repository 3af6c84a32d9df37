//! Rows written as Parquet files, one for each partition, where no reader looks yet.
//!
//! Knows no checkpoints. The same rows give the same files under the same names, however often they are written.
//! Invariant: when [`Files::write`] returns, the files and the way to them are on the disk.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

use super::hive::PartitionColumn;
use crate::error::ConnectorError;
use crate::limits;
use crate::sink::directory::file_name;
use crate::sink::durable::{create_parents, sync_directory};

/// The files of one roll.
pub struct Files {
    /// Where they will be visible.
    pub dir: PathBuf,
    /// Where they are made.
    pub made_in: PathBuf,
    pub label: String,
    pub sequence: u64,
    pub partition_by: Vec<String>,
    /// Files that are visible already are not written again.
    pub leave_visible: bool,
}

/// A complete file.
#[derive(Debug, Clone)]
pub struct Written {
    pub hidden: PathBuf,
    pub visible: PathBuf,
}

type Rows = Result<(usize, RecordBatch), ConnectorError>;
type Open = HashMap<String, Option<(ArrowWriter<File>, Written)>>;

impl Files {
    /// Writes all rows that `read` gives, which is called again while there are more partitions than files may be open.
    pub fn write<R: Iterator<Item = Rows>>(
        &self,
        read: impl Fn() -> R,
    ) -> Result<Vec<Written>, ConnectorError> {
        let (mut done, mut all) = (HashSet::new(), Vec::new());
        loop {
            let (mut open, mut more) = (Open::new(), false);
            for rows in read() {
                for (partition, rows) in self.partitions(rows?.1)? {
                    if done.contains(&partition) {
                        continue;
                    }
                    if !open.contains_key(&partition)
                        && open.len() >= limits::PARQUET_OPEN_FILES_MAX
                    {
                        more = true;
                        continue;
                    }
                    self.add(&mut open, &partition, &rows)?;
                }
                bound_memory(&mut open)?;
            }
            for (partition, file) in open {
                if let Some((writer, written)) = file {
                    let wrong = |e| parquet_error(&written.hidden, e);
                    let file = writer.into_inner().map_err(wrong)?;
                    file.sync_all()
                        .map_err(|cause| ConnectorError::io(&written.hidden, cause))?;
                    all.push(written);
                }
                done.insert(partition);
            }
            if !more {
                break;
            }
        }
        self.sync_directories(&all)?;
        Ok(all)
    }

    fn add(
        &self,
        open: &mut Open,
        partition: &str,
        rows: &RecordBatch,
    ) -> Result<(), ConnectorError> {
        if !open.contains_key(partition) {
            let file = self.begin(partition, rows)?;
            open.insert(partition.to_owned(), file);
        }
        match open.get_mut(partition) {
            Some(Some((writer, written))) => writer
                .write(rows)
                .map_err(|e| parquet_error(&written.hidden, e)),
            _ => Ok(()),
        }
    }

    /// `None`: the file is to be left as it is.
    fn begin(
        &self,
        partition: &str,
        rows: &RecordBatch,
    ) -> Result<Option<(ArrowWriter<File>, Written)>, ConnectorError> {
        let path = |dir: &Path, extension: &str| {
            let name = file_name(&self.label, self.sequence, extension);
            dir.join(partition).join(name)
        };
        let written = Written {
            hidden: path(&self.made_in, "parquet.tmp"),
            visible: path(&self.dir, "parquet"),
        };
        if self.leave_visible && written.visible.exists() {
            return Ok(None);
        }
        create_parents(&written.hidden)?;
        let file =
            File::create(&written.hidden).map_err(|e| ConnectorError::io(&written.hidden, e))?;
        let writer = ArrowWriter::try_new(file, rows.schema(), Some(properties()))
            .map_err(|e| parquet_error(&written.hidden, e))?;
        Ok(Some((writer, written)))
    }

    /// `rows` by partition, in the order of their first rows, without the columns that are in the name.
    fn partitions(&self, rows: RecordBatch) -> Result<Vec<(String, RecordBatch)>, ConnectorError> {
        let failed = |cause: String| ConnectorError::failed(self.dir.display().to_string(), cause);
        if self.partition_by.is_empty() {
            return Ok(vec![(String::new(), rows)]);
        }
        let schema = rows.schema();
        let at = |name: &String| schema.index_of(name).map_err(|e| failed(e.to_string()));
        let by = self.partition_by.iter().map(at);
        let by: Vec<usize> = by.collect::<Result<_, _>>()?;
        let named = by.iter().map(|&at| PartitionColumn::new(&rows, at));
        let named: Vec<_> = named.collect::<Result<_, _>>().map_err(failed)?;
        let rest: Vec<usize> = (0..rows.num_columns())
            .filter(|at| !by.contains(at))
            .collect();
        let words = |e: arrow::error::ArrowError| failed(e.to_string());
        let rest = rows.project(&rest).map_err(words)?;
        let take = |(path, indices)| match take_record_batch(&rest, &UInt32Array::from(indices)) {
            Ok(rows) => Ok((path, rows)),
            Err(e) => Err(words(e)),
        };
        by_path(&named, rows.num_rows())
            .into_iter()
            .map(take)
            .collect()
    }

    /// Every directory from those of the files up to the one they are made in.
    fn sync_directories(&self, all: &[Written]) -> Result<(), ConnectorError> {
        let mut dirs = BTreeSet::new();
        for written in all {
            let above = written.hidden.ancestors().skip(1);
            dirs.extend(above.take_while(|dir| dir.starts_with(&self.made_in)));
        }
        dirs.into_iter().try_for_each(sync_directory)
    }
}

/// The rows of each path, in the order in which the paths come first.
fn by_path(columns: &[PartitionColumn], rows: usize) -> Vec<(String, Vec<u32>)> {
    let mut all: Vec<(String, Vec<u32>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut path = String::new();
    for row in 0..rows {
        path.clear();
        columns.iter().for_each(|c| c.write(row, &mut path));
        let place = places.get(&path).copied().unwrap_or_else(|| {
            all.push((path.clone(), Vec::new()));
            places.insert(path.clone(), all.len() - 1);
            all.len() - 1
        });
        all[place].1.push(row as u32);
    }
    all
}

/// Closes row groups when the files together hold too much.
fn bound_memory(open: &mut Open) -> Result<(), ConnectorError> {
    let writers = || open.values().flatten();
    let held: usize = writers().map(|(writer, _)| writer.memory_size()).sum();
    if held <= limits::PARQUET_MEMORY_BYTES {
        return Ok(());
    }
    // The fuller half: small row groups read badly.
    let mean = held / writers().count().max(1);
    let full = open.values_mut().flatten();
    full.filter(|(writer, _)| writer.memory_size() >= mean)
        .try_for_each(|(writer, written)| {
            writer
                .flush()
                .map_err(|e| parquet_error(&written.hidden, e))
        })
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by(concat!("tidemill ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(limits::PARQUET_GROUP_ROWS))
        .set_max_row_group_bytes(Some(limits::PARQUET_GROUP_BYTES))
        // Lists as the specification has them: `element`, not Arrow's `item`.
        .set_coerce_types(true)
        .build()
}

fn parquet_error(path: &Path, cause: impl ToString) -> ConnectorError {
    ConnectorError::failed(path.display().to_string(), cause)
}
