//! `#[derive(Columns)]`.

use crate::fields::{Field, fields, lifetime};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Lifetime, Result, Type, visit_mut::VisitMut};

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    lifetime(input)?;
    let (with, generics, _) = input.generics.split_for_impl();
    let fields = fields(input)?;
    let specs = fields.iter().map(|Field { ty, name, .. }| {
        quote!(::tidemill_guest::ColumnSpec {
            name: #name,
            ty: <#ty as ::tidemill_guest::Value>::TYPE,
            nullable: <#ty as ::tidemill_guest::Value>::NULLABLE,
        })
    });
    let idents: Vec<_> = fields.iter().map(|field| field.ident).collect();
    let builders = fields.iter().map(|field| {
        let ty = without_lifetime(field.ty);
        quote!(<#ty as ::tidemill_guest::Value>::Builder)
    });
    Ok(quote! {
        const _: () = {
            #[doc(hidden)]
            #[derive(Default)]
            pub struct Builder { #(#idents: #builders,)* }

            #[automatically_derived]
            impl #with ::tidemill_guest::Columns for #name #generics {
                type Builder = Builder;
                const COLUMNS: &'static [::tidemill_guest::ColumnSpec] = &[#(#specs),*];
                #[inline]
                fn push(self, builder: &mut Builder) {
                    #(::tidemill_guest::Value::push(self.#idents, &mut builder.#idents);)*
                }
            }

            #[automatically_derived]
            impl ::tidemill_guest::columns::Builder for Builder {
                fn push_filler(&mut self) {
                    #(::tidemill_guest::columns::ValueBuilder::push_filler(&mut self.#idents);)*
                }
                fn truncate(&mut self, len: usize) {
                    #(::tidemill_guest::columns::ValueBuilder::truncate(&mut self.#idents, len);)*
                }
                fn finish(self) -> ::std::vec::Vec<::tidemill_guest::bindings::Column> {
                    ::std::vec![#(::tidemill_guest::columns::ValueBuilder::finish(self.#idents)),*]
                }
            }
        };
    })
}

/// A builder owns its bytes: what the field borrows for does not matter to it.
fn without_lifetime(ty: &Type) -> Type {
    struct Static;
    impl VisitMut for Static {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            *lifetime = Lifetime::new("'static", lifetime.span());
        }
    }
    let mut ty = ty.clone();
    Static.visit_type_mut(&mut ty);
    ty
}
