//! One piece of a file of staged rows: a head of fixed size and a body, covered by a checksum.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | xxh3-64 of all that follows |
//! | 8 | length of the body |
//! | 8 | length of the body when decompressed |
//! | 4 | kind: 1 rows, 2 end of the file |
//! | 4 | input |
//! | … | rows: an Arrow IPC stream of one batch, zstd-compressed |
//!
//! Numbers are little-endian. Invariant: nothing of a body is looked at before its checksum is right.

use std::io::Read;

use arrow::array::RecordBatch;
use arrow::ipc::{reader::StreamReader, writer::StreamWriter};
use xxhash_rust::xxh3::Xxh3;

pub const HEAD_BYTES: u64 = 32;
const ROWS: u32 = 1;
const END: u32 = 2;
/// The quickest level: these bytes live for minutes.
const ZSTD_LEVEL: i32 = 1;

/// What a frame holds.
#[derive(Debug)]
pub enum Frame {
    Rows { input: usize, rows: RecordBatch },
    End,
}

/// Appends `rows` of `input` as a frame.
pub fn write_rows(input: u16, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), String> {
    let mut raw = Vec::new();
    let words = |e: arrow::error::ArrowError| format!("rows cannot be staged: {e}");
    let mut writer = StreamWriter::try_new(&mut raw, rows.schema_ref()).map_err(words)?;
    writer.write(rows).map_err(words)?;
    writer.finish().map_err(words)?;
    drop(writer);
    let body = zstd::bulk::compress(&raw, ZSTD_LEVEL)
        .map_err(|e| format!("rows cannot be compressed: {e}"))?;
    write(ROWS, input, raw.len(), &body, out);
    Ok(())
}

/// Appends the mark of a file's end.
pub fn write_end(out: &mut Vec<u8>) {
    write(END, 0, 0, &[], out);
}

fn write(kind: u32, input: u16, raw: usize, body: &[u8], out: &mut Vec<u8>) {
    let mut head = Vec::with_capacity(HEAD_BYTES as usize - 8);
    head.extend_from_slice(&(body.len() as u64).to_le_bytes());
    head.extend_from_slice(&(raw as u64).to_le_bytes());
    head.extend_from_slice(&kind.to_le_bytes());
    head.extend_from_slice(&u32::from(input).to_le_bytes());
    out.extend_from_slice(&checksum(&head, body).to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(body);
}

fn checksum(head: &[u8], body: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(head);
    hash.update(body);
    hash.digest()
}

/// Reads the next frame, of which at most `left` bytes may be; the frame and its length. An error is in words, without
/// the place.
pub fn read(from: &mut impl Read, left: u64) -> Result<(Frame, u64), String> {
    let mut head = [0; HEAD_BYTES as usize];
    if left < HEAD_BYTES {
        return Err(format!("{left} bytes are no frame"));
    }
    from.read_exact(&mut head).map_err(|e| e.to_string())?;
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    let (sum, stored, raw) = (number(0), number(8), number(16));
    if stored > left - HEAD_BYTES {
        return Err(format!(
            "a frame of {stored} bytes where {} are left",
            left - HEAD_BYTES
        ));
    }
    let mut body = vec![0; stored as usize];
    from.read_exact(&mut body).map_err(|e| e.to_string())?;
    if checksum(&head[8..], &body) != sum {
        return Err("the checksum is wrong".into());
    }
    let kind = u32::from_le_bytes(head[24..28].try_into().expect("4 bytes"));
    let input = u32::from_le_bytes(head[28..32].try_into().expect("4 bytes"));
    let frame = match kind {
        ROWS => Frame::Rows {
            input: input as usize,
            rows: rows(&body, raw)?,
        },
        END => Frame::End,
        other => return Err(format!("a frame of unknown kind {other}")),
    };
    Ok((frame, HEAD_BYTES + stored))
}

fn rows(body: &[u8], raw: u64) -> Result<RecordBatch, String> {
    let raw = usize::try_from(raw).map_err(|e| e.to_string())?;
    let stream = zstd::bulk::decompress(body, raw).map_err(|e| e.to_string())?;
    let mut reader = StreamReader::try_new(stream.as_slice(), None).map_err(|e| e.to_string())?;
    let batch = reader.next().ok_or("a frame without rows")?;
    batch.map_err(|e| e.to_string())
}
