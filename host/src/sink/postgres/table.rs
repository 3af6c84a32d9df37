//! The table that rows go to: what the catalog says of it, whether the rows fit, and how it is made where it is missing.
//!
//! Writes no rows. Invariant: after [`Target::check`] an insert can fail because of a row's values only.

use arrow::datatypes::{FieldRef, SchemaRef};
use tokio_postgres::{Client, Error};

use super::columns::{TargetType, created, travel};

/// A table as its catalog describes it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Quoted, with its schema if the pipeline names it.
    pub sql: String,
    pub columns: Vec<Column>,
    unique: Vec<Unique>,
}

#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub ty: TargetType,
    /// As Postgres writes the type.
    shown: String,
    /// The type's name without a length, for a cast.
    pub cast_to: String,
    not_null: bool,
    /// Somebody else fills it: a default, an identity.
    filled: bool,
    /// Nobody may write to it.
    generated: bool,
}

/// A unique index of plain columns.
#[derive(Debug, Clone)]
struct Unique {
    columns: Vec<String>,
    /// Two nulls are different keys.
    nulls_distinct: bool,
}

/// What the sink wants of the table.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of each input.
    pub schemas: Vec<SchemaRef>,
    /// With several inputs: the column that tells which one a row is of.
    pub step: Option<&'static str>,
    /// Columns of the key of an upsert; empty for plain inserts.
    pub key: Vec<String>,
}

const COLUMNS: &str = "\
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, NULL), a.attnotnull, \
    a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' OR a.attidentity = 'a', \
    coalesce(e.typname, b.typname)::text, e.oid IS NOT NULL, coalesce(e.typtype, b.typtype) = 'e', \
    CASE WHEN a.atttypmod = -1 THEN t.typtypmod ELSE a.atttypmod END \
FROM pg_attribute a \
    JOIN pg_type t ON t.oid = a.atttypid \
    JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END \
    LEFT JOIN pg_type e ON b.typcategory = 'A' AND e.oid = b.typelem \
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// Of unique indexes that `ON CONFLICT (columns)` can mean. What Postgres 14 does not know yet is asked for as JSON.
const UNIQUE: &str = "\
SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a \
        WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])), \
    coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false) \
FROM pg_index i \
WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indimmediate \
    AND i.indpred IS NULL AND i.indexprs IS NULL";

/// `name` as Postgres takes it whatever it holds.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The table called `name`, its schema before it if that is named; `None`: there is none.
pub async fn read(client: &Client, name: &[String]) -> Result<Option<Target>, Error> {
    let sql = name
        .iter()
        .map(|part| quoted(part))
        .collect::<Vec<_>>()
        .join(".");
    let found = client
        .query_opt("SELECT to_regclass($1)::text", &[&sql])
        .await?;
    if found.is_none_or(|row| row.get::<_, Option<String>>(0).is_none()) {
        return Ok(None);
    }
    let columns = client.query(COLUMNS, &[&sql]).await?;
    let unique = client.query(UNIQUE, &[&sql]).await?;
    Ok(Some(Target {
        columns: columns.iter().map(column).collect(),
        unique: unique
            .iter()
            .map(|row| Unique {
                columns: row.get(0),
                nulls_distinct: !row.get::<_, bool>(1),
            })
            .collect(),
        sql,
    }))
}

fn column(row: &tokio_postgres::Row) -> Column {
    let name: String = row.get(6);
    let modifier: i32 = row.get(9);
    let numeric = (name == "numeric" && modifier >= 4).then(|| {
        let packed = modifier - 4;
        ((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 0x400) - 0x400)
    });
    Column {
        name: row.get(0),
        shown: row.get(1),
        cast_to: row.get(2),
        not_null: row.get(3),
        filled: row.get(4),
        generated: row.get(5),
        ty: TargetType {
            name,
            is_array: row.get(7),
            is_enum: row.get(8),
            numeric,
        },
    }
}

