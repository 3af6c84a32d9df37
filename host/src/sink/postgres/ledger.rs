//! What Postgres itself knows of a sink: which checkpoint's rows it has, and of which state.
//!
//! The number is written in the transaction that writes the rows, so that one is there exactly if the other is. Invariant:
//! nothing is written to a database that is ahead of the state, behind what is still staged, or of another state.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};

use super::fault::Fault;

/// Of whom the table keeps the number.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub pipeline: String,
    pub sink: String,
    /// Of the state directory.
    pub state_id: String,
    /// States that it was restored from: it takes over what they wrote.
    pub supersedes: Vec<String>,
}

/// Where Postgres stands before the rows of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The rows are there.
    Written,
    /// They are, by a state that this one was restored from; from now on the table goes by this one.
    TakenOver,
    /// They are the next.
    Next,
}

const CREATE: &str = "CREATE TABLE IF NOT EXISTS tidemill_checkpoints (pipeline text NOT NULL, sink text NOT NULL, \
     state_id text NOT NULL, checkpoint bigint NOT NULL, written_at timestamp with time zone NOT NULL DEFAULT now(), \
     PRIMARY KEY (pipeline, sink))";
const READ: &str =
    "SELECT state_id, checkpoint FROM tidemill_checkpoints WHERE pipeline = $1 AND sink = $2";
const FIRST: &str = "INSERT INTO tidemill_checkpoints (pipeline, sink, state_id, checkpoint) VALUES ($1, $2, $3, $4) \
     ON CONFLICT DO NOTHING";
const NEXT: &str = "UPDATE tidemill_checkpoints SET checkpoint = $4::bigint, written_at = now() \
     WHERE pipeline = $1 AND sink = $2 AND state_id = $3 AND checkpoint = $4::bigint - 1";
const TAKE_OVER: &str = "UPDATE tidemill_checkpoints SET state_id = $4, checkpoint = $5, written_at = now() \
     WHERE pipeline = $1 AND sink = $2 AND state_id = $3";
const FORGET: &str =
    "DELETE FROM tidemill_checkpoints WHERE pipeline = $1 AND sink = $2 AND state_id = $3";

impl Ledger {
    /// Makes the table where it is missing. Asks first: whoever may write rows need not be allowed to make tables.
    pub async fn prepare(client: &Client) -> Result<(), Fault> {
        let of = |error| Fault::of(&error, true);
        let found = client.query_one("SELECT to_regclass('tidemill_checkpoints')::text", &[]);
        if found
            .await
            .map_err(of)?
            .get::<_, Option<String>>(0)
            .is_some()
        {
            return Ok(());
        }
        client.batch_execute(CREATE).await.map_err(|error| match of(error) {
            Fault::Failed(cause) => Fault::Failed(format!(
                "the table of checkpoints cannot be made: {cause}; let somebody who may run: {CREATE}"
            )),
            // Two hosts made it at one time: the next look finds it.
            Fault::Rows(cause) => Fault::Away(cause),
            away => away,
        })
    }

    /// Where Postgres stands before the rows of `checkpoint`. Nobody else changes it before the transaction ends.
    pub async fn standing(&self, tx: &Transaction<'_>, checkpoint: u64) -> Result<Standing, Fault> {
        let sql = format!("{READ} FOR UPDATE");
        let row = tx.query_opt(&sql, &[&self.pipeline, &self.sink]).await;
        let row = row.map_err(|error| Fault::of(&error, true))?;
        let found = row
            .as_ref()
            .map(|row| (row.get::<_, &str>(0), row.get::<_, i64>(1)));
        let standing = self.judge(found, checkpoint).map_err(Fault::Failed)?;
        match found {
            Some((state, at)) if state != self.state_id => {
                self.take_over(tx, state, at, checkpoint).await?;
                Ok(if standing == Standing::Written {
                    Standing::TakenOver
                } else {
                    standing
                })
            }
            _ => Ok(standing),
        }
    }

    /// The restored state goes on behind `checkpoint`, or behind the output before it.
    async fn take_over(
        &self,
        tx: &Transaction<'_>,
        state: &str,
        at: i64,
        checkpoint: u64,
    ) -> Result<(), Fault> {
        let number = at.min(i64::try_from(checkpoint).map_err(Fault::failed)?);
        if at > number {
            tracing::warn!(
                sink = %self.sink,
                "Postgres has the outputs {} to {at} of the state that this one was restored from: they are written again",
                number + 1
            );
        }
        let of = |error| Fault::of(&error, true);
        match number {
            0 => {
                let whose: [&(dyn ToSql + Sync); 3] = [&self.pipeline, &self.sink, &state];
                tx.execute(FORGET, &whose).await.map_err(of)?
            }
            _ => {
                let whose: [&(dyn ToSql + Sync); 5] =
                    [&self.pipeline, &self.sink, &state, &self.state_id, &number];
                tx.execute(TAKE_OVER, &whose).await.map_err(of)?
            }
        };
        Ok(())
    }

