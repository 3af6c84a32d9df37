//! `#[derive(Ports)]`.

use crate::fields::{Field, fields};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Error, Result};

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    let fields = fields(input)?;
    if fields.is_empty() {
        return Err(Error::new(
            name.span(),
            "a plugin has at least one port, the main one first",
        ));
    }
    let idents: Vec<_> = fields.iter().map(|field| field.ident).collect();
    let types: Vec<_> = fields
        .iter()
        .map(|Field { ty, .. }| quote!(<#ty as ::tidemill_guest::Port>))
        .collect();
    let names = fields.iter().map(|field| &field.name);
    Ok(quote! {
        #[automatically_derived]
        impl ::core::default::Default for #name {
            fn default() -> Self {
                Self { #(#idents: ::core::default::Default::default(),)* }
            }
        }

        #[automatically_derived]
        impl ::tidemill_guest::Outcome for #name {
            type Ports = Self;
        }

        #[automatically_derived]
        impl ::tidemill_guest::Ports for #name {
            const NEW_ROWS: bool = #(#types::NEW_ROWS)||*;
            fn plan() -> ::std::vec::Vec<::tidemill_guest::bindings::Port> {
                ::std::vec![#(#types::plan(#names)),*]
            }
            #[inline(always)]
            fn begin(&mut self, origin: ::tidemill_guest::Origin) {
                #(#types::begin(&mut self.#idents, origin);)*
            }
            #[inline(always)]
            fn end(&mut self, refused: bool) {
                #(#types::end(&mut self.#idents, refused);)*
            }
            fn finish(&mut self) -> ::std::vec::Vec<::tidemill_guest::bindings::Output> {
                ::std::vec![#(#types::finish(&mut self.#idents)),*]
            }
        }
    })
}
