//! The derives of `tidemill-guest`; their documentation stands with the traits there.

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod columns;
mod fields;
mod ports;
mod row;
mod state;

/// Derives `Row`: a struct read from columns. See the crate's documentation for the field types.
#[proc_macro_derive(Row, attributes(column, lookup))]
pub fn derive_row(input: TokenStream) -> TokenStream {
    expand(row::derive, parse_macro_input!(input))
}

/// Derives `Columns`: a struct whose fields become columns.
#[proc_macro_derive(Columns, attributes(column))]
pub fn derive_columns(input: TokenStream) -> TokenStream {
    expand(columns::derive, parse_macro_input!(input))
}

/// Derives `State` for a struct of 8-byte fields.
#[proc_macro_derive(State)]
pub fn derive_state(input: TokenStream) -> TokenStream {
    expand(state::derive, parse_macro_input!(input))
}

/// Derives `Ports`: a struct of ports, the main one first.
#[proc_macro_derive(Ports)]
pub fn derive_ports(input: TokenStream) -> TokenStream {
    expand(ports::derive, parse_macro_input!(input))
}

type Derive = fn(&DeriveInput) -> syn::Result<proc_macro2::TokenStream>;

fn expand(derive: Derive, input: DeriveInput) -> TokenStream {
    derive(&input)
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}
