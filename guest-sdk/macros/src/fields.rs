//! What all derives read from a struct: its fields, their column names and attributes.

use std::collections::HashSet;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, Lifetime, LitStr, Result, Type};

/// A named field.
pub struct Field<'a> {
    pub ident: &'a Ident,
    pub ty: &'a Type,
    /// The column's name: that of the field, or what `#[column("…")]` says.
    pub name: String,
    pub lookup: Option<Lookup>,
}

/// `#[lookup(on = "column", table = "name")]`.
pub struct Lookup {
    pub on: String,
    pub table: String,
}

/// The fields of a struct with named fields; column names are distinct.
pub fn fields(input: &DeriveInput) -> Result<Vec<Field<'_>>> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(
            input.span(),
            "only a struct can be derived: its fields are the columns",
        ));
    };
    let named = match &data.fields {
        Fields::Named(named) => named.named.iter().collect(),
        Fields::Unit => Vec::new(),
        Fields::Unnamed(fields) => {
            return Err(Error::new(
                fields.span(),
                "the fields need names: they are the columns",
            ));
        }
    };
    let mut seen = HashSet::new();
    let mut result = Vec::new();
    for field in named {
        let Some(ident) = &field.ident else { continue };
        let mut name = ident.unraw().to_string();
        let mut lookup = None;
        for attribute in &field.attrs {
            if attribute.path().is_ident("column") {
                name = attribute.parse_args::<LitStr>()?.value();
            } else if attribute.path().is_ident("lookup") {
                lookup = Some(parse_lookup(attribute)?);
            }
        }
        if !seen.insert((lookup.is_some(), name.clone())) {
            return Err(Error::new(
                ident.span(),
                format!("two fields are the column `{name}`"),
            ));
        }
        result.push(Field {
            ident,
            ty: &field.ty,
            name,
            lookup,
        });
    }
    Ok(result)
}

fn parse_lookup(attribute: &Attribute) -> Result<Lookup> {
    let (mut on, mut table) = (None, String::new());
    attribute.parse_nested_meta(|meta| {
        if meta.path.is_ident("on") {
            on = Some(meta.value()?.parse::<LitStr>()?.value());
        } else if meta.path.is_ident("table") {
            table = meta.value()?.parse::<LitStr>()?.value();
        } else {
            return Err(meta.error("expected `on` or `table`"));
        }
        Ok(())
    })?;
    let on = on.ok_or_else(|| {
        Error::new(
            attribute.span(),
            "which column is the key? #[lookup(on = \"product_id\")]",
        )
    })?;
    Ok(Lookup { on, table })
}

/// The struct's lifetime, if it borrows. Type parameters and a second lifetime are refused.
pub fn lifetime(input: &DeriveInput) -> Result<Option<Lifetime>> {
    let generics = &input.generics;
    if generics.type_params().next().is_some() || generics.const_params().next().is_some() {
        return Err(Error::new(
            generics.span(),
            "columns have fixed types: no type parameters",
        ));
    }
    let mut lifetimes = generics.lifetimes();
    let first = lifetimes.next().map(|param| param.lifetime.clone());
    if let Some(second) = lifetimes.next() {
        return Err(Error::new(
            second.span(),
            "one lifetime is enough: all columns live as long as the call",
        ));
    }
    Ok(first)
}
