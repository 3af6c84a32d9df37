//! Windows, interval joins and `deduplicate`: their keys, what they compute and what must stay the same for their state.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use serde_json::{Value, json};

use super::sources::type_name;
use super::steps::{column_signature, main_port};
use super::{Resolver, Rows};
use crate::expr::{Aggregation, ExprError, Projection};
use crate::pipeline::plan::{self, Input, JoinKind, LATE_PORT, Operator, Port, Step, WindowKind};
use crate::pipeline::spec;
use crate::pipeline::text::{Span, Spanned};
use crate::pipeline::values;
use crate::state::key::KeyEncoder;
use crate::step::window::{WINDOW_END, WINDOW_START, bound_field, revision_field};
use crate::time::MICROS_PER_MS;

impl Resolver<'_> {
    pub(super) fn window(
        &mut self,
        step: &spec::Step,
        rows: Rows,
        window: &spec::Window,
    ) -> Option<Step> {
        let key = match &window.key {
            Some(key) => self.key(key, &rows.schema),
            None => Some(Vec::new()),
        };
        let aggregation = self.aggregation(&window.aggregate, &rows.schema);
        let (key, aggregation, kind) = (key?, aggregation?, window.kind?);
        self.can_be_key(&key, &rows.schema, window.key.as_ref().map(|k| k.span))?;
        let name = &step.name.value;
        if !rows.has_event_time {
            let message =
                format!("window `{name}` needs event time, but its source has no `event_time`");
            return self.no_event_time(step, message);
        }
        let allowed_lateness = window.allowed_lateness.as_ref().map_or(0, |l| l.value);
        self.lateness_fits(window, kind)?;
        let revisions = allowed_lateness > 0;
        let keys = key.iter().map(|&i| rows.schema.fields()[i].clone());
        let bounds = [WINDOW_START, WINDOW_END].map(|name| Arc::new(bound_field(name)));
        let results = aggregation
            .schema()
            .fields()
            .iter()
            .cloned()
            .collect::<Vec<_>>();
        let fields: Vec<FieldRef> = keys
            .chain(bounds)
            .chain(results)
            .chain(revisions.then(|| Arc::new(revision_field())))
            .collect();
        self.once_each(&fields, key.len(), window)?;
        let schema = Arc::new(Schema::new(fields));
        let signature = json!({
            "operator": "window",
            "key": key.iter().map(|&i| column_signature(rows.schema.field(i))).collect::<Vec<_>>(),
            "window": kind_signature(kind),
            "aggregate": aggregation.signature(),
            "allowed_lateness": allowed_lateness,
        });
        let key_len = key.len();
        let planned = Step {
            name: name.clone(),
            inputs: rows.inputs.clone(),
            keys: Some(vec![key; rows.inputs.len()]),
            operator: Operator::Window(Box::new(plan::Window {
                kind,
                aggregation,
                allowed_lateness,
                revisions,
            })),
            ports: vec![main_port(schema.clone()), late_port(rows.schema.clone())],
            has_event_time: true,
            holds_back: MICROS_PER_MS,
            signature,
        };
        match &window.top {
            None => Some(planned),
            Some(top) => self.top(planned, top, &schema, key_len),
        }
    }

    /// The window itself goes before the step that ranks its rows.
    fn top(
        &mut self,
        window: Step,
        top: &spec::Top,
        schema: &SchemaRef,
        key_len: usize,
    ) -> Option<Step> {
        let by = self.ranking(&top.by, schema)?;
        let name = format!("{}.top", window.name);
        let rows = schema.fields().iter().map(|f| column_signature(f));
        let signature = json!({
            "operator": "top",
            "of": window.signature,
            "n": top.n,
            "by": top.by.value,
            "rows": rows.collect::<Vec<_>>(),
        });
        let input = Input::Port {
            step: self.steps.len(),
            port: 0,
        };
        self.steps.push(window);
        Some(Step {
            name,
            inputs: vec![input],
            keys: Some(vec![vec![key_len, key_len + 1]]),
            operator: Operator::Top(Box::new(plan::Top {
                n: top.n,
                by,
                window_end: key_len + 1,
            })),
            ports: vec![main_port(schema.clone())],
            has_event_time: true,
            holds_back: 0,
            signature,
        })
    }

    /// `revenue desc, product_id`
    fn ranking(&mut self, by: &Spanned<String>, schema: &SchemaRef) -> Option<Vec<(usize, bool)>> {
        let mut columns = Vec::new();
        for part in by.value.split(',') {
            let mut words = part.split_whitespace();
            let name = words.next().unwrap_or_default();
            let direction = words.next().map(str::to_lowercase);
            let descending = match direction.as_deref() {
                None | Some("asc") => false,
                Some("desc") => true,
                _ => {
                    self.ranking_mistake(
                        by,
                        format!("`{}` is no column with a direction", part.trim()),
                    );
                    return None;
                }
            };
            if words.next().is_some() || name.is_empty() {
                self.ranking_mistake(
                    by,
                    format!("`{}` is no column with a direction", part.trim()),
                );
                return None;
            }
            let name = Spanned::new(name.trim_matches('"').to_owned(), by.span);
            let column = self.column(&name, schema, "the result")?;
            columns.push((column, descending));
        }
        Some(columns)
    }

    fn ranking_mistake(&mut self, by: &Spanned<String>, message: String) {
        self.findings
            .error(by.span, message)
            .help("`by` looks like \"revenue desc, product_id\"");
    }

    fn aggregation(
        &mut self,
        items: &[(Spanned<String>, Spanned<String>)],
        schema: &SchemaRef,
    ) -> Option<Aggregation> {
        if items.is_empty() {
            return None;
        }
        let texts: Vec<(String, String)> = items
            .iter()
            .map(|(name, sql)| (name.value.clone(), sql.value.clone()))
            .collect();
        match Aggregation::compile(&texts, schema) {
            Ok(aggregation) => Some(aggregation),
            Err(errors) => {
                for (item, error) in errors {
                    self.sql_mistake(&items[item].1, error);
                }
                None
            }
        }
    }

    fn can_be_key(&mut self, key: &[usize], schema: &SchemaRef, span: Option<Span>) -> Option<()> {
        let types: Vec<_> = key
            .iter()
            .map(|&i| schema.field(i).data_type().clone())
            .collect();
        match KeyEncoder::new(&types) {
            Ok(_) => Some(()),
            Err(cause) => {
                self.findings.error(span.unwrap_or_default(), cause);
                None
            }
        }
    }

    fn lateness_fits(&mut self, window: &spec::Window, kind: WindowKind) -> Option<()> {
        let written = window.allowed_lateness.as_ref();
        let Some(lateness) = written.filter(|l| l.value > 0) else {
            return Some(());
        };
        let refused = match (kind, &window.top) {
            (WindowKind::Session(_), _) => {
                "a session whose bounds change cannot be told from a new one, so there are no corrected results of it"
            }
            (_, Some(_)) => "`top` gives its rows once, so they cannot be corrected",
            _ => return Some(()),
        };
        self.findings
            .error(lateness.span, refused)
            .help("leave out `allowed_lateness` and raise `lateness` of the source, or read the late rows from the port `late`");
        None
    }

    fn once_each(&mut self, fields: &[FieldRef], keys: usize, window: &spec::Window) -> Option<()> {
        for (i, field) in fields.iter().enumerate() {
            if !fields[..i].iter().any(|f| f.name() == field.name()) {
                continue;
            }
            let (span, help) = match i
                .checked_sub(keys + 2)
                .and_then(|i| window.aggregate.get(i))
            {
                Some((name, _)) => (name.span, "give the result another name"),
                None => (
                    window.key.as_ref().map_or(Span::default(), |k| k.span),
                    "the window adds this column itself: rename the other one",
                ),
            };
            let message = format!("two columns of the result are named `{}`", field.name());
            self.findings.error(span, message).help(help);
            return None;
        }
        Some(())
    }

    pub(super) fn deduplicate(
        &mut self,
        step: &spec::Step,
        rows: Rows,
        deduplicate: &spec::Deduplicate,
    ) -> Option<Step> {
        let key = self.key(&deduplicate.on, &rows.schema)?;
        self.can_be_key(&key, &rows.schema, Some(deduplicate.on.span))?;
        let name = &step.name.value;
        if !rows.has_event_time {
            let message = format!(
                "step `{name}` forgets keys by event time, but its source has no `event_time`"
            );
            return self.no_event_time(step, message);
        }
        let key_names = key.iter().map(|&i| column_signature(rows.schema.field(i)));
        let signature = json!({
            "operator": "deduplicate",
            "on": key_names.collect::<Vec<_>>(),
            "within": deduplicate.within,
        });
        Some(Step {
            name: name.clone(),
            keys: Some(vec![key; rows.inputs.len()]),
            inputs: rows.inputs,
            operator: Operator::Deduplicate(plan::Deduplicate {
                within: deduplicate.within,
            }),
            ports: vec![main_port(rows.schema.clone()), late_port(rows.schema)],
            has_event_time: true,
            holds_back: 0,
            signature,
        })
    }

    pub(super) fn join(&mut self, step: &spec::Step, join: &spec::Join) -> Option<Step> {
        let [left, right] = &step.from[..] else {
            return None;
        };
        let (left_rows, right_rows) = (self.facts(left), self.facts(right));
        let (left_rows, right_rows) = (left_rows?, right_rows?);
        let sides = [&left_rows, &right_rows];
        for (rows, side) in sides.into_iter().zip([left, right]) {
            if !rows.has_event_time {
                let message = format!("a join needs event time, but `{}` has none", side.value);
                self.findings
                    .error(side.span, message)
                    .help("add event_time = { field = \"...\", lateness = \"...\" } to its source");
                return None;
            }
        }
        let keys = self.join_keys(
            join,
            [(&left_rows.schema, left), (&right_rows.schema, right)],
        )?;
        let both = both_sides(&left_rows.schema, &right_rows.schema, join.kind);
        let (projection, carried, paired) = self.joined(step, join, &both, &left_rows.schema)?;
        let signature = json!({
            "operator": "join",
            "on": keys[0].iter().map(|&i| column_signature(left_rows.schema.field(i))).collect::<Vec<_>>(),
            "before": join.before,
            "after": join.after,
            "kind": format!("{:?}", join.kind).to_lowercase(),
            "left": carried_signature(&left_rows.schema, &carried[0]),
            "right": carried_signature(&right_rows.schema, &carried[1]),
        });
        let reach = |side| match (join.kind.is_outer(side), side) {
            (false, _) => 0,
            (true, 0) => join.after,
            (true, _) => join.before,
        };
        let schema = projection.schema();
        Some(Step {
            name: step.name.value.clone(),
            inputs: vec![left_rows.inputs[0], right_rows.inputs[0]],
            keys: Some(keys.into()),
            operator: Operator::Join(Box::new(plan::Join {
                before: join.before,
                after: join.after,
                kind: join.kind,
                carried,
                paired,
                projection,
            })),
            ports: vec![
                main_port(schema),
                late_port(late_of_both(&left_rows.schema, &right_rows.schema)),
            ],
            has_event_time: true,
            holds_back: reach(0).max(reach(1)),
            signature,
        })
    }
}

