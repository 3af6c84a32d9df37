//! JSON objects to columns: one pass, no tree, values straight into the buffers of their columns.
//!
//! The whole record must be valid JSON, the members that nobody reads included: UTF-8, no trailing bytes, not nested too
//! deep. A member that occurs twice counts with its last value, as in JavaScript and Python. Types are taken as they are:
//! only a float accepts another one's notation, that of an integer.
//!
//! A path goes through objects by name and through arrays by number, from 0: `items.0.sku`. What is not there is absent: a
//! parent that is missing, null, or neither object nor array.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, NumberAny, NumberInt, Peek};

use super::columns::{Column, Kind, Rows};
use super::{Decoder, check_size, no_timestamp, shown, timestamp};
use crate::limits::JSON_DEPTH_MAX;
use crate::time::Micros;

/// Members that no field names but that are remembered, so that the next record's are recognised at once.
const REMEMBERED_MEMBERS_MAX: usize = 64;
const REMEMBERED_NAME_BYTES_MAX: usize = 64;

/// Decodes JSON records.
pub struct JsonDecoder {
    rows: Rows,
    /// What fields name of a record, as a tree of objects; the first is the record itself.
    objects: Vec<Object>,
    /// Where strings with escapes are unescaped, kept from record to record.
    tape: Vec<u8>,
}

/// The members of an object in the record.
struct Object {
    members: Vec<Member>,
    /// The member that came first last time.
    first: usize,
    /// All columns at or below this object.
    columns: Vec<usize>,
}

struct Member {
    name: Box<[u8]>,
    target: Target,
    /// The member that followed this one last time: producers write members in one order, so this guess is nearly
    /// always right and a member costs one comparison.
    next: usize,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Skip,
    Column(usize),
    Object(usize),
}

/// A record being read.
struct Reading<'r> {
    jiter: Jiter<'r>,
    record: &'r [u8],
}

impl JsonDecoder {
    /// Errors name a field whose type or path cannot be read.
    pub fn new(
        schema: &SchemaRef,
        paths: &[Vec<String>],
        event_time: Option<usize>,
    ) -> Result<Self, String> {
        let rows = Rows::new(schema, paths, event_time)?;
        let mut objects = vec![Object::new()];
        for (column, path) in paths.iter().enumerate() {
            add_path(&mut objects, path, column)?;
        }
        Ok(Self {
            rows,
            objects,
            tape: Vec::new(),
        })
    }

    fn decode(&mut self, record: &[u8]) -> Result<Micros, String> {
        check_size(record)?;
        check_utf8(record)?;
        let tape = std::mem::take(&mut self.tape);
        let mut reading = Reading {
            jiter: Jiter::with_tape(record, tape),
            record,
        };
        let read = self.read(&mut reading);
        self.tape = reading.jiter.into_tape();
        read?;
        self.rows.complete()
    }

    fn read(&mut self, reading: &mut Reading<'_>) -> Result<(), String> {
        let peek = match reading.jiter.peek() {
            Ok(peek) => peek,
            Err(_) => return Err("empty record".to_owned()),
        };
        if peek != Peek::Object {
            reading.check_value(peek)?;
            return Err(format!("expected an object, found {}", found(peek)));
        }
        self.read_object(reading, 0, 1)?;
        reading.jiter.finish().map_err(not_json)
    }

    /// Reads the object that starts here; `depth` counts the record itself as 1.
    fn read_object(
        &mut self,
        reading: &mut Reading<'_>,
        object: usize,
        depth: usize,
    ) -> Result<(), String> {
        check_depth(depth)?;
        let mut last = None;
        let mut name = reading.jiter.known_object().map_err(not_json)?;
        while let Some(text) = name {
            let target = self.objects[object].find(text.as_bytes(), &mut last);
            let peek = reading.jiter.peek().map_err(not_json)?;
            match target {
                Target::Column(column) => reading.field(self.rows.open(column), peek, depth)?,
                Target::Skip => reading.skip(peek, depth)?,
                Target::Object(inner) => {
                    for &column in &self.objects[inner].columns {
                        self.rows.open(column);
                    }
                    self.read_inner(reading, inner, peek, depth)?;
                }
            }
            name = reading.jiter.next_key().map_err(not_json)?;
        }
        Ok(())
    }

    /// Reads the value that starts here, of which fields name parts; `depth` is that of the container it stands in.
    fn read_inner(
        &mut self,
        reading: &mut Reading<'_>,
        inner: usize,
        peek: Peek,
        depth: usize,
    ) -> Result<(), String> {
        match peek {
            Peek::Object => self.read_object(reading, inner, depth + 1),
            Peek::Array => self.read_array(reading, inner, depth + 1),
            _ => reading.skip(peek, depth),
        }
    }