    /// Notes that the rows of `checkpoint` are written with this transaction.
    pub async fn note(&self, tx: &Transaction<'_>, checkpoint: u64) -> Result<(), Fault> {
        let number = i64::try_from(checkpoint).map_err(Fault::failed)?;
        let sql = if checkpoint == 1 { FIRST } else { NEXT };
        let noted = tx
            .execute(sql, &[&self.pipeline, &self.sink, &self.state_id, &number])
            .await;
        match noted.map_err(|error| Fault::of(&error, true))? {
            1 => Ok(()),
            _ => Err(Fault::Failed(format!(
                "another host writes as sink {} of pipeline {} to this database: stop one of them",
                self.sink, self.pipeline
            ))),
        }
    }

    fn judge(&self, found: Option<(&str, i64)>, checkpoint: u64) -> Result<Standing, String> {
        let wanted = i128::from(checkpoint);
        let at = match found {
            Some((state, _)) if state != self.state_id && !self.is_past(state) => {
                return Err(self.refused(format!(
                    "it has rows that another state directory's run wrote (state {state}, this one is {})",
                    self.state_id
                )));
            }
            Some((_, at)) => i128::from(at),
            None => 0,
        };
        let restored = found.is_some_and(|(state, _)| state != self.state_id);
        match wanted - at {
            ..=0 if restored => Ok(Standing::Written),
            0 => Ok(Standing::Written),
            1 => Ok(Standing::Next),
            ..0 => Err(self.refused(format!(
                "it is ahead of the state directory: at output {at}, the state at {wanted}. The state is an older copy; put \
                 the newer one back"
            ))),
            _ => Err(self.refused(format!(
                "it is behind the state directory: at output {at}, the state at {wanted}, and what lies between is no longer \
                 staged. The database is an older copy, or another one; put the newer one back"
            ))),
        }
    }

    fn is_past(&self, state: &str) -> bool {
        self.supersedes.iter().any(|past| past == state)
    }

    fn refused(&self, cause: String) -> String {
        let text = |name: &str| name.replace('\'', "''");
        format!(
            "{cause}. To go on nevertheless, with rows doubled or missing, first run: DELETE FROM tidemill_checkpoints WHERE \
             pipeline = '{}' AND sink = '{}', and start from an empty state: tidemill reset",
            text(&self.pipeline),
            text(&self.sink)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_does_not_belong_to_the_state_is_refused() {
        let ledger = Ledger {
            pipeline: "p".into(),
            sink: "s".into(),
            state_id: "mine".into(),
            supersedes: vec!["before".into()],
        };
        let cases = [
            (None, 0, Ok(Standing::Written)),
            (None, 1, Ok(Standing::Next)),
            (None, 2, Err("behind")),
            (Some(("mine", 4)), 4, Ok(Standing::Written)),
            (Some(("mine", 4)), 5, Ok(Standing::Next)),
            (Some(("mine", 4)), 6, Err("behind")),
            (Some(("mine", 4)), 3, Err("ahead")),
            (Some(("mine", 4)), 0, Err("ahead")),
            (Some(("before", 4)), 4, Ok(Standing::Written)),
            (Some(("before", 9)), 4, Ok(Standing::Written)),
            (Some(("before", 9)), 0, Ok(Standing::Written)),
            (Some(("before", 3)), 4, Ok(Standing::Next)),
            (Some(("before", 2)), 4, Err("behind")),
            (Some(("theirs", 4)), 4, Err("another state directory")),
            (Some(("theirs", 4)), 0, Err("another state directory")),
        ];
        for (found, checkpoint, expected) in cases {
            match (ledger.judge(found, checkpoint), expected) {
                (Ok(standing), Ok(expected)) => assert_eq!(standing, expected),
                (Err(cause), Err(part)) => assert!(
                    cause.contains(part) && cause.contains("pipeline = 'p' AND sink = 's'"),
                    "{cause}"
                ),
                (other, _) => panic!("{found:?} {checkpoint}: {other:?}"),
            }
        }
    }
}