impl Target {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// Whether rows as `wanted` can be written. The error names the column, what was found, what is needed and a remedy.
    /// `Ok` may hold a warning.
    pub fn check(&self, wanted: &Wanted) -> Result<Option<String>, String> {
        for schema in &wanted.schemas {
            for field in schema.fields() {
                self.check_field(field)?;
            }
            self.check_unwritten(schema, wanted.step)?;
        }
        if let Some(step) = wanted.step {
            self.check_step(step)?;
        }
        self.check_key(wanted)
    }

    fn check_field(&self, field: &FieldRef) -> Result<(), String> {
        let (table, name) = (&self.sql, field.name());
        let needed = created(field.data_type()).unwrap_or_else(|| "no type of Postgres".into());
        let Some(column) = self.column(name) else {
            return Err(format!(
                "table {table} has no column \"{name}\", which the rows have as {needed}: ALTER TABLE {table} ADD COLUMN {} \
                 {needed}, or leave it out with `select`",
                quoted(name)
            ));
        };
        if column.generated {
            return Err(format!(
                "column \"{name}\" of table {table} is generated, so no row can fill it: leave it out with `select`"
            ));
        }
        if travel(field.data_type(), &column.ty).is_none() {
            return Err(format!(
                "column \"{name}\" of table {table} is of type {}, the rows have {needed}, which does not fit without loss: \
                 ALTER TABLE {table} ALTER COLUMN {} TYPE {needed}, or change the rows with `select`",
                column.shown,
                quoted(name)
            ));
        }
        Ok(())
    }

    /// A column that must be filled and is by nobody.
    fn check_unwritten(&self, schema: &SchemaRef, step: Option<&str>) -> Result<(), String> {
        let unwritten = |c: &&Column| {
            let written = schema.index_of(&c.name).is_ok() || step == Some(&c.name);
            c.not_null && !c.filled && !c.generated && !written
        };
        match self.columns.iter().find(unwritten) {
            None => Ok(()),
            Some(column) => Err(format!(
                "column \"{0}\" of table {1} is NOT NULL without a default, and no row fills it: ALTER TABLE {1} ALTER COLUMN \
                 {2} DROP NOT NULL, or add the column with `select`",
                column.name,
                self.sql,
                quoted(&column.name)
            )),
        }
    }

    fn check_step(&self, step: &str) -> Result<(), String> {
        let text = arrow::datatypes::DataType::Utf8;
        let fits = self
            .column(step)
            .is_some_and(|c| travel(&text, &c.ty).is_some());
        match fits {
            true => Ok(()),
            false => Err(format!(
                "a sink with several inputs writes their names into column \"{step}\", which table {0} does not have as text: \
                 ALTER TABLE {0} ADD COLUMN {step} text",
                self.sql
            )),
        }
    }

    fn check_key(&self, wanted: &Wanted) -> Result<Option<String>, String> {
        if wanted.key.is_empty() {
            return Ok(None);
        }
        let same = |unique: &&Unique| {
            unique.columns.len() == wanted.key.len()
                && wanted.key.iter().all(|key| unique.columns.contains(key))
        };
        let key = wanted
            .key
            .iter()
            .map(|k| quoted(k))
            .collect::<Vec<_>>()
            .join(", ");
        let mut fitting = self.unique.iter().filter(same).peekable();
        if fitting.peek().is_none() {
            return Err(format!(
                "table {0} has no unique index on ({key}), so a row cannot take the place of the one with its key: CREATE UNIQUE \
                 INDEX ON {0} ({key})",
                self.sql
            ));
        }
        let nulls_distinct = fitting.all(|unique| unique.nulls_distinct);
        let null = |name: &&String| {
            let nullable = |s: &SchemaRef| s.field_with_name(name).is_ok_and(|f| f.is_nullable());
            self.column(name).is_some_and(|c| !c.not_null) && wanted.schemas.iter().any(nullable)
        };
        Ok(wanted.key.iter().find(null).filter(|_| nulls_distinct).map(|name| {
            format!(
                "column \"{name}\" of the key may be null, and the unique index takes nulls for different keys: such rows are \
                 added, not replaced. An index with NULLS NOT DISTINCT replaces them"
            )
        }))
    }
}

