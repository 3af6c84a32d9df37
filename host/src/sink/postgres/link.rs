//! The connection of a sink: made when it is needed, made again when it is lost, and the one transaction of a checkpoint.
//!
//! Blocks the calling thread; a small runtime of its own drives the network meanwhile. Invariant: the rows of a checkpoint
//! and its number are committed together or not at all, and whether they were is read from Postgres, never guessed.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use super::Cut;
use super::connect::Connector;
use super::fault::Fault;
use super::insert::Insert;
use super::ledger::{Ledger, Standing};
use super::table::{self, Target, Wanted};
use crate::limits::{POSTGRES_CHUNK_BYTES_MAX, POSTGRES_CHUNK_ROWS_MAX};
use crate::pipeline::plan::{Postgres, STEP_COLUMN};
use crate::sink::staging::Staging;

/// How often a wait looks whether it is to end.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub struct Link {
    runtime: Runtime,
    session: Session,
}

/// What a connection is used for, and the connection while there is one.
struct Session {
    postgres: Postgres,
    wanted: Wanted,
    ledger: Ledger,
    connector: Connector,
    client: Option<Client>,
    target: Option<Target>,
    /// With the input they are of.
    inserts: Vec<(usize, Insert)>,
    was_up: bool,
    warned: bool,
}

/// What became of a try.
pub enum Tried {
    Done,
    Fault(Fault),
    Stopped,
}

impl Link {
    pub fn new(
        postgres: &Postgres,
        wanted: Wanted,
        ledger: Ledger,
        application: &str,
    ) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("cannot start its runtime: {e}"))?;
        Ok(Self {
            runtime,
            session: Session {
                connector: Connector::new(postgres, application)?,
                postgres: postgres.clone(),
                wanted,
                ledger,
                client: None,
                target: None,
                inserts: Vec::new(),
                was_up: false,
                warned: false,
            },
        })
    }

    /// Tries to bring Postgres to `cut`; its rows are read from `staging`. Ends early when `stop` says so. A connection that
    /// was closed while nothing was to be done is no outage: another is made at once.
    pub fn settle(&mut self, cut: &Cut, staging: &Staging, stop: &dyn Fn() -> bool) -> Tried {
        let idle = self.session.client.is_some();
        match self.settle_once(cut, staging, stop) {
            Tried::Fault(Fault::Away(_)) if idle => self.settle_once(cut, staging, stop),
            tried => tried,
        }
    }

    fn settle_once(&mut self, cut: &Cut, staging: &Staging, stop: &dyn Fn() -> bool) -> Tried {
        let session = &mut self.session;
        let tried = self.runtime.block_on(async {
            tokio::select! {
                tried = session.settle(cut, staging) => match tried {
                    Ok(()) => Tried::Done,
                    Err(fault) => Tried::Fault(fault),
                },
                () = until(stop) => Tried::Stopped,
            }
        });
        if !matches!(tried, Tried::Done) {
            // Whatever the connection was in the middle of, Postgres undoes or has done; the next one finds out.
            session.client = None;
        }
        tried
    }

    /// Waits; false if `stop` ended it.
    pub fn pause(&self, time: Duration, stop: &dyn Fn() -> bool) -> bool {
        self.runtime.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(time) => true,
                () = until(stop) => false,
            }
        })
    }
}

