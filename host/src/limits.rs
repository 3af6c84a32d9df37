//! Every limit of the host in one place, and what must hold between them.

use std::time::Duration;

/// One record as it comes from a source; larger ones are dead letters before they are parsed.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Nesting of a JSON record.
pub const JSON_DEPTH_MAX: usize = 64;
/// The raw record kept in a dead letter; the rest is cut off and its length told.
pub const DEAD_LETTER_RAW_BYTES_MAX: usize = 64 << 10;

/// Records a worker takes from one source in an epoch when the pipeline sets no limit.
pub const EPOCH_RECORDS_MAX: usize = 16_384;
/// How long a worker collects records of one epoch.
pub const EPOCH_TAKE_MS_MAX: u64 = 10;
/// How long a worker waits for a first record before it turns an empty epoch.
pub const EPOCH_IDLE_WAIT_MS: u64 = 5;

/// Rows of one plugin call.
pub const CALL_ROWS_MAX: usize = 8_192;
/// Bytes a plugin may hand back in one call.
pub const CALL_RESULT_BYTES_MAX: usize = 256 << 20;
/// A plugin file, before it is compiled.
pub const PLUGIN_BYTES_MAX: usize = 32 << 20;
/// Time spent in an epoch on finding the rows at which a plugin fails.
pub const BISECT_MS_PER_EPOCH_MAX: u64 = 1_000;
/// Share of a call's deadline that a part of a batch gets at least.
pub const CALL_PART_MS_MIN: u64 = 10;
/// Failed rows are judged against `limits.failed` over this many of the last rows...
pub const FAILED_WINDOW_ROWS: u64 = 10_000;
/// ... and only from this many failures on.
pub const FAILED_ROWS_MIN: u64 = 100;
/// Log lines a plugin may write in a second.
pub const PLUGIN_LOG_LINES_PER_SECOND_MAX: u32 = 100;
/// Bytes of a plugin's log line or error text.
pub const PLUGIN_TEXT_BYTES_MAX: usize = 4 << 10;

/// A plugin's linear memory and the time of one call unless the step sets its own; also what a plugin may use to describe
/// itself.
pub const PLUGIN_MEMORY_BYTES_DEFAULT: usize = 64 << 20;
pub const PLUGIN_CALL_MS_DEFAULT: u64 = 200;
/// How often a running call's time is looked at.
pub const PLUGIN_TICK_MS: u64 = 5;
/// Plugin instances alive at one time in the process: workers times plugin steps, twice that during a swap.
pub const PLUGIN_POOL_INSTANCES: u32 = 512;
/// Core modules, memories and tables inside one plugin; the SDK's builds have three, one and two.
pub const PLUGIN_INSTANCES_MAX: usize = 16;
/// Elements of all tables of a plugin: its function pointers.
pub const PLUGIN_TABLE_ELEMENTS_MAX: usize = 20_000;
/// Name of a plugin, port, column or metric.
pub const PLUGIN_NAME_BYTES_MAX: usize = 128;
/// Counters of a plugin, and histograms.
pub const PLUGIN_METRICS_MAX: usize = 64;
/// Output ports of a plugin.
pub const PLUGIN_PORTS_MAX: usize = 64;
/// Columns a plugin reads, and columns a port adds.
pub const PLUGIN_COLUMNS_MAX: usize = 1_024;
/// 64-bit words of a key's fixed state.
pub const PLUGIN_STATE_WORDS_MAX: u32 = 8_192;
/// Keys times columns of one look into a table.
pub const PLUGIN_TABLE_CELLS_MAX: usize = 1 << 20;

/// Terms of one SQL expression: planning a deeper tree could exhaust the stack.
pub const EXPRESSION_TERMS_MAX: usize = 400;
/// How far `lpad`, `rpad` and `repeat` may fill: a length taken from data could ask for all memory.
pub const EXPRESSION_FILL_MAX: i64 = 10_000;
/// Values in one list that `array_agg` gives; a text of `string_agg` is bounded like a record.
pub const LIST_VALUES_MAX: usize = 1 << 20;
/// Stack of the thread that plans expressions, and of the workers that run them.
pub const STACK_BYTES: usize = 16 << 20;

/// Groups merged in an epoch when windows end: more wait for the next one.
pub const WINDOW_SLICE_ROWS: usize = 64 << 10;
/// Stored parts of a pane: as many become one.
pub const PANE_PARTS_MAX: usize = 8;
/// Segments of a bucket of a join: as many become one.
pub const JOIN_SEGMENTS_MAX: usize = 32;
/// Rows of one window that `top` keeps.
pub const TOP_ROWS_MAX: usize = 10_000;

