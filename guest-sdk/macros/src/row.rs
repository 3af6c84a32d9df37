//! `#[derive(Row)]`.

use crate::fields::{Field, fields, lifetime};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{DeriveInput, Error, Lifetime, Result};

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    let own = lifetime(input)?;
    let life = own
        .clone()
        .unwrap_or_else(|| Lifetime::new("'call", Span::call_site()));
    let generics = own.map(|own| quote!(<#own>));
    let fields = fields(input)?;
    let (tables, columns): (Vec<&Field>, Vec<&Field>) =
        fields.iter().partition(|field| field.lookup.is_some());

    let specs = columns.iter().map(|field| column_spec(field, &life));
    let lookups = tables
        .iter()
        .map(|field| lookup_spec(field, &columns, &life));
    let lookups = lookups.collect::<Result<Vec<_>>>()?;
    let column_types = columns
        .iter()
        .map(|Field { ty, .. }| quote!(<#ty as ::tidemill_guest::Field<#life>>::Reader));
    let table_types = tables
        .iter()
        .map(|Field { ty, .. }| quote!(<#ty as ::tidemill_guest::Row<#life>>::Reader));
    let bind_columns = columns
        .iter()
        .enumerate()
        .map(|(index, Field { ty, name, .. })| quote!(source.field::<#ty>(#index, #name)?));
    let bind_tables = tables
        .iter()
        .enumerate()
        .map(|(index, Field { ty, .. })| quote!(source.lookup::<#ty>(#index)?));
    let get_columns = columns
        .iter()
        .enumerate()
        .map(|(index, Field { ident, ty, .. })| {
            let index = syn::Index::from(index);
            quote!(#ident: <#ty as ::tidemill_guest::Field<#life>>::get(reader.#index, row))
        });
    let get_tables = tables
        .iter()
        .enumerate()
        .map(|(index, Field { ident, ty, .. })| {
            let index = syn::Index::from(columns.len() + index);
            quote!(#ident: <#ty as ::tidemill_guest::Row<#life>>::get(&reader.#index, row))
        });
    Ok(quote! {
        #[automatically_derived]
        impl<#life> ::tidemill_guest::Row<#life> for #name #generics {
            type Reader = (#(#column_types,)* #(#table_types,)*);
            const COLUMNS: &'static [::tidemill_guest::ColumnSpec] = &[#(#specs),*];
            const LOOKUPS: &'static [::tidemill_guest::LookupSpec] = &[#(#lookups),*];
            fn bind(source: ::tidemill_guest::row::Source<#life>) -> ::core::result::Result<Self::Reader, ::std::string::String> {
                Ok((#(#bind_columns,)* #(#bind_tables,)*))
            }
            #[inline(always)]
            fn get(reader: &Self::Reader, row: usize) -> Self {
                Self { #(#get_columns,)* #(#get_tables,)* }
            }
        }
    })
}

fn column_spec(field: &Field, life: &Lifetime) -> TokenStream {
    let Field { ty, name, .. } = field;
    quote!(::tidemill_guest::ColumnSpec {
        name: #name,
        ty: <#ty as ::tidemill_guest::Field<#life>>::TYPE,
        nullable: <#ty as ::tidemill_guest::Field<#life>>::NULLABLE,
    })
}

fn lookup_spec(field: &Field, columns: &[&Field], life: &Lifetime) -> Result<TokenStream> {
    let Field {
        ty, name, lookup, ..
    } = field;
    let Some(lookup) = lookup else {
        return Ok(TokenStream::new());
    };
    let (on, table) = (&lookup.on, &lookup.table);
    if !columns.iter().any(|column| column.name == *on) {
        return Err(Error::new(
            field.ident.span(),
            format!("no field of this struct reads the column `{on}`"),
        ));
    }
    Ok(quote!(::tidemill_guest::LookupSpec {
        field: #name,
        on: #on,
        table: #table,
        columns: <#ty as ::tidemill_guest::Row<#life>>::COLUMNS,
    }))
}