async fn until(stop: &dyn Fn() -> bool) {
    while !stop() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Session {
    async fn settle(&mut self, cut: &Cut, staging: &Staging) -> Result<(), Fault> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.connect().await?;
        }
        // Taken out and put back only if all went well: an interrupted transaction has no connection to go on with.
        let Some(mut client) = self.client.take() else {
            return Err(Fault::Away("connection closed".into()));
        };
        self.write(&mut client, cut, staging).await?;
        self.client = Some(client);
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Fault> {
        let connected = self.connector.connect().await;
        let client = connected.map_err(|error| Fault::of(&error, self.was_up))?;
        self.was_up = true;
        self.inserts.clear();
        Ledger::prepare(&client).await?;
        let target = self.target(&client).await?;
        if let Some(warning) = target.check(&self.wanted).map_err(Fault::Failed)?
            && !std::mem::replace(&mut self.warned, true)
        {
            tracing::warn!("sink {}: {warning}", self.ledger.sink);
        }
        self.target = Some(target);
        self.client = Some(client);
        Ok(())
    }

    /// The table, made if that is asked for.
    async fn target(&self, client: &Client) -> Result<Target, Fault> {
        let of = |error: tokio_postgres::Error| Fault::of(&error, true);
        let name = &self.postgres.table;
        if let Some(target) = table::read(client, name).await.map_err(of)? {
            return Ok(target);
        }
        let version = client.query_one("SELECT current_setting('server_version_num')::int", &[]);
        let version = version.await.map_err(of)?.get::<_, i32>(0).unsigned_abs();
        let sql = table::create(name, &self.wanted, version).map_err(Fault::Failed)?;
        let shown = name.join(".");
        if !self.postgres.create {
            return Err(Fault::Failed(format!(
                "there is no table {shown} (names are taken as they are written): make it, or set create = true, which runs: {sql}"
            )));
        }
        client
            .batch_execute(&sql)
            .await
            .map_err(|error| match of(error) {
                Fault::Failed(cause) => {
                    Fault::Failed(format!("table {shown} cannot be made: {cause}"))
                }
                Fault::Rows(cause) => Fault::Away(cause),
                away => away,
            })?;
        tracing::info!("sink {}: made table {shown}", self.ledger.sink);
        let made = table::read(client, name).await.map_err(of)?;
        made.ok_or_else(|| Fault::Failed(format!("table {shown} was made and is not there")))
    }

    /// The rows of `cut` and its number in one transaction, unless they are there.
    async fn write(
        &mut self,
        client: &mut Client,
        cut: &Cut,
        staging: &Staging,
    ) -> Result<(), Fault> {
        let of = |error: tokio_postgres::Error| Fault::of(&error, true);
        let tx = client.transaction().await.map_err(of)?;
        match self.ledger.standing(&tx, cut.number).await? {
            Standing::Next => {}
            Standing::Written => return tx.rollback().await.map_err(of),
            Standing::TakenOver => return tx.commit().await.map_err(of),
        }
        let mut chunk = Chunk::default();
        for staged in staging.read(cut.from, cut.to) {
            let (input, rows) = staged.map_err(Fault::failed)?;
            if !chunk.takes(input, &rows) {
                self.flush(&tx, &mut chunk, cut).await?;
            }
            chunk.add(input, rows);
        }
        self.flush(&tx, &mut chunk, cut).await?;
        self.ledger.note(&tx, cut.number).await?;
        tx.commit().await.map_err(of)
    }

    async fn flush(
        &mut self,
        tx: &tokio_postgres::Transaction<'_>,
        chunk: &mut Chunk,
        cut: &Cut,
    ) -> Result<(), Fault> {
        let Some((input, rows)) = chunk.take().map_err(Fault::Failed)? else {
            return Ok(());
        };
        let schema = rows.schema();
        let known = |(i, insert): &(usize, Insert)| *i == input && insert.is_for(&schema);
        let at = match self.inserts.iter().position(known) {
            Some(at) => at,
            None => {
                let target = self
                    .target
                    .as_ref()
                    .ok_or_else(|| Fault::Away("not connected".into()))?;
                let label = cut
                    .labels
                    .get(input)
                    .map(|label| (STEP_COLUMN, label.as_str()));
                let (key, mode) = (&self.postgres.key, self.postgres.mode);
                let insert =
                    Insert::new(target, &schema, label, key, mode).map_err(Fault::Failed)?;
                self.inserts.push((input, insert));
                self.inserts.len() - 1
            }
        };
        // A single batch may be larger than a chunk.
        let pieces = (rows.get_array_memory_size() / POSTGRES_CHUNK_BYTES_MAX).max(1);
        let most = (rows.num_rows() / pieces).clamp(1, POSTGRES_CHUNK_ROWS_MAX);
        let mut start = 0;
        while start < rows.num_rows() {
            let length = most.min(rows.num_rows() - start);
            self.inserts[at]
                .1
                .write(tx, &rows.slice(start, length))
                .await?;
            start += length;
        }
        Ok(())
    }
}

/// Neighbouring batches of one input that go into one statement.
#[derive(Default)]
struct Chunk {
    input: usize,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Chunk {
    fn takes(&self, input: usize, rows: &RecordBatch) -> bool {
        let Some(first) = self.batches.first() else {
            return true;
        };
        self.input == input
            && first.schema_ref() == rows.schema_ref()
            && self.rows + rows.num_rows() <= POSTGRES_CHUNK_ROWS_MAX
            && self.bytes + rows.get_array_memory_size() <= POSTGRES_CHUNK_BYTES_MAX
    }

    fn add(&mut self, input: usize, rows: RecordBatch) {
        self.input = input;
        self.rows += rows.num_rows();
        self.bytes += rows.get_array_memory_size();
        self.batches.push(rows);
    }

    fn take(&mut self) -> Result<Option<(usize, RecordBatch)>, String> {
        let chunk = std::mem::take(self);
        let Some(first) = chunk.batches.first() else {
            return Ok(None);
        };
        let rows = concat_batches(first.schema_ref(), &chunk.batches).map_err(|e| e.to_string())?;
        Ok(Some((chunk.input, rows)))
    }
}
