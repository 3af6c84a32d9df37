//! `fields` of a source or table: names, types, and where each value stands.

use super::super::plan::RecordPart;
use super::super::read::Reader;
use super::super::spec::{Field, FieldType};
use super::super::text::Spanned;
use super::super::tree::{Kind, Node};
use super::super::values;

const TYPES: [(&str, FieldType); 7] = [
    ("string", FieldType::String),
    ("int", FieldType::Int),
    ("float", FieldType::Float),
    ("bool", FieldType::Bool),
    ("timestamp", FieldType::Timestamp),
    ("bytes", FieldType::Bytes),
    ("date", FieldType::Date),
];
/// Digits that a decimal of 128 bits can have.
const DECIMAL_DIGITS_MAX: u8 = 38;
/// What other systems call the types.
const OTHER_NAMES: [(&str, &str); 18] = [
    ("str", "string"),
    ("text", "string"),
    ("varchar", "string"),
    ("utf8", "string"),
    ("integer", "int"),
    ("long", "int"),
    ("bigint", "int"),
    ("int64", "int"),
    ("double", "float"),
    ("float64", "float"),
    ("number", "float"),
    ("boolean", "bool"),
    ("datetime", "timestamp"),
    ("time", "timestamp"),
    ("binary", "bytes"),
    ("date32", "date"),
    ("numeric", "decimal(10,2)"),
    ("money", "decimal(10,2)"),
];

/// `fields`, in the order written; `None` if any of them could not be read.
pub fn fields(r: &mut Reader) -> Option<Vec<Field>> {
    let whole = r.nested("fields", |r| {
        let mut all = Vec::new();
        let mut written = 0;
        for (name, node) in r.entries() {
            written += 1;
            all.extend(field(r, name, node));
        }
        if written == 0 {
            let message = format!("{} names no column", r.place);
            r.findings.error(r.span, message);
        }
        (written > 0 && all.len() == written).then_some(all)
    });
    whole.flatten()
}

fn field<'t>(r: &mut Reader<'t, '_>, name: &Spanned<String>, node: &'t Node) -> Option<Field> {
    if name.value.starts_with('_') && RecordPart::named(&name.value).is_some() {
        return record_part(r, name, node);
    }
    if name.value.is_empty() || name.value.starts_with('_') {
        let parts = RecordPart::ALL.iter().map(|(name, _)| *name);
        let help = match values::nearest(&name.value, parts) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "names that start with `_` are reserved; rename it: city = { path = \"_city\", type = \"string\" }".into(),
        };
        r.findings
            .error(
                name.span,
                format!("`{}` is no name for a column", name.value),
            )
            .help(help);
        return None;
    }
    let (path, ty) = match &node.kind {
        Kind::Table(_) => {
            let place = format!("field `{}`", name.value);
            r.table_at(node, &name.value, place, name.span, |r| {
                let path = r.required("path", "path = \"address.city\"");
                let ty = r.required("type", "type = \"string\"");
                Some((Some(path?), ty?))
            })??
        }
        Kind::String(text) => (None, Spanned::new(text.clone(), node.span)),
        _ => {
            r.wrong(
                &name.value,
                node,
                "a type such as \"string\" or { path, type }",
            );
            return None;
        }
    };
    let (ty, nullable) = field_type(r, &ty)?;
    let path = match path {
        None => vec![name.value.clone()],
        Some(path) => split_path(r, &path)?,
    };
    Some(Field {
        name: name.clone(),
        path,
        ty,
        nullable,
        part: None,
    })
}

/// A column that holds something of the record besides its value.
fn record_part(r: &mut Reader, name: &Spanned<String>, node: &Node) -> Option<Field> {
    let part = RecordPart::named(&name.value)?;
    let allowed: &[FieldType] = match part {
        RecordPart::Key => &[FieldType::String, FieldType::Bytes],
        RecordPart::Headers | RecordPart::Topic => &[FieldType::String],
        RecordPart::Partition | RecordPart::Offset => &[FieldType::Int],
        RecordPart::Timestamp => &[FieldType::Timestamp],
    };
    let Kind::String(text) = &node.kind else {
        r.wrong(&name.value, node, "a type such as \"string?\"");
        return None;
    };
    let (ty, nullable) = field_type(r, &Spanned::new(text.clone(), node.span))?;
    if !allowed.contains(&ty) {
        let known = TYPES.iter().filter(|(_, ty)| allowed.contains(ty));
        let names: Vec<_> = known.map(|(name, _)| format!("\"{name}\"")).collect();
        let message = format!("`{}` cannot be of type \"{text}\"", name.value);
        r.findings
            .error(node.span, message)
            .help(format!("it is {}", names.join(" or ")));
        return None;
    }
    Some(Field {
        name: name.clone(),
        path: vec![name.value.clone()],
        ty,
        nullable,
        part: Some(part),
    })
}

fn split_path(r: &mut Reader, path: &Spanned<String>) -> Option<Vec<String>> {
    let parts: Vec<String> = path.value.split('.').map(str::to_string).collect();
    if parts.iter().any(String::is_empty) {
        r.findings
            .error(path.span, format!("\"{}\" is no path", path.value))
            .help("a path is names with dots between them, and numbers of array items: \"address.city\", \"items.0.sku\"");
        return None;
    }
    Some(parts)
}

/// The type and whether it may be null.
fn field_type(r: &mut Reader, text: &Spanned<String>) -> Option<(FieldType, bool)> {
    let (base, nullable) = match text.value.strip_suffix('?') {
        Some(base) => (base, true),
        None => (text.value.as_str(), false),
    };
    if let Some((_, ty)) = TYPES.iter().find(|(name, _)| *name == base) {
        return Some((*ty, nullable));
    }
    if let Some(rest) = base.strip_prefix("decimal") {
        return decimal(r, text, rest).map(|ty| (ty, nullable));
    }
    let lower = base.to_lowercase();
    let names = TYPES.iter().map(|(name, _)| *name);
    let near = OTHER_NAMES
        .iter()
        .find(|(other, _)| *other == lower)
        .map(|(_, name)| *name)
        .or_else(|| values::nearest(base, names));
    let help = match near {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => {
            "types: string, int, float, bool, timestamp, date, decimal(10,2), bytes; with `?` they may be null".into()
        }
    };
    r.findings
        .error(text.span, format!("\"{}\" is no type", text.value))
        .help(help);
    None
}

/// The `(p,s)` of `decimal(p,s)`.
fn decimal(r: &mut Reader, text: &Spanned<String>, rest: &str) -> Option<FieldType> {
    let inner = rest
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'));
    let digits = inner.and_then(|inner| {
        let (precision, scale) = inner.split_once(',')?;
        let precision: u8 = precision.trim().parse().ok()?;
        let scale: u8 = scale.trim().parse().ok()?;
        Some((precision, scale))
    });
    match digits {
        Some((precision @ 1..=DECIMAL_DIGITS_MAX, scale)) if scale <= precision => {
            Some(FieldType::Decimal(precision, scale as i8))
        }
        Some(_) => {
            r.findings
                .error(text.span, format!("\"{}\" cannot be held", text.value))
                .help("decimal(p,s): 1 to 38 digits in all, at most all of them behind the point");
            None
        }
        None => {
            r.findings
                .error(text.span, format!("\"{}\" is no type", text.value))
                .help(
                    "a decimal has its digits in all and those behind the point: \"decimal(10,2)\"",
                );
            None
        }
    }
}