/// The statement that makes the table. Fails where two inputs have a column in two types.
pub fn create(name: &[String], wanted: &Wanted, version: u32) -> Result<String, String> {
    let sql = name
        .iter()
        .map(|part| quoted(part))
        .collect::<Vec<_>>()
        .join(".");
    let mut columns: Vec<(String, String, bool)> = Vec::new();
    if let Some(step) = wanted.step {
        columns.push((step.to_owned(), "text".into(), true));
    }
    for schema in &wanted.schemas {
        for field in schema.fields() {
            let ty = created(field.data_type()).ok_or_else(|| {
                format!(
                    "column \"{}\" is of a type that Postgres does not have",
                    field.name()
                )
            })?;
            let always = |s: &SchemaRef| {
                s.field_with_name(field.name())
                    .is_ok_and(|f| !f.is_nullable())
            };
            let not_null = wanted.schemas.iter().all(always);
            match columns.iter().find(|(name, ..)| name == field.name()) {
                None => columns.push((field.name().clone(), ty, not_null)),
                Some((_, other, _)) if *other == ty => {}
                Some((_, other, _)) => {
                    return Err(format!(
                        "column \"{}\" is {other} in one input and {ty} in another: give each input a sink of its own",
                        field.name()
                    ));
                }
            }
        }
    }
    let mut parts: Vec<String> = Vec::new();
    for (name, ty, not_null) in &columns {
        let null = if *not_null { " NOT NULL" } else { "" };
        parts.push(format!("{} {ty}{null}", quoted(name)));
    }
    if !wanted.key.is_empty() {
        let key = wanted
            .key
            .iter()
            .map(|k| quoted(k))
            .collect::<Vec<_>>()
            .join(", ");
        let not_null = |k: &String| {
            columns
                .iter()
                .any(|(name, _, not_null)| name == k && *not_null)
        };
        parts.push(match wanted.key.iter().all(not_null) {
            true => format!("PRIMARY KEY ({key})"),
            false if version >= 150_000 => format!("UNIQUE NULLS NOT DISTINCT ({key})"),
            false => format!("UNIQUE ({key})"),
        });
    }
    Ok(format!(
        "CREATE TABLE IF NOT EXISTS {sql} ({})",
        parts.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
        let field =
            |(name, ty, null): &(&str, DataType, bool)| Field::new(*name, ty.clone(), *null);
        Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
    }

    fn wanted(key: &[&str], schemas: Vec<SchemaRef>) -> Wanted {
        Wanted {
            step: (schemas.len() > 1).then_some("step"),
            schemas,
            key: key.iter().map(|k| (*k).to_owned()).collect(),
        }
    }

    #[test]
    fn tables_that_are_made() {
        let views = schema(&[
            ("product \"x\"", DataType::Utf8, false),
            ("views", DataType::Int64, false),
            ("price", DataType::Decimal128(10, 2), true),
        ]);
        let name = ["shop".to_owned(), "t".to_owned()];
        assert_eq!(
            create(
                &name,
                &wanted(&["product \"x\""], vec![views.clone()]),
                150_000
            )
            .unwrap(),
            "CREATE TABLE IF NOT EXISTS \"shop\".\"t\" (\"product \"\"x\"\"\" text NOT NULL, \"views\" bigint NOT NULL, \
             \"price\" numeric(10,2), PRIMARY KEY (\"product \"\"x\"\"\"))"
        );
        let late = schema(&[
            ("views", DataType::Int64, false),
            ("at", DataType::Date32, false),
        ]);
        let both = wanted(&["step", "at"], vec![views.clone(), late]);
        assert_eq!(
            create(&name[1..], &both, 150_000).unwrap(),
            "CREATE TABLE IF NOT EXISTS \"t\" (\"step\" text NOT NULL, \"product \"\"x\"\"\" text, \"views\" bigint NOT NULL, \
             \"price\" numeric(10,2), \"at\" date, UNIQUE NULLS NOT DISTINCT (\"step\", \"at\"))"
        );
        let other = schema(&[("views", DataType::Utf8, false)]);
        let error = create(&name, &wanted(&[], vec![views, other]), 150_000).unwrap_err();
        assert!(
            error.contains("is bigint in one input and text in another"),
            "{error}"
        );
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(
            quoted("a\"; drop table b; --"),
            "\"a\"\"; drop table b; --\""
        );
    }
}
