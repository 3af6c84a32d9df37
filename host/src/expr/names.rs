//! From text to a syntax tree in which every column and function is known: syntax, size, names, and what an expression
//! over one row cannot contain. Types come later.

use std::ops::ControlFlow;

use arrow::datatypes::SchemaRef;
use datafusion_sql::sqlparser::ast::{
    Expr as Sql, ExprWithAlias, Function, FunctionArguments, Ident, Spanned, Value,
    visit_expressions_mut,
};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::ExprError;
use super::functions::{AGGREGATES, Functions, Known};
use super::words;
use crate::limits::EXPRESSION_TERMS_MAX;

/// Tokens allowed for each term: names and values come with operators, commas and brackets.
const TOKENS_PER_TERM: usize = 4;

/// `EXPR` or `EXPR as NAME`, all of it.
pub(super) fn parse(sql: &str) -> Result<ExprWithAlias, ExprError> {
    let tokens = tokens(sql)?;
    if tokens
        .iter()
        .all(|t| matches!(t.token, Token::Whitespace(_) | Token::EOF))
    {
        return Err(ExprError::new("the expression is empty"));
    }
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens);
    let failed = match parser.parse_expr_with_alias() {
        Ok(tree) if parser.peek_token_ref().token == Token::EOF => return Ok(tree),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    if let Some(ParserError::RecursionLimitExceeded) = failed {
        return Err(ExprError::new("the expression is nested too deeply")
            .help("split it into several steps"));
    }
    Err(match failed {
        Some(error) => syntax(sql, &words::syntax(&error.to_string())),
        None => {
            let next = parser.peek_token();
            ExprError::new(format!(
                "expected the end of the expression, found `{next}`"
            ))
            .at(words::bytes(sql, next.span))
        }
    })
}

fn syntax(sql: &str, (message, place): &(String, Option<(u64, u64)>)) -> ExprError {
    let span = match place {
        Some((line, column)) => words::token_at(sql, *line, *column),
        None => Some(sql.len()..sql.len()),
    };
    ExprError::new(message.clone()).at(span)
}

fn tokens(sql: &str) -> Result<Vec<TokenWithSpan>, ExprError> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| {
            let place = (error.location.line, error.location.column);
            syntax(sql, &(error.message, Some(place)))
        })?;
    let real = |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_));
    let operand = |t: &&TokenWithSpan| match &t.token {
        Token::Word(word) => {
            word.keyword == datafusion_sql::sqlparser::keywords::Keyword::NoKeyword
        }
        Token::Number(..) | Token::SingleQuotedString(_) => true,
        _ => false,
    };
    let terms = tokens.iter().filter(operand).count();
    let all = tokens.iter().filter(real).count();
    if terms > EXPRESSION_TERMS_MAX || all > EXPRESSION_TERMS_MAX * TOKENS_PER_TERM {
        return Err(ExprError::new(format!(
            "the expression has {terms} names and values ({all} words and signs); at most {EXPRESSION_TERMS_MAX} ({}) are allowed",
            EXPRESSION_TERMS_MAX * TOKENS_PER_TERM
        ))
        .help("use `in (...)`, a lookup table, or several steps"));
    }
    Ok(tokens)
}

/// What an expression sees at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sees {
    Row,
    /// All rows of a window: aggregates are allowed.
    Window,
}