/// The file of a reference table; every worker's lookups share one copy of its rows.
pub const TABLE_BYTES_MAX: u64 = 1 << 30;
/// Changes of a table collected before its rows are copied for them, while a topic is read for the first time.
pub const TABLE_PENDING_BYTES_MIN: usize = 16 << 20;

/// Key groups a pipeline's state is divided into unless it says otherwise.
pub const KEY_GROUPS_DEFAULT: u16 = 128;
/// An encoded key.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// One blob of the checkpoint log. redb stores it with some bytes of its own in pages of powers of two: a full MiB
/// would take, and write, two.
pub const LOG_BLOB_BYTES_MAX: usize = (1 << 20) - 4_096;
/// Cache of `log.redb` and of `state.redb`.
pub const LOG_CACHE_BYTES: usize = 64 << 20;
pub const STATE_CACHE_BYTES: usize = 128 << 20;
/// Changed keys below which (or below as many as are merged) a merge into `state.redb` is not worth its writes...
pub const MERGE_KEYS_MIN: u64 = 64 << 10;
/// ... unless the log has grown to so many bytes...
pub const MERGE_UNMERGED_BYTES_MAX: u64 = 128 << 20;
/// ... or changed keys: they are all in memory and read at a restart, some hundred thousand a tenth of a second...
pub const MERGE_UNMERGED_KEYS_MAX: u64 = 512 << 10;
/// ... or checkpoints.
pub const MERGE_CHECKPOINTS_MAX: u64 = 512;
/// Input is not read while the log has so many bytes to merge, in times of the maximum above: merges do not keep up, and
/// what waits for them is in memory and read at a restart.
pub const MERGE_BEHIND: u64 = 3;
/// One transaction of a merge; each key may change a page of 4 KiB, and the times of a key group have some thousand.
pub const MERGE_SLICE_KEYS: usize = 10 << 10;
pub const MERGE_SLICE_BYTES: usize = 16 << 20;
/// Keyed state that stays in memory, over all steps and workers, unless `[host] state_memory` says otherwise.
pub const STATE_MEMORY_BYTES_DEFAULT: usize = 1 << 30;
/// Less than this is a mistake, such as a missing unit.
pub const STATE_MEMORY_BYTES_MIN: usize = 64 << 10;
/// Stored keys that come into memory at one time: those of a batch, those with a due alarm, those to forget in an epoch.
pub const STATE_SLICE_KEYS: usize = 8 << 10;
/// Stored keys that a hot table takes into memory before the first epoch, in slices: some ten milliseconds...
pub const STATE_FILL_SLICES_AT_START: usize = 8;
/// ... and parts of a slice that it takes in each epoch while there is room: about a millisecond.
pub const STATE_FILL_PARTS: usize = 4;
/// Slots that an eviction looks at in an epoch, or an eighth of them.
pub const STATE_EVICT_SLOTS: usize = 64 << 10;
/// State of one worker in memory, whatever it is for; more ends in an error that says so.
pub const STATE_MEMORY_BYTES_MAX: usize = 4 << 30;

/// `transaction_timeout` of `[host]`: librdkafka takes no shorter one, and brokers by default no longer one.
pub const TRANSACTION_TIMEOUT_MIN: Duration = Duration::from_secs(1);
pub const TRANSACTION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
pub const TRANSACTION_TIMEOUT_MAX: Duration = Duration::from_secs(15 * 60);
/// A checkpoint may take as many times less than a transaction's timeout: it is frozen, written and committed within.
pub const CHECKPOINTS_PER_TRANSACTION_TIMEOUT: u32 = 3;
/// Rows for Kafka that are held while a transaction is committed.
pub const KAFKA_HELD_BYTES_MAX: usize = 64 << 20;

/// `tidemill doctor`: one question to a cluster, the probe of its transactions, and taking away what the probe made.
pub const DOCTOR_ANSWER_MAX: Duration = Duration::from_secs(10);
pub const PROBE_MAX: Duration = Duration::from_secs(10);
pub const PROBE_CLEANUP_MAX: Duration = Duration::from_secs(5);