impl Resolver<'_> {
    /// The key columns of both sides, which must have equal types.
    fn join_keys(
        &mut self,
        join: &spec::Join,
        sides: [(&SchemaRef, &Spanned<String>); 2],
    ) -> Option<[Vec<usize>; 2]> {
        let mut keys = [Vec::new(), Vec::new()];
        let mut whole = true;
        for (i, on) in join.on.iter().enumerate() {
            if let Some(first) = join.on[..i].iter().find(|o| o.value == on.value) {
                let message = format!("`on` names column `{}` twice", on.value);
                self.findings.error(on.span, message).first(first.span);
                return None;
            }
            let [left, right] =
                sides.map(|(schema, name)| self.column(on, schema, &format!("`{}`", name.value)));
            let (Some(left), Some(right)) = (left, right) else {
                whole = false;
                continue;
            };
            let types = [sides[0].0.field(left), sides[1].0.field(right)].map(Field::data_type);
            if types[0] != types[1] {
                let message = format!(
                    "`{}` is of type {} on the left and {} on the right",
                    on.value,
                    type_name(types[0]),
                    type_name(types[1])
                );
                self.findings
                    .error(on.span, message)
                    .help("cast one of them in a `select` before");
                whole = false;
            }
            keys[0].push(left);
            keys[1].push(right);
        }
        if !whole || keys[0].is_empty() {
            return None;
        }
        self.can_be_key(&keys[0], sides[0].0, join.on.first().map(|o| o.span))?;
        Some(keys)
    }

    /// What the join gives, the columns of each side that it needs for that, and those columns side by side.
    fn joined(
        &mut self,
        step: &spec::Step,
        join: &spec::Join,
        both: &SchemaRef,
        left: &SchemaRef,
    ) -> Option<(Projection, [Vec<usize>; 2], SchemaRef)> {
        let all;
        let items = match &join.select {
            Some(items) => items,
            None => {
                all = default_select(step, join, both);
                &all
            }
        };
        let texts: Vec<String> = items.iter().map(|i| i.value.clone()).collect();
        let compiled = Projection::compile(&texts, both).map_err(|errors| {
            for (item, error) in errors {
                self.join_mistake(&items[item], join.select.is_some(), error);
            }
        });
        let read = compiled.ok()?.columns();
        let (ours, theirs): (Vec<usize>, Vec<usize>) =
            read.iter().partition(|&&i| i < left.fields().len());
        let theirs = theirs.iter().map(|i| i - left.fields().len()).collect();
        let fields: Vec<_> = read.iter().map(|&i| both.fields()[i].clone()).collect();
        let paired = Arc::new(Schema::new(fields));
        let projection = Projection::compile(&texts, &paired).ok()?;
        Some((projection, [ours, theirs], paired))
    }

    fn join_mistake(&mut self, item: &Spanned<String>, written: bool, error: ExprError) {
        if written {
            return self.sql_mistake(item, error);
        }
        self.findings
            .error(item.span, error.message)
            .help("both sides have this column: say with `select` what the join gives, select = [\"left.user_id\", \"right.amount\"]");
    }
}