    /// Reads the array that starts here: its items are found by their number, as members by their name.
    fn read_array(
        &mut self,
        reading: &mut Reading<'_>,
        array: usize,
        depth: usize,
    ) -> Result<(), String> {
        check_depth(depth)?;
        let mut number = itoa::Buffer::new();
        let mut index = 0_usize;
        let mut item = reading.jiter.known_array().map_err(not_json)?;
        while let Some(peek) = item {
            match self.objects[array].target_of(number.format(index)) {
                Some(Target::Column(column)) => {
                    reading.field(self.rows.open(column), peek, depth)?;
                }
                Some(Target::Object(inner)) => self.read_inner(reading, inner, peek, depth)?,
                Some(Target::Skip) | None => reading.skip(peek, depth)?,
            }
            index += 1;
            item = reading.jiter.array_step().map_err(not_json)?;
        }
        Ok(())
    }
}

impl Decoder for JsonDecoder {
    fn push(&mut self, record: &[u8]) -> Result<Micros, String> {
        let pushed = self.decode(record);
        if pushed.is_err() {
            self.rows.roll_back();
        }
        pushed
    }

    fn undo(&mut self) {
        self.rows.undo();
    }

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn finish(&mut self) -> RecordBatch {
        self.rows.finish()
    }
}

impl Reading<'_> {
    /// Puts the value that starts here into `column`.
    #[inline]
    fn field(&mut self, column: &mut Column, peek: Peek, depth: usize) -> Result<(), String> {
        if peek == Peek::Null {
            self.jiter.known_null().map_err(not_json)?;
            return column.put_null();
        }
        match column.kind() {
            Kind::Text if peek == Peek::String => {
                column.put_text(self.jiter.known_str().map_err(not_json)?)
            }
            Kind::Time if peek == Peek::String => {
                let text = self.jiter.known_str().map_err(not_json)?;
                let time = timestamp::parse(text.as_bytes())
                    .ok_or_else(|| no_timestamp(column.label(), text))?;
                column.put_number(time);
                Ok(())
            }
            Kind::Float if peek.is_num() => self.float(column, peek),
            Kind::Int if peek.is_num() => self.int(column, peek),
            Kind::Bool if matches!(peek, Peek::True | Peek::False) => {
                column.put_bool(self.jiter.known_bool(peek).map_err(not_json)?);
                Ok(())
            }
            Kind::Bytes if peek == Peek::String => {
                column.put_base64(self.jiter.known_str().map_err(not_json)?)
            }
            Kind::Date if peek == Peek::String => {
                column.put_date(self.jiter.known_str().map_err(not_json)?)
            }
            Kind::Decimal(..) if peek.is_num() => {
                let text = self.jiter.known_number_bytes(peek).map_err(not_json)?;
                column.put_decimal(&String::from_utf8_lossy(text))
            }
            kind => {
                self.skip(peek, depth)?;
                let (expected, found) = (kind.expected(), found(peek));
                Err(format!(
                    "{}: expected {expected}, found {found}",
                    column.label()
                ))
            }
        }
    }

    fn float(&mut self, column: &mut Column, peek: Peek) -> Result<(), String> {
        let start = self.jiter.current_index();
        let float = self.jiter.known_float(peek).map_err(not_json)?;
        if !float.is_finite() {
            return Err(format!(
                "{}: {} is beyond the range of a float",
                column.label(),
                self.number_text(start)
            ));
        }
        column.put_float(float);
        Ok(())
    }

    fn int(&mut self, column: &mut Column, peek: Peek) -> Result<(), String> {
        let start = self.jiter.current_index();
        match self.jiter.known_number(peek) {
            Ok(NumberAny::Int(NumberInt::Int(int))) => {
                column.put_number(int);
                Ok(())
            }
            Ok(NumberAny::Float(_)) => Err(format!(
                "{}: expected an int, found {}: an int has neither fraction nor exponent",
                column.label(),
                self.number_text(start)
            )),
            Err(JiterError {
                error_type: JiterErrorType::JsonError(JsonErrorType::NumberOutOfRange),
                ..
            }) => Err(format!(
                "{}: {} does not fit into 64 bits",
                column.label(),
                self.number_text(start)
            )),
            Err(error) => Err(not_json(error)),
        }
    }

    /// Checks the value that starts here and goes on behind it; `depth` is that of the container it stands in.
    fn skip(&mut self, peek: Peek, depth: usize) -> Result<(), String> {
        match peek {
            Peek::Array => {
                check_depth(depth + 1)?;
                let mut item = self.jiter.known_array().map_err(not_json)?;
                while let Some(peek) = item {
                    self.skip(peek, depth + 1)?;
                    item = self.jiter.array_step().map_err(not_json)?;
                }
                Ok(())
            }
            Peek::Object => {
                check_depth(depth + 1)?;
                let mut more = self.jiter.known_object().map_err(not_json)?.is_some();
                while more {
                    let peek = self.jiter.peek().map_err(not_json)?;
                    self.skip(peek, depth + 1)?;
                    more = self.jiter.next_key().map_err(not_json)?.is_some();
                }
                Ok(())
            }
            _ => self.jiter.known_skip(peek).map_err(not_json),
        }
    }

    /// The record's only value, which is no object, must still be JSON to be called by its type.
    fn check_value(&mut self, peek: Peek) -> Result<(), String> {
        self.skip(peek, 0)?;
        self.jiter.finish().map_err(not_json)
    }

    /// The number that starts at `start`, as it is written.
    fn number_text(&self, start: usize) -> String {
        let text = &self.record[start..];
        let len = text
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.'))
            .count();
        shown(&String::from_utf8_lossy(&text[..len]))
    }
}