/// Rows that wait to be staged by a sink, before they are written as one piece...
pub const STAGED_BUFFER_BYTES: usize = 1 << 20;
/// ... or as many batches, each of which may keep more memory alive than its own rows...
pub const STAGED_BUFFER_BATCHES: usize = 1_024;
/// ... or so much of that memory.
pub const STAGED_BUFFER_MEMORY_BYTES: usize = 64 << 20;
/// One file of staged rows; files whose rows have left are deleted whole.
pub const STAGED_FILE_BYTES: u64 = 64 << 20;
/// The first wait before a remote sink is tried again, and the longest that the waits double to.
pub const RETRY_MS_FIRST: u64 = 100;
pub const RETRY_MS_MAX: u64 = 10_000;
/// A receiver that asks for more patience (`Retry-After`) is tried again all the same.
pub const RETRY_AFTER_MS_MAX: u64 = 300_000;
/// Rows of a webhook sink that wait to be sent.
pub const WEBHOOK_QUEUE_BYTES_MAX: usize = 16 << 20;
/// The rows of one request; a single larger row is sent alone.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 4 << 20;
/// What is read of a receiver's answer, and what of it an error shows.
pub const WEBHOOK_ANSWER_BYTES_MAX: u64 = 64 << 10;
pub const WEBHOOK_ANSWER_SHOWN_BYTES: usize = 300;
/// Rows of one statement of a Postgres sink, and their memory; a single larger row is a statement of its own.
pub const POSTGRES_CHUNK_ROWS_MAX: usize = 10_000;
pub const POSTGRES_CHUNK_BYTES_MAX: usize = 32 << 20;
/// Rows staged for a Postgres that is behind: then workers wait.
pub const POSTGRES_STAGED_BYTES_MAX: u64 = 1 << 30;
/// A row as an error shows it.
pub const POSTGRES_ROW_SHOWN_BYTES: usize = 500;

/// `roll_bytes` of a sink: smaller files are a burden to whoever reads them, larger ones take their time to be written.
pub const ROLL_BYTES_MIN: u64 = 1 << 10;
pub const ROLL_BYTES_MAX: u64 = 64 << 30;
/// Parquet files written at one time; with more partitions the staged rows are read more than once.
pub const PARQUET_OPEN_FILES_MAX: usize = 256;
/// Memory of the Parquet files being written, all together, before their row groups are closed.
pub const PARQUET_MEMORY_BYTES: usize = 256 << 20;
/// Rows of a row group, and bytes before compression.
pub const PARQUET_GROUP_ROWS: usize = 1 << 20;
pub const PARQUET_GROUP_BYTES: usize = 128 << 20;
/// A column's value as the name of a directory: file systems take 255 bytes, the column's name included.
pub const PARTITION_NAME_BYTES_MAX: usize = 240;

const _: () = assert!(CALL_ROWS_MAX <= EPOCH_RECORDS_MAX);
const _: () = assert!(FAILED_ROWS_MIN < FAILED_WINDOW_ROWS);
const _: () = assert!(DEAD_LETTER_RAW_BYTES_MAX <= RECORD_BYTES_MAX);
const _: () = assert!(PLUGIN_TICK_MS <= CALL_PART_MS_MIN);
const _: () = assert!(LOG_BLOB_BYTES_MAX > KEY_BYTES_MAX);
const _: () = assert!(MERGE_KEYS_MIN <= MERGE_UNMERGED_KEYS_MAX);
const _: () = assert!(STATE_MEMORY_BYTES_MIN <= STATE_MEMORY_BYTES_DEFAULT);
const _: () = assert!(STAGED_BUFFER_BYTES <= STAGED_BUFFER_MEMORY_BYTES);
const _: () = assert!((STAGED_BUFFER_BYTES as u64) < STAGED_FILE_BYTES);
const _: () = assert!(RETRY_MS_FIRST <= RETRY_MS_MAX && RETRY_MS_MAX <= RETRY_AFTER_MS_MAX);
const _: () = assert!(WEBHOOK_BODY_BYTES_MAX <= WEBHOOK_QUEUE_BYTES_MAX);

/// A pipeline file.
pub const PIPELINE_FILE_BYTES_MAX: usize = 1 << 20;
/// A file of offsets for `reset --to`: a line for each of some hundred thousand partitions.
pub const OFFSETS_FILE_BYTES_MAX: u64 = 16 << 20;
// redb writes pages twice once a transaction fills half of its cache.
const _: () = assert!(MERGE_SLICE_KEYS * 4_096 + MERGE_SLICE_BYTES <= STATE_CACHE_BYTES / 2);

/// What a snapshot says of itself: a line or two a file.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Keys of a step that `state list` shows unless it is told otherwise, and at most.
pub const STATE_LIST_DEFAULT: usize = 100;
pub const STATE_LIST_MAX: usize = 100_000;