/// All columns of both sides, those of `on` once.
fn default_select(step: &spec::Step, join: &spec::Join, both: &SchemaRef) -> Vec<Spanned<String>> {
    let on = |name: &str| {
        let right = name.strip_prefix("right.");
        right.is_some_and(|name| join.on.iter().any(|o| o.value == name))
    };
    // An unmatched row of the right side has its key in its own columns.
    let name = |f: &FieldRef| match f.name().strip_prefix("left.") {
        Some(bare) if join.on.iter().any(|o| o.value == bare) && join.kind.is_outer(1) => {
            format!("coalesce(\"left.{bare}\", \"right.{bare}\") as \"{bare}\"")
        }
        _ => {
            let (side, bare) = f.name().split_once('.').unwrap_or(("", f.name()));
            format!("\"{side}.{bare}\" as \"{bare}\"")
        }
    };
    both.fields()
        .iter()
        .filter(|f| !on(f.name()))
        .map(|f| Spanned::new(name(f), step.name.span))
        .collect()
}

/// `left.x` and `right.y`, null where that side may have no row.
fn both_sides(left: &SchemaRef, right: &SchemaRef, kind: JoinKind) -> SchemaRef {
    let side = |schema: &SchemaRef, name: &str, other_is_outer: bool| -> Vec<Field> {
        let field = |f: &FieldRef| {
            let nullable = f.is_nullable() || other_is_outer;
            Field::new(
                format!("{name}.{}", f.name()),
                f.data_type().clone(),
                nullable,
            )
        };
        schema.fields().iter().map(field).collect()
    };
    let mut fields = side(left, "left", kind.is_outer(1));
    fields.extend(side(right, "right", kind.is_outer(0)));
    Arc::new(Schema::new(fields))
}

/// Late rows of both sides: which side, then the columns of either; a name that both have stands once if its types agree.
fn late_of_both(left: &SchemaRef, right: &SchemaRef) -> SchemaRef {
    crate::step::join::late_schema(left, right)
}

fn late_port(schema: SchemaRef) -> Port {
    Port {
        name: LATE_PORT.into(),
        schema,
    }
}

fn kind_signature(kind: WindowKind) -> Value {
    match kind {
        WindowKind::Tumbling(size) => json!({ "tumbling": values::show_duration(size) }),
        WindowKind::Sliding { size, every } => {
            json!({ "sliding": values::show_duration(size), "every": values::show_duration(every) })
        }
        WindowKind::Session(gap) => json!({ "session": values::show_duration(gap) }),
    }
}

fn carried_signature(schema: &SchemaRef, columns: &[usize]) -> Vec<Value> {
    columns
        .iter()
        .map(|&i| column_signature(schema.field(i)))
        .collect()
}