/// Checks every name of `tree`, and refuses what is not a function of what it sees. A name in several parts becomes the
/// one column that has it, as `left.user_id` after a join.
pub(super) fn resolve(
    sql: &str,
    tree: &mut Sql,
    schema: &SchemaRef,
    sees: Sees,
) -> Result<(), ExprError> {
    let found = visit_expressions_mut(tree, |node| {
        let whole = words::bytes(sql, node.span());
        let result = match node {
            Sql::Identifier(name) => column(sql, name, schema),
            Sql::CompoundIdentifier(parts) => match compound(parts, schema) {
                Ok(name) => {
                    *node = Sql::Identifier(name);
                    Ok(())
                }
                Err(error) => Err(error.at(whole)),
            },
            Sql::Function(function) => match bare_column(function, schema) {
                Some(name) => {
                    *node = Sql::Identifier(name);
                    Ok(())
                }
                None => call(sql, function, schema, sees),
            },
            Sql::Subquery(_) | Sql::Exists { .. } | Sql::InSubquery { .. } => Err(ExprError::new(
                "a query inside an expression is not supported",
            )
            .help("use a lookup or a join step")
            .at(whole)),
            Sql::Value(value) if matches!(value.value, Value::Placeholder(_)) => Err(
                ExprError::new(format!("parameter `{}` has no value here", value.value)).at(whole),
            ),
            _ => Ok(()),
        };
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    });
    match found {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn column(sql: &str, name: &Ident, schema: &SchemaRef) -> Result<(), ExprError> {
    match schema.index_of(&name.value) {
        Ok(_) => Ok(()),
        Err(_) => Err(unknown_column(&name.value, schema).at(words::bytes(sql, name.span))),
    }
}

fn compound(parts: &[Ident], schema: &SchemaRef) -> Result<Ident, ExprError> {
    let name = parts
        .iter()
        .map(|part| part.value.as_str())
        .collect::<Vec<_>>()
        .join(".");
    match schema.index_of(&name) {
        Ok(_) => Ok(Ident {
            value: name,
            quote_style: Some('"'),
            span: parts[0].span,
        }),
        Err(_) => Err(unknown_column(&name, schema)),
    }
}

fn unknown_column(name: &str, schema: &SchemaRef) -> ExprError {
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let error = ExprError::new(format!("there is no column `{name}`"));
    match words::nearest(name, names.clone()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None if schema.fields().is_empty() => error.help("the input has no columns"),
        None => error.help(format!(
            "the columns are {}",
            names.collect::<Vec<_>>().join(", ")
        )),
    }
}

/// `user` and the like are functions without brackets to the parser, but may be names of columns.
fn bare_column(function: &Function, schema: &SchemaRef) -> Option<Ident> {
    compound(&bare_name(function)?, schema).ok()
}

fn bare_name(function: &Function) -> Option<Vec<Ident>> {
    let parts = function.name.0.iter().map(|part| part.as_ident().cloned());
    match function.args {
        FunctionArguments::None => parts.collect(),
        _ => None,
    }
}

/// The name that a column has without `as`: the last part of its own.
pub(super) fn last_part(tree: &Sql) -> Option<String> {
    let last = match tree {
        Sql::Identifier(name) => name.clone(),
        Sql::CompoundIdentifier(parts) => parts.last()?.clone(),
        Sql::Function(function) => bare_name(function)?.pop()?,
        _ => return None,
    };
    Some(last.value)
}

/// The name under which a function is known.
pub(super) fn function_name(function: &Function) -> String {
    function.name.to_string().to_lowercase()
}

fn call(sql: &str, function: &Function, schema: &SchemaRef, sees: Sees) -> Result<(), ExprError> {
    let name = function_name(function);
    let place = words::bytes(sql, function.name.span());
    let functions = Functions::all();
    match functions.known(&name) {
        // Its own rules are checked where it is compiled.
        Known::Aggregate if sees == Sees::Window => Ok(()),
        Known::Aggregate => Err(ExprError::new(format!(
            "`{name}` combines many rows; this expression sees one"
        ))
        .at(place)),
        Known::Unsteady => Err(ExprError::new(format!(
            "`{name}` is not allowed: its result would change when records are processed again"
        ))
        .help("use the record's own time")
        .at(place)),
        Known::Unknown => Err(unknown_call(function, &name, schema, sees).at(place)),
        Known::Scalar if function.over.is_some() => {
            let why = match sees {
                Sees::Row => "this expression sees one row",
                Sees::Window => "the window is that of the step",
            };
            Err(ExprError::new(format!("`over` is not supported: {why}")).at(place))
        }
        Known::Scalar if function.filter.is_some() || !function.within_group.is_empty() => {
            Err(ExprError::new(format!("`{name}` takes no `filter` and no order")).at(place))
        }
        Known::Scalar if is_aggregate_list(function) => Err(ExprError::new(format!(
            "`{name}` takes no `distinct` and no order: it sees one row"
        ))
        .at(place)),
        Known::Scalar => Ok(()),
    }
}

/// `distinct` or `order by` stand between the brackets.
fn is_aggregate_list(function: &Function) -> bool {
    match &function.args {
        FunctionArguments::List(list) => {
            list.duplicate_treatment.is_some() || !list.clauses.is_empty()
        }
        _ => false,
    }
}

fn unknown_call(function: &Function, name: &str, schema: &SchemaRef, sees: Sees) -> ExprError {
    if let Some(Err(error)) = bare_name(function).map(|parts| compound(&parts, schema)) {
        return error;
    }
    let error = ExprError::new(format!("there is no function `{name}`"));
    let aggregates = AGGREGATES.iter().filter(|_| sees == Sees::Window);
    let names = Functions::all().names().chain(aggregates.copied());
    match words::nearest(name, names) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error,
    }
}
