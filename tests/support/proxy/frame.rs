//! The framing of Kafka's protocol: a length, then for a request the API key, its version and the correlation id, for a
//! response the correlation id alone. Bodies stay bytes.

use std::io::{self, Read};

/// A longer frame is no Kafka (the first bytes of TLS look like one of 370 MB).
const FRAME_BYTES_MAX: usize = 128 << 20;

/// What a request asks for, with the protocol's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ApiKey {
    Produce,
    Fetch,
    ListOffsets,
    Metadata,
    OffsetCommit,
    OffsetFetch,
    FindCoordinator,
    ApiVersions,
    InitProducerId,
    AddPartitionsToTxn,
    AddOffsetsToTxn,
    EndTxn,
    TxnOffsetCommit,
    Other(i16),
}

const NUMBERS: [(ApiKey, i16); 13] = [
    (ApiKey::Produce, 0),
    (ApiKey::Fetch, 1),
    (ApiKey::ListOffsets, 2),
    (ApiKey::Metadata, 3),
    (ApiKey::OffsetCommit, 8),
    (ApiKey::OffsetFetch, 9),
    (ApiKey::FindCoordinator, 10),
    (ApiKey::ApiVersions, 18),
    (ApiKey::InitProducerId, 22),
    (ApiKey::AddPartitionsToTxn, 24),
    (ApiKey::AddOffsetsToTxn, 25),
    (ApiKey::EndTxn, 26),
    (ApiKey::TxnOffsetCommit, 28),
];

impl ApiKey {
    pub fn from_number(number: i16) -> Self {
        let known = NUMBERS.iter().find(|(_, of)| *of == number);
        known.map_or(Self::Other(number), |(key, _)| *key)
    }

    pub fn number(self) -> i16 {
        match self {
            Self::Other(number) => number,
            _ => NUMBERS
                .iter()
                .find(|(key, _)| *key == self)
                .map_or(-1, |(_, number)| *number),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the client to the broker.
    Request,
    /// From the broker to the client.
    Response,
}

/// Reads one frame with its length before it; `None` at the end of the stream.
pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let bytes = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if bytes > FRAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {bytes} bytes: this is not Kafka without TLS"),
        ));
    }
    let mut frame = vec![0; 4 + bytes];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..])?;
    Ok(Some(frame))
}

/// API key and correlation id of a request frame.
pub(super) fn request_header(frame: &[u8]) -> Option<(ApiKey, i32)> {
    let api = i16::from_be_bytes(frame.get(4..6)?.try_into().ok()?);
    let correlation = i32::from_be_bytes(frame.get(8..12)?.try_into().ok()?);
    Some((ApiKey::from_number(api), correlation))
}

/// Correlation id of a response frame.
pub(super) fn response_correlation(frame: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(frame.get(4..8)?.try_into().ok()?))
}
