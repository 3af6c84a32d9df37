//! Compressed files: which they are, by their extension, and their bytes decompressed.
//!
//! Several members or frames in one file, one behind the other, are read as one stream. Invariant: what ends early or is
//! damaged is an error, never a shorter stream.

use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the extension: `.gz` or `.zst`.
    pub fn of(path: &Path) -> Self {
        match extension(path) {
            Some("gz" | "gzip") => Self::Gzip,
            Some("zst" | "zstd") => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The bytes that `file` holds.
    pub fn reader(self, file: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::None => Box::new(file),
            Self::Gzip => Box::new(MultiGzDecoder::new(io::BufReader::new(file))),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
        })
    }
}

/// The extension that tells the format: of `clicks.jsonl.gz` it is `jsonl`.
pub fn format_extension(path: &Path) -> Option<&str> {
    match Compression::of(path) {
        Compression::None => extension(path),
        _ => extension(Path::new(path.file_stem()?)),
    }
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(|e| e.to_str())
}

/// What is wrong with a compressed file that could not be read on, as a reason says it.
pub fn damage(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::UnexpectedEof => {
            "the compressed file ends in the middle of its data: it is cut off, or still being written".into()
        }
        _ => format!("the compressed file cannot be read: {cause}; it is damaged or not what its extension says"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
        ::zstd::encode_all(bytes, 1).unwrap()
    }

    fn read(compression: Compression, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        compression
            .reader(io::Cursor::new(bytes))?
            .read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn extensions_tell_compression_and_format() {
        let table = [
            ("a.jsonl.gz", Compression::Gzip, Some("jsonl")),
            ("/x.y/a.csv.zst", Compression::Zstd, Some("csv")),
            ("a.jsonl", Compression::None, Some("jsonl")),
            ("a.gz", Compression::Gzip, None),
            ("a", Compression::None, None),
        ];
        for (path, compression, format) in table {
            let path = Path::new(path);
            assert_eq!(Compression::of(path), compression);
            assert_eq!(format_extension(path), format);
        }
    }

    #[test]
    fn members_are_one_stream_and_damage_is_an_error() {
        let packers: [(Compression, fn(&[u8]) -> Vec<u8>); 2] =
            [(Compression::Gzip, gzip), (Compression::Zstd, zstd)];
        for (compression, pack) in packers {
            let text = b"some text that is long enough to be cut in the middle".repeat(50);
            let two = [pack(&text), pack(b"more")].concat();
            let expected = [&text[..], b"more"].concat();
            assert_eq!(read(compression, two.clone()).unwrap(), expected);
            for len in [1, 5, 20, two.len() - 1] {
                let cut = read(compression, two[..len].to_vec()).unwrap_err();
                assert!(
                    damage(&cut).contains("cut off"),
                    "{compression:?} {len}: {cut}"
                );
            }
            let garbage = read(compression, [two, b"garbage".to_vec()].concat()).unwrap_err();
            assert!(!damage(&garbage).is_empty());
            let mut wrong = pack(&text);
            wrong[4..12].fill(0xff);
            assert!(read(compression, wrong).is_err());
        }
    }
}