impl Object {
    fn new() -> Self {
        Self {
            members: Vec::new(),
            first: 0,
            columns: Vec::new(),
        }
    }

    fn add(&mut self, name: &[u8], target: Target) -> usize {
        let index = self.members.len();
        self.members.push(Member {
            name: name.into(),
            target,
            next: index + 1,
        });
        index
    }

    /// What to do with member `name`, which follows the member `last` of this record (and becomes it).
    #[inline]
    fn find(&mut self, name: &[u8], last: &mut Option<usize>) -> Target {
        let guess = match *last {
            Some(member) => self.members[member].next,
            None => self.first,
        };
        match self.members.get(guess) {
            Some(member) if *member.name == *name => {
                *last = Some(guess);
                member.target
            }
            _ => self.search(name, last),
        }
    }

    fn search(&mut self, name: &[u8], last: &mut Option<usize>) -> Target {
        let known = self.members.iter().position(|m| *m.name == *name);
        let index = match known {
            Some(index) => index,
            None if self.members.len() < REMEMBERED_MEMBERS_MAX + self.columns.len()
                && name.len() <= REMEMBERED_NAME_BYTES_MAX =>
            {
                self.add(name, Target::Skip)
            }
            None => return Target::Skip,
        };
        match *last {
            Some(member) => self.members[member].next = index,
            None => self.first = index,
        }
        *last = Some(index);
        self.members[index].target
    }
}

/// Adds the way to column `column` to the tree.
fn add_path(objects: &mut Vec<Object>, path: &[String], column: usize) -> Result<(), String> {
    let clash = || {
        format!(
            "`{}` is read by another field too, whole or in part",
            path.join(".")
        )
    };
    let (leaf, way) = path.split_last().ok_or("a field without a path")?;
    let mut at = 0;
    for name in way {
        objects[at].columns.push(column);
        let known = objects[at].target_of(name);
        at = match known {
            Some(Target::Object(inner)) => inner,
            Some(_) => return Err(clash()),
            None => {
                let inner = objects.len();
                objects.push(Object::new());
                objects[at].add(name.as_bytes(), Target::Object(inner));
                inner
            }
        };
    }
    if objects[at].target_of(leaf).is_some() {
        return Err(clash());
    }
    objects[at].columns.push(column);
    objects[at].add(leaf.as_bytes(), Target::Column(column));
    Ok(())
}

impl Object {
    fn target_of(&self, name: &str) -> Option<Target> {
        let member = self.members.iter().find(|m| *m.name == *name.as_bytes());
        member.map(|m| m.target)
    }
}

#[inline]
fn check_depth(depth: usize) -> Result<(), String> {
    if depth <= JSON_DEPTH_MAX {
        return Ok(());
    }
    Err(format!("nested more than {JSON_DEPTH_MAX} levels deep"))
}

fn check_utf8(record: &[u8]) -> Result<(), String> {
    if simdutf8::basic::from_utf8(record).is_ok() {
        return Ok(());
    }
    let valid = std::str::from_utf8(record).map_or_else(|e| e.valid_up_to(), str::len);
    Err(format!("not UTF-8 at byte {}", valid + 1))
}

fn found(peek: Peek) -> &'static str {
    match peek {
        Peek::Null => "null",
        Peek::True | Peek::False => "a bool",
        Peek::String => "a string",
        Peek::Array => "an array",
        Peek::Object => "an object",
        _ => "a number",
    }
}

#[cold]
fn not_json(error: JiterError) -> String {
    format!("not JSON: {} at byte {}", error.error_type, error.index + 1)
}

#[cfg(test)]
mod tests;
