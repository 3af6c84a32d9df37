//! `#[derive(State)]`.

use crate::fields::fields;
use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{DeriveInput, Error, Result};

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    if !input.generics.params.is_empty() {
        return Err(Error::new(
            input.generics.span(),
            "state has fixed types: no generics",
        ));
    }
    let fields = fields(input)?;
    let words = fields.len();
    if words == 0 {
        return Err(Error::new(
            name.span(),
            "a plugin without state says `type State = ()`",
        ));
    }
    let idents: Vec<_> = fields.iter().map(|field| field.ident).collect();
    let indices: Vec<_> = (0..words).collect();
    Ok(quote! {
        #[automatically_derived]
        impl ::tidemill_guest::state::FixedWords for #name {
            const WORDS: usize = #words;
            #[inline(always)]
            fn load(words: &[u64]) -> Self {
                Self { #(#idents: ::tidemill_guest::state::Word::from_word(words[#indices]),)* }
            }
            #[inline(always)]
            fn store(&self, words: &mut [u64]) {
                #(words[#indices] = ::tidemill_guest::state::Word::to_word(self.#idents);)*
            }
        }

        #[automatically_derived]
        impl ::tidemill_guest::State for #name {
            type Store = ::tidemill_guest::state::FixedStore<Self>;
            fn layout() -> ::tidemill_guest::bindings::StateLayout {
                ::tidemill_guest::bindings::StateLayout::Fixed(#words as u32)
            }
        }
    })
}
